"""One look at every followed name, and a fetch of every crate that is missing: many at a time.

A name is missing whose cursor did not move since the sweep began: upstream gave no answer, or what
it gave was not settled, whatever the reason. A crate is missing until the signer took it. What is
missing is counted, goes on the list of what is tried again, and the next sweep asks again as well.
Nothing about one name or crate keeps the others from being looked at.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from mirror.core import plan
from mirror.core.batch import Outcome, Sweeping
from mirror.core.names import CrateId, CrateName
from mirror.core.plan import Cursor
from mirror.errors import UpstreamError, UpstreamUnreachableError
from mirror.sync.fetcher import Fetcher
from mirror.sync.flights import Flight
from mirror.sync.losses import Losses
from mirror.sync.outbox import NOT_EXAMINED
from mirror.sync.parts import Parts
from mirror.sync.retrying import short_refusal
from mirror.sync.slots import Turn
from mirror.sync.upstream import SLOW
from mirror.sync.values import ABSENT_UPSTREAM, Kind, Progress, Result, SyncReport
from mirror.sync.work import Item, Work

NOT_SETTLED = Result(Kind.FAILED, "not settled", short="not settled")
_UNTOUCHED = (NOT_SETTLED, NOT_EXAMINED)


class SweepRun:
    """One sweep, or one round of retries. `progress` may be read while it runs."""

    def __init__(
        self,
        parts: Parts,
        fetcher: Fetcher,
        work: Work,
        began: float,
        *,
        retries: Sequence[float] | None = None,
    ) -> None:
        self._parts = parts
        self._fetcher = fetcher
        self._work = work
        self._began = began
        self._retries = retries
        self._looked = 0
        self._changed = 0
        self._stored = 0
        self._absent: set[CrateName] = set()
        self._failed: dict[CrateName, Result] = {}
        """Why a name is missing, as far as it is known."""
        self._denied = 0
        """So many crates the operator denies."""
        self._crates: dict[CrateId, Flight] = {}
        self._losses = Losses(parts, fetcher)
        self._lost = False
        self.missing_followed = 0
        """After `run`: how much is missing of what the mode promises."""

    @property
    def progress(self) -> Progress:
        """How far it has come."""
        failed = len(self._failed)
        names, crates = len(self._work.names), len(self._work.crates)
        return Progress(self._looked, names, self._changed, failed, self._stored, crates)

    async def run(self) -> SyncReport:
        """Look at everything; return when all that came is settled.

        Raises:
            OSError: the cursors cannot tell how it ended.
        """
        self._parts.flights.refused.clear()
        await self._look_at(self._work.items(), len(self._work))
        names, crates = await self._missing()
        for number, seconds in enumerate(self._waits()):
            again = self._worth_another(names, crates, is_first=number == 0)
            if not again or self._stopped:
                break
            wait = self._parts.upstream.contact.seconds_to_wait()
            await asyncio.sleep(max(seconds, wait))
            await self._look_again(again)
            names, crates = await self._missing()
        return self._report(names, crates)

    @property
    def _stopped(self) -> str:
        return self._parts.outbox.stopped

    def _waits(self) -> Iterator[float]:
        """Yield the waits before each try; where nobody is there, it is over sooner."""
        pace = self._parts.life.pace
        if self._retries is not None:
            yield from self._retries
            return
        for number, seconds in enumerate(pace.sweep_retries):
            if not self._lost:
                yield seconds
            elif number < len(pace.lost_retries):
                yield pace.lost_retries[number]

    async def _missing(self) -> tuple[list[CrateName], dict[CrateId, Result]]:
        """Return the names no look at which was settled since the sweep began, and the crates."""
        for flight in self._crates.values():
            await flight.sent.wait()
        await self._parts.outbox.drain()
        looked_at = self._parts.cursors.looked_at_between(self._began, self._parts.life.clock())
        names = [
            name
            for name in plan.missing(self._work.names, looked_at)
            if name not in self._absent or name in self._failed
        ]
        ends = {crate: self._end_of(crate) for crate in self._work.crates}
        lacking = {c: end for c, end in ends.items() if end.kind is not Kind.PUBLISHED}
        # What the operator denies is as it should be.
        missing = {crate: end for crate, end in lacking.items() if not end.denied}
        self._denied = len(lacking) - len(missing)
        return names, missing

    def _end_of(self, crate: CrateId) -> Result:
        flight = self._crates.get(crate)
        is_done = flight is not None and flight.future.done()
        return flight.future.result() if flight is not None and is_done else NOT_SETTLED

    def _worth_another(
        self, names: Iterable[CrateName], crates: dict[CrateId, Result], *, is_first: bool
    ) -> list[Item]:
        """Return what to try again at once; what took all its time only a first time."""
        results: list[tuple[Item, Result]] = [(name, self._failure(name)) for name in names]
        results += [item for item in crates.items() if item[1].kind is Kind.FAILED]
        return [
            item
            for item, result in results
            # What upstream lacks it will lack for some seconds: it waits for the list.
            if result.short != ABSENT_UPSTREAM
            and (is_first or result.unreachable or result.short not in SLOW)
        ]

    async def _look_again(self, items: Sequence[Item]) -> None:
        for item in items:
            if isinstance(item, CrateId):
                self._crates.pop(item, None)
            else:
                self._failed.pop(item, None)
        if self._lost:
            # One asks first; the others would only learn the same.
            self._lost = False
            self._parts.upstream.contact.probe_now()
            await self._look_at(iter(items[:1]), 1)
            items = items[1:]
        await self._look_at(iter(items), len(items))

    async def _look_at(self, items: Iterator[Item], count: int) -> None:
        # More workers than slots: a request that hangs keeps its worker, and gives its slot away.
        async with asyncio.TaskGroup() as workers:
            for _ in range(min(self._parts.slots.most, count)):
                workers.create_task(self._work_off(items))
        await self._losses.settle()
        # The callbacks of the flights that it ended come before anything is counted.
        await asyncio.sleep(0)

    async def _work_off(self, items: Iterator[Item]) -> None:
        for item in items:
            if self._stopped:
                return
            if not self._lost:
                await self._parts.outbox.room()
            try:
                if isinstance(item, CrateId):
                    await self._fetch(item)
                else:
                    await self._look(item)
            except UpstreamError as error:
                self._note_failure(item, error)

    async def _fetch(self, crate: CrateId) -> None:
        key = str(crate)
        # First the turn, then the flight: who wants it while all slots are taken does not wait.
        async with self._parts.upstream.bulk_turn() as turn:
            flight = self._parts.flights.get(key)
            if flight is not None:
                self._crates[crate] = flight
                return
            flight = self._parts.flights.start(key, urgent=False, lacking=True)
            self._crates[crate] = flight
            flight.future.add_done_callback(self._crate_landed)
            await self._fetcher.sweep_crate(crate, turn)

    def _crate_landed(self, future: asyncio.Future[Result]) -> None:
        if not future.cancelled() and future.result().kind is Kind.PUBLISHED:
            self._stored += 1

    async def _look(self, name: CrateName) -> None:
        while not await self._was_looked_at_by_others(name):
            if self._lost:
                text = f"{name}: not asked for: upstream is unreachable"
                raise UpstreamUnreachableError(text, "without an answer")
            async with self._parts.upstream.bulk_turn() as turn:
                if self._parts.flights.get(name) is None:
                    await self._look_now(name, turn)
                    return

    async def _look_now(self, name: CrateName, turn: Turn) -> None:
        # What is on the list of what is missing is lacking, whatever the cursor says.
        lacking = self._parts.retrying.wants(name)
        flight = self._parts.flights.start(name, urgent=False, lacking=lacking)
        outcome, news = await self._fetcher.sweep(name, turn, self._losses.hold)
        self._count(name, outcome, news=news)
        flight.future.add_done_callback(partial(self._landed, name, outcome, news))

    async def _was_looked_at_by_others(self, name: CrateName) -> bool:
        """Wait for the look that somebody else began; return whether it will do."""
        flight = self._parts.flights.get(name)
        if flight is None:
            return False
        await asyncio.wait([flight.future])
        result = flight.future.result()
        if result.kind is Kind.FAILED:
            raise UpstreamError(result.reason, result.short)
        if not self._was_looked_at(name):
            # It was begun before the sweep, and does not say how upstream is since.
            return False
        outcome = Outcome.GONE if result.kind is Kind.ABSENT else Outcome.UNCHANGED
        self._count(name, outcome, news=False)
        return True

    def _was_looked_at(self, name: CrateName) -> bool:
        cursor = self._parts.cursors.get(name)
        return cursor is not None and self._began <= cursor.looked_at <= self._parts.life.clock()

    def _landed(
        self, name: CrateName, outcome: Outcome, news: bool, future: asyncio.Future[Result]
    ) -> None:
        """Take a look back whose bytes came, and were not settled."""
        if not future.cancelled() and future.result().kind is Kind.FAILED:
            self._count(name, outcome, news=news, by=-1)
            self._failed[name] = future.result()

    def _count(self, name: CrateName, outcome: Outcome, *, news: bool, by: int = 1) -> None:
        self._looked += by
        if outcome is not Outcome.GONE:
            self._changed += by * news
        elif by > 0:
            self._absent.add(name)
        else:
            self._absent.discard(name)

    def _note_failure(self, item: Item, error: UpstreamError) -> None:
        unreachable = isinstance(error, UpstreamUnreachableError)
        self._lost |= unreachable
        if not isinstance(item, CrateId):  # of a crate its flight tells
            reason = str(error)
            self._failed[item] = Result(
                Kind.FAILED, reason, short=error.short, unreachable=unreachable
            )

    def _failure(self, name: CrateName) -> Result:
        return self._failed.get(name, NOT_SETTLED)

    def _report(self, names: Sequence[CrateName], crates: dict[CrateId, Result]) -> SyncReport:
        """Say how it ended, and see to it that what is missing is tried again."""
        looked = len(self._work.names) - len(names)
        stored = self._work.held + len(self._work.crates) - self._denied - len(crates)
        if self._stopped:
            # What was not examined is not missing: nobody looked at it.
            names = [name for name in names if self._failure(name) not in _UNTOUCHED]
            crates = {crate: end for crate, end in crates.items() if end not in _UNTOUCHED}
        missing = self._why_missing(names, crates)
        followed = sum(name not in self._work.unfollowed for name in names)
        is_list = self._parts.following.is_list
        self.missing_followed = followed + (len(crates) if is_list else 0)
        self._remember_missing(names, crates)
        return SyncReport(
            looked=looked,
            changed=self._changed,
            absent=len(self._absent),
            stored=stored,
            missing=Counter(result.short for result in missing.values()),
            reasons={key: result.reason for key, result in missing.items()},
            refused=dict(self._parts.flights.refused),
            unreachable=self._lost,
            stopped=self._stopped,
            is_list=is_list,
        )

    def _why_missing(
        self, names: Sequence[CrateName], crates: dict[CrateId, Result]
    ) -> dict[str, Result]:
        """Return what is missing, a crate and its index file as one."""
        missing: dict[str, Result] = {}
        told = set()
        for crate, result in crates.items():
            name = crate.canonical_name
            if result.kind is Kind.REFUSED:
                missing[str(crate)] = replace(result, short=short_refusal(result.reason))
            elif result.kind is Kind.FAILED:
                told.add(name)
                missing[str(crate)] = self._failed.get(name, result)
            elif self._parts.following.is_list:
                missing[str(crate)] = replace(result, reason=ABSENT_UPSTREAM, short=ABSENT_UPSTREAM)
        return {name: self._failure(name) for name in names if name not in told} | missing

    def _remember_missing(self, names: Sequence[CrateName], crates: dict[CrateId, Result]) -> None:
        """Put on the list what is followed; what was wished for is on it, or was given up."""
        followed = {
            name: self._failure(name) for name in names if name not in self._work.unfollowed
        }
        cursors = self._parts.cursors
        cursors.put(
            replace(cursors.get(name) or Cursor(name), trouble=failure.reason)
            for name, failure in followed.items()
        )
        if self._lost or self._stopped:
            return  # The next sweep asks for all of it.
        failed: dict[str, Result] = {str(name): failure for name, failure in followed.items()}
        if self._parts.following.is_list and self._retries is None:
            failed |= {str(c): end for c, end in crates.items() if end.kind is Kind.FAILED}
        self._parts.retrying.follow_up(failed)


def sweeping(began: float, work: Work) -> Sweeping:
    """Return what the signer is told of the sweep that goes on."""
    return Sweeping(began, len(work.names))
