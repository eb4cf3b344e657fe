"""When to sweep, and when to try what is missing; and what is said about it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from mirror.core import plan
from mirror.core.batch import Sweep
from mirror.errors import UpstreamError, UsageError
from mirror.sync.changes import Names, read_names
from mirror.sync.fetcher import Fetcher
from mirror.sync.listed import read_lists
from mirror.sync.parts import Parts
from mirror.sync.sweep import SweepRun, sweeping
from mirror.sync.values import Progress, SyncReport
from mirror.sync.work import Work, round_work, sweep_work

logger = logging.getLogger(__name__)

RECHECKED_AT = "rechecked_at"
"""Fact in the cursors: when the last whole sweep began."""


class Sweeper:
    """Sweeps and rounds of retries of one process, one after another."""

    def __init__(self, parts: Parts, fetcher: Fetcher, report: Callable[[Progress], None]) -> None:
        self._parts = parts
        self._fetcher = fetcher
        self._report = report
        self._life = parts.life
        self._config = parts.life.config
        self._every = (
            self._config.sweep_every if self._config.mode == "index" else self._config.recheck_every
        )
        self._next_sweep_at = self._first_sweep_at()
        self._rest_until = 0.0

    async def sweep(self, *, once: bool) -> SyncReport:
        """Look at everything that is followed; with `once` all that is missing is tried, too.

        Raises:
            OSError: the disk, or the signer, does not let it end.
            UsageError: there are no names to go by.
            UpstreamError: the names source's URL gave no usable answer.
        """
        await self._read_source()
        began = self._life.clock()
        work = await sweep_work(self._parts, once=once)
        self._parts.outbox.begin_sweep(sweeping(began, work))
        try:
            run = SweepRun(self._parts, self._fetcher, work, began)
            result = await self._run(run)
        finally:
            self._parts.outbox.begin_sweep(None)
        await self._end_sweep(began, work, result, run.missing_followed)
        return result

    def sweep_now(self) -> None:
        """Have the next sweep due at once."""
        self._next_sweep_at = 0.0

    async def sweep_when_due(self) -> float:
        """Sweep if it is time; return when it is time again."""
        now = self._life.clock()
        # Where the clock was set back, a period from now is late enough.
        self._next_sweep_at = min(self._next_sweep_at, now + self._every)
        if now < self._next_sweep_at:
            return self._next_sweep_at
        wait = self._life.pace.names_retry
        try:
            report = await self.sweep(once=False)
        except UpstreamError as error:
            logger.warning("names source %s: %s", self._config.names, error)
            self._next_sweep_at = self._life.clock() + wait
            return self._next_sweep_at
        except OSError as error:
            logger.warning("sweep: %s; begun again in %g s", error, wait)
            self._next_sweep_at = self._life.clock() + wait
            return self._next_sweep_at
        self._next_sweep_at = plan.next_sweep(
            now, ended=self._life.clock(), every=self._every, unreachable=report.unreachable
        )
        if not report.unreachable:
            self._parts.cursors.set_fact(RECHECKED_AT, str(now))
        self._parts.retrying.say_if_changed()
        return self._next_sweep_at

    async def retry_when_due(self) -> float:
        """Try what is missing and due; return when something is due again."""
        retrying, contact = self._parts.retrying, self._parts.upstream.contact
        now = self._life.clock()
        far = now + self._life.pace.tick
        due = retrying.due() if self._parts.following.is_known else []
        if not due:
            return min(retrying.next_due() or far, far)
        # Where the clock was set back, one wait from now is long enough.
        self._rest_until = min(self._rest_until, now + self._life.pace.retry_first)
        if now < self._rest_until or contact.seconds_to_wait():
            return min(max(self._rest_until, now + contact.seconds_to_wait()), far)
        if contact.is_down:
            due = due[:1]  # One asks whether it is back.
        run = SweepRun(self._parts, self._fetcher, round_work(due), now, retries=())
        try:
            await self._run(run)
        except OSError as error:
            logger.warning("%s; what is missing is tried again later", error)
            self._rest_until = now + self._life.pace.retry_first
        if contact.is_down:
            self._rest_until = now + self._life.pace.retry_first
        retrying.say_if_changed()
        return min(max(retrying.next_due() or far, self._rest_until), far)

    def _first_sweep_at(self) -> float:
        if self._parts.following.whole_source:
            return 0.0
        # What was rechecked before a restart is not rechecked at once.
        return float(self._parts.cursors.fact(RECHECKED_AT) or 0) + self._config.recheck_every

    async def _read_source(self) -> None:
        """Read what is followed; a list that cannot be used any more leaves the last in force.

        Raises:
            UsageError: there is no earlier list to go on with.
            UpstreamError: its URL gave no usable answer.
            OSError: the names that are followed no longer could not be forgotten.
        """
        following = self._parts.following
        if not following.whole_source:
            return
        try:
            names = await self._read_names()
        except UsageError as error:
            if following.source is None:
                raise
            logger.warning("%s; the earlier list stays in force", error)
            return
        following.take(names)
        self._parts.retrying.prune()

    async def _read_names(self) -> Names:
        now = self._life.clock()
        if self._parts.following.is_list:
            return await asyncio.to_thread(read_lists, self._config.lock, now=now)
        if self._config.names is None:
            raise UsageError("mode index needs a list of names: give --names FILE or URL")
        return await read_names(self._config.names, self._parts.upstream, now=now)

    async def _run(self, run: SweepRun) -> SyncReport:
        ticker = self._parts.tasks.create_task(self._tick(run))
        try:
            result = await run.run()
        finally:
            ticker.cancel()
        self._report(run.progress)
        return result

    async def _tick(self, run: SweepRun) -> None:
        while True:
            self._report(run.progress)
            await asyncio.sleep(self._life.pace.report_every)

    async def _end_sweep(self, began: float, work: Work, result: SyncReport, missing: int) -> None:
        if not work.followed and not result.missing:
            return
        seconds = self._life.clock() - began
        if result.stopped:
            logger.warning(
                "sweep of %d names ended by the signer after %.1f s: %s; what is published stays,"
                " the next sweep comes at its time; see `crateseal status`",
                work.followed,
                seconds,
                result.stopped,
            )
            return
        if work.followed:
            # Also when nothing changed: that is how the timestamp learns of it.
            await self._parts.outbox.offer_notice(self._as_sweep(began, work, missing))
        level = logging.WARNING if result.missing else logging.INFO
        logger.log(level, "sweep of %d names in %.1f s: %s", work.followed, seconds, result)

    def _as_sweep(self, began: float, work: Work, missing: int) -> Sweep:
        source = self._parts.following.source
        return Sweep(
            began=began,
            names_as_of=began if source is None else source.as_of,
            names=work.followed,
            missing=missing,
            whole_source=self._parts.following.whole_source,
        )
