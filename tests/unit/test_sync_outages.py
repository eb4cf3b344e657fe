"""What is an outage and what is not; and an upstream that asks to be left alone."""

import asyncio
import time
from dataclasses import replace

import httpx
import pytest

from mirror.sync.answers import RETRY_AFTER_DEFAULT, retry_after
from mirror.sync.values import Pace
from tests.fakes.upstream import FakeUpstream
from tests.support.syncing import QUICK, in_loop, settings, sync_once, syncing
from tests.unit.test_sync_sweep import ITOA, indexed
from tests.unit.test_sync_want import ITOA_CRATE

PATIENT_DOWN = replace(QUICK, down=60.0)
"""Whatever is taken for an outage shows."""
SINGLE = [
    ("status", 500), ("status", 404), ("truncate", None), ("close", None), ("hang", None),
    ("stall", None), ("html", None), ("busy", 30), ("redirect", "http://127.0.0.1:1/"),
]  # fmt: skip


@pytest.mark.parametrize("path", [ITOA, ITOA_CRATE])
@pytest.mark.parametrize("fault", SINGLE, ids=lambda fault: fault[0])
@in_loop
async def test_an_answer_about_one_object_is_no_outage(tmp_path, fault, path):
    with FakeUpstream() as upstream:
        async with syncing(settings(tmp_path, upstream), pace=PATIENT_DOWN) as sync:
            while not upstream.answers[200]:
                await asyncio.sleep(0.01)
            upstream.fault(path, *fault)
            # Nobody else asks meanwhile, so that no other answer tells that upstream is there.
            await sync.want("itoa", crates=["itoa 1.0.18"])
            assert not (await sync.want("hex", crates=["hex 0.4.3"])).failed


@in_loop
async def test_an_upstream_that_accepts_and_never_answers_is_an_outage_for_all(tmp_path):
    with FakeUpstream() as upstream:
        async with syncing(settings(tmp_path, upstream), pace=PATIENT_DOWN) as sync:
            await sync.want("hex")  # and what goes on at the start is over
            upstream.fault("*", "hang")
            assert (await sync.want("itoa")).failed
            began = time.perf_counter()
            answer = await sync.want(*(f"name{number}" for number in range(200)))
            assert len(answer.failed) == 200
            assert time.perf_counter() - began < 0.5


@in_loop
async def test_a_look_at_held_files_never_waits_for_an_upstream_that_is_silent(tmp_path):
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream, max_age=0.001)
        async with syncing(config) as sync:
            await sync.want("itoa", "hex")
            upstream.fault("*", "hang")
            began = time.perf_counter()
            await sync.want(seen=["itoa", "hex"])
            assert time.perf_counter() - began < 0.3


@in_loop
async def test_without_an_upstream_a_single_look_ends_within_three_seconds(tmp_path):
    with FakeUpstream() as upstream:
        config = indexed(tmp_path, upstream)
    began = time.perf_counter()
    report, _ = await sync_once(config, pace=Pace())
    assert report.unreachable
    assert time.perf_counter() - began < 2.5


@in_loop
async def test_an_upstream_that_is_back_soon_does_not_fail_a_single_look(tmp_path):
    with FakeUpstream() as upstream:
        config = indexed(tmp_path, upstream, first_byte_timeout=0.3)
        upstream.fault("*", "hang")
        look = asyncio.create_task(sync_once(config, pace=Pace()))
        await asyncio.sleep(0.6)
        upstream.heal("*")
        report, _ = await look
        assert (report.missing, report.unreachable) == ({}, False)


@in_loop
async def test_a_sweep_pauses_while_upstream_asks_to_wait(tmp_path, caplog):
    names = [f"name{number:03}" for number in range(300)]
    with FakeUpstream(delay=0.01) as upstream:
        upstream.fault("/index/na/me/name000", "busy", 2, times=1)
        config = indexed(tmp_path, upstream, names, jobs=4)
        look = asyncio.create_task(sync_once(config))
        while not upstream.requests["/index/na/me/name000"]:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.3)
        asked = upstream.total
        await asyncio.sleep(1.2)
        assert upstream.total == asked < 50
        report, _ = await look
        assert (report.absent, report.missing) == (300, {})
        assert caplog.text.count("upstream asks to wait 2 s") == 1


@in_loop
async def test_somebody_who_waits_is_served_while_a_sweep_pauses(tmp_path):
    with FakeUpstream() as upstream:
        upstream.fault("/index/3/h/hex", "busy", 30)
        config = indexed(tmp_path, upstream, ["hex", "itoa"], jobs=1)
        async with syncing(config) as sync:
            while not upstream.requests["/index/3/h/hex"]:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.1)
            assert not (await asyncio.wait_for(sync.want(crates=["itoa 1.0.18"]), 5)).failed


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "999999"}, 3_600),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}, 30),
        ({"retry-after": "Wed, 21 Oct 2015 07:27:00 GMT"}, 0),
        # The answer's own date counts: our clock may be another.
        (
            {
                "retry-after": "Fri, 31 Dec 1999 23:59:59 GMT",
                "date": "Fri, 31 Dec 1999 23:59:39 GMT",
            },
            20,
        ),
        ({"retry-after": "soon"}, RETRY_AFTER_DEFAULT),
        ({"retry-after": "-3"}, RETRY_AFTER_DEFAULT),
        ({"retry-after": "٣"}, RETRY_AFTER_DEFAULT),
        ({}, RETRY_AFTER_DEFAULT),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers, seconds):
    encoded = [(key.encode(), value.encode()) for key, value in headers.items()]
    assert retry_after(httpx.Headers(encoded), now=1_445_412_480.0) == seconds


@in_loop
async def test_what_upstream_lacked_is_lacking_in_an_outage_too(tmp_path):
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream, max_age=0.2)
        async with syncing(config, pace=replace(QUICK, down=30.0)) as sync:
            assert (await sync.want("nobody")).absent == ("nobody",)
            await asyncio.sleep(0.3)
            with upstream.refusing():
                assert (await sync.want("another")).failed
                assert (await sync.want("nobody")).absent == ("nobody",)
