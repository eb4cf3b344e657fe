"""The crash sweep: stop at every change in every way, open again, publish, ask stock clients."""

import shutil

import pytest
from tuf.api.exceptions import RepositoryError

from tests.fakes.disk import Crash, CrashingDisk, Mode, crash_points
from tests.fakes.tuf import Repository, recording, signed_part, target
from tuf_repo.check import check_repository
from tuf_repo.core.roles import Policy
from tuf_repo.disk import PosixDisk
from tuf_repo.keys import create_online_signers
from tuf_repo.signing import sign

FIRST = {f"index/1/{letter}": target(1) for letter in "abcd"}
SECOND = {f"index/1/{letter}": target(2) for letter in "bcde"}
THIRD = {f"index/1/{letter}": target(3) for letter in "cdef"}
SEEDS = {Mode.POWER_MIXED: (1, 2)}


def points(changes):
    for stop_at, mode in crash_points(changes):
        for seed in SEEDS.get(mode, (0,)):
            yield stop_at, mode, seed


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder with one publication, to be copied for each stop."""
    base = tmp_path_factory.mktemp("published") / "data"
    base.mkdir()
    repository = Repository(base, bits=1, policy=Policy(block=15))
    repository.init()
    repository.publish(repository.open(), FIRST)
    return repository


class Run:
    """One repository that is stopped, opened again and published to, all its signatures kept."""

    def __init__(self, base):
        self.repository = Repository(base, policy=Policy(block=15))
        self.record = {}
        self.signers = recording(create_online_signers(base / "keys"), self.record)
        self.versions = [self.repository.folder().timestamp_version()]

    def publish(self, disk, changes):
        publisher = self.repository.use(disk).open(self.signers)
        self.repository.publish(publisher, changes)
        self.versions.append(publisher.timestamp_version)
        return publisher


def work(run, disk):
    publisher = run.publish(disk, SECOND)
    publisher.abandon(publisher.stage(THIRD, {}, now=run.repository.now))
    run.repository.publish(publisher, THIRD)


def holds(repository, cache, *models):
    """What a stock client sees is one of these, whole."""
    client = repository.client(cache)
    client.refresh()
    paths = sorted({path for model in models for path in model})
    seen = {path: client.get_targetinfo(path) for path in paths}
    lengths = {path: info.length for path, info in seen.items() if info}
    assert lengths in [{path: found.length for path, found in model.items()} for model in models]
    assert not list(check_repository(repository.folder(), now=repository.now))


def test_a_publication_stopped_anywhere_is_whole_or_not_there(published, tmp_path):
    counting = tmp_path / "counting"
    shutil.copytree(published.base, counting)
    disk = CrashingDisk(counting)
    work(Run(counting), disk)
    assert 20 < disk.changes < 60
    for number, (stop_at, mode, seed) in enumerate(points(disk.changes)):
        base = tmp_path / str(number)
        shutil.copytree(published.base, base)
        run = Run(base)
        run.repository.entropy = 0  # the sweep relies on what is durable, not on luck
        with pytest.raises(Crash):
            work(run, CrashingDisk(base, stop_at=stop_at, mode=mode, seed=seed))
        cache = tmp_path / f"{number}.cache"
        second = {**FIRST, **SECOND}
        third = {**second, **THIRD}
        holds(run.repository, cache, FIRST, second, third)
        run.publish(PosixDisk(base), {"index/1/z": target(4)})
        last = {"index/1/z": target(4)}
        holds(run.repository, cache, {**FIRST, **last}, {**second, **last}, {**third, **last})
        assert run.versions == sorted(set(run.versions))
        shutil.rmtree(base)


def init_again(base, disk):
    repository = Repository(base, bits=1, disk=disk)
    return repository, repository.init()


def test_a_set_up_stopped_anywhere_is_finished_by_the_next_run(tmp_path):
    counting = tmp_path / "counting"
    counting.mkdir()
    disk = CrashingDisk(counting)
    init_again(counting, disk)
    assert 12 < disk.changes < 40
    for number, (stop_at, mode, seed) in enumerate(points(disk.changes)):
        base = tmp_path / str(number)
        base.mkdir()
        for folder in ("keys", "offline"):  # made in time: their own fsyncs are slow
            shutil.copytree(counting / folder, base / folder)
        with pytest.raises(Crash):
            init_again(base, CrashingDisk(base, stop_at=stop_at, mode=mode, seed=seed))
        keys = {path: path.read_bytes() for path in base.glob("*/*.pem")}
        left = {path.name for path in (base / "www").rglob("*") if path.is_file()}
        repository, _ = init_again(base, PosixDisk(base))
        assert keys.items() <= {path: path.read_bytes() for path in base.glob("*/*.pem")}.items()
        holds(repository, tmp_path / f"{number}.cache", {})
        # What a finished one wrote is kept; what an unfinished one wrote is gone.
        files = repository.folder().files()
        assert files == repository.open().current_files()
        assert "timestamp.json" not in left or left == files
        assert not repository.storage.setup_unfinished()
        assert not repository.init()


def recover(run, disk):
    """A second signer was seen, and the operator says that it has ended."""
    publisher = run.repository.use(disk).open(run.signers)
    stamp = signed_part(run.repository.metadata / "timestamp.json")
    publisher.judge(sign({**stamp, "version": 10**12}, run.signers.timestamp._signer))
    publisher.recover()
    run.repository.publish(publisher, {})


def test_a_recovery_stopped_anywhere_is_in_force_or_still_to_be_asked_for(published, tmp_path):
    counting = tmp_path / "counting"
    shutil.copytree(published.base, counting)
    disk = CrashingDisk(counting)
    recover(Run(counting), disk)
    assert 12 < disk.changes < 40
    recovered = 0
    for number, (stop_at, mode, seed) in enumerate(points(disk.changes)):
        base = tmp_path / str(number)
        shutil.copytree(published.base, base)
        run = Run(base)
        with pytest.raises(Crash):
            recover(run, CrashingDisk(base, stop_at=stop_at, mode=mode, seed=seed))
        publisher = run.repository.use(PosixDisk(base)).open(run.signers)
        is_beyond = publisher.timestamp_version > 10**12
        assert not (is_beyond and publisher.other_signer_at)
        recovered += is_beyond
        holds(run.repository, tmp_path / f"{number}.cache", FIRST)
        if not is_beyond:
            recover(run, PosixDisk(base))
        run.publish(PosixDisk(base), SECOND)
        assert run.versions[-1] > 10**12
        holds(run.repository, tmp_path / f"{number}.cache", {**FIRST, **SECOND})
        shutil.rmtree(base)
    assert recovered > 3


def test_a_counter_written_without_care_would_be_found(published, tmp_path):
    """The control: a disk that swallows the counter's file makes the sweep see a number twice."""

    class Forgetful(PosixDisk):
        def rename(self, source, path):
            if path.name != "counter.json":
                super().rename(source, path)

    base = tmp_path / "data"
    shutil.copytree(published.base, base)
    (base / "staging/counter.json").unlink()
    run = Run(base)
    disk = Forgetful(base)
    publisher = run.repository.use(disk).open(run.signers)
    publisher.abandon(publisher.stage(SECOND, {}, now=run.repository.now))
    with pytest.raises(AssertionError, match="signed twice"):
        run.publish(disk, THIRD)


def test_stock_code_refuses_what_holds_would_refuse(published, tmp_path):
    base = tmp_path / "data"
    shutil.copytree(published.base, base)
    repository = Repository(base)
    (repository.metadata / "timestamp.json").write_bytes(b"{}")
    with pytest.raises(RepositoryError):
        holds(repository, tmp_path / "cache", FIRST)
