"""What is trusted lies in the config folder, goes only forward, and is never half there."""

import itertools
import json
import multiprocessing
import os
import shutil
import sys

import pytest

from mirror.client.home.folders import make_private
from mirror.client.home.remembered import light_trust, light_trusts, root_id_of
from mirror.client.home.settings import ClientSettings, read_settings
from mirror.client.trust.memory import EphemeralMemory, FileMemory, Remembered, is_no_older, locked
from mirror.client.trust.store import How, NewTrust, TrustStore, resolve_trust
from mirror.errors import MachineError, ProofError, UnreachableError, UsageError
from tests.support.mirror_folder import MirrorFolder, answering, from_folder

A, B, C = "http://a.example/", "http://b.example/", "http://c.example/"


def signed(version, **more):
    return json.dumps({"signed": {"version": version, **more}, "signatures": []}).encode()


ROOT, OTHER = signed(1, of="this"), signed(1, of="another")


def new(root=ROOT, mirrors=(A,), how=How.FINGERPRINT, newest=None):
    return NewTrust(root, mirrors, how, newest or Remembered(root))


@pytest.fixture
def store(tmp_path):
    return TrustStore(tmp_path / "config")


def folder_of(store, root=ROOT):
    return store._folder / root_id_of(root)


def test_what_was_remembered_is_there_for_the_next_run(store, tmp_path):
    newest = Remembered(signed(3), signed(7), signed(5))
    store.remember(new(mirrors=(A, B), newest=newest))
    (trust,) = TrustStore(tmp_path / "config").all()
    assert (trust.root_id, trust.mirrors, trust.how) == (root_id_of(ROOT), (A, B), How.FINGERPRINT)
    assert (trust.initial.data, trust.memory.load()) == (ROOT, newest)


def test_only_this_user_may_enter_or_read_it(store):
    store.remember(new(newest=Remembered(ROOT, signed(7), signed(5))))
    folders = [store._config, store._folder, folder_of(store)]
    assert {each.stat().st_mode & 0o777 for each in folders} == {0o700}
    files = list(folder_of(store).iterdir())
    assert len(files) == 4
    assert {each.stat().st_mode & 0o777 for each in files} == {0o600}


def test_another_mirror_of_the_same_root_is_added(store):
    store.remember(new())
    store.remember(new(mirrors=(B, A)))
    (trust,) = store.all()
    assert trust.mirrors == (A, B)


def test_another_root_for_a_known_mirror_needs_to_be_asked_for(store):
    store.remember(new(mirrors=(A, B)))
    with pytest.raises(UsageError, match=f"{B}: known with another root .*--replace"):
        store.remember(new(OTHER, (B, C)))
    assert [trust.mirrors for trust in store.all()] == [(A, B)]
    store.remember(new(OTHER, (B, C)), instead=True)
    assert {trust.initial.data: trust.mirrors for trust in store.all()} == {
        ROOT: (A,),
        OTHER: (B, C),
    }
    store.remember(new(OTHER, (A,)), instead=True)
    assert [trust.mirrors for trust in store.all()] == [(B, C, A)]


def test_what_was_seen_first_is_vouched_for_later_and_never_the_other_way(store):
    store.remember(new(how=How.FIRST_USE))
    assert store.remember(new(how=How.FILE)).how is How.FILE
    assert store.remember(new(mirrors=(B,), how=How.FIRST_USE)).how is How.FILE


def test_a_mirror_is_forgotten_and_with_the_last_one_its_root(store):
    store.remember(new(mirrors=(A, B)))
    store.forget([A])
    assert [trust.mirrors for trust in store.all()] == [(B,)]
    with pytest.raises(UsageError, match=f"{A}: not a mirror that you trust"):
        store.forget([A, B])
    store.forget([B])
    assert store.all() == ()
    assert list(store._folder.iterdir()) == []


def test_which_repository_is_meant_is_never_guessed(store):
    with pytest.raises(UsageError, match="no mirror is trusted yet; `crateseal trust URL"):
        store.find()
    store.remember(new(mirrors=(A, B)))
    assert store.find().mirrors == (A, B)
    store.remember(new(OTHER, (C,)))
    assert store.find(B).mirrors == (B,)
    with pytest.raises(UsageError, match="several repositories are trusted; say one"):
        store.find()
    with pytest.raises(UsageError, match="mirrors of different repositories"):
        store.find(A, C)
    with pytest.raises(UsageError, match="http://d/: not a mirror that you trust"):
        store.find("http://d/")


# ---- edited, or somebody else's


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": 2, "mirrors": ["http://a/"], "how": "file"}',
        '{"format": 1, "mirrors": [], "how": "file"}',
        '{"format": 1, "mirrors": ["file:///etc/"], "how": "file"}',
        '{"format": 1, "mirrors": [5], "how": "file"}',
        '{"format": 1, "mirrors": ["http://a/"], "how": "own folder"}',
    ],
)
def test_an_edited_file_is_named_and_never_half_believed(store, text):
    store.remember(new())
    file = folder_of(store) / "trust.json"
    file.write_text(text)
    with pytest.raises(UsageError, match="not as `crateseal trust` wrote it") as caught:
        store.find()
    assert str(file) in str(caught.value)


def test_a_root_that_is_not_the_one_its_folder_is_named_after_is_refused(store):
    store.remember(new())
    (folder_of(store) / "initial.root.json").write_bytes(OTHER)
    with pytest.raises(UsageError, match="not the root that was trusted"):
        store.find()


@pytest.mark.parametrize("which", ["config", "trust", "one"])
def test_trust_in_a_folder_that_others_can_enter_is_not_believed(store, which):
    store.remember(new())
    folder = {"config": store._config, "trust": store._folder, "one": folder_of(store)}[which]
    folder.chmod(0o770)
    with pytest.raises(MachineError, match="others can enter it"):
        store.find()
    with pytest.raises(MachineError, match="others can enter it"):
        store.remember(new(mirrors=(B,)))


def test_trust_behind_a_link_is_not_believed(store, tmp_path):
    store.remember(new())
    store._config.rename(tmp_path / "elsewhere")
    store._config.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MachineError, match="a link"):
        store.find()


def test_a_link_in_place_of_a_file_is_not_followed(store, tmp_path):
    store.remember(new())
    file = folder_of(store) / "initial.root.json"
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"initial.root.json: cannot be read"):
        store.find()


def test_a_fifo_in_place_of_a_file_hangs_nobody(store):
    store.remember(new())
    (folder_of(store) / "trust.json").unlink()
    os.mkfifo(folder_of(store) / "trust.json")
    with pytest.raises(UsageError, match=r"trust\.json"):
        store.find()


# ---- memory


def old_and_new(root, timestamp, newer_root, newer_timestamp):
    def remembered(versions):
        return Remembered(*(None if each is None else signed(each) for each in versions))

    return remembered((root, timestamp)), remembered((newer_root, newer_timestamp))


@pytest.mark.parametrize(
    ("before", "after", "is_taken"),
    [
        ((1, 5), (1, 6), True),
        ((1, 5), (1, 5), True),
        ((1, 5), (1, 4), False),
        ((1, None), (1, 4), True),
        ((1, 5), (1, None), False),
        ((2, 5), (1, 6), False),
        ((1, 5), (2, 6), True),
        # The key of who had signed the high number was replaced.
        ((1, 10**9), (2, 6), True),
        ((1, 5), (2, None), True),
    ],
)
@pytest.mark.parametrize("where", ["disk", "process"])
def test_memory_never_goes_back(tmp_path, where, before, after, is_taken):
    old, newer = old_and_new(*before, *after)
    first = signed(1, first=True)
    memory = EphemeralMemory(first)
    if where == "disk":
        memory = FileMemory(make_private(tmp_path / "memory"), first)
    assert memory.load() == Remembered(first)
    memory.save(old)
    memory.save(newer)
    assert memory.load() == (newer if is_taken else old)
    assert is_no_older(newer, old) is is_taken


@pytest.mark.parametrize("step", range(8))
def test_a_crash_leaves_a_memory_that_the_next_run_can_go_on_from(tmp_path, step):
    # A thief's number is remembered; the root that ends it comes with a lower one.
    before = Remembered(signed(1), signed(10**9), signed(1))
    after = Remembered(signed(2), signed(6), signed(6))
    folder = make_private(tmp_path / "memory")
    FileMemory(folder, before.root).save(before)
    pid = os.fork()
    if pid == 0:
        crash_at(step)
        FileMemory(folder, before.root).save(after)
        os._exit(0)
    os.waitpid(pid, 0)
    left = FileMemory(folder, before.root).load()
    assert left.root in (before.root, after.root)
    FileMemory(folder, before.root).save(after)
    assert FileMemory(folder, before.root).load() == after


def crash_at(step):
    """End this process, a copy made for it, before its so-manieth change of a name on the disk."""
    changes = itertools.count()

    def audit(event, _arguments):
        if event in {"os.rename", "os.remove"} and next(changes) == step:
            os._exit(1)

    sys.addaudithook(audit)


def test_a_memory_that_was_forgotten_says_so(store):
    trust = store.remember(new())
    store.forget([A])
    with pytest.raises(UsageError, match="forgotten meanwhile"):
        trust.memory.save(Remembered(signed(2)))


def test_a_damaged_memory_is_named(store):
    trust = store.remember(new(newest=Remembered(ROOT, signed(7))))
    (folder_of(store) / "timestamp.json").write_text("{")
    with pytest.raises(UsageError, match="no TUF metadata; delete that folder"):
        trust.memory.save(Remembered(ROOT, signed(8)))


def add(config, number):
    store = TrustStore(config)
    for version in range(5):
        newest = Remembered(ROOT, signed(10 * version + number))
        store.remember(new(mirrors=(f"http://{number}.example/",), newest=newest))
        if number % 2:
            store.remember(new(OTHER, (f"http://other-{number}.example/",)))
            store.forget([f"http://other-{number}.example/"])


def test_processes_that_remember_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=add, args=(tmp_path / "config", n)) for n in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 6
    (trust,) = TrustStore(tmp_path / "config").all()
    assert set(trust.mirrors) == {f"http://{n}.example/" for n in range(6)}
    assert trust.memory.load().timestamp == signed(45)


def forget(config):
    TrustStore(config).forget([A])


def remember(config):
    TrustStore(config).remember(new(mirrors=(B,)))


@pytest.mark.parametrize("change", [forget, remember])
def test_who_changes_what_is_trusted_waits_for_who_is_at_it(store, change):
    store.remember(new())
    process = multiprocessing.get_context("fork").Process(target=change, args=(store._config,))
    with locked(store._folder):
        process.start()
        process.join(0.3)
        assert process.is_alive()
        assert store.find().mirrors == (A,)
    process.join()
    assert process.exitcode == 0


# ---- which repository a command means


def settings(tmp_path, **said):
    return read_settings({}, {"HOME": str(tmp_path), **said})


@pytest.fixture
def mirror(tmp_path):
    return MirrorFolder(tmp_path / "mirror")


def test_what_is_remembered_is_meant_when_nothing_is_said(tmp_path, store):
    trust = store.remember(new(mirrors=(A, B)))
    config = settings(tmp_path)._replace(config_dir=store._config)
    assert resolve_trust(config).initial == trust.initial
    assert light_trust(config).root_id == trust.root_id
    assert resolve_trust(config._replace(mirror=(B,))).mirrors == (B,)


def test_an_own_folder_is_trusted_as_it_stands_and_remembers_nothing(tmp_path, mirror):
    config = settings(tmp_path, CRATESEAL_DATA=str(mirror.data))
    trust = resolve_trust(config)
    assert (trust.how, trust.www, trust.mirrors) == (How.DATA, mirror.www, ())
    assert trust.root_id == light_trust(config).root_id
    assert not config.config_dir.exists()


def test_a_file_or_a_fingerprint_with_a_mirror_is_meant_for_this_once(tmp_path, mirror):
    root = mirror.metadata / "1.root.json"
    with answering(from_folder(mirror.www)) as url:
        by_file = settings(tmp_path, CRATESEAL_MIRROR=url, CRATESEAL_ROOT=str(root))
        trust = resolve_trust(by_file)
        assert (trust.how, trust.mirrors) == (How.GIVEN, (f"{url}/",))
        by_print = settings(
            tmp_path, CRATESEAL_MIRROR=url, CRATESEAL_ROOT_SHA256=trust.initial.sha256
        )
        assert resolve_trust(by_print).initial == trust.initial
        assert light_trust(by_print) == light_trust(by_file)
        last = "0" if trust.initial.sha256[-1] != "0" else "1"
        for wrong in ("0" * 64, trust.initial.sha256[:-1] + last):
            with pytest.raises(ProofError, match=f"expected the fingerprint {wrong}"):
                resolve_trust(by_print._replace(root_sha256=wrong))
    with pytest.raises(UnreachableError):
        resolve_trust(by_print)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, "no mirror is trusted yet"),
        ({"mirror": (A,)}, "not a mirror that you trust"),
        ({"root_sha256": "0" * 64}, "need --mirror URL"),
        ({"root_sha256": "0" * 64, "root": "x", "mirror": (A,)}, "say one of them"),
        ({"root_sha256": "0" * 64, "data": "x"}, "leave --root and --root-sha256 out"),
        ({"data": "nowhere"}, "--data takes the folder that `crateseal up` made"),
        ({"root": "nowhere", "mirror": (A,)}, "nowhere: cannot be read"),
    ],
)
def test_without_a_root_that_the_user_named_nothing_is_believed(tmp_path, said, message):
    for key in {"root", "data"} & said.keys():
        said = {**said, key: tmp_path / said[key]}
    config = ClientSettings(tmp_path / "config", tmp_path / "cache", tmp_path / "run", **said)
    for resolve in (resolve_trust, light_trust):
        with pytest.raises(UsageError, match=message):
            resolve(config)


def test_what_a_crash_left_beside_the_trusts_is_none_and_goes(store):
    store.remember(new())
    left = store._folder / f".{root_id_of(OTHER)}.12345678.new"
    shutil.copytree(folder_of(store), left)
    assert len(light_trusts(store._config)) == 1
    store.remember(new(OTHER, (B,)))
    assert not left.exists()
