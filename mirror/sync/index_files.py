"""Index files: what to do about a name, one look at it, and where what came goes."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace

from mirror.core import plan
from mirror.core.batch import Outcome
from mirror.core.names import CrateName
from mirror.core.plan import Cursor, Fetch, Fresh, Known
from mirror.errors import UpstreamError
from mirror.sync.flights import Flight
from mirror.sync.parts import BroughtIndex, Parts
from mirror.sync.slots import Turn
from mirror.sync.values import ABSENT, NOT_READ, Kind, Result


class IndexFiles:
    """All looks at index files of one process."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._clock = parts.life.clock
        self._max_age = parts.life.config.max_age
        self._began = self._clock()
        self.looked = 0
        """How many looks upstream answered."""

    def lack(self, name: CrateName) -> Result | Fetch | Flight:
        """Say what to do about a name whose index file somebody lacks."""
        flight = self._parts.flights.get(name)
        if flight is not None:
            if flight.offered and not flight.urgent:
                # It waits among what a sweep found; somebody in front of it cannot.
                self._parts.outbox.hurry()
            flight.urgent = flight.lacking = flight.wanted = True
            return flight
        if not self._parts.following.is_known:
            return NOT_READ
        cursor = self._parts.cursors.get(name)
        is_refused = cursor is not None and cursor.known is Known.REFUSED
        step = plan.plan_lacking(
            cursor,
            followed=self._parts.following.may_fetch(name),
            now=self._clock(),
            max_age=self._max_age,
            trusted_since=self._parts.remembered.refusals_since if is_refused else self._began,
        )
        match step:
            case Fetch():
                known = self._parts.remembered.get(name)
                if known is None and self._parts.upstream.contact.is_down:
                    # An outage must not turn "no such crate" into a wait for each build.
                    known = self._parts.remembered.last(name)
                return known or step
            case Fresh():
                assert cursor is not None
                return _remembered_result(cursor, self._parts.outbox.timestamp)
        return ABSENT

    def see(self, name: CrateName) -> Fetch | float:
        """Say what to do about a held index file that was asked for, or how long it is fresh."""
        if self._parts.flights.get(name) is not None:
            return self._max_age
        step = plan.plan_seen(
            self._parts.cursors.get(name),
            followed=self._parts.following.may_fetch(name),
            now=self._clock(),
            max_age=self._max_age,
        )
        match step:
            case Fetch():
                return step
            case Fresh(seconds):
                return seconds
        return self._max_age

    def is_unknown(self, name: CrateName) -> bool:
        """Whether nothing is held or known of a name that upstream may be asked for."""
        parts = self._parts
        return (
            parts.following.may_fetch(name)
            and parts.flights.get(name) is None
            and parts.remembered.get(name) is None
            and ((cursor := parts.cursors.get(name)) is None or cursor.known is Known.UNKNOWN)
        )

    def is_first_time(self, name: CrateName) -> bool:
        """Whether nobody asked for this name before, as far as we remember."""
        cursor = self._parts.cursors.get(name)
        return cursor is None or cursor.known is Known.UNKNOWN

    async def look(self, name: CrateName, step: Fetch, turn: Turn | None = None) -> BroughtIndex:
        """Ask upstream; `turn`: the caller has waited for one already.

        Raises:
            UpstreamError: no usable answer.
        """
        cursor = self._parts.cursors.get(name) if step.conditional else None
        # Before the wait for a slot: a look is never younger than it says.
        at = self._clock()
        validators = ("", "") if cursor is None else (cursor.etag, cursor.last_modified)
        answer = await self._parts.upstream.fetch_index(name, *validators, turn=turn)
        self.looked += 1
        return BroughtIndex(name, at, answer)

    def put(self, brought: BroughtIndex) -> None:
        """Offer what a look brought, where it is news; else its flight ends.

        Raises:
            OSError: the spool does not take it.
        """
        cursor = self._parts.cursors.get(brought.name) or Cursor(brought.name)
        flight = self._parts.flights.get(brought.name)
        lacking = flight is not None and flight.lacking
        urgent = flight is not None and flight.urgent
        match brought.answer.outcome:
            case Outcome.BYTES:
                self._put_bytes(brought, cursor, lacking=lacking, urgent=urgent)
            case Outcome.UNCHANGED:
                self._put_unchanged(brought, cursor, lacking=lacking)
            case Outcome.GONE:
                self._put_gone(brought, cursor, urgent=urgent)

    def _put_bytes(
        self, brought: BroughtIndex, cursor: Cursor, *, lacking: bool, urgent: bool
    ) -> None:
        answer = brought.answer
        seen = Cursor(
            brought.name,
            Known.PUBLISHED,
            hashlib.sha256(answer.data).hexdigest(),
            answer.etag,
            answer.last_modified,
            brought.at,
        )
        if lacking or plan.is_news(cursor, seen.sha256):
            self._parts.outbox.add_index(seen, answer.data, urgent=urgent)
            self._parts.flights.note_offered(brought.name)
        else:
            self._land_unchanged(seen)

    def _put_unchanged(self, brought: BroughtIndex, cursor: Cursor, *, lacking: bool) -> None:
        if lacking:
            # Somebody who lacks the file joined a conditional look: the bytes are needed after all.
            self._parts.tasks.create_task(self._bring_bytes(brought.name))
            return
        self._land_unchanged(replace(cursor, looked_at=brought.at, trouble=""))

    async def _bring_bytes(self, name: CrateName) -> None:
        with suppress(UpstreamError), self._parts.flights.fetching(name):
            self.put(await self.look(name, Fetch(conditional=False)))

    def _land_unchanged(self, cursor: Cursor) -> None:
        self._parts.cursors.note(cursor)
        result = Result(Kind.UNCHANGED, timestamp=self._parts.outbox.timestamp)
        self._parts.flights.land(cursor.name, result)

    def is_loss(self, brought: BroughtIndex) -> bool:
        """Whether upstream has no such file any more, and it is held."""
        if brought.answer.outcome is not Outcome.GONE:
            return False
        cursor = self._parts.cursors.get(brought.name)
        return cursor is not None and cursor.known in (Known.PUBLISHED, Known.REFUSED)

    def _put_gone(self, brought: BroughtIndex, cursor: Cursor, *, urgent: bool) -> None:
        parts = self._parts
        gone = Cursor(brought.name, Known.ABSENT, looked_at=brought.at)
        is_news = parts.following.whole_source and plan.is_worth_reporting_gone(cursor)
        if is_news or self.is_loss(brought):
            parts.outbox.add_gone(gone, urgent=urgent)
            parts.flights.note_offered(brought.name)
            return
        if parts.following.whole_source or cursor.known is Known.ABSENT:
            parts.cursors.note(gone)
        parts.flights.land(brought.name, ABSENT)


def _remembered_result(cursor: Cursor, timestamp: int) -> Result:
    match cursor.known:
        case Known.REFUSED:
            return Result(Kind.REFUSED, cursor.trouble, timestamp)
        case Known.ABSENT:
            return ABSENT
    return Result(Kind.PUBLISHED, timestamp=timestamp)
