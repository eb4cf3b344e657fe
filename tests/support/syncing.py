"""A running `sync` with a fake signer behind it, for tests."""

import asyncio
import contextlib
import functools
import time
from dataclasses import replace

import uvloop

from mirror.config import Config
from mirror.core.names import CrateId, CrateName
from mirror.seam import SYNC_SOCKET, Want, ask, parse_want_answer
from mirror.sync.engine import run_sync
from mirror.sync.values import Pace
from tests.fakes.signer import FakeSigner

QUICK = Pace(
    down=0.5,
    sweep_retries=(0.05, 0.1, 0.2),
    signer_retry=0.05,
    signer_grace=0.0,
    gather=5.0,
    dependencies=1.0,
    bulk_age=0.2,
    report_every=0.05,
)
BUSY = replace(QUICK, tick=0.05, retry_first=0.2)
"""Looks all the time whether something is due."""
LIMITS = {
    "connect_timeout": 1.0,
    "first_byte_timeout": 0.5,
    "stall_timeout": 0.5,
    "total_timeout": 1.5,
    "jobs": 16,
}


def in_loop(test):
    """Let an `async def` test run, in the loop that production runs in."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        uvloop.run(test(*args, **kwargs))

    return run


class Clock:
    """The real time, plus what a test adds."""

    def __init__(self):
        self.ahead = 0.0

    def __call__(self):
        return time.time() + self.ahead


class Running:
    """What a test holds of a running `sync`."""

    def __init__(self, config, signer, clock):
        self.config = config
        self.signer = signer
        self.clock = clock

    async def want(self, *names, crates=(), seen=(), client=""):
        """Ask as `serve` does."""
        message = Want(
            tuple(map(CrateName, names)),
            tuple(map(CrateName, seen)),
            tuple(CrateId(*crate.split()) for crate in crates),
            client,
        )
        return parse_want_answer(await ask(self.config.run / SYNC_SOCKET, message))


def settings(tmp_path, upstream, **others):
    """A configuration with small limits."""
    source = upstream if isinstance(upstream, str) else upstream.source
    return Config(data=tmp_path / "data", upstream=source, **{**LIMITS, **others})


@contextlib.asynccontextmanager
async def syncing(config, *, pace=QUICK, signer=None, clock=None):
    """Run `sync` and a fake signer for the time of a block."""
    clock = clock or Clock()
    async with signer or FakeSigner(config) as behind:
        stop = asyncio.Event()
        task = asyncio.create_task(run_sync(config, clock, stop, pace=pace))
        try:
            await until(lambda: (config.run / SYNC_SOCKET).exists() or task.done())
            yield Running(config, behind, clock)
        finally:
            stop.set()
            await asyncio.wait_for(task, 30)


async def sync_once(config, *, signer=None, pace=QUICK, clock=None, report=lambda _progress: None):
    """Run `sync --once` beside a fake signer; return its report and the signer."""
    async with signer or FakeSigner(config) as behind:
        result = await asyncio.wait_for(
            run_sync(
                config, clock or Clock(), asyncio.Event(), once=True, pace=pace, report=report
            ),
            60,
        )
    return result, behind


async def until(true, seconds=20.0):
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        await asyncio.sleep(0.005)
