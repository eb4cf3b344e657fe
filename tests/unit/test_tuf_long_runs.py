"""Weeks of a signer's life on a simulated clock, each day seen by a stock client."""

import errno
from collections import Counter

import pytest
from tuf.api.exceptions import ExpiredMetadataError

from tests.fakes.tuf import Repository, target
from tuf_repo.core.bins import BinLayout
from tuf_repo.core.expiry import By, Urgency, outlook
from tuf_repo.core.times import DAY, HOUR
from tuf_repo.disk import PosixDisk

BITS = 7
SERDE, ABSENT = "index/se/rd/serde", "index/le/ft/left-pad"


class UnsyncedDisk(PosixDisk):
    """Does not wait for the disk: what a power cut leaves is tested elsewhere."""

    def sync(self):
        pass


@pytest.fixture
def repository(tmp_path):
    base = tmp_path / "data"
    base.mkdir()
    made = Repository(base, bits=BITS, disk=UnsyncedDisk(base))
    assert made.init()
    made.publish(made.open(), {SERDE: target(7)})
    return made


def renew(repository, publisher):
    """One publication, if something is due, and what a signer prunes after it; return its files."""
    if not publisher.due(repository.now):
        return ()
    staged = publisher.stage({}, publisher.extra, now=repository.now)
    publisher.commit(staged)
    for file in staged.superseded:
        repository.storage.remove(file)
    return staged.written


def bins_in(files):
    return [file for file in files if ".crates-" in file]


def a_path_of(name):
    """A target path that this bin answers for."""
    layout = BinLayout("crates", BITS)
    return next(path for n in range(10**6) if layout.bin_of(path := f"index/aa/bb/x{n}") == name)


def look(repository, cache, *paths):
    """A stock client goes on from what it kept; return what it finds."""
    client = repository.client(cache)
    client.refresh()
    return [client.get_targetinfo(path) for path in paths]


def test_seventy_days_of_a_signer_alone(repository, tmp_path):
    publisher = repository.open()
    every_bin = [a_path_of(name) for name in BinLayout("crates", BITS).names()]
    by_day, begin = Counter(), repository.now
    for day in range(70):
        for _ in range(24):
            repository.now += HOUR
            by_day[day] += len(bins_in(renew(repository, publisher)))
        outlooks = outlook(publisher.expires, repository.now, repository.policy)
        assert [each.role for each in outlooks if each.is_warning and each.by is By.SIGNER] == []
        # One client that was there from the start; its bins differ from day to day.
        seen = every_bin[day % 8 :: 8]
        found, *others = look(repository, tmp_path / "old", SERDE, *seen)
        assert (found.length, {*others}) == (7, {None})
    share = 2**BITS / 30
    assert max(by_day.values()) <= 2 * share
    assert sum(by_day[day] for day in range(40, 70)) == 2**BITS  # a whole round
    assert min(by_day[day] for day in range(2, 70)) >= share // 2
    assert repository.now - begin == 70 * DAY
    assert look(repository, tmp_path / "new", *every_bin).count(None) == 2**BITS


class FullDisk(UnsyncedDisk):
    full = False

    def write_new(self, path, data, *, mode=0o644):
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        super().write_new(path, data, mode=mode)


def test_renewals_that_fail_for_hours_are_made_good_before_anything_expires(repository, tmp_path):
    disk = FullDisk(repository.base)
    publisher = repository.use(disk).open()
    disk.full = True
    for _ in range(20):
        repository.now += HOUR
        with pytest.raises(OSError, match="No space"):
            renew(repository, publisher)
        assert publisher.due(repository.now)
        stamp, *_ = outlook(publisher.expires, repository.now, repository.policy)
    assert (stamp.role, stamp.urgency) == ("timestamp", Urgency.LATE)
    assert look(repository, tmp_path / "old", SERDE)[0].length == 7
    disk.full = False
    renew(repository, publisher)
    assert not publisher.due(repository.now)
    repository.now += 20 * HOUR
    assert look(repository, tmp_path / "old", SERDE)[0].length == 7


def test_twenty_days_without_a_signer_end_with_its_first_publication(repository, tmp_path):
    look(repository, tmp_path / "old", SERDE)
    repository.now += 20 * DAY
    for cache in ("old", "new"):
        with pytest.raises(ExpiredMetadataError, match=r"timestamp|final"):
            look(repository, tmp_path / cache, SERDE)
    written = renew(repository, repository.open())
    assert 0 < len(bins_in(written)) < 2**BITS  # those whose day came meanwhile
    for cache in ("old", "new"):
        found, absent = look(repository, tmp_path / cache, SERDE, ABSENT)
        assert (found.length, absent) == (7, None)


@pytest.mark.parametrize(
    ("days", "bins"), [(45, Urgency.DUE), (59, Urgency.LATE), (75, Urgency.EXPIRED)]
)
def test_a_long_absence_is_survived(repository, tmp_path, days, bins):
    look(repository, tmp_path / "old", SERDE)
    repository.now += days * DAY
    publisher = repository.open()
    before = {
        e.role: e.urgency for e in outlook(publisher.expires, repository.now, repository.policy)
    }
    assert (before["bins"], before["timestamp"]) == (bins, Urgency.EXPIRED)
    assert before["root"] is Urgency.FINE
    assert len(bins_in(renew(repository, publisher))) == 2**BITS
    after = outlook(publisher.expires, repository.now, repository.policy)
    assert [each.role for each in after if each.urgency is not Urgency.FINE] == []
    for cache in ("old", "new"):
        found, absent = look(repository, tmp_path / cache, SERDE, ABSENT)
        assert (found.length, absent) == (7, None)


def test_after_a_long_absence_the_bins_spread_over_the_days_again(repository):
    repository.now += 75 * DAY
    publisher = repository.open()
    renew(repository, publisher)
    by_day = Counter()
    for day in range(31):
        repository.now += DAY
        by_day[day] = len(bins_in(renew(repository, publisher)))
    assert max(by_day.values()) <= 2 * 2**BITS / 30
