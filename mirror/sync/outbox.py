"""Group commit towards the signer: what was fetched, in batches, one outstanding at a time.

Two drafts are open at once. What somebody waits for goes into the urgent one, which leaves as soon
as the signer is free; what a sweep finds goes into the bulk one, which leaves when it is worth a
publication. So a want is delayed by one batch under way at most. Bytes go to disk as they come.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mirror.core.batch import Batch, FetchedCrate, Look, Outcome, Settled, Sweep, Sweeping
from mirror.core.names import CrateId, CrateName
from mirror.core.plan import Cursor, Known
from mirror.errors import MalformedMessageError
from mirror.store.cursors import Cursors
from mirror.store.spool import clear_unfinished, drop_batch, open_batch, pending_batches
from mirror.sync.drafts import Draft
from mirror.sync.offering import Offering
from mirror.sync.values import ABSENT, Kind, Life, Result

logger = logging.getLogger(__name__)

TIMESTAMP = "timestamp"
"""Fact in the cursors: the latest timestamp that the signer told of."""
NOT_EXAMINED = Result(Kind.FAILED, "the signer stopped the sweep", short="not looked at")


@dataclass(frozen=True, slots=True)
class Ends:
    """Whom the outbox tells, and asks."""

    land: Callable[[str, Result], None]
    """Told the end of each name and crate that went in."""
    confirmed: Callable[[Sequence[Look], float], float | None]
    """The oldest successful look among the followed names, as this batch may say it now."""
    doubted: Callable[[CrateName, float], None]
    """Told of a name that upstream says is gone, and when to look again."""
    is_idle: Callable[[], bool]
    """Whether nothing that nobody waits for is on its way, but what hangs."""


class Outbox:
    """The way to the signer."""

    def __init__(self, life: Life, cursors: Cursors, ends: Ends) -> None:
        self._spool = life.config.spool
        self._offering = Offering(life.config.run, life.pace)
        self._source = life.config.upstream
        self._clock = life.clock
        self._pace = life.pace
        self._cursors = cursors
        self._ends = ends
        self.timestamp = 0
        """The latest timestamp the signer told of."""
        self.stopped = ""
        """Why the signer ended the sweep that goes on; empty while it may go on."""
        self._sweeping: Sweeping | None = None
        self.confirmed_at = 0.0
        """When a batch last said what upstream confirmed."""
        self._urgent: Draft | None = None
        self._bulk: Draft | None = None
        self._notices: list[Draft] = []
        self._outstanding: Draft | None = None
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._number = 0

    def open(self) -> None:
        """Prepare the spool: what a crash left half-written goes."""
        self._spool.mkdir(parents=True, exist_ok=True)
        clear_unfinished(self._spool)
        # The milliseconds since 1970: never the number of an earlier batch, also after a restart.
        self._number = max([int(self._clock() * 1000), *pending_batches(self._spool)])

    def add_index(self, cursor: Cursor, data: bytes, *, urgent: bool) -> None:
        """Offer the bytes of an index file; `cursor` is what to remember once they are settled."""
        draft = self._draft(urgent=urgent)
        draft.cursors.append(cursor)
        offset = draft.bytes
        draft.looks.append(
            Look(cursor.name, cursor.looked_at, Outcome.BYTES, offset, len(data), cursor.sha256)
        )
        draft.bytes += len(data)
        try:
            draft.writer.add(data)
        except OSError as error:
            self._abandon(draft, error)
        self._note_added()

    def add_gone(self, cursor: Cursor, *, urgent: bool) -> None:
        """Say that upstream has no index file of that name."""
        draft = self._draft(urgent=urgent)
        draft.cursors.append(cursor)
        draft.looks.append(Look(cursor.name, cursor.looked_at, Outcome.GONE))
        self._note_added()

    def add_crate(self, crate: CrateId, file: Path, length: int, *, urgent: bool) -> None:
        """Offer a crate; its file is moved into the batch."""
        draft = self._draft(urgent=urgent)
        name = f"{len(draft.crates)}.crate"
        draft.crates.append(FetchedCrate(crate, name, length))
        draft.crate_bytes += length
        try:
            file.rename(draft.writer.folder / name)
        except OSError as error:
            file.unlink(missing_ok=True)
            self._abandon(draft, error)
        self._note_added()

    @property
    def signer_silence(self) -> str:
        """Why the signer does not answer; empty when it does."""
        return self._offering.silence

    def begin_sweep(self, sweeping: Sweeping | None) -> None:
        """What nobody waits for belongs to this sweep from now on; None: to none."""
        self._sweeping = sweeping
        self.stopped = ""

    async def room(self) -> None:
        """Return when a sweep may add more."""
        await self._room.wait()

    def hurry(self) -> None:
        """Offer the bulk draft soon: somebody waits for something in it."""
        if self._bulk is not None:
            self._bulk.due_at = 0.0
        self._changed.set()

    def drop_bulk(self) -> None:
        """Drop what a sweep found and was not offered yet; it is fetched again."""
        if self._bulk is not None:
            draft, self._bulk = self._bulk, None
            self._room.set()
            draft.writer.abandon()
            self._end_without(draft, NOT_EXAMINED)

    async def drain(self) -> None:
        """Return when everything that was added so far is settled."""
        self.hurry()
        for draft in (self._outstanding, self._urgent, self._bulk):
            if draft is not None:
                await draft.settled.wait()

    async def offer_notice(self, sweep: Sweep | None, *, seen: str = "") -> None:
        """Offer a batch without bytes: a sweep's end, that upstream was looked at, what was seen.

        Raises:
            OSError: it was not said, and has to be said later.
        """
        draft = self._new_draft()
        draft.sweep = sweep
        draft.seen = seen
        self._notices.append(draft)
        self._changed.set()
        await draft.settled.wait()
        if draft.trouble:
            raise OSError(f"batch {draft.writer.number}: {draft.trouble}")

    async def work(self) -> None:
        """Offer batches for ever, first those that an earlier process left."""
        for number in pending_batches(self._spool):
            await self._settle_leftover(number)
        while True:
            draft = await self._next()
            try:
                await self._settle(draft)
            finally:
                self._outstanding = None

    def discard(self) -> None:
        """Drop what was not offered: it is fetched again."""
        for draft in (self._urgent, self._bulk, *self._notices):
            if draft is not None:
                draft.writer.abandon()

    def _draft(self, *, urgent: bool) -> Draft:
        if urgent:
            self._urgent = self._urgent or self._new_draft()
            return self._urgent
        if self._bulk is None:
            self._bulk = self._new_draft()
            self._bulk.sweeping = self._sweeping
        self._bulk.added_at = asyncio.get_running_loop().time()
        return self._bulk

    def _new_draft(self) -> Draft:
        self._number += 1
        due_at = asyncio.get_running_loop().time() + self._pace.bulk_age
        return Draft(self._spool, self._number, due_at)

    def _note_added(self) -> None:
        if self._bulk is not None and self._bulk.is_full:
            self._room.clear()
        self._changed.set()

    def _abandon(self, draft: Draft, error: OSError) -> None:
        logger.error("spool: %s; %d files are fetched again later", error, len(draft.subjects()))
        if draft is self._urgent:
            self._urgent = None
        if draft is self._bulk:
            self._bulk = None
            self._room.set()
        draft.writer.abandon()
        text = f"spool: {error.strerror or error}"
        self._end_without(draft, Result(Kind.FAILED, text, short=f"not stored ({text})"))

    def _end_without(self, draft: Draft, result: Result) -> None:
        """End a draft of which nothing is signed and nothing is remembered."""
        draft.trouble = result.reason
        for key in draft.subjects():
            self._ends.land(key, result)
        draft.settled.set()

    async def _next(self) -> Draft:
        while True:
            draft = self._take()
            if draft is not None:
                self._outstanding = draft
                return draft
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds_to_look()):
                    await self._changed.wait()

    def _seconds_to_look(self) -> float:
        """Return when something may be due although nothing more happened."""
        if self._bulk is None:
            return 1.0
        quiet_at = self._bulk.added_at + self._pace.bulk_quiet
        now = asyncio.get_running_loop().time()
        return max(min(quiet_at, self._bulk.due_at) - now, self._pace.bulk_quiet)

    def _take(self) -> Draft | None:
        if self._urgent is not None:
            draft, self._urgent = self._urgent, None
            return draft
        if self._notices:
            return self._notices.pop(0)
        if self._bulk is not None and self._is_due(self._bulk):
            draft, self._bulk = self._bulk, None
            self._room.set()
            return draft
        return None

    def _is_due(self, bulk: Draft) -> bool:
        now = asyncio.get_running_loop().time()
        # What hangs holds up nobody else: where nothing more comes, what is there goes ahead.
        is_quiet = now >= bulk.added_at + self._pace.bulk_quiet and self._ends.is_idle()
        return bulk.is_worth_it or is_quiet or now >= bulk.due_at

    async def _settle(self, draft: Draft) -> None:
        began = asyncio.get_running_loop().time()
        number = draft.writer.number
        try:
            draft.writer.finish(self._batch(draft))
        except OSError as error:
            self._abandon(draft, error)
            return
        settled = await self._offering.offer(number)
        taken = self._remember(draft.cursors, settled)
        # Hundreds of files may lie in it, and others fetch meanwhile.
        await asyncio.to_thread(drop_batch, self._spool, number)
        if not taken:
            reason = settled.refused_whole
            self._end_without(draft, Result(Kind.FAILED, reason, short=f"not taken ({reason})"))
            return
        results = self._land(draft, settled)
        self._note_stop(draft, settled)
        draft.settled.set()
        _say(results, settled, asyncio.get_running_loop().time() - began)

    def _land(self, draft: Draft, settled: Settled) -> dict[str, Result]:
        """Tell everybody the end of what was in a batch; return it."""
        self.confirmed_at = self._clock()
        gone = {look.name for look in draft.looks if look.outcome is Outcome.GONE}
        unexamined = set(settled.unexamined)
        # Without its index file a crate was not examined either.
        unexamined |= {str(c.crate) for c in draft.crates if c.crate.canonical_name in unexamined}
        results = {key: _result(key, settled, gone, unexamined) for key in draft.subjects()}
        for key, result in results.items():
            self._ends.land(key, result)
        self._note_doubts(settled)
        return results

    def _note_doubts(self, settled: Settled) -> None:
        for name, at in settled.doubted.items():
            self._ends.doubted(CrateName(name), at)

    def _note_stop(self, draft: Draft, settled: Settled) -> None:
        if settled.stopped and draft.sweeping is not None and draft.sweeping == self._sweeping:
            self.stopped = settled.stopped
            self.drop_bulk()

    def _batch(self, draft: Draft) -> Batch:
        try:
            confirmed = self._ends.confirmed(draft.looks, self._clock())
        except OSError as error:
            logger.warning("%s; what upstream confirmed is said later", error)
            confirmed = None
        return draft.as_batch(self._source, confirmed)

    def _remember(self, cursors: Iterable[Cursor], settled: Settled) -> bool:
        """Move the cursors of a batch; return whether the signer looked at it at all."""
        if settled.refused_whole:
            logger.warning(
                "batch %d: not looked at: %s; it is fetched again",
                settled.batch,
                settled.refused_whole,
            )
            return False
        self.timestamp = max(self.timestamp, settled.timestamp)
        unexamined = set(settled.unexamined)
        self._cursors.put(
            _after(cursor, settled) for cursor in cursors if cursor.name not in unexamined
        )
        before = int(self._cursors.fact(TIMESTAMP) or 0)
        self._cursors.set_fact(TIMESTAMP, str(max(before, settled.timestamp)))
        return True

    async def _settle_leftover(self, number: int) -> None:
        try:
            with open_batch(self._spool, number) as reader:
                looks, crates = reader.batch.looks, reader.batch.crates
        except (MalformedMessageError, OSError) as error:
            logger.warning("batch %d: %s; dropped, it is fetched again", number, error)
            drop_batch(self._spool, number)
            return
        settled = await self._offering.offer(number)
        cursors = [_cursor(look) for look in looks if look.outcome is not Outcome.UNCHANGED]
        if self._remember(cursors, settled):
            self._note_doubts(settled)
            # Of the rest the cursors tell; that a crate was refused, only this.
            for key in settled.refused.keys() & {str(fetched.crate) for fetched in crates}:
                self._ends.land(key, _result(key, settled, set(), set()))
            logger.info("batch %d, left by an earlier process: settled", number)
        drop_batch(self._spool, number)


def _cursor(look: Look) -> Cursor:
    known = Known.ABSENT if look.outcome is Outcome.GONE else Known.PUBLISHED
    return Cursor(look.name, known, look.sha256, looked_at=look.at)


def _after(cursor: Cursor, settled: Settled) -> Cursor:
    """Return what to remember of a look, now that it is settled."""
    if cursor.name in settled.doubted:
        # It stays published. No validators and no digest: whatever comes next is news.
        return Cursor(cursor.name, Known.PUBLISHED, looked_at=cursor.looked_at)
    reason = settled.refused.get(cursor.name)
    return cursor if reason is None else replace(cursor, known=Known.REFUSED, trouble=reason)


def _result(key: str, settled: Settled, gone: set[CrateName], unexamined: set[str]) -> Result:
    reason = settled.refused.get(key)
    if reason is not None:
        return Result(Kind.REFUSED, reason, settled.timestamp, denied=key in settled.denied)
    if key in unexamined:
        return NOT_EXAMINED
    if key in gone and key not in settled.doubted:
        return ABSENT
    return Result(Kind.PUBLISHED, "", settled.timestamp)


def _say(results: Mapping[str, Result], settled: Settled, seconds: float) -> None:
    """Log one line for what a person may care about; the rest is for who looks for something."""
    logger.debug("batch %d: %d subjects settled", settled.batch, len(results))
    fetched = [key for key, result in results.items() if result.kind is Kind.PUBLISHED]
    refused = [key for key, result in results.items() if result.kind is Kind.REFUSED]
    settled_text = "fetched %s%s, settled at %d (%.2f s)"
    for level, text, keys in (
        (logging.INFO, settled_text, [key for key in fetched if " " not in key]),
        # One for each crate of a build.
        (logging.DEBUG, settled_text, [key for key in fetched if " " in key]),
        (logging.INFO, "%s%s: refused by the signer at %d (%.2f s)", refused),
    ):
        if keys:
            more = f" and {len(keys) - 1:,} more" if len(keys) > 1 else ""
            logger.log(level, text, keys[0], more, settled.timestamp, seconds)
