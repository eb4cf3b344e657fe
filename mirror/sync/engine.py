"""The `sync` process: follows upstream, and fetches what somebody wants.

It sees no key and writes nothing but the spool and its cursors. Whatever it says is a hint until
the signer has looked at the bytes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NoReturn

from mirror.config import Config
from mirror.core import plan
from mirror.core.batch import Sweep
from mirror.errors import UpstreamError, UpstreamUnreachableError, UsageError
from mirror.store.cursors import Cursors
from mirror.sync.changes import read_names
from mirror.sync.contact import Contact
from mirror.sync.fetcher import Fetcher
from mirror.sync.flights import Flights, Remembered
from mirror.sync.following import Following, held_names, published_version
from mirror.sync.inbox import Inbox
from mirror.sync.outbox import TIMESTAMP, Ends, Outbox
from mirror.sync.parts import Parts
from mirror.sync.sweep import SweepRun
from mirror.sync.transport import PyreqwestTransport
from mirror.sync.upstream import Upstream
from mirror.sync.values import Kind, Life, Pace, Progress, SyncReport
from mirror.sync.wants import Wants

logger = logging.getLogger(__name__)

TICK_SECONDS = 10.0
UPSTREAM = "upstream"
RECHECKED_AT = "rechecked_at"


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
        UsageError: the names source cannot be used (at the start; later it is only logged).
        UpstreamError: with `once`, the names source's URL gave no answer.
        OSError: at the start, or with `once`: the disk does not let us work.
    """
    life = Life(config, clock, pace or Pace())
    cursors = _open_cursors(config)
    upstream = Upstream(
        config,
        PyreqwestTransport(config.connect_timeout, config.stall_timeout),
        Contact(life.pace.down),
        clock,
    )
    result = SyncReport()
    engine = None
    try:
        async with asyncio.TaskGroup() as tasks:
            engine = Engine(_parts(upstream, cursors, tasks, life), report)
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
        # Only now does nothing fetch any more.
        if engine is not None:
            engine.discard()
        await upstream.close()
        cursors.close()
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


def _parts(upstream: Upstream, cursors: Cursors, tasks: asyncio.TaskGroup, life: Life) -> Parts:
    config, clock, pace = life.config, life.clock, life.pace
    remembered = Remembered(clock)
    crate_seconds = {
        Kind.PUBLISHED: pace.published_crate,
        Kind.REFUSED: config.max_age,
        Kind.ABSENT: config.max_age,
    }
    flights = Flights(
        remembered, name_seconds={Kind.ABSENT: config.max_age}, crate_seconds=crate_seconds
    )
    following = Following(cursors, whole_source=config.mode == "index")
    outbox = Outbox(life, cursors, Ends(flights.land, following.confirmed))
    slots = asyncio.Semaphore(config.jobs)
    return Parts(life, upstream, cursors, outbox, flights, remembered, following, tasks, slots)


class Engine:
    """Wants and sweeps of one process."""

    def __init__(self, parts: Parts, report: Callable[[Progress], None]) -> None:
        self._parts = parts
        self._life = parts.life
        self._config = parts.life.config
        self._report = report
        self._fetcher = Fetcher(parts)
        self._inbox = Inbox(parts.life.config.run, Wants(parts, self._fetcher).answer)
        self._next_sweep_at = self._first_sweep_at()
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
        """Say how upstream is, then sweep when it is due, for ever."""
        if not self._config.offline:
            try:
                await self._parts.upstream.greet()
            except UpstreamUnreachableError:
                pass  # said where it was noticed
            except UpstreamError as error:
                logger.warning("%s", error)
        while True:
            due = await self._sweep_when_due()
            # Short steps: the clock may be set while we sleep.
            await asyncio.sleep(min(max(due - self._life.clock(), 0.05), TICK_SECONDS))
            await self._say_confirmed()

    async def sweep(self) -> SyncReport:
        """Look at every followed name once.

        Raises:
            OSError: the disk, or the signer, does not let it end.
        """
        if self._config.offline:
            return SyncReport()
        if self._config.mode == "index":
            await self._read_names()
        return await self._sweep()

    async def _sweep_when_due(self) -> float:
        """Sweep if it is time; return when to look at the clock again."""
        if self._config.offline:
            return self._life.clock() + TICK_SECONDS
        index = self._config.mode == "index"
        every = self._config.sweep_every if index else self._config.recheck_every
        now = self._life.clock()
        # Where the clock was set back, a period from now is late enough.
        self._next_sweep_at = min(self._next_sweep_at, now + every)
        if now < self._next_sweep_at:
            return self._next_sweep_at
        try:
            if index:
                await self._read_names()
            report = await self._sweep()
        except UpstreamError as error:
            logger.warning("names source %s: %s", self._config.names, error)
            self._next_sweep_at = self._life.clock() + self._life.pace.names_retry
            return self._next_sweep_at
        except OSError as error:
            wait = self._life.pace.names_retry
            logger.warning("sweep: %s; begun again in %g s", error, wait)
            self._next_sweep_at = self._life.clock() + wait
            return self._next_sweep_at
        self._next_sweep_at = plan.next_sweep(
            now, ended=self._life.clock(), every=every, unreachable=report.unreachable
        )
        if not report.unreachable:
            self._parts.cursors.set_fact(RECHECKED_AT, str(now))
        return self._next_sweep_at

    def _first_sweep_at(self) -> float:
        if self._config.mode == "index":
            return 0.0
        # What was rechecked before a restart is not rechecked at once.
        return float(self._parts.cursors.fact(RECHECKED_AT) or 0) + self._config.recheck_every

    async def _read_names(self) -> None:
        """Read the names source; a list that cannot be used any more leaves the last one in force.

        Raises:
            UsageError: there is no earlier list to go on with.
            UpstreamError: its URL gave no usable answer.
            OSError: the names that are followed no longer could not be forgotten.
        """
        following = self._parts.following
        if self._config.names is None:
            raise UsageError("mode index needs a list of names: give --names FILE or URL")
        try:
            names = await read_names(
                self._config.names, self._parts.upstream, now=self._life.clock()
            )
        except UsageError as error:
            if following.source is None:
                raise
            logger.warning("%s; the earlier list stays in force", error)
            return
        following.take(names)

    async def _sweep(self) -> SyncReport:
        began = self._life.clock()
        names = self._parts.following.names()
        run = SweepRun(self._parts, self._fetcher, names, began)
        ticker = self._parts.tasks.create_task(self._tick(run))
        try:
            result = await run.run()
        finally:
            ticker.cancel()
        self._report(run.progress)
        if names:
            await self._end_sweep(began, len(names), result)
        return result

    async def _end_sweep(self, began: float, count: int, result: SyncReport) -> None:
        source = self._parts.following.source
        sweep = Sweep(
            began=began,
            names_as_of=began if source is None else source.as_of,
            names=count,
            missing=result.missing_count,
            whole_source=self._parts.following.whole_source,
        )
        # Also when nothing changed: that is how the timestamp learns of it.
        await self._parts.outbox.offer_notice(sweep)
        level = logging.WARNING if result.missing else logging.INFO
        logger.log(
            level, "sweep of %d names in %.1f s: %s", count, self._life.clock() - began, result
        )

    async def _tick(self, run: SweepRun) -> None:
        while True:
            self._report(run.progress)
            await asyncio.sleep(self._life.pace.report_every)

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
