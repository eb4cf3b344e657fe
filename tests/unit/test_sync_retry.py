"""What is wanted and missing stays on a list, is tried again by itself, and is told."""

import asyncio
from dataclasses import replace

import pytest

from mirror.core.names import CrateName
from mirror.core.plan import Retry, Trouble
from mirror.errors import LockMismatchError, UpstreamUnreachableError
from mirror.once import details_of_look, exit_code_of_look
from mirror.store.cursors import Cursors
from mirror.store.retries import Retries
from mirror.sync.flights import Remembered
from mirror.sync.following import Following
from mirror.sync.known import KnownVersions
from mirror.sync.retrying import Retrying, crate_of, short_refusal
from mirror.sync.values import ABSENT, Kind, Life, Result, SyncReport
from tests.fakes.signer import FakeSigner
from tests.fakes.upstream import FakeUpstream
from tests.support.syncing import BUSY, QUICK, Clock, in_loop, settings, sync_once, syncing, until
from tests.unit.test_sync_sweep import indexed
from tests.unit.test_sync_want import ITOA, ITOA_CRATE

FAILED = Result(Kind.FAILED, "x: upstream answered 500", short="of 500")
WRONG = "crate file of itoa 1.0.18: expected sha256 aa, got bb"


@pytest.fixture
def cursors(tmp_path):
    table = Cursors(tmp_path / "cursors.sqlite3")
    yield table
    table.close()


def listed(tmp_path, cursors, clock, mode="cache"):
    life = Life(settings(tmp_path, "sparse+http://127.0.0.1:1/", mode=mode), clock, QUICK)
    life = Life(life.config, clock, BUSY)
    known = KnownVersions(life, cursors, Remembered(clock))
    return Retrying(life, cursors, Following(cursors, mode), known)


@in_loop
async def test_a_want_that_failed_is_tried_again_until_it_is_there(tmp_path, caplog):
    caplog.set_level("INFO")
    with FakeUpstream() as upstream:
        upstream.fault(ITOA, "status", 500, times=3)
        upstream.fault(ITOA_CRATE, "status", 502, times=2)
        async with syncing(settings(tmp_path, upstream), pace=BUSY) as sync:
            answer = await sync.want("itoa", crates=["itoa 1.0.18"])
            assert answer.failed.keys() == {"itoa", "itoa 1.0.18"}
            await until(lambda: any(seen.crates for seen in sync.signer.batches))
            assert sync.signer.files.keys() == {"itoa"}
            await until(lambda: "nothing is missing any more" in caplog.text)
        assert "missing: 1 of 500" in caplog.text
        cursors = Cursors(sync.config.cursors)
        assert len(cursors.retries) == 0
        cursors.close()


@in_loop
async def test_what_is_missing_is_remembered_over_a_restart(tmp_path):
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream)
        upstream.fault(ITOA, "html")
        async with syncing(config) as sync:
            assert (await sync.want("itoa")).failed
        upstream.heal(ITOA)
        clock = Clock()
        clock.ahead = 40
        async with syncing(config, pace=BUSY, clock=clock) as sync:
            await until(lambda: "itoa" in sync.signer.files)


@in_loop
async def test_a_crate_with_the_wrong_bytes_is_fetched_anew_after_max_age(tmp_path):
    clock = Clock()
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream)
        async with syncing(config, pace=BUSY, clock=clock) as sync:
            sync.signer.refuse = {"itoa 1.0.18": WRONG}
            assert (await sync.want(crates=["itoa 1.0.18"])).refused
            await asyncio.sleep(0.4)
            assert upstream.requests[ITOA_CRATE] == 1
            sync.signer.refuse = {}
            clock.ahead += config.max_age + 1
            await until(lambda: upstream.requests[ITOA_CRATE] == 2)
            await until(lambda: list(config.www.glob("crates/itoa/*")))


@in_loop
async def test_what_upstream_says_is_not_there_leaves_the_list(tmp_path):
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream)
        upstream.fault("/index/no/su/nosuch", "status", 500, times=1)
        async with syncing(config, pace=BUSY) as sync:
            assert (await sync.want("nosuch")).failed
            await until(lambda: upstream.requests["/index/no/su/nosuch"] == 2)
            await asyncio.sleep(0.7)
            assert upstream.requests["/index/no/su/nosuch"] == 2
            assert sync.signer.with_bytes == []


@in_loop
async def test_dependencies_that_nobody_asked_for_are_not_on_the_list(tmp_path):
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream)
        upstream.fault("/index/pe/rc/percent-encoding", "status", 500)
        async with syncing(config) as sync:
            assert not (await sync.want("form_urlencoded")).failed
            await until(lambda: upstream.requests["/index/pe/rc/percent-encoding"])
        cursors = Cursors(config.cursors)
        assert len(cursors.retries) == 0
        cursors.close()


@in_loop
async def test_a_single_look_tries_what_is_missing_and_tells_of_it(tmp_path):
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream)
        upstream.fault(ITOA_CRATE, "status", 500)
        upstream.fault("/index/3/h/hex", "hang")
        async with syncing(config) as sync:
            assert (await sync.want("itoa", crates=["itoa 1.0.18"])).failed
            assert (await sync.want("hex")).failed
        report, _ = await sync_once(config)
        assert report.missing == {"of 500": 1, "without an answer": 1}
        assert str(report) == (
            "1 looked at, 0 changed, 2 missing: 1 of 500, 1 without an answer; will retry"
        )
        assert exit_code_of_look(report) == 1
        assert [line[:25] for line in details_of_look(report)] == [
            "missing: hex: no answer w", "missing: itoa 1.0.18: ups",
        ]  # fmt: skip
        upstream.heal(ITOA_CRATE)
        upstream.heal("/index/3/h/hex")
        report, signer = await sync_once(config)
        assert (report.missing, report.stored) == ({}, 1)
        assert "hex" in signer.files
        assert exit_code_of_look(report) == 0


@in_loop
async def test_a_single_look_ends_with_one_if_a_crate_was_refused(tmp_path):
    clock = Clock()
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream)
        signer = FakeSigner(config)
        signer.refuse = {"itoa 1.0.18": WRONG}
        async with syncing(config, signer=signer, clock=clock) as sync:
            await sync.want("itoa", crates=["itoa 1.0.18"])
        signer = FakeSigner(config)
        signer.refuse = {"itoa 1.0.18": WRONG}
        report, _ = await sync_once(config, signer=signer)
        assert report.missing == {"wrong sha256": 1}
        assert exit_code_of_look(report) == 1
        assert upstream.requests[ITOA_CRATE] == 2


@in_loop
async def test_a_name_of_the_source_that_fails_is_tried_before_the_next_sweep(tmp_path):
    with FakeUpstream() as upstream:
        upstream.fault(ITOA, "status", 500, times=5)
        async with syncing(indexed(tmp_path, upstream), pace=BUSY) as sync:
            await until(lambda: "itoa" in sync.signer.files)
            assert len(sync.signer.sweeps) == 1


@in_loop
async def test_an_outage_does_not_make_the_waits_longer(tmp_path):
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream)
        async with syncing(config, pace=BUSY) as sync:
            await until(lambda: upstream.answers[200])
            upstream.fault("*", "hang")
            assert (await sync.want("itoa")).failed
            await asyncio.sleep(3)
            upstream.heal("*")
            await until(lambda: "itoa" in sync.signer.files, seconds=5)


def test_waits_grow_twofold_up_to_an_hour(tmp_path, cursors):
    clock = Clock()
    retrying = listed(tmp_path, cursors, clock)
    waits = []
    for _ in range(20):
        retrying.landed("itoa", FAILED, wanted=True)
        waits.append(round(retrying.next_due() - clock(), 1))
        retrying.landed("itoa", FAILED, wanted=True)  # asking meanwhile makes them no longer
        clock.ahead += waits[-1] + 1
    assert waits[:4] == [0.2, 0.4, 0.8, 1.6]
    assert waits[-1] == 3_600


def test_a_wish_that_nothing_backs_ends_after_a_week(tmp_path, cursors):
    clock = Clock()
    retrying = listed(tmp_path, cursors, clock)
    for key in ("nonsense", "nonsense 1.0.0"):
        retrying.landed(key, FAILED, wanted=True)
    clock.ahead += 8 * 86_400
    assert len(retrying.due()) == 2
    for key in ("nonsense", "nonsense 1.0.0"):
        retrying.landed(key, FAILED, wanted=False)
    assert len(cursors.retries) == 0
    in_list = listed(tmp_path, cursors, clock, "list")
    in_list.follow_up({"itoa 1.0.0": FAILED})
    clock.ahead += 8 * 86_400
    in_list.landed("itoa 1.0.0", FAILED, wanted=False)
    assert in_list.wants("itoa 1.0.0")


@in_loop
async def test_a_wish_given_up_does_not_come_back_by_itself(tmp_path):
    clock = Clock()
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream)
        upstream.fault("/index/no/su/nosuch", "status", 500)
        async with syncing(config, pace=BUSY, clock=clock) as sync:
            assert (await sync.want("nosuch", crates=["nosuch 1.0.0"])).failed
            clock.ahead += 8 * 86_400
            await until(lambda: upstream.requests["/index/no/su/nosuch"] > 1)
            await asyncio.sleep(0.3)
            asked = upstream.total
            await asyncio.sleep(0.7)
            assert upstream.total == asked
        cursors = Cursors(config.cursors)
        # Nor is there a cursor of a name that nobody follows.
        assert (len(cursors.retries), len(cursors)) == (0, 0)
        cursors.close()


@in_loop
async def test_a_version_that_the_index_file_does_not_name_is_not_on_the_list(tmp_path):
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream)
        # As some hosts answer for what they do not have.
        upstream.fault("/crates/itoa/itoa-9.9.9.crate", "status", 403)
        upstream.fault("/crates/nosuch/nosuch-1.0.0.crate", "status", 403)
        upstream.fault(ITOA_CRATE, "status", 403)
        async with syncing(config) as sync:
            await sync.want("itoa", "nosuch")
            published = config.www / "index/it/oa/itoa"
            published.parent.mkdir(parents=True)
            published.write_bytes(upstream.read(ITOA))
            wanted = ["itoa 9.9.9", "nosuch 1.0.0", "itoa 1.0.18"]
            answer = await sync.want(crates=wanted)
            assert answer.failed.keys() == set(wanted)
        cursors = Cursors(config.cursors)
        assert [retry.key for retry in cursors.retries] == ["itoa 1.0.18"]
        cursors.close()


def test_where_the_table_is_full_what_is_followed_stays():
    retries = Retries(most=2)
    first = Retry("followed", Trouble.FAILED, "of 500", "", 0.0, 0, 0.0)
    retries.put(first)
    retries.put(replace(first, key="wish"), is_wish=True)
    retries.put(replace(first, key="followed-too"))
    retries.put(replace(first, key="wish-too"), is_wish=True)
    assert [retry.key for retry in retries] == ["followed", "followed-too"]


def test_what_ends_well_or_is_absent_leaves_the_list(tmp_path, cursors):
    retrying = listed(tmp_path, cursors, Clock())
    for result in (Result(Kind.PUBLISHED), Result(Kind.UNCHANGED), ABSENT):
        retrying.landed("itoa", FAILED, wanted=True)
        assert retrying.missing() == {"of 500": 1}
        retrying.landed("itoa", result, wanted=False)
        assert not retrying.missing()


def test_a_doubted_name_is_not_missing_and_stays_doubted_when_a_look_fails(tmp_path, cursors):
    clock = Clock()
    retrying = listed(tmp_path, cursors, clock)
    retrying.doubted(CrateName("itoa"), clock() + 900)
    assert (retrying.missing(), retrying.due(), retrying.all_due()) == ({}, [], [])
    clock.ahead += 901
    assert [retry.key for retry in retrying.due()] == ["itoa"]
    retrying.landed("itoa", FAILED, wanted=False)
    assert (retrying.missing(), len(cursors.retries)) == ({}, 1)


def test_everything_is_due_where_the_clock_was_set_back():
    retry = Retry("itoa", Trouble.FAILED, "of 500", "", 0.0, 0, 10_000_000.0)
    assert retry.is_due(0.0)
    assert not retry.is_due(10_000_000.0 - 60)


def test_the_words_of_a_refusal():
    assert short_refusal(WRONG) == "wrong sha256"
    lock = LockMismatchError("itoa 1.0.18", "the lock's aa", "bb")
    assert short_refusal(str(lock)) == "other than in the lock"
    assert short_refusal("archive of x: expected a gzip file, got HTML") == "refused by the audit"
    assert str(crate_of("Inflector 0.11.4")) == "Inflector 0.11.4"


def test_three_is_for_an_upstream_that_is_away():
    assert exit_code_of_look(SyncReport(unreachable=True, missing={"without an answer": 3})) == 3
    assert exit_code_of_look(SyncReport(stopped="too much")) == 1
    assert exit_code_of_look(SyncReport()) == 0
    error = UpstreamUnreachableError("x")
    assert error.short == "without a usable answer"
    many = SyncReport(reasons={f"n{number}": "away" for number in range(60)})
    assert list(details_of_look(many))[-1] == "missing: and 10 more"


@in_loop
async def test_a_crate_that_the_index_names_is_never_absent_for_long(tmp_path):
    clock = Clock()
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream)
        crate = upstream.read(ITOA_CRATE)
        async with syncing(config, clock=clock) as sync:
            await sync.want("itoa")
            published = config.www / "index/it/oa/itoa"
            published.parent.mkdir(parents=True)
            published.write_bytes(upstream.read(ITOA))
            upstream.put(ITOA_CRATE, None)
            lacks = {"itoa 1.0.18": "upstream lacks the crate that its index names"}
            for _ in range(2):
                assert (await sync.want(crates=["itoa 1.0.18"])).failed == lacks
            assert upstream.requests[ITOA_CRATE] == 1
            upstream.put(ITOA_CRATE, crate)
            clock.ahead += 16
            assert not (await sync.want(crates=["itoa 1.0.18"])).failed
            assert list(config.www.glob("crates/itoa/*"))
