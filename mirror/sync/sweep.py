"""One look at every followed name: many at a time, failures tried again at the end.

A name is missing whose cursor did not move since the sweep began: upstream gave no answer, or what
it gave was not settled, whatever the reason. It is counted, its reason is kept with its cursor, and
the next sweep asks again. Nothing about one name keeps the others from being looked at.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from mirror.core import plan
from mirror.core.batch import Outcome
from mirror.core.names import CrateName
from mirror.core.plan import Cursor
from mirror.errors import UpstreamBusyError, UpstreamError, UpstreamUnreachableError
from mirror.sync.fetcher import Fetcher
from mirror.sync.parts import Parts
from mirror.sync.values import Kind, Progress, Result, SyncReport

BUSY_WAIT_MAX = 60.0


class SweepRun:
    """One sweep. `progress` may be read while it runs."""

    def __init__(
        self, parts: Parts, fetcher: Fetcher, names: Sequence[CrateName], began: float
    ) -> None:
        self._parts = parts
        self._fetcher = fetcher
        self._names = names
        self._began = began
        self._looked = 0
        self._changed = 0
        self._absent = 0
        self._failed: dict[CrateName, UpstreamError] = {}
        """Why a name is missing, as far as it is known."""
        self._lost = False
        self._resume_at = 0.0
        # Some slots stay free for what somebody waits for.
        self._workers = max(1, parts.life.config.jobs - parts.life.config.jobs // 8)

    @property
    def progress(self) -> Progress:
        """How far it has come."""
        return Progress(self._looked, len(self._names), self._changed, len(self._failed))

    async def run(self) -> SyncReport:
        """Look at every name; return when all that changed is settled.

        Raises:
            OSError: the cursors cannot tell how it ended.
        """
        self._parts.flights.refused.clear()
        await self._look_at(self._names)
        missing = await self._missing()
        for seconds in self._parts.life.pace.sweep_retries:
            if not missing:
                break
            await asyncio.sleep(max(seconds, self._seconds_to_resume()))
            await self._look_again(missing)
            missing = await self._missing()
        self._remember_missing(missing)
        return SyncReport(
            looked=len(self._names) - len(missing),
            changed=self._changed,
            absent=self._absent,
            missing=Counter(_reason(self._error(name)) for name in missing),
            refused=dict(self._parts.flights.refused),
            unreachable=self._lost,
        )

    async def _missing(self) -> list[CrateName]:
        """Return the names whose cursor says of no look since the sweep began."""
        await self._parts.outbox.drain()
        looked_at = self._parts.cursors.looked_at_between(self._began, self._parts.life.clock())
        return list(plan.missing(self._names, looked_at))

    async def _look_again(self, names: Sequence[CrateName]) -> None:
        self._failed = {}
        if self._lost:
            # One asks first; the others would only learn the same.
            self._lost = False
            self._parts.upstream.contact.probe_now()
            await self._look_at(names[:1])
            names = names[1:]
        await self._look_at(names)

    async def _look_at(self, names: Sequence[CrateName]) -> None:
        todo = iter(names)
        async with asyncio.TaskGroup() as workers:
            for _ in range(min(self._workers, len(names))):
                workers.create_task(self._work(todo))

    async def _work(self, todo: Iterator[CrateName]) -> None:
        for name in todo:
            if not self._lost:
                await self._parts.outbox.room()
                await self._wait_if_busy()
            try:
                await self._look(name)
            except UpstreamError as error:
                self._note_failure(name, error)

    async def _look(self, name: CrateName) -> None:
        if self._lost:
            raise UpstreamUnreachableError(f"{name}: not asked for: upstream is unreachable")
        while (flight := self._parts.flights.get(name)) is not None:
            await asyncio.wait([flight.future])
            result = flight.future.result()
            if result.kind is Kind.FAILED:
                raise UpstreamError(f"{name}: {result.reason}")
            if self._was_looked_at(name):
                outcome = Outcome.GONE if result.kind is Kind.ABSENT else Outcome.UNCHANGED
                self._count(outcome, news=False)
                return
            # That look was begun before the sweep: it does not say how upstream is since.
        flight = self._parts.flights.start(name, urgent=False, lacking=False)
        outcome, news = await self._fetcher.sweep(name)
        self._count(outcome, news=news)
        flight.future.add_done_callback(partial(self._landed, name, outcome, news))

    def _was_looked_at(self, name: CrateName) -> bool:
        cursor = self._parts.cursors.get(name)
        return cursor is not None and self._began <= cursor.looked_at <= self._parts.life.clock()

    def _landed(
        self, name: CrateName, outcome: Outcome, news: bool, future: asyncio.Future[Result]
    ) -> None:
        """Take a look back whose bytes came, and were not settled."""
        if not future.cancelled() and future.result().kind is Kind.FAILED:
            self._count(outcome, news=news, by=-1)
            self._failed[name] = UpstreamError(f"{name}: {future.result().reason}")

    def _count(self, outcome: Outcome, *, news: bool, by: int = 1) -> None:
        self._looked += by
        if outcome is Outcome.GONE:
            self._absent += by
        elif news:
            self._changed += by

    def _note_failure(self, name: CrateName, error: UpstreamError) -> None:
        self._failed[name] = error
        if isinstance(error, UpstreamUnreachableError):
            self._lost = True
        if isinstance(error, UpstreamBusyError):
            wait = min(error.retry_after, BUSY_WAIT_MAX)
            self._resume_at = asyncio.get_running_loop().time() + wait

    def _seconds_to_resume(self) -> float:
        return self._resume_at - asyncio.get_running_loop().time()

    async def _wait_if_busy(self) -> None:
        seconds = self._seconds_to_resume()
        if seconds > 0:
            await asyncio.sleep(seconds)

    def _error(self, name: CrateName) -> UpstreamError:
        return self._failed.get(name) or UpstreamError(f"{name}: not settled")

    def _remember_missing(self, names: Sequence[CrateName]) -> None:
        cursors = self._parts.cursors
        cursors.put(
            replace(cursors.get(name) or Cursor(name), trouble=str(self._error(name)))
            for name in names
        )


def _reason(error: UpstreamError) -> str:
    """Return what is common to many names: the text without its subject."""
    return str(error).partition(": ")[2] or str(error)
