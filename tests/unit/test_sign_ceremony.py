"""What lies in `ceremony/`, taken by the signer: published, tidied up, or said to be amiss."""

import hashlib
import json
import os
import shutil
import sqlite3
import threading

import pytest

from mirror.core.names import CrateName
from mirror.errors import UsageError
from mirror.seam import Order, Recover, Verb
from mirror.sign.ceremony import CeremonyDesk, read_files
from mirror.sign.orders import obey, obey_again
from mirror.sign.worker import _Worker
from mirror.store.lockfile import LockWatch
from mirror.store.roots import root_to_pin
from tests.support.crates import crate_bytes, index_file
from tests.support.signing import Workbench, at_work
from tests.support.successors import Ceremony, fresh
from tuf_repo.errors import CeremonyError, OtherSignerError
from tuf_repo.folder import FINISHING
from tuf_repo.keys import load_signer
from tuf_repo.online import make_beside
from tuf_repo.signing import sign
from tuf_repo.storage import MetadataFolder, Storage

FILE = index_file("demo", "1.0.0")


@pytest.fixture
def bench(tmp_path):
    with at_work(tmp_path / "data") as bench:
        bench.settle({"demo": FILE})
        yield bench


class Offline:
    """A workbench's repository, as tests/support/successors.py wants it."""

    def __init__(self, bench):
        self.base = bench.config.data
        self._folder = MetadataFolder(bench.config.www / "tuf/metadata")
        linked = self.base / "offline"
        if not linked.exists():
            linked.symlink_to("offline-keys")

    def folder(self):
        return self._folder


def adoption(bench):
    """Sign what replaces every key of a trial, and ends it."""
    ceremony = Ceremony.of(Offline(bench))
    ceremony.change("root").unrecognized_fields.clear()
    made = make_beside(bench.config.keys, ["bins", "snapshot", "timestamp"])
    for role, key in made.items():
        path = bench.config.keys / f"{role}-{key.keyid[:8]}.pem"
        ceremony.replace(role, load_signer(path))
    ceremony.replace("targets", fresh())
    ceremony.replace("crates", fresh())
    ceremony.replace("root", fresh(), fresh(), threshold=2)
    return ceremony.files()


def leave(bench, files):
    bench.config.ceremony.mkdir(exist_ok=True)
    for name, data in files.items():
        (bench.config.ceremony / name).write_bytes(data)


def keys_of(bench):
    return sorted(path.name for path in bench.config.keys.glob("*.pem"))


def take(bench):
    desk = CeremonyDesk(bench.parts, bench.signer)
    return desk, desk.take(now=bench.now)


def test_a_trial_becomes_real_and_its_keys_are_gone(bench):
    old = keys_of(bench)
    leave(bench, adoption(bench))
    (bench.config.data / "offline").unlink()
    assert set(old) < set(keys_of(bench))
    desk, taken = take(bench)
    assert taken
    assert not desk.trouble
    assert not set(old) & set(keys_of(bench))
    assert len(keys_of(bench)) == 3
    assert list(bench.config.ceremony.iterdir()) == []
    assert list(bench.config.offline_keys.glob("*.pem")) == []
    assert bench.parts.publisher.root_version == 2
    assert root_to_pin(bench.config.www)[0] == "2.root.json"
    bench.settle({"demo": index_file("demo", "1.0.0", "1.1.0")})
    bench.parts.ledger.close()
    bench.open()
    assert bench.findings() == []


def test_what_lies_there_is_taken_once_and_then_looked_at_no_more(bench):
    files = adoption(bench)
    leave(bench, files)
    desk, taken = take(bench)
    number = bench.parts.publisher.timestamp_version
    leave(bench, files)  # a crash before the tidying: it lies there still
    assert taken
    assert not desk.take(now=bench.now)
    assert list(bench.config.ceremony.iterdir()) == []
    assert bench.parts.publisher.timestamp_version == number


def test_what_is_not_whole_yet_waits_for_the_rest(bench):
    files = adoption(bench)
    rest = files.pop("3.targets.json")
    leave(bench, files)
    desk, taken = take(bench)
    assert not taken
    assert desk.trouble.startswith("ceremony not taken: targets: expected a file above version 1")
    bench.settle({"other": index_file("other", "1.0.0")})  # what is in force goes on
    leave(bench, {"3.targets.json": rest})
    assert desk.take(now=bench.now)
    assert not desk.trouble


def test_what_was_refused_is_said_once_and_forgotten_when_it_goes(bench, caplog):
    leave(bench, {"2.root.json": b"{}"})
    desk, _ = take(bench)
    for _ in range(3):
        desk.take(now=bench.now)
    assert caplog.text.count("ceremony not taken") == 1
    (bench.config.ceremony / "2.root.json").unlink()
    desk.take(now=bench.now)
    assert not desk.trouble


@pytest.mark.parametrize("what", ["link", "folder", "fifo", "large", "many"])
def test_what_is_no_file_of_a_ceremony_is_refused(bench, what):
    folder = bench.config.ceremony
    folder.mkdir()
    if what == "link":
        (folder / "2.root.json").symlink_to("/etc/passwd")
    elif what == "folder":
        (folder / "2.root.json").mkdir()
    elif what == "fifo":
        os.mkfifo(folder / "2.root.json")
    elif what == "large":
        (folder / "2.root.json").write_bytes(bytes(6_000_000))
    else:
        for number in range(100):
            (folder / f"{number}.root.json").touch()
    with pytest.raises(CeremonyError):
        read_files(folder)
    desk, taken = take(bench)
    assert not taken
    assert desk.trouble


def test_hidden_files_and_no_folder_are_nothing(bench):
    assert read_files(bench.config.ceremony) == {}
    bench.config.ceremony.mkdir()
    (bench.config.ceremony / ".2.root.json.tmp").write_bytes(b"half")
    assert read_files(bench.config.ceremony) == {}


def test_the_first_root_comes_the_same_way(tmp_path):
    source = Workbench(tmp_path / "source")
    source.init()
    metadata = source.config.www / "tuf/metadata"
    bench = Workbench(tmp_path / "data")
    bench.config.data.mkdir()
    (source.config.keys).rename(bench.config.keys)
    names = ("1.root.json", "1.targets.json", "2.crates.json")
    leave(bench, {name: (metadata / name).read_bytes() for name in names})
    bench.open()
    _, taken = take(bench)
    assert not taken
    assert list(bench.config.ceremony.iterdir()) == []
    bench.settle({"demo": FILE})
    assert bench.findings() == []


def test_a_second_signer_stops_the_first_until_it_recovers(bench, tmp_path):
    bench.parts.disk.sync()
    other = Workbench(tmp_path / "other")
    shutil.copytree(bench.config.data, other.config.data)
    other.now = bench.now + 5
    other._next_batch = 50
    other.open()
    other.settle({"other": index_file("other", "1.0.0")})
    seen = (other.config.www / "tuf/metadata/timestamp.json").read_text()
    ours = bench.parts.publisher.timestamp_version
    assert other.parts.publisher.timestamp_version > ours, "the start of a copy leaps"
    number = bench.offer(seen=seen)
    with pytest.raises(OtherSignerError):
        bench.signer.settle([number], now=bench.now)
    assert "another signer has used our keys" in bench.signer.trouble
    with pytest.raises(OtherSignerError):
        bench.signer.settle([bench.offer({"new": index_file("new", "1.0.0")})], now=bench.now)
    done = obey(bench.parts, bench.signer, Recover(), now=bench.now)
    assert done.exit_code == 0
    assert "far beyond" in done.text
    assert not bench.signer.trouble
    assert bench.parts.publisher.timestamp_version > other.parts.publisher.timestamp_version
    bench.settle({"new": index_file("new", "1.0.0")})
    assert bench.findings() == []
    other.parts.ledger.close()


# ---- whatever lies there, signing goes on


def worker_of(bench):
    return _Worker(bench.parts, bench.signer, LockWatch(()), lambda: bench.now, threading.Event())


def rounds(worker, count=2):
    for _ in range(count):
        with worker._trouble_told():
            worker._obey()
            worker._round()


def two_from_one_base(bench):
    targets, crates = Ceremony.of(Offline(bench)), Ceremony.of(Offline(bench))
    targets.change("targets")
    crates.change("crates")
    leave(bench, {**targets.files(), **crates.files()})


def a_key_that_is_not_here(bench):
    ceremony = Ceremony.of(Offline(bench))
    ceremony.replace("timestamp", fresh())
    leave(bench, ceremony.files())


def no_folder(bench):
    bench.config.ceremony.write_text("no folder")


@pytest.mark.parametrize("what", [two_from_one_base, a_key_that_is_not_here, no_folder])
def test_what_cannot_be_taken_keeps_nobody_from_signing(bench, what):
    what(bench)
    worker = worker_of(bench)
    rounds(worker)
    before = bench.parts.publisher.timestamp_version
    bench.now += 20 * 3600
    rounds(worker)
    assert bench.parts.publisher.timestamp_version > before
    trouble = json.loads(bench.www("status.json").read_bytes())["trouble"]
    assert trouble.startswith("ceremony not taken: ")
    assert str(bench.config.data) not in trouble


def test_a_key_that_was_missing_and_is_put_in_place_is_found_without_a_restart(bench):
    files = adoption(bench)
    hidden = {path: path.read_bytes() for path in bench.config.keys.glob("timestamp-*.pem")}
    for path in hidden:
        path.unlink()
    leave(bench, files)
    desk, taken = take(bench)
    assert not taken
    for path, data in hidden.items():
        path.write_bytes(data)
        path.chmod(0o600)
    assert not desk.take(now=bench.now)
    assert desk.take(now=bench.now + 60)
    assert not desk.trouble


def test_a_root_that_lost_its_timestamp_is_finished_though_nothing_lies_there(bench):
    ceremony = Ceremony.of(Offline(bench))
    (key,) = make_beside(bench.config.keys, ["timestamp"]).values()
    ceremony.replace("timestamp", load_signer(bench.config.keys / f"timestamp-{key.keyid[:8]}.pem"))
    publisher = bench.parts.publisher
    storage_of(bench).note_promotion(publisher.timestamp_version)
    (bench.config.www / "tuf/metadata/2.root.json").write_bytes(ceremony.files()["2.root.json"])
    bench.parts.ledger.close()
    bench.open()
    assert bench.parts.publisher.root_version == 1
    _, taken = take(bench)
    assert taken
    assert bench.parts.publisher.root_version == 2
    assert not (bench.config.keys / "timestamp.pem").exists()


def storage_of(bench):
    return Storage(bench.config.www / "tuf/metadata", bench.config.staging, bench.parts.disk)


def test_files_that_are_still_being_put_there_are_left_alone(bench):
    leave(bench, {**adoption(bench), FINISHING: b""})
    (bench.config.ceremony / FINISHING).touch()
    os.utime(bench.config.ceremony / FINISHING, (bench.now, bench.now))
    desk, taken = take(bench)
    assert not taken
    assert not desk.trouble
    bench.now += 60
    assert not desk.take(now=bench.now)
    assert "run it again" in desk.trouble
    (bench.config.ceremony / FINISHING).unlink()
    assert desk.take(now=bench.now)


def test_a_rotation_in_a_trial_leaves_its_offline_keys(bench):
    ceremony = Ceremony.of(Offline(bench))
    ceremony.change("crates")
    leave(bench, ceremony.files())
    _, taken = take(bench)
    assert taken
    assert len(list(bench.config.offline_keys.glob("*.pem"))) == 3


def test_the_ledger_notes_what_a_ceremony_brought(bench):
    files = adoption(bench)
    leave(bench, files)
    take(bench)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    assert [entry["ceremony"] for entry in logged(bench) if "ceremony" in entry] == [digests]


def logged(bench):
    rows = sqlite3.connect(bench.config.ledger).execute("SELECT * FROM log").fetchall()
    texts = [value for row in rows for value in row if isinstance(value, str)]
    return [json.loads(text) for text in texts if text.startswith("{")]


def test_a_signer_that_is_stopped_starts_and_waits_with_a_ceremony_that_does_not_free_it(bench):
    stop(bench)
    ceremony = Ceremony.of(Offline(bench))
    ceremony.replace("root", fresh())
    leave(bench, ceremony.files())
    desk, taken = take(bench)
    assert not taken
    assert "then recover" in desk.trouble
    assert obey(bench.parts, bench.signer, Recover(), now=bench.now).exit_code == 0
    assert desk.take(now=bench.now + 60)
    assert bench.parts.publisher.root_version == 2


def test_a_denial_is_obeyed_as_far_as_it_can_be_while_another_signer_is_seen(tmp_path):
    with at_work(tmp_path / "data") as bench:
        bench.settle({"demo": FILE}, {("demo", "1.0.0"): crate_bytes("demo", "1.0.0")})
        stop(bench)
        order = Order(Verb.DENY, CrateName("demo"), None, "it steals keys")
        done = obey(bench.parts, bench.signer, order, now=bench.now)
        assert done.exit_code == 5
        assert "is denied, and" in done.text
        assert not bench.www("crates/demo/demo-1.0.0.crate").exists()
        assert obey(bench.parts, bench.signer, Recover(), now=bench.now).exit_code == 0
        obey_again(bench.parts, bench.signer, now=bench.now)
        assert not bench.www("index/de/mo/demo").exists()
        assert bench.findings() == []


def test_a_name_of_a_file_there_says_nothing_to_a_terminal(bench):
    leave(bench, {"\x1b[2J.root.json": b"{}"})
    desk, taken = take(bench)
    assert not taken
    assert desk.trouble.isprintable()


def test_a_first_root_that_is_still_being_put_there_is_left_alone(tmp_path):
    bench = Workbench(tmp_path / "data")
    bench.config.data.mkdir()
    leave(bench, {"1.root.json": b"{}", FINISHING: b""})
    with pytest.raises(UsageError, match="run it again"):
        bench.open()


def stop(bench):
    stamp = json.loads(bench.www("tuf/metadata/timestamp.json").read_bytes())["signed"]
    signer = bench.parts.publisher.require_signers().timestamp
    bench.parts.publisher.judge(sign({**stamp, "version": 10**12}, signer))


def test_half_a_character_in_what_was_seen_refuses_one_batch_alone(bench):
    number = bench.offer(seen="\ud800")
    good = bench.offer({"other": index_file("other", "1.0.0")})
    bench.now += 1
    answers = {a.batch: a for a in bench.signer.settle([number, good], now=bench.now)}
    assert answers[number].refused_whole
    assert not answers[good].refused_whole
