"""The `sync` process: follows upstream, and fetches what somebody wants.

It sees no key and writes nothing but the spool and its cursors. Whatever it says is a hint until
the signer has looked at the bytes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import NoReturn

from mirror.config import Config
from mirror.core import plan
from mirror.errors import UpstreamError, UpstreamUnreachableError
from mirror.store.cursors import Cursors
from mirror.sync.contact import Contact
from mirror.sync.fetcher import Fetcher
from mirror.sync.flights import Flights, Remembered
from mirror.sync.following import Following, held_names, published_version
from mirror.sync.inbox import Inbox
from mirror.sync.known import KnownVersions
from mirror.sync.lookout import Lookout
from mirror.sync.outbox import TIMESTAMP, Ends, Outbox
from mirror.sync.parts import Parts
from mirror.sync.retrying import Retrying
from mirror.sync.slots import Slots
from mirror.sync.sweeper import RECHECKED_AT, Sweeper
from mirror.sync.transport import PyreqwestTransport, TimeLimits
from mirror.sync.upstream import Upstream
from mirror.sync.values import Kind, Life, Pace, Progress, SyncReport
from mirror.sync.wants import Wants
from mirror.sync.watch import Watch

logger = logging.getLogger(__name__)

UPSTREAM = "upstream"


async def run_sync(  # noqa: PLR0913 - the three settings after the star have defaults
    config: Config,
    clock: Callable[[], float],
    stop: asyncio.Event,
    *,
    once: bool = False,
    report: Callable[[Progress], None] = lambda _progress: None,
    pace: Pace | None = None,
) -> SyncReport:
    """Follow upstream until `stop` is set, or with `once` until everything was looked at.

    The caller holds run/sync.lock. Best under uvloop.

    Raises:
        UsageError: the names source or the lists cannot be used (later it is only logged).
        UpstreamError: with `once`, the names source's URL gave no answer.
        OSError: at the start, or with `once`: the disk does not let us work.
    """
    life = Life(config, clock, pace or Pace())
    with closing(_open_cursors(config)) as cursors:
        slots = Slots(config.jobs)
        upstream = _upstream(life, slots)
        try:
            return await _run(_Outside(life, cursors, upstream, slots), stop, report, once=once)
        finally:
            # Only now does nothing fetch any more.
            await upstream.close()


@dataclass(frozen=True, slots=True)
class _Outside:
    """What outlives the tasks of a run."""

    life: Life
    cursors: Cursors
    upstream: Upstream
    slots: Slots


def _upstream(life: Life, slots: Slots) -> Upstream:
    config = life.config
    limits = TimeLimits(config.connect_timeout, config.first_byte_timeout, config.stall_timeout)
    client = PyreqwestTransport(limits)
    return Upstream(config, client, Contact(life.pace.down), slots, life.clock)


async def _run(
    outside: _Outside, stop: asyncio.Event, report: Callable[[Progress], None], *, once: bool
) -> SyncReport:
    result = SyncReport()
    engine = None
    try:
        async with asyncio.TaskGroup() as tasks:
            parts = _parts(outside.upstream, outside.cursors, tasks, outside.life, outside.slots)
            engine = Engine(parts, report)
            try:
                await engine.open()
                work = tasks.create_task(engine.sweep() if once else engine.follow())
                await _first_of(work, stop)
                result = work.result() if work.done() else result
            finally:
                await engine.close()
            # The one way to end the tasks of a group that would run for ever.
            raise _EndedError
    except BaseExceptionGroup as group:
        troubles = [error for error in group.exceptions if not isinstance(error, _EndedError)]
        if troubles:
            raise troubles[0] from group
    finally:
        if engine is not None:
            engine.discard()
    return result


class _EndedError(Exception):
    """Everything is done."""


async def _first_of(work: asyncio.Task[SyncReport], stop: asyncio.Event) -> None:
    end = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([work, end], return_when=asyncio.FIRST_COMPLETED)
    finally:
        end.cancel()


def _open_cursors(config: Config) -> Cursors:
    cursors = Cursors(config.cursors)
    if cursors.is_new:
        # What is published is followed, also when the memory of it is lost.
        cursors.put(held_names(config.www))
    elif cursors.fact(UPSTREAM) != config.upstream:
        cursors.forget_validators()
        cursors.set_fact(RECHECKED_AT, "0")
    cursors.set_fact(UPSTREAM, config.upstream)
    _compare_publication(cursors, config)
    return cursors


def _compare_publication(cursors: Cursors, config: Config) -> None:
    """Forget what is published where a backup took the place of what the cursors speak of."""
    published = published_version(config.www)
    settled = int(cursors.fact(TIMESTAMP) or 0)
    if published is None or published >= settled:
        return
    logger.warning(
        "%s: expected timestamp %d or later, got %d: an older state; everything is fetched again",
        config.www,
        settled,
        published,
    )
    cursors.forget_publications()
    cursors.put(held_names(config.www))
    cursors.set_fact(RECHECKED_AT, "0")
    cursors.set_fact(TIMESTAMP, str(published))


def _parts(
    upstream: Upstream, cursors: Cursors, tasks: asyncio.TaskGroup, life: Life, slots: Slots
) -> Parts:
    config, clock, pace = life.config, life.clock, life.pace
    remembered = Remembered(clock)
    following = Following(cursors, config.mode)
    retrying = Retrying(life, cursors, following, KnownVersions(life, cursors, remembered))
    crate_seconds = {
        Kind.PUBLISHED: pace.published_crate,
        Kind.REFUSED: config.max_age,
        Kind.ABSENT: config.max_age,
    }
    flights = Flights(
        remembered,
        name_seconds={Kind.ABSENT: config.max_age},
        crate_seconds=crate_seconds,
        landed=retrying.landed,
    )
    outbox = Outbox(
        life,
        cursors,
        Ends(flights.land, following.confirmed, retrying.doubted, lambda: slots.is_idle),
    )
    return Parts(
        life, upstream, cursors, outbox, flights, remembered, following, retrying, tasks, slots
    )


class Engine:
    """Wants and sweeps of one process."""

    def __init__(self, parts: Parts, report: Callable[[Progress], None]) -> None:
        self._parts = parts
        self._life = parts.life
        self._config = parts.life.config
        self._fetcher = Fetcher(parts)
        self._sweeper = Sweeper(parts, self._fetcher, report)
        self._watch = Watch(parts)
        self._inbox = Inbox(parts.life.config.run, Wants(parts, self._fetcher).answer)
        self._looked_when_said = 0

    async def open(self) -> None:
        """Start to take wants, and to offer batches."""
        self._parts.outbox.open()
        self._fetcher.crates.open()
        self._parts.tasks.create_task(self._parts.outbox.work())
        await self._inbox.open()

    async def close(self) -> None:
        """Take no more wants."""
        await self._inbox.close()

    def discard(self) -> None:
        """Drop what was not offered; it is fetched again."""
        self._parts.outbox.discard()

    async def follow(self) -> NoReturn:
        """Say how upstream is, then sweep and try again what is due, for ever."""
        if not self._config.offline:
            await self._greet()
            self._parts.tasks.create_task(self._watch.work())
            if self._config.public_url is not None:
                lookout = Lookout(self._life, self._parts.outbox, self._parts.upstream.client)
                self._parts.tasks.create_task(lookout.work())
        while True:
            due = await self._do_what_is_due()
            # Short steps: the clock may be set while we sleep.
            step = min(max(due - self._life.clock(), 0.05), self._life.pace.tick)
            await self._watch.wait(step)
            await self._say_confirmed()

    async def sweep(self) -> SyncReport:
        """Look at everything that is followed once.

        Raises:
            OSError: the disk, or the signer, does not let it end.
        """
        return SyncReport() if self._config.offline else await self._sweeper.sweep(once=True)

    async def _greet(self) -> None:
        try:
            await self._parts.upstream.greet()
        except UpstreamUnreachableError:
            pass  # said where it was noticed
        except UpstreamError as error:
            logger.warning("%s", error)

    async def _do_what_is_due(self) -> float:
        """Return when to look at the clock again."""
        if self._config.offline:
            return self._life.clock() + self._life.pace.tick
        if self._watch.takes_sweep():
            self._sweeper.sweep_now()
        sweep_at = await self._sweeper.sweep_when_due()
        return min(sweep_at, await self._sweeper.retry_when_due())

    async def _say_confirmed(self) -> None:
        """Tell the signer now and then that upstream was looked at, though nothing changed."""
        outbox = self._parts.outbox
        looked = self._fetcher.index_files.looked
        every = self._life.pace.confirm_every
        if looked == self._looked_when_said:
            return
        if plan.seconds_left(outbox.confirmed_at, every, now=self._life.clock()):
            return
        try:
            await outbox.offer_notice(None)
        except OSError as error:
            logger.warning("%s; that upstream was looked at is said later", error)
        else:
            self._looked_when_said = looked
