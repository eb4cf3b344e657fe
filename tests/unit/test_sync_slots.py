"""What hangs holds up nobody else, and each time limit is one of its own."""

import asyncio
import socket
import time

import httpx
import pytest

from mirror.sync.engine import run_sync
from mirror.sync.slots import Slots
from mirror.sync.transport import PyreqwestTransport, TimeLimits
from tests.fakes.signer import FakeSigner
from tests.fakes.upstream import FakeUpstream
from tests.support.syncing import in_loop, settings, sync_once, syncing
from tests.unit.test_sync_list import crates_of, listed, made
from tests.unit.test_sync_want import ITOA

PATIENT = {"first_byte_timeout": 3.0, "stall_timeout": 3.0, "total_timeout": 30.0}


async def until_all_but(config, hung, count):
    """Sync a list; return how long all but so many took to arrive."""
    began = time.perf_counter()
    async with FakeSigner(config) as signer:
        stop = asyncio.Event()
        task = asyncio.create_task(run_sync(config, time.time, stop, once=True))
        while len(crates_of(signer)) < count - hung:
            assert time.perf_counter() - began < 30
            await asyncio.sleep(0.01)
        took = time.perf_counter() - began
        stop.set()
        await task
    return took


@pytest.mark.parametrize("fault", ["hang", "stall", "trickle"])
@in_loop
async def test_hung_files_do_not_hold_the_jobs(tmp_path, fault):
    with FakeUpstream(delay=0.01) as upstream:
        crates = made(upstream, 200)
        for number in range(0, 200, 5):  # forty of them, more than there are jobs
            upstream.fault(f"/crates/name{number:04}/name{number:04}-1.0.0.crate", fault)
        config = listed(tmp_path, upstream, crates, jobs=16, **PATIENT)
        # A third of the first time limit, which sixteen at a time would have to wait out thrice.
        assert await until_all_but(config, 40, 200) < 3.0


@in_loop
async def test_somebody_is_served_while_everything_a_sweep_asks_for_hangs(tmp_path):
    with FakeUpstream() as upstream:
        crates = made(upstream, 100)
        for crate in crates:
            upstream.fault(f"/index/na/me/{crate.split()[0]}", "hang")
        config = listed(tmp_path, upstream, [*crates, "itoa 1.0.18"], jobs=16, **PATIENT)
        async with syncing(config) as sync:
            await asyncio.sleep(0.2)
            answer = await asyncio.wait_for(sync.want("itoa"), 2)
            assert not answer.failed


@in_loop
async def test_never_more_requests_than_slots_and_those_set_aside(tmp_path):
    with FakeUpstream() as upstream:
        crates = made(upstream, 100)
        for crate in crates:
            upstream.fault(f"/index/na/me/{crate.split()[0]}", "hang")
        config = listed(tmp_path, upstream, crates, jobs=4, **PATIENT)
        async with syncing(config):
            await asyncio.sleep(2.5)  # within the first time limit nobody goes away
            assert upstream.most_at_once == 20


@in_loop
async def test_what_hangs_is_missing_without_an_answer(tmp_path):
    with FakeUpstream() as upstream:
        crates = made(upstream, 20)
        for crate in crates:
            upstream.fault(f"/index/na/me/{crate.split()[0]}", "hang")
        config = listed(tmp_path, upstream, [*crates, "itoa 1.0.18"])
        began = time.perf_counter()
        report, _ = await sync_once(config)
        assert str(report) == "1 stored, 20 missing: 20 without an answer; will retry"
        # Asked for twice: not once more for each of the quick retries.
        assert time.perf_counter() - began < 2.5


@in_loop
async def test_a_request_without_a_byte_gives_its_slot_away_and_no_other():
    slots = Slots(2, patience=0.05)
    async with slots.turn(bulk=False) as quick:
        quick.begun()
        coming = asyncio.create_task(let_come(quick, 1_000))
        async with slots.turn(bulk=False):
            await asyncio.sleep(0.08)
            assert slots.aside == 1
            async with slots.turn(bulk=False):
                pass
        assert slots.aside == 0
        await asyncio.sleep(0.08)
        assert slots.aside == 0
        coming.cancel()


@pytest.mark.parametrize("count", [0, 20])
@in_loop
async def test_a_body_that_comes_no_further_or_too_slowly_gives_its_slot_away(count):
    slots = Slots(1, patience=0.05)
    async with slots.turn(bulk=False) as turn:
        turn.begun()
        turn.came(20_000)
        coming = asyncio.create_task(let_come(turn, count))
        async with asyncio.timeout(1), slots.turn(bulk=False):
            assert slots.aside == 1
        coming.cancel()
    assert slots.aside == 0


async def let_come(turn, count):
    """Let so many bytes come each hundredth of a second."""
    while True:
        turn.came(count)
        await asyncio.sleep(0.01)


@in_loop
async def test_so_many_are_set_aside_and_no_more():
    slots = Slots(1, patience=0.01)
    turns = [slots.turn(bulk=True) for _ in range(5)]
    for turn in turns:
        await asyncio.wait_for(turn.__aenter__(), 1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(slots.turn(bulk=True).__aenter__(), 0.1)
    for turn in turns:
        await turn.__aexit__(None, None, None)
    assert slots.aside == 0
    async with slots.turn(bulk=True):
        pass


@in_loop
async def test_a_slow_upstream_gets_no_more_requests_than_it_has_slots():
    slots = Slots(4, patience=0.05)
    for _ in range(60):
        slots.note_first_byte(1.0)
    assert 3.9 < slots.patience < 4.0


@pytest.mark.parametrize(
    ("fault", "limits", "expected"),
    [
        ("hang", TimeLimits(5.0, 0.3, 5.0), 0.3),
        ("stall", TimeLimits(5.0, 5.0, 0.3), 0.3),
        ("stall", TimeLimits(0.1, 0.1, 0.4), 0.4),
        ("hang", TimeLimits(0.1, 0.4, 0.1), 0.4),
    ],
)
@in_loop
async def test_first_byte_and_stall_are_limits_of_their_own(fault, limits, expected):
    with FakeUpstream() as upstream:
        upstream.fault(ITOA, fault)
        transport = PyreqwestTransport(limits)
        began = time.perf_counter()
        with pytest.raises(httpx.ReadTimeout):
            answer = await transport.handle_async_request(httpx.Request("GET", upstream.url + ITOA))
            async for _ in answer.stream:
                pass
        assert expected <= time.perf_counter() - began < expected + 0.3
        await transport.aclose()


@in_loop
async def test_a_file_that_comes_slowly_and_steadily_is_taken(tmp_path):
    with FakeUpstream() as upstream:
        data = b'{"name":"itoa"}\n'
        upstream.put(ITOA, data)
        upstream.fault(ITOA, "trickle")
        limits = {"first_byte_timeout": 0.3, "stall_timeout": 0.3, "total_timeout": 5.0}
        async with syncing(settings(tmp_path, upstream, **limits)) as sync:
            assert not (await sync.want("itoa")).failed
            assert sync.signer.files == {"itoa": data}


@in_loop
async def test_no_connection_has_a_limit_of_its_own(unused_connections):
    transport = PyreqwestTransport(TimeLimits(0.3, 5.0, 5.0))
    began = time.perf_counter()
    with pytest.raises(httpx.ReadTimeout, match="connection timeout"):
        await transport.handle_async_request(httpx.Request("GET", unused_connections))
    assert time.perf_counter() - began < 1.0
    await transport.aclose()


@pytest.fixture
def unused_connections():
    """The address of a socket that is full: nobody there accepts a connection."""
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    waiting = [socket.socket() for _ in range(3)]
    for connection in waiting:
        connection.setblocking(False)
        connection.connect_ex(full.getsockname())
    yield f"http://127.0.0.1:{full.getsockname()[1]}/"
    for connection in (*waiting, full):
        connection.close()
