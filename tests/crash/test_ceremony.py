"""A ceremony's result, stopped at every change to the disk: the old trust or the new one.

Between a new root and its timestamp, clients that come at that very moment are refused; the next
start finishes it, and no client is lost.
"""

import shutil

import pytest

from mirror.sign.ceremony import CeremonyDesk
from mirror.sign.heartbeat import last_beat, put_heartbeat
from tests.crash.test_publication import copy_of
from tests.fakes.disk import Crash, CrashingDisk, Mode, crash_points
from tests.fakes.tuf import REFUSALS, Repository, recording, target
from tests.support.crates import index_file
from tests.support.signing import Workbench
from tests.support.successors import Ceremony, online_key
from tests.unit.test_sign_ceremony import adoption, keys_of, leave
from tuf_repo.check import check_repository
from tuf_repo.core.roles import Policy
from tuf_repo.disk import PosixDisk
from tuf_repo.keys import OnlineSigners, create_key, load_signer
from tuf_repo.online import OnlineKeys

HELD = {f"index/1/{letter}": target(1) for letter in "abcd"}
SEEDS = {Mode.POWER_MIXED: (1, 2)}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A repository, a client that knows it, and signed files that replace every key."""
    base = tmp_path_factory.mktemp("prepared") / "data"
    base.mkdir()
    repository = Repository(base, bits=1, policy=Policy(block=15))
    repository.init()
    repository.publish(repository.open(), HELD)
    repository.client(base / "client").refresh()
    ceremony = Ceremony.of(repository)
    for role in ("snapshot", "timestamp", "bins"):
        ceremony.replace(role, online_key(repository, role))
    ceremony.replace("targets", second := ceremony_key(base))
    ceremony.replace("root", second)
    return repository, ceremony.files()


def ceremony_key(base):
    create_key(base / "offline" / "second.pem")
    return load_signer(base / "offline" / "second.pem")


class Recorded:
    """The keys at hand; a number that is signed twice with different content is an error."""

    def __init__(self, folder):
        self._keys = OnlineKeys(folder)
        self.record = {}

    def signers_for(self, trust) -> OnlineSigners:
        return recording(self._keys.signers_for(trust), self.record)


def take(repository, files, keys):
    """What the signer does at each start, and when a ceremony came."""
    publisher = repository.open(keys)
    succession = publisher.succession(files, now=repository.now)
    if succession:
        staged = publisher.stage({}, {"x-state": 1}, now=repository.now, succession=succession)
        publisher.commit(staged)
    return publisher


def sees(repository, cache):
    client = repository.client(cache)
    client.refresh()
    return {path for path in HELD if client.get_targetinfo(path)} == set(HELD)


def test_a_ceremony_stopped_anywhere_is_taken_whole_by_the_next_start(prepared, tmp_path):
    original, files = prepared
    counting = tmp_path / "counting"
    shutil.copytree(original.base, counting)
    disk = CrashingDisk(counting)
    take(
        Repository(counting, policy=Policy(block=15)).use(disk), files, Recorded(counting / "keys")
    )
    assert 15 < disk.changes < 60
    old, between, new = 0, 0, 0
    for stop_at, mode in crash_points(disk.changes):
        for seed in SEEDS.get(mode, (0,)):
            base = tmp_path / f"{stop_at}{mode}{seed}"
            shutil.copytree(original.base, base)
            repository = Repository(base, policy=Policy(block=15))
            repository.entropy = 0
            keys = Recorded(base / "keys")
            broken = CrashingDisk(base, stop_at=stop_at, mode=mode, seed=seed)
            with pytest.raises(Crash):
                take(repository.use(broken), files, keys)
            has_root = (repository.metadata / "2.root.json").exists()
            has_stamp = repository.folder().timestamp_version() != original_version(original)
            assert has_root or not has_stamp, "a timestamp without its root"
            if has_root == has_stamp:
                assert sees(repository, base / "client")
                assert not list(check_repository(repository.folder(), now=repository.now))
            else:
                with pytest.raises(REFUSALS):
                    repository.client(base / "client").refresh()
            old, new = old + (not has_root), new + has_stamp
            between += has_root and not has_stamp
            publisher = take(repository.use(PosixDisk(base)), files, keys)
            assert publisher.root_version == 2
            assert sees(repository, base / "client")
            assert not list(check_repository(repository.folder(), now=repository.now))
            repository.publish(publisher, {"index/1/z": target(3)})
            assert take(repository, files, keys).root_version == 2
            shutil.rmtree(base)
    assert old > 50
    assert between > 2
    assert new > 2


def original_version(repository):
    return repository.folder().timestamp_version()


def test_a_root_is_durable_before_the_timestamp_that_needs_it(prepared, tmp_path):
    """A disk may keep the last rename and lose the one before, where nothing was synced between."""
    original, files = prepared
    at_commit, at_removal = [], []

    class Watching(PosixDisk):
        unsynced = ()

        def rename(self, source, path):
            if path.name == "timestamp.json":
                at_commit.append(self.unsynced)
            super().rename(source, path)
            self.unsynced = (*self.unsynced, path.name)

        def remove(self, path):
            if path.name == "promotion.json" and path.exists():
                at_removal.append(self.unsynced)
            super().remove(path)

        def sync(self):
            super().sync()
            self.unsynced = ()

    base = tmp_path / "data"
    shutil.copytree(original.base, base)
    repository = Repository(base, policy=Policy(block=15)).use(Watching(base))
    take(repository, files, Recorded(base / "keys"))
    assert at_commit == [()]
    assert at_removal == [()], "the note that roots may lack their timestamp goes too early"


# ---- the whole signer: ledger, links, keys and all


@pytest.fixture(scope="module")
def adopted(tmp_path_factory):
    """A trial's folder, with what replaces all its keys lying in `ceremony/`."""
    bench = Workbench(tmp_path_factory.mktemp("adopted") / "data", bin_bits=1)
    bench.init()
    bench.open()
    bench.settle({"demo": index_file("demo", "1.0.0")})
    leave(bench, adoption(bench))
    (bench.config.data / "offline").unlink()
    bench.close()
    return bench.config.data


def start(bench):
    """As `crateseal sign` does."""
    bench.open()
    CeremonyDesk(bench.parts, bench.signer).take(now=bench.now)
    put_heartbeat(bench.parts, bench.signer.rules, trouble=None, beat=last_beat(bench.parts))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", list(Mode))
def test_a_signer_stopped_anywhere_while_it_adopts_ends_it_at_the_next_start(
    adopted, tmp_path, mode
):
    folder = copy_of(adopted, tmp_path)
    disk = CrashingDisk(folder)
    start(Workbench(folder, disk=disk, bin_bits=1))
    for stop_at in range(disk.changes):
        folder = copy_of(adopted, tmp_path)
        broken = CrashingDisk(folder, stop_at=stop_at, mode=mode, seed=stop_at)
        bench = Workbench(folder, disk=broken, bin_bits=1)
        bench.now += 100
        with pytest.raises(Crash):
            start(bench)
        bench.parts.ledger.close()
        again = Workbench(folder, bin_bits=1)
        again.now = bench.now + 100
        again._next_batch = 1000
        start(again)
        where = f"{mode}, change {stop_at}: {broken.log[-1]}"
        assert again.parts.publisher.root_version == 2, where
        assert list(again.config.ceremony.iterdir()) == [], where
        assert len(keys_of(again)) == 3, where
        assert not list(again.config.offline_keys.glob("*.pem")), where
        assert again.settle({"other": index_file("other", "1.0.0")}) == {}, where
        assert again.findings() == [], where
        again.close()
