import os
import random
from pathlib import Path

import pytest
from tuf.api.exceptions import ExpiredMetadataError

from tests.fakes.tuf import NOW, Repository, recording, signed_part, target
from tuf_repo.core.numbers import RATE
from tuf_repo.core.roles import Policy
from tuf_repo.core.times import DAY, HOUR
from tuf_repo.counting import Known, start_numbers
from tuf_repo.disk import PosixDisk
from tuf_repo.errors import (
    ClockError,
    CounterError,
    KeyFileError,
    MetadataError,
    RepositoryError,
    StaleStateError,
    TargetError,
)
from tuf_repo.keys import OnlineSigners, load_online_signers

SERDE, RAND, NOTE = "index/se/rd/serde", "index/ra/nd/rand", "index/1/a"


@pytest.fixture
def repository(tmp_path):
    base = tmp_path / "data"
    base.mkdir()
    made = Repository(base)
    assert made.init()
    return made


# --- what clients see


def test_a_stock_client_proves_presence_and_absence(repository, tmp_path):
    publisher = repository.open()
    repository.publish(publisher, {SERDE: target(7), RAND: target(8)})
    client = repository.client(tmp_path / "cache")
    client.refresh()
    info = client.get_targetinfo(SERDE)
    assert (info.length, info.hashes) == (7, {"sha256": f"{7:064x}"})
    assert client.get_targetinfo(NOTE) is None
    repository.publish(publisher, {SERDE: None, RAND: target(9)})
    later = repository.client(tmp_path / "cache")
    assert later.get_targetinfo(SERDE) is None
    assert later.get_targetinfo(RAND).length == 9


def test_a_stock_client_downloads_a_target(repository, tmp_path):
    sha256 = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
    folder = repository.base / "www/tuf/targets/index/se/rd"
    folder.mkdir(parents=True)
    (folder / f"{sha256}.serde").write_bytes(b"foo")
    repository.publish(repository.open(), {SERDE: type(target())(3, sha256)})
    client = repository.client(tmp_path / "cache")
    path = client.download_target(client.get_targetinfo(SERDE))
    assert Path(path).read_bytes() == b"foo"


def test_a_first_publication_has_every_bin_and_no_target(repository, tmp_path):
    publisher = repository.open()
    assert dict(publisher.targets()) == {}
    assert publisher.extra == {"x-state": {}}
    assert publisher.root_extra == {"x-trial": True}
    assert publisher.root_version == 1
    assert repository.client(tmp_path / "cache").get_targetinfo(SERDE) is None
    assert repository.folder().files() == publisher.current_files()


def test_one_change_makes_one_bin_a_snapshot_and_a_timestamp(repository):
    publisher = repository.open()
    staged = repository.publish(publisher, {SERDE: target()})
    names = sorted(name.split(".", 1)[1] for name in staged.written)
    assert len(names) == 2
    assert names[1] == "snapshot.json"
    assert len(staged.superseded) == 2
    files = repository.folder().files()
    assert files == publisher.current_files() | set(staged.superseded)


def test_no_change_makes_a_timestamp_only(repository):
    publisher = repository.open()
    repository.publish(publisher, {SERDE: target()})
    snapshot = publisher.snapshot_version
    staged = repository.publish(publisher, {SERDE: target(), RAND: None})
    assert (staged.written, staged.superseded) == ((), ())
    assert publisher.snapshot_version == snapshot
    assert publisher.timestamp_version == staged.timestamp_version


def test_every_number_is_used_once(repository):
    record = {}
    signers = recording(load_online_signers(repository.base / "keys"), record)
    publisher = repository.open(signers)
    for number in range(5):
        repository.publish(publisher, {f"index/1/{letter}": target(number) for letter in "abcd"})
    files = [name for name in repository.folder().files() if name[0].isdigit()]
    numbers = [int(name.split(".")[0]) for name in files if not name.endswith("root.json")]
    assert len(numbers) == len(set(numbers))
    assert not set(numbers) & {
        number for number, payload in record.items() if b'"_type":"timestamp"' in payload
    }


def test_files_name_their_role_and_describe_each_other(repository):
    publisher = repository.open()
    repository.publish(publisher, {SERDE: target()})
    for file in publisher.current_files() - {"timestamp.json", "1.root.json"}:
        signed = signed_part(repository.metadata / file)
        if signed["_type"] == "targets":
            assert signed["x-role"] == file.split(".")[1]
    snapshot = signed_part(repository.metadata / f"{publisher.snapshot_version}.snapshot.json")
    described = {name for name, meta in snapshot["meta"].items() if "length" in meta}
    assert described == {"targets.json", "crates.json"}
    assert snapshot["meta"]["targets.json"]["version"] != snapshot["meta"]["crates.json"]["version"]
    stamp = signed_part(repository.metadata / "timestamp.json")
    assert set(stamp["meta"]["snapshot.json"]) == {"version", "length", "hashes"}
    assert stamp["x-state"] == 1


# --- what the caller sees


def test_lookups_agree_with_what_was_published(repository):
    publisher = repository.open()
    draw = random.Random(1)
    model = {}
    for _ in range(8):
        changes = {
            f"index/1/{draw.randrange(40)}": draw.choice([None, target(draw.randrange(99))])
            for _ in range(15)
        }
        model.update(changes)
        repository.publish(publisher, changes)
    expected = {path: found for path, found in model.items() if found}
    for again in (publisher, repository.open()):
        assert dict(again.targets()) == expected
        assert {path: again.lookup(path) for path in model} == model
        assert dict(again.lookup_all(model)) == model
        assert again.counts() == {"index": len(expected)}


def test_extra_may_depend_on_what_is_held(repository):
    publisher = repository.open()
    staged = publisher.stage({SERDE: target()}, lambda counts: {"x-held": counts["index"]}, now=NOW)
    assert staged.extra == {"x-held": 1}
    assert publisher.extra == {"x-state": {}}
    publisher.commit(staged)
    assert publisher.extra == {"x-held": 1}


def test_nothing_is_visible_before_the_commit_or_after_abandoning(repository, tmp_path):
    publisher = repository.open()
    before = repository.folder().files()
    version = publisher.timestamp_version
    staged = publisher.stage({SERDE: target()}, {}, now=NOW)
    assert repository.folder().timestamp_version() == version
    assert repository.client(tmp_path / "cache").get_targetinfo(SERDE) is None
    publisher.abandon(staged)
    assert repository.folder().files() == before
    assert os.listdir(repository.base / "staging") == ["counter.json"]


def test_abandoning_what_is_committed_does_nothing(repository):
    publisher = repository.open()
    staged = repository.publish(publisher, {SERDE: target()})
    publisher.abandon(staged)
    assert publisher.current_files() <= repository.folder().files()


def test_of_two_staged_publications_one_is_committed(repository):
    publisher, other = repository.open(), None
    first = publisher.stage({SERDE: target()}, {}, now=NOW)
    second = publisher.stage({RAND: target()}, {}, now=NOW)
    publisher.commit(second)
    with pytest.raises(StaleStateError):
        publisher.commit(first)
    repository.entropy = 10**6
    other = repository.open()
    repository.publish(other, {SERDE: target()})
    with pytest.raises(StaleStateError):
        publisher.commit(publisher.stage({}, {}, now=NOW))
    assert repository.folder().timestamp_version() == other.timestamp_version


# --- renewal


def test_a_timestamp_is_due_each_hour(repository):
    publisher = repository.open()
    assert not publisher.due(NOW + HOUR - 1)
    assert publisher.due(NOW + HOUR)
    repository.now = NOW + HOUR
    repository.publish(publisher, {})
    assert not publisher.due(NOW + 2 * HOUR - 1)


def test_renewals_keep_everything_fresh_for_stock_clients(repository, tmp_path):
    publisher = repository.open()
    repository.publish(publisher, {SERDE: target(7)})
    old = repository.client(tmp_path / "old", now=NOW + 2 * DAY)
    with pytest.raises(ExpiredMetadataError):
        old.refresh()
    for day in range(1, 75):
        repository.now = NOW + day * DAY
        assert publisher.due(repository.now)
        repository.publish(publisher, {})
        expires = publisher.expires
        assert expires["bins"] - repository.now > 28 * DAY
        assert expires["snapshot"] - repository.now > 3 * DAY
        assert expires["timestamp"] - repository.now == DAY
    client = repository.client(tmp_path / "cache")
    assert client.get_targetinfo(SERDE).length == 7
    assert client.get_targetinfo(NOTE) is None


def test_a_repository_that_expired_is_opened_and_renewed(repository, tmp_path):
    repository.now = NOW + 100 * DAY
    publisher = repository.open()
    assert publisher.due(repository.now)
    staged = repository.publish(publisher, {})
    assert len(staged.written) == 5
    assert repository.client(tmp_path / "cache").get_targetinfo(SERDE) is None


# --- clock and counter


def test_a_clock_a_little_behind_is_waited_for(repository):
    publisher = repository.open()
    publisher.commit(publisher.stage({}, {}, now=NOW - 59))
    assert repository.waited == [59]
    assert publisher.signed_at == NOW
    repository.now = NOW - 60
    repository.open()
    assert repository.waited == [59, 60]


def test_a_clock_far_behind_signs_nothing(repository):
    publisher = repository.open()
    before = repository.folder().files()
    with pytest.raises(ClockError, match="after the last signature, 2027-01-15T08:00:00Z"):
        publisher.stage({SERDE: target()}, {}, now=NOW - 61)
    repository.now = NOW - 61
    with pytest.raises(ClockError):
        repository.open()
    assert repository.folder().files() == before


def test_a_new_start_skips_what_a_lost_history_may_have_used(repository, tmp_path):
    first = repository.open()
    version = first.timestamp_version
    (repository.base / "staging/counter.json").unlink()
    repository.now = NOW + 100
    repository.entropy = 12_345
    staged = repository.open().stage({}, {}, now=repository.now)
    skipped = staged.timestamp_version - version
    assert 100 * RATE + 12_345 < skipped < 103 * RATE + 12_345


def test_a_new_start_goes_beyond_what_is_reserved_and_what_lies_there(repository):
    publisher = repository.open()
    staged = publisher.stage({SERDE: target()}, {}, now=NOW)  # a crash leaves these files
    reserved = repository.storage.read_reservation().below
    assert staged.timestamp_version < reserved
    assert repository.open().stage({}, {}, now=NOW).timestamp_version > reserved
    stray = repository.metadata / f"{10**12}.crates-0.json"
    stray.write_bytes(b"orphan")
    assert repository.open().stage({}, {}, now=NOW).timestamp_version > 10**12


def test_numbers_are_reserved_before_they_are_used_and_in_blocks(tmp_path):
    base = tmp_path / "data"
    base.mkdir()
    repository = Repository(base, policy=Policy(block=20))
    repository.init()
    publisher = repository.open()
    reserved = set()
    for number in range(12):
        staged = repository.publish(publisher, {f"index/1/{number}": target()})
        below = repository.storage.read_reservation().below
        assert staged.timestamp_version < below
        reserved.add(below)
    assert len(reserved) == 2


def test_more_numbers_than_a_second_allows_are_waited_for(repository):
    outside = {**repository.outside(), "entropy": 0}
    numbers = start_numbers(repository.storage, Known(0, None), **outside)
    taken, now = numbers.take(25_000, NOW)
    assert len(list(taken)) == 25_000
    assert repository.waited == [pytest.approx(1.5)]
    assert now == pytest.approx(NOW + 1.5)
    numbers.take(5_000, now)
    assert repository.waited[1:] == [pytest.approx(0.5)]


def test_a_counter_that_does_not_read_says_what_to_do(repository):
    (repository.base / "staging/counter.json").write_bytes(b"{")
    with pytest.raises(CounterError, match="remove the file"):
        repository.open()


def test_a_counter_at_its_end_signs_nothing(repository):
    repository.storage.write_reservation(type(repository.storage.read_reservation())(2**53, NOW))
    publisher = repository.open()
    with pytest.raises(CounterError, match="below"):
        publisher.stage({}, {}, now=NOW)


# --- what is refused


@pytest.mark.parametrize("path", ["elsewhere/a", "index/a\nb/c", "index/only"])
def test_a_path_that_clients_would_not_find_is_refused(repository, path):
    with pytest.raises(TargetError):
        repository.open().stage({path: target()}, {}, now=NOW)


@pytest.mark.parametrize(
    "extra", [{"version": 1}, {"x-signed-at": ""}, {"x-a": 1.5}, {"x-a": "\x01"}, {"x-a": {1}}]
)
def test_an_extra_field_that_clients_could_not_verify_is_refused(repository, extra):
    publisher = repository.open()
    before = repository.folder().files()
    with pytest.raises(RepositoryError):
        publisher.stage({SERDE: target()}, extra, now=NOW)
    assert repository.folder().files() == before
    repository.publish(publisher, {SERDE: target()})


def test_a_timestamp_too_large_for_stock_clients_is_refused(repository):
    publisher = repository.open()
    with pytest.raises(MetadataError, match="at most 16384 bytes"):
        publisher.stage({}, {"x-a": "a" * 20_000}, now=NOW)


def test_keys_that_the_metadata_does_not_name_are_refused(repository):
    signers = load_online_signers(repository.base / "keys")
    for wrong in (
        OnlineSigners(signers.snapshot, signers.snapshot, signers.timestamp),
        OnlineSigners(signers.bins, signers.timestamp, signers.timestamp),
        OnlineSigners(signers.bins, signers.snapshot, signers.bins),
    ):
        with pytest.raises(KeyFileError, match="one that the metadata names"):
            repository.open(wrong).require_signers()


def test_a_damaged_file_is_not_built_upon(repository):
    publisher = repository.open()
    for file in sorted(publisher.current_files()):
        path = repository.metadata / file
        good = path.read_bytes()
        path.write_bytes(good.replace(b"20", b"21", 1))
        with pytest.raises(MetadataError):
            repository.open()
        path.unlink()
        with pytest.raises(MetadataError):
            repository.open()
        path.write_bytes(good)
    repository.open()


def test_a_bin_that_changed_since_it_was_verified_is_not_built_upon(repository):
    publisher = repository.open()
    for file in publisher.current_files():
        if "crates-" in file:
            (repository.metadata / file).write_bytes(b"{}")
    with pytest.raises(MetadataError, match="verified"):
        publisher.lookup(SERDE)
    with pytest.raises(MetadataError, match="verified"):
        publisher.stage({SERDE: target()}, {}, now=NOW)


# --- disk full


class FullDisk(PosixDisk):
    """Refuses writes after so many."""

    def __init__(self, root, room):
        super().__init__(root)
        self.room = room

    def write_new(self, path, data, *, mode=0o644):
        self._spend()
        super().write_new(path, data, mode=mode)

    def rename(self, source, path):
        self._spend()
        super().rename(source, path)

    def _spend(self):
        if self.room == 0:
            raise OSError(28, "No space left on device")
        self.room -= 1


def commit_or_abandon(publisher, changes):
    staged = publisher.stage(changes, {}, now=NOW)
    try:
        publisher.commit(staged)
    except OSError:
        publisher.abandon(staged)
        raise


@pytest.mark.parametrize("room", range(8))
def test_a_full_disk_drops_the_publication_and_the_next_one_succeeds(repository, tmp_path, room):
    disk = FullDisk(repository.base, 10**6)
    publisher = repository.use(disk).open()
    changes = {f"index/1/{letter}": target() for letter in "abcdefgh"}
    before = repository.folder().files()
    disk.room = room
    with pytest.raises(OSError, match="No space"):
        commit_or_abandon(publisher, changes)
    assert repository.folder().files() == before
    disk.room = 10**6
    repository.publish(publisher, changes)
    assert repository.client(tmp_path / "cache").get_targetinfo("index/1/a") is not None


class UnsyncableDisk(PosixDisk):
    fail = False

    def sync(self):
        if self.fail:
            raise OSError(5, "Input/output error")
        super().sync()

    def rename(self, source, path):
        super().rename(source, path)
        self.fail = path.name == "timestamp.json"


def test_a_commit_that_was_done_and_not_reported_is_seen_as_done(repository):
    disk = UnsyncableDisk(repository.base)
    publisher = repository.use(disk).open()
    staged = publisher.stage({SERDE: target()}, {}, now=NOW)
    with pytest.raises(OSError, match="Input/output"):
        publisher.commit(staged)
    assert publisher.timestamp_version == staged.timestamp_version
    publisher.abandon(staged)
    assert publisher.lookup(SERDE) == target()
