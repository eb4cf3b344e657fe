"""Sweeps: mode index over a names source, and the recheck of mode cache."""

import asyncio
import os
from dataclasses import replace

import pytest

from mirror.core.names import CrateName
from mirror.errors import UpstreamUnreachableError, UsageError
from mirror.sync.changes import parse_names
from mirror.sync.engine import run_sync
from mirror.sync.values import Pace, SyncReport, in_groups
from tests.fakes.signer import FakeSigner
from tests.fakes.upstream import EPOCH, FakeUpstream
from tests.support.syncing import QUICK, Clock, in_loop, settings, sync_once, syncing, until
from tests.unit.test_sync_want import index

NAMES = ("fnv", "form_urlencoded", "hex", "itoa", "percent-encoding", "wasi")
ITOA = "/index/it/oa/itoa"


def indexed(tmp_path, upstream, names=NAMES, **others):
    """Settings of mode index with a names file of 2023-11-14."""
    source = tmp_path / "names.txt"
    source.write_text("# what we follow\n\n" + "".join(f"{name}\n" for name in names))
    os.utime(source, (EPOCH, EPOCH))
    return settings(tmp_path, upstream, mode="index", names=str(source), **others)


@in_loop
async def test_a_first_sweep_brings_everything_and_says_where_it_ended(tmp_path):
    with FakeUpstream() as upstream:
        report, signer = await sync_once(indexed(tmp_path, upstream))
        assert (report.looked, report.changed, report.missing_count) == (6, 6, 0)
        assert set(signer.files) == set(NAMES)
        assert len(signer.with_bytes) == 1
        sweep = signer.batches[-1].batch.sweep
        assert (sweep.names, sweep.missing, sweep.whole_source) == (6, 0, True)
        assert sweep.names_as_of == EPOCH
        assert signer.batches[-1].batch.confirmed >= sweep.began


@in_loop
async def test_a_second_sweep_asks_conditionally_and_offers_only_its_end(tmp_path):
    with FakeUpstream() as upstream:
        config = indexed(tmp_path, upstream)
        await sync_once(config)
        assert upstream.answers[304] == 0
        report, signer = await sync_once(config)
        assert upstream.answers[304] == 6
        assert (report.looked, report.changed) == (6, 0)
        assert signer.with_bytes == []
        assert len(signer.sweeps) == len(signer.batches) == 1


@in_loop
async def test_one_changed_file_is_offered_alone(tmp_path):
    with FakeUpstream(validators=False) as upstream:
        config = indexed(tmp_path, upstream)
        await sync_once(config)
        upstream.put(ITOA, upstream.read(ITOA) + index("itoa", version="9.0.0"))
        report, signer = await sync_once(config)
        assert report.changed == 1
        assert signer.files == {"itoa": upstream.read(ITOA)}


@in_loop
async def test_a_name_outside_the_source_costs_no_request(tmp_path):
    with FakeUpstream() as upstream:
        async with syncing(indexed(tmp_path, upstream, ["itoa"])) as sync:
            await until(lambda: sync.signer.sweeps)
            before = upstream.total
            answer = await sync.want("hex", crates=["hex 0.4.3"], seen=["fnv"])
            assert set(answer.absent) == {"hex", "hex 0.4.3"}
            assert upstream.total == before


@in_loop
async def test_a_name_of_the_source_that_upstream_lacks_is_absent_and_nothing_is_missing(tmp_path):
    with FakeUpstream() as upstream:
        config = indexed(tmp_path, upstream, [*NAMES, "nosuch"])
        report, signer = await sync_once(config)
        assert (report.absent, report.missing_count) == (1, 0)
        assert signer.sweeps[0].missing == 0
        report, signer = await sync_once(config)
        assert signer.with_bytes == []


@in_loop
async def test_a_name_that_fails_is_missing_counted_by_reason_and_tried_again(tmp_path):
    with FakeUpstream() as upstream:
        config = indexed(tmp_path, upstream)
        upstream.fault(ITOA, "status", 500)
        upstream.fault("/index/3/h/hex", "html")
        upstream.fault("/index/3/f/fnv", "status", 502, times=2)
        report, signer = await sync_once(config)
        assert upstream.requests[ITOA] == 4
        assert report.missing == {
            "of 500": 1,
            "HTML instead of an index file": 1,
        }
        assert "4 looked at, 4 changed, 2 missing" in str(report)
        assert signer.sweeps[0].missing == 2
        assert signer.batches[-1].batch.confirmed is None
        upstream.heal(ITOA)
        upstream.heal("/index/3/h/hex")
        report, signer = await sync_once(config)
        assert set(signer.files) == {"itoa", "hex"}
        assert signer.sweeps[0].missing == 0


@in_loop
async def test_what_the_signer_refuses_is_in_the_report_and_offered_at_each_sweep(tmp_path):
    with FakeUpstream() as upstream:
        config = indexed(tmp_path, upstream)
        for _ in range(2):
            signer = FakeSigner(config)
            signer.refuse = {"hex": "no good"}
            report, _ = await sync_once(config, signer=signer)
            assert report.refused == {"hex": "no good"}
            assert "hex" in signer.files


@in_loop
async def test_a_published_name_that_is_gone_is_refused_and_in_the_report(tmp_path):
    with FakeUpstream() as upstream:
        config = indexed(tmp_path, upstream)
        await sync_once(config)
        upstream.put(ITOA, None)
        for _ in range(2):
            signer = FakeSigner(config)
            signer.refuse = {"itoa": "it was published"}
            report, _ = await sync_once(config, signer=signer)
            assert report.refused == {"itoa": "it was published"}
            assert signer.with_bytes[0].gone == ["itoa"]


@in_loop
async def test_what_the_signer_did_not_look_at_is_tried_again_in_the_same_sweep(tmp_path):
    with FakeUpstream() as upstream:
        config = indexed(tmp_path, upstream)
        signer = FakeSigner(config)
        signer.refuse_whole = ["a torn batch"]
        report, _ = await sync_once(config, signer=signer)
        assert (report.looked, report.changed, report.missing_count) == (6, 6, 0)
        assert set(signer.files) == set(NAMES)
        assert signer.sweeps[0].missing == 0


@in_loop
async def test_what_the_signer_never_looks_at_is_missing(tmp_path):
    with FakeUpstream() as upstream:
        config = indexed(tmp_path, upstream)
        signer = FakeSigner(config)
        signer.refuse_whole = ["a torn batch"] * 4
        report, _ = await sync_once(config, signer=signer)
        assert report.missing == {"not taken (a torn batch)": 6}
        assert (report.looked, report.changed) == (0, 0)
        assert signer.sweeps[0].missing == 6
        assert signer.files == {}


@in_loop
async def test_the_end_of_a_sweep_that_the_signer_did_not_take_is_an_error(tmp_path):
    with FakeUpstream() as upstream:
        config = indexed(tmp_path, upstream)
        await sync_once(config)
        signer = FakeSigner(config)
        signer.refuse_whole = ["a torn batch"]
        with pytest.raises(OSError, match="a torn batch"):
            await sync_once(config, signer=signer)


@in_loop
async def test_a_look_that_began_before_the_sweep_is_not_counted(tmp_path):
    with FakeUpstream() as upstream:
        config = indexed(tmp_path, upstream, sweep_every=3.0, max_age=0.0)
        async with syncing(config, pace=replace(QUICK, sweep_retries=())) as sync:
            await until(lambda: sync.signer.sweeps)
            upstream.put(ITOA, upstream.read(ITOA) + index("itoa", version="9.0.0"))
            sync.signer.free.clear()
            await sync.want(seen=["itoa"])
            await until(lambda: len(sync.signer.offers) == 3)
            assert upstream.requests["/index/wa/si/wasi"] == 1
            await until(lambda: upstream.requests["/index/wa/si/wasi"] == 2)  # the next sweep
            assert upstream.requests[ITOA] == 2
            sync.signer.free.set()
            await until(lambda: len(sync.signer.sweeps) == 2)
            assert sync.signer.sweeps[1].missing == 0
            assert upstream.requests[ITOA] == 3


@in_loop
async def test_looks_of_a_clock_that_was_ahead_are_not_counted(tmp_path):
    clock = Clock()
    clock.ahead = 10 * 86_400
    with FakeUpstream() as upstream:
        config = indexed(tmp_path, upstream)
        await sync_once(config, clock=clock)
        upstream.fault(ITOA, "status", 500)
        report, signer = await sync_once(config)
        assert report.missing == {"of 500": 1}
        assert signer.sweeps[0].missing == 1
        assert signer.batches[-1].batch.confirmed is None


@pytest.mark.parametrize("left", ["older", "none", "torn"])
@in_loop
async def test_before_a_restored_publication_everything_is_fetched_and_offered(tmp_path, left):
    with FakeUpstream() as upstream:
        config = indexed(tmp_path, upstream, [*NAMES, "nosuch"])
        await sync_once(config)
        timestamp = config.www / "tuf/metadata/timestamp.json"
        if left == "none":
            timestamp.unlink()
        else:
            timestamp.write_text('{"signed": {"version": 100}}' if left == "older" else "{")
        report, signer = await sync_once(config, signer=signer_after(config, 5_000))
        assert upstream.answers[304] == 0
        assert set(signer.files) == set(NAMES)
        assert signer.with_bytes[0].gone == ["nosuch"]
        assert report.changed == 6
        # From then on it is like any other.
        _, signer = await sync_once(config)
        assert signer.with_bytes == []
        assert upstream.answers[304] == 6


def signer_after(config, timestamp):
    """A signer that skips numbers, as ours does at each start."""
    signer = FakeSigner(config)
    signer.timestamp = timestamp
    return signer


@in_loop
async def test_an_unreachable_upstream_ends_a_single_sweep_soon(tmp_path):
    with FakeUpstream() as upstream:
        config = indexed(tmp_path, upstream, [f"name{number}" for number in range(3_000)])
    report, signer = await sync_once(config)
    assert report.unreachable
    assert report.missing_count == 3_000
    assert signer.sweeps[0].missing == 3_000


@in_loop
async def test_an_upstream_that_asks_to_wait_is_left_alone(tmp_path):
    with FakeUpstream() as upstream:
        config = indexed(tmp_path, upstream)
        upstream.fault(ITOA, "busy", 1, times=1)
        report, _ = await sync_once(config)
        assert report.missing_count == 0
        assert report.changed == 6


@in_loop
async def test_a_want_goes_ahead_of_a_sweep(tmp_path):
    names = [f"name{number:04}" for number in range(2_000)]
    with FakeUpstream() as upstream:
        for name in names:
            upstream.put(f"/index/na/me/{name}", index(name))
        pace = Pace(bulk_age=60.0)
        config = indexed(tmp_path, upstream, [*names, "itoa"])
        async with syncing(config, pace=pace) as sync:
            await until(lambda: upstream.total > 100)
            # `itoa` comes first in the alphabet: the sweep has it, among what it has yet to offer.
            answer = await asyncio.wait_for(sync.want("itoa", "name1990"), 15)
            assert not answer.failed
            assert not sync.signer.sweeps
            assert {"itoa", "name1990"} <= set(sync.signer.files)
            assert upstream.requests[ITOA] == upstream.requests["/index/na/me/name1990"] == 1


@in_loop
async def test_a_process_that_is_stopped_while_it_sweeps_ends_in_good_order(tmp_path):
    names = [f"name{number:04}" for number in range(2_000)]
    with FakeUpstream() as upstream:
        for name in names:
            upstream.put(f"/index/na/me/{name}", index(name))
        config = indexed(tmp_path, upstream, names)
        async with syncing(config, pace=Pace(bulk_age=60.0)) as first:
            await until(lambda: upstream.total > 300)
        assert not list(config.spool.glob("[0-9]*"))
        report, signer = await sync_once(config)
        # What was under way at the end may have been offered still.
        assert report.changed == len(signer.files)
        assert {*first.signer.files, *signer.files} == set(names)


@in_loop
async def test_progress_is_reported_while_a_sweep_runs(tmp_path):
    seen = []
    with FakeUpstream(delay=0.1) as upstream:
        await sync_once(indexed(tmp_path, upstream, jobs=1), report=seen.append)
    assert seen[0].names == 6
    assert seen[-1].looked == 6
    assert len(seen) > 3


@in_loop
async def test_sweeps_come_again_when_they_are_due(tmp_path):
    with FakeUpstream() as upstream:
        async with syncing(indexed(tmp_path, upstream, sweep_every=0.2)) as sync:
            await until(lambda: len(sync.signer.sweeps) >= 3)
            assert len(sync.signer.with_bytes) == 1


@in_loop
async def test_mode_cache_looks_at_all_it_holds_now_and_then(tmp_path):
    clock = Clock()
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream, recheck_every=86_400.0)
        async with syncing(config, clock=clock) as sync:
            await sync.want("itoa", "fnv")
            clock.ahead += 90_000
        report, signer = await sync_once(config, clock=clock)
        assert (report.looked, report.changed) == (2, 0)
        assert not signer.sweeps[0].whole_source
        assert signer.batches[-1].batch.confirmed >= signer.sweeps[0].began


@in_loop
async def test_lost_cursors_are_made_anew_from_what_is_published(tmp_path):
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream)
        published = config.www / "index/it/oa/itoa"
        published.parent.mkdir(parents=True)
        for file in (published, published.with_name("itoa.gz"), config.www / "index/config.json"):
            file.write_bytes(b"{}")
        report, signer = await sync_once(config)
        assert report.looked == 1
        assert signer.files == {"itoa": upstream.read(ITOA)}


@in_loop
async def test_the_names_can_come_from_a_url(tmp_path):
    with FakeUpstream() as upstream:
        upstream.put("/names", b"itoa\nHEX\n\n# no more\n")
        config = settings(tmp_path, upstream, mode="index", names=f"{upstream.url}/names")
        _, signer = await sync_once(config)
        assert set(signer.files) == {"itoa", "hex"}
        assert signer.sweeps[0].names_as_of == EPOCH
        upstream.fault("/names", "status", 500)
        async with syncing(config) as sync:
            assert "names source is not read" in (await sync.want("fnv")).failed["fnv"]


@in_loop
async def test_a_list_that_turned_bad_leaves_the_earlier_one_in_force(tmp_path):
    with FakeUpstream() as upstream:
        config = indexed(tmp_path, upstream, sweep_every=0.1)
        async with syncing(config) as sync:
            await until(lambda: sync.signer.sweeps)
            (tmp_path / "names.txt").write_text("<html>\n")
            seen = len(sync.signer.sweeps)
            await until(lambda: len(sync.signer.sweeps) > seen + 1)
            assert sync.signer.sweeps[-1].names == 6
            assert sync.signer.sweeps[-1].names_as_of == EPOCH


@in_loop
async def test_a_names_source_that_cannot_be_used_ends_the_process_with_a_reason(tmp_path):
    config = settings(tmp_path, "sparse+http://127.0.0.1:1/", mode="index", names="nowhere.txt")
    with pytest.raises(UsageError, match=r"names source nowhere\.txt"):
        await run_sync(config, Clock(), asyncio.Event(), once=True)
    with pytest.raises(UsageError, match="give --names"):
        await run_sync(
            settings(tmp_path, "sparse+http://127.0.0.1:1/", mode="index"),
            Clock(),
            asyncio.Event(),
            once=True,
        )
    away = settings(
        tmp_path, "sparse+http://127.0.0.1:1/", mode="index", names="http://127.0.0.1:1/n"
    )
    with pytest.raises(UpstreamUnreachableError):
        await run_sync(away, Clock(), asyncio.Event(), once=True)


def test_a_line_that_is_no_name_is_told_with_its_number():
    assert parse_names(b"b\n# x\n\n A \r\n", "n") == (CrateName("a"), CrateName("b"))
    with pytest.raises(UsageError, match=r"n, line 2: expected a crate name, got '\.\./x'"):
        parse_names(b"a\n../x\n", "n")


def test_a_report_reads_as_one_line():
    missing = {"wrong sha256": 8, "of 500": 7}
    report = SyncReport(stored=1485, missing=missing, is_list=True)
    assert str(report) == "1,485 stored, 15 missing: 7 of 500, 8 wrong sha256; will retry"
    report = SyncReport(6, 4, 2, 1, missing, refused={"x": "bad", "x 1.0.0": "bad"})
    assert str(report) == (
        "6 looked at, 4 changed, 2 absent upstream, 1 stored, 1 refused,"
        " 15 missing: 7 of 500, 8 wrong sha256; will retry"
    )
    assert str(SyncReport(6, stopped="too much")) == "6 looked at, 0 changed; stopped: too much"
    many = {f"of {number}": number for number in range(500, 510)}
    assert in_groups(many).endswith("509 of 509, 2,006 for other reasons")
