"""Group commit towards the signer: what was fetched, in batches, one outstanding at a time.

Two drafts are open at once. What somebody waits for goes into the urgent one, which leaves as soon
as the signer is free; what a sweep finds goes into the bulk one, which leaves when it is worth a
publication. So a want is delayed by one batch under way at most. Bytes go to disk as they come.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mirror.core.batch import Batch, FetchedCrate, Look, Outcome, Settled, Sweep
from mirror.core.names import CrateId
from mirror.core.plan import Cursor, Known
from mirror.errors import MalformedMessageError
from mirror.seam import SIGN_SOCKET, Offer, ask, parse_settled
from mirror.store.cursors import Cursors
from mirror.store.spool import (
    BatchWriter,
    clear_unfinished,
    drop_batch,
    open_batch,
    pending_batches,
)
from mirror.sync.values import ABSENT, Kind, Life, Result

logger = logging.getLogger(__name__)

# Large batches touch each bin once; small ones keep the signer busy while we fetch.
BULK_LOOKS_MIN = 8_000
BULK_LOOKS_MAX = 16_000
BULK_BYTES_MAX = 64_000_000
TIMESTAMP = "timestamp"
"""Fact in the cursors: the latest timestamp that the signer told of."""


class Draft:
    """One batch being filled."""

    def __init__(self, spool: Path, number: int, due_at: float) -> None:
        self.writer = BatchWriter(spool, number)
        self.due_at = due_at
        """When it is offered, however little is in it; time of the event loop."""
        self.looks: list[Look] = []
        self.cursors: list[Cursor] = []
        """What to remember of each look if the signer takes it."""
        self.crates: list[FetchedCrate] = []
        self.sweep: Sweep | None = None
        self.bytes = 0
        self.settled = asyncio.Event()
        """Set when it is done with, whatever became of it."""
        self.trouble = ""
        """Why nothing came of it."""

    @property
    def is_full(self) -> bool:
        """Whether a sweep has to wait."""
        return len(self.looks) >= BULK_LOOKS_MAX or self.bytes >= BULK_BYTES_MAX

    def subjects(self) -> list[str]:
        """Return the names and crates in it."""
        return [look.name for look in self.looks] + [str(item.crate) for item in self.crates]


@dataclass(frozen=True, slots=True)
class Ends:
    """Whom the outbox tells, and asks."""

    land: Callable[[str, Result], None]
    """Told the end of each name and crate that went in."""
    confirmed: Callable[[Sequence[Look], float], float | None]
    """The oldest successful look among the followed names, as this batch may say it now."""


class Outbox:
    """The way to the signer."""

    def __init__(self, life: Life, cursors: Cursors, ends: Ends) -> None:
        self._spool = life.config.spool
        self._socket = life.config.run / SIGN_SOCKET
        self._source = life.config.upstream
        self._clock = life.clock
        self._pace = life.pace
        self._cursors = cursors
        self._ends = ends
        self.timestamp = 0
        """The latest timestamp the signer told of."""
        self.signer_silence = ""
        """Why the signer does not answer; empty when it does."""
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

    def add_crate(self, crate: CrateId, file: Path, length: int) -> None:
        """Offer a crate; its file is moved into the batch."""
        draft = self._draft(urgent=True)
        name = f"{len(draft.crates)}.crate"
        draft.crates.append(FetchedCrate(crate, name, length))
        try:
            file.rename(draft.writer.folder / name)
        except OSError as error:
            file.unlink(missing_ok=True)
            self._abandon(draft, error)
        self._note_added()

    async def room(self) -> None:
        """Return when a sweep may add more."""
        await self._room.wait()

    def hurry(self) -> None:
        """Offer the bulk draft soon: somebody waits for something in it."""
        if self._bulk is not None:
            self._bulk.due_at = 0.0
        self._changed.set()

    async def drain(self) -> None:
        """Return when everything that was added so far is settled."""
        self.hurry()
        for draft in (self._outstanding, self._urgent, self._bulk):
            if draft is not None:
                await draft.settled.wait()

    async def offer_notice(self, sweep: Sweep | None) -> None:
        """Offer a batch without bytes: the end of a sweep, or that upstream was looked at.

        Raises:
            OSError: it was not said, and has to be said later.
        """
        draft = self._new_draft()
        draft.sweep = sweep
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
        self._bulk = self._bulk or self._new_draft()
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
        self._end_without(draft, f"spool: {error.strerror or error}")

    def _end_without(self, draft: Draft, trouble: str) -> None:
        """End a draft of which nothing is signed and nothing is remembered."""
        draft.trouble = trouble
        for key in draft.subjects():
            self._ends.land(key, Result(Kind.FAILED, trouble))
        draft.settled.set()

    async def _next(self) -> Draft:
        while True:
            draft = self._take()
            if draft is not None:
                self._outstanding = draft
                return draft
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._changed.wait()

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

    @staticmethod
    def _is_due(bulk: Draft) -> bool:
        return bulk.is_full or asyncio.get_running_loop().time() >= bulk.due_at

    async def _settle(self, draft: Draft) -> None:
        began = asyncio.get_running_loop().time()
        number = draft.writer.number
        try:
            draft.writer.finish(self._batch(draft))
        except OSError as error:
            self._abandon(draft, error)
            return
        settled = await self._offer(number)
        taken = self._remember(draft.cursors, settled)
        drop_batch(self._spool, number)
        if not taken:
            self._end_without(draft, settled.refused_whole)
            return
        self.confirmed_at = self._clock()
        gone = {look.name for look in draft.looks if look.outcome is Outcome.GONE}
        for key in draft.subjects():
            self._ends.land(key, _result(key, settled, is_gone=key in gone))
        draft.settled.set()
        logger.info(
            "batch %d: %d index files, %d crates settled at timestamp %d in %.2f s, %d refused",
            number,
            len(draft.looks),
            len(draft.crates),
            settled.timestamp,
            asyncio.get_running_loop().time() - began,
            len(settled.refused),
        )

    def _batch(self, draft: Draft) -> Batch:
        try:
            confirmed = self._ends.confirmed(draft.looks, self._clock())
        except OSError as error:
            logger.warning("%s; what upstream confirmed is said later", error)
            confirmed = None
        return Batch(
            draft.writer.number,
            self._source,
            tuple(draft.looks),
            tuple(draft.crates),
            draft.sweep,
            confirmed,
        )

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
        self._cursors.put(_after(cursor, settled) for cursor in cursors)
        before = int(self._cursors.fact(TIMESTAMP) or 0)
        self._cursors.set_fact(TIMESTAMP, str(max(before, settled.timestamp)))
        return True

    async def _settle_leftover(self, number: int) -> None:
        try:
            with open_batch(self._spool, number) as reader:
                looks = reader.batch.looks
        except (MalformedMessageError, OSError) as error:
            logger.warning("batch %d: %s; dropped, it is fetched again", number, error)
            drop_batch(self._spool, number)
            return
        settled = await self._offer(number)
        cursors = [_cursor(look) for look in looks if look.outcome is not Outcome.UNCHANGED]
        if self._remember(cursors, settled):
            logger.info("batch %d, left by an earlier process: settled", number)
        drop_batch(self._spool, number)

    async def _offer(self, number: int) -> Settled:
        """Offer until the signer answers; the batch stays where it is meanwhile."""
        while True:
            try:
                async with asyncio.timeout(self._pace.offer):
                    settled = parse_settled(await ask(self._socket, Offer(number)))
                if settled.batch == number:
                    break
                problem = f"it answered about batch {settled.batch}"
            except TimeoutError:
                # To offer twice is harmless: the second time nothing is left to be done.
                problem = f"no answer within {self._pace.offer:g} s"
            except (OSError, MalformedMessageError, ValueError, TypeError) as error:
                problem = str(error) or type(error).__name__
            if not self.signer_silence:
                logger.warning(
                    "the signer does not take batch %d: %s; offered again every %g s",
                    number,
                    problem,
                    self._pace.signer_retry,
                )
            self.signer_silence = problem
            await asyncio.sleep(self._pace.signer_retry)
        if self.signer_silence:
            logger.warning("the signer is back and took batch %d", number)
            self.signer_silence = ""
        return settled


def _cursor(look: Look) -> Cursor:
    known = Known.ABSENT if look.outcome is Outcome.GONE else Known.PUBLISHED
    return Cursor(look.name, known, look.sha256, looked_at=look.at)


def _after(cursor: Cursor, settled: Settled) -> Cursor:
    reason = settled.refused.get(cursor.name)
    return cursor if reason is None else replace(cursor, known=Known.REFUSED, trouble=reason)


def _result(key: str, settled: Settled, *, is_gone: bool) -> Result:
    reason = settled.refused.get(key)
    if reason is not None:
        return Result(Kind.REFUSED, reason, settled.timestamp)
    if is_gone:
        return ABSENT
    return Result(Kind.PUBLISHED, "", settled.timestamp)
