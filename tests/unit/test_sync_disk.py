"""A disk that is full, or gone, under a running `sync`: said, and done later; nothing ends."""

import asyncio
import contextlib
import errno
import os
import shutil
from dataclasses import replace

import pytest

from mirror.store.spool import BatchWriter
from tests.fakes.upstream import FakeUpstream
from tests.support.syncing import QUICK, in_loop, settings, sync_once, syncing, until
from tests.unit.test_sync_sweep import ITOA, NAMES, indexed


def fill_under(path):
    """Let every file that is open below `path`, in this process, take no more bytes."""
    full = os.open("/dev/full", os.O_RDWR)
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{entry}")
            if target.startswith(str(path)):
                os.dup2(full, int(entry))
    os.close(full)


def test_a_batch_on_a_full_disk_can_be_dropped(tmp_path):
    writer = BatchWriter(tmp_path, 1)
    fill_under(tmp_path)
    with pytest.raises(OSError, match="No space left") as caught:
        writer.add(bytes(100_000))
    assert caught.value.errno == errno.ENOSPC
    writer.abandon()
    assert list(tmp_path.iterdir()) == []


@in_loop
async def test_what_a_full_disk_dropped_is_not_counted_as_looked_at(tmp_path):
    with FakeUpstream() as upstream:
        config = indexed(tmp_path, upstream)
        upstream.fault(ITOA, "hang", times=1)
        sweep = asyncio.create_task(sync_once(config))
        await until(lambda: upstream.total == len(NAMES) and list(config.spool.glob("*/data")))
        fill_under(config.spool)
        report, signer = await sweep
        assert (report.looked, report.changed, report.missing_count) == (6, 6, 0)
        assert signer.files.keys() == set(NAMES)
        assert signer.sweeps[-1].missing == 0


@in_loop
async def test_a_disk_that_stays_full_leaves_names_missing(tmp_path, monkeypatch):
    begin = BatchWriter.__init__

    def begin_on_a_full_disk(self, spool, number):
        begin(self, spool, number)
        fill_under(self.folder)

    monkeypatch.setattr(BatchWriter, "__init__", begin_on_a_full_disk)
    with FakeUpstream() as upstream:
        config = indexed(tmp_path, upstream)
        upstream.fault(ITOA, "trickle")  # each time the sweep has to wait for it
        report, signer = await sync_once(config)
        assert report.missing["not stored (spool: No space left on device)"] == 5
        assert (report.missing_count, report.looked, report.changed) == (6, 0, 0)
        assert signer.sweeps[-1].missing == 6
        assert signer.files == {}


@in_loop
async def test_cursors_on_a_full_disk_end_nothing(tmp_path, caplog):
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream)
        async with syncing(config) as sync:
            await sync.want("itoa")
            fill_under(config.cursors)
            assert not (await sync.want("hex")).failed
            assert not (await sync.want("fnv", seen=["itoa"])).failed
            assert sync.signer.files.keys() >= {"itoa", "hex", "fnv"}
            assert "kept in memory" in caplog.text


@in_loop
async def test_a_spool_that_is_away_is_said_and_the_next_sweep_goes_well(tmp_path, caplog):
    with FakeUpstream() as upstream:
        config = indexed(tmp_path, upstream, sweep_every=0.05)
        async with syncing(config, pace=replace(QUICK, names_retry=0.05)) as sync:
            await until(lambda: sync.signer.sweeps)
            shutil.rmtree(config.spool)
            config.spool.write_text("no folder")
            await until(lambda: "begun again" in caplog.text)
            config.spool.unlink()
            config.spool.mkdir()
            seen = len(sync.signer.sweeps)
            await until(lambda: len(sync.signer.sweeps) > seen)


def put_a_file_in_place_of(spool, aside):
    """At once: `sync` makes and drops batches there all the time."""
    for number in range(100):
        with contextlib.suppress(IsADirectoryError, FileNotFoundError):
            spool.rename(aside / f"spool{number}")
            spool.write_text("no folder")
            return
    raise AssertionError(spool)


@in_loop
async def test_that_upstream_was_looked_at_is_said_later_if_the_spool_is_away(tmp_path, caplog):
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream, recheck_every=0.05, max_age=0.0)
        pace = replace(QUICK, confirm_every=0.0, names_retry=0.05)
        async with syncing(config, pace=pace) as sync:
            await sync.want("itoa")
            await until(lambda: len(sync.signer.sweeps) > 1)
            put_a_file_in_place_of(config.spool, tmp_path)
            await until(lambda: "is said later" in caplog.text)
            config.spool.unlink()
            seen = len(sync.signer.batches)
            await until(lambda: len(sync.signer.batches) > seen + 1)
