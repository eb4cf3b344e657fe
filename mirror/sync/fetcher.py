"""Fetches names and crates, one upstream request each, and puts what came into the outbox.

What one want asked for travels as one bundle: it goes to the signer together, with the index files
that a build will ask for next.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from mirror.core import plan
from mirror.core.batch import Outcome
from mirror.core.index import IndexLimits, dependencies_of_newest, parse_index_file
from mirror.core.names import CrateId, CrateName
from mirror.core.plan import Cursor, Fetch, Fresh, Known
from mirror.errors import RejectedError, UpstreamError
from mirror.store.cursors import Cursors
from mirror.sync.flights import Flight, Flights, Remembered
from mirror.sync.following import Following
from mirror.sync.outbox import Outbox
from mirror.sync.upstream import IndexAnswer, Upstream
from mirror.sync.values import ABSENT, Kind, Life, Result

DEPENDENCIES_MAX = 64
BUNDLE_DEPENDENCIES_MAX = 2_000
BUNDLE_BYTES_MAX = 16_000_000
"""What a bundle holds in memory; beyond it, what is there goes ahead."""
AHEAD_MAX = 4_096
INCOMING = "incoming.tmp"
"""Folder in the spool for crates under way; its ending makes the next start clear it."""


@dataclass(frozen=True, slots=True)
class BroughtIndex:
    """What one look at an index file brought."""

    name: CrateName
    at: float
    answer: IndexAnswer


@dataclass(frozen=True, slots=True)
class BroughtCrate:
    """One crate's file, whole."""

    crate: CrateId
    file: Path
    length: int


@dataclass(slots=True)
class Bundle:
    """What one want asked for, collected until it is whole or its time is up."""

    ready: list[BroughtIndex | BroughtCrate] = field(default_factory=list)
    bytes: int = 0
    is_open: bool = True


@dataclass(frozen=True, slots=True)
class Parts:
    """What the fetcher works with."""

    life: Life
    upstream: Upstream
    cursors: Cursors
    outbox: Outbox
    flights: Flights
    remembered: Remembered
    following: Following
    tasks: asyncio.TaskGroup


class Ahead:
    """What names that came along will need in turn: a bounded table, each entry used once."""

    def __init__(self) -> None:
        self._names: dict[CrateName, list[CrateName]] = {}

    def put(self, name: CrateName, dependencies: list[CrateName]) -> None:
        """Remember; the oldest entry makes room."""
        if dependencies:
            self._names[name] = dependencies
            if len(self._names) > AHEAD_MAX:
                del self._names[next(iter(self._names))]

    def pop(self, name: CrateName) -> list[CrateName]:
        """Return what is remembered, once."""
        return self._names.pop(name, [])


class Fetcher:
    """All fetching of one process."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._config = parts.life.config
        self._clock = parts.life.clock
        self._pace = parts.life.pace
        self._began = self._clock()
        self._slots = asyncio.Semaphore(self._config.jobs)
        self._limits = IndexLimits(file_max_bytes=self._config.index_max_bytes)
        self._incoming = self._config.spool / INCOMING
        self._file_numbers = count()
        self._ahead = Ahead()
        self.looked = 0
        """How many looks upstream answered."""

    def open(self) -> None:
        """Make the folder for crates under way."""
        self._incoming.mkdir(parents=True, exist_ok=True)

    def lack_name(self, name: CrateName) -> Result | Fetch | Flight:
        """Say what to do about a name whose index file somebody lacks."""
        flight = self._parts.flights.get(name)
        if flight is not None:
            if flight.offered and not flight.urgent:
                # It waits among what a sweep found; somebody in front of it cannot.
                self._parts.outbox.hurry()
            flight.urgent = flight.lacking = True
            return flight
        if not self._parts.following.is_known:
            return Result(Kind.FAILED, "the names source is not read yet")
        cursor = self._parts.cursors.get(name)
        step = plan.plan_lacking(
            cursor,
            followed=self._parts.following.may_fetch(name),
            now=self._clock(),
            max_age=self._config.max_age,
            trusted_since=self._began,
        )
        match step:
            case Fetch():
                return self._parts.remembered.get(name) or step
            case Fresh():
                assert cursor is not None
                return _remembered_result(cursor, self._parts.outbox.timestamp)
        return ABSENT

    def see_name(self, name: CrateName) -> Fetch | float:
        """Say what to do about a held index file that was asked for, or how long it is fresh."""
        if self._parts.flights.get(name) is not None:
            return self._config.max_age
        step = plan.plan_seen(
            self._parts.cursors.get(name),
            followed=self._parts.following.may_fetch(name),
            now=self._clock(),
            max_age=self._config.max_age,
        )
        match step:
            case Fetch():
                return step
            case Fresh(seconds):
                return seconds
        return self._config.max_age

    async def bring(self, names: Mapping[CrateName, Fetch], crates: Sequence[CrateId]) -> None:
        """Fetch what one want asked for; its flights have begun.

        Dependencies come along for the names that somebody lacks.
        """
        bundle = Bundle()
        tasks = [self._collect_name(name, step, bundle) for name, step in names.items()]
        tasks += [self._collect_crate(crate, bundle) for crate in crates]
        await _wait(tasks, self._pace.gather)
        served = {name for name in names if self._is_lacked(name)}
        more = self._dependencies(bundle)
        for name in more:
            self._parts.flights.start(name, urgent=True, lacking=True)
        await _wait(
            [self._collect_name(name, Fetch(conditional=False), bundle) for name in more],
            self._pace.dependencies,
        )
        bundle.is_open = False
        unasked = [b for b in bundle.ready if isinstance(b, BroughtIndex) and b.name not in served]
        self._put_all(bundle)
        # Once the batch is on its way: what these will need, when somebody asks for them.
        for brought in unasked:
            if brought.answer.data:
                self._ahead.put(brought.name, self._unknown_dependencies(brought))

    def next_wave(self, seen: Sequence[CrateName]) -> dict[CrateName, Fetch]:
        """Return what builds of these, which came along for others, will ask for next.

        cargo asks for one or two at a time, we need not: each name that came along brings its own
        dependencies once somebody asks for it, behind the answer.
        """
        names = [dep for name in seen for dep in self._ahead.pop(name) if self._is_unknown(dep)]
        return dict.fromkeys(names[:BUNDLE_DEPENDENCIES_MAX], Fetch(conditional=False))

    def lack_crate(self, crate: CrateId) -> Result | Flight | None:
        """Say what is known of a crate that somebody lacks; None: it must be fetched."""
        flight = self._parts.flights.get(str(crate))
        if flight is not None:
            return flight
        if not self._parts.following.is_known:
            return Result(Kind.FAILED, "the names source is not read yet")
        if not self._parts.following.may_fetch(crate.canonical_name):
            return ABSENT
        return self._parts.remembered.get(str(crate))

    async def sweep(self, name: CrateName) -> tuple[Outcome, bool]:
        """Look at one name unasked; return what came, and whether it goes to the signer.

        Its flight has begun; a failure ends it.

        Raises:
            UpstreamError: no usable answer.
        """
        try:
            brought = await self._look(name, plan.plan_look(self._parts.cursors.get(name)))
        except UpstreamError as error:
            self._parts.flights.land(name, Result(Kind.FAILED, str(error)))
            raise
        self._put(brought)
        return brought.answer.outcome, self._parts.flights.get(name) is not None

    def _collect_name(self, name: CrateName, step: Fetch, bundle: Bundle) -> asyncio.Task[None]:
        return self._parts.tasks.create_task(self._bring_name(name, step, bundle))

    def _collect_crate(self, crate: CrateId, bundle: Bundle) -> asyncio.Task[None]:
        return self._parts.tasks.create_task(self._bring_crate(crate, bundle))

    async def _bring_name(self, name: CrateName, step: Fetch, bundle: Bundle) -> None:
        try:
            brought = await self._look(name, step)
        except UpstreamError as error:
            self._parts.flights.land(name, Result(Kind.FAILED, str(error)))
            return
        self._add(bundle, brought, len(brought.answer.data))

    async def _bring_crate(self, crate: CrateId, bundle: Bundle) -> None:
        key = str(crate)
        file = self._incoming / f"{next(self._file_numbers)}.crate"
        try:
            async with self._slots:
                length = await self._parts.upstream.fetch_crate(crate, file)
        except (UpstreamError, OSError) as error:
            file.unlink(missing_ok=True)
            self._parts.flights.land(key, Result(Kind.FAILED, str(error)))
            return
        if length is None:
            self._parts.flights.land(key, ABSENT)
            return
        self._add(bundle, BroughtCrate(crate, file, length), 0)

    async def _look(self, name: CrateName, step: Fetch) -> BroughtIndex:
        cursor = self._parts.cursors.get(name) if step.conditional else None
        async with self._slots:
            at = self._clock()
            if cursor is None:
                answer = await self._parts.upstream.fetch_index(name)
            else:
                answer = await self._parts.upstream.fetch_index(
                    name, cursor.etag, cursor.last_modified
                )
        self.looked += 1
        return BroughtIndex(name, at, answer)

    def _dependencies(self, bundle: Bundle) -> list[CrateName]:
        """Begin with the names that builds of what was lacked will ask for next."""
        names: dict[CrateName, None] = {}
        for brought in bundle.ready:
            if not isinstance(brought, BroughtIndex) or not brought.answer.data:
                continue
            if self._is_lacked(brought.name):
                names |= dict.fromkeys(self._unknown_dependencies(brought))
        return list(names)[:BUNDLE_DEPENDENCIES_MAX]

    def _is_lacked(self, name: CrateName) -> bool:
        flight = self._parts.flights.get(name)
        return flight is not None and flight.lacking

    def _unknown_dependencies(self, brought: BroughtIndex) -> list[CrateName]:
        try:
            file = parse_index_file(brought.name, brought.answer.data, self._limits)
        except RejectedError:
            return []  # The signer will say so.
        return [
            name
            for name in dependencies_of_newest(file, DEPENDENCIES_MAX)
            if self._is_unknown(name)
        ]

    def _is_unknown(self, name: CrateName) -> bool:
        parts = self._parts
        return (
            parts.following.may_fetch(name)
            and parts.flights.get(name) is None
            and parts.remembered.get(name) is None
            and ((cursor := parts.cursors.get(name)) is None or cursor.known is Known.UNKNOWN)
        )

    def _add(self, bundle: Bundle, brought: BroughtIndex | BroughtCrate, size: int) -> None:
        bundle.ready.append(brought)
        bundle.bytes += size
        if not bundle.is_open or bundle.bytes > BUNDLE_BYTES_MAX:
            self._put_all(bundle)

    def _put_all(self, bundle: Bundle) -> None:
        ready, bundle.ready, bundle.bytes = bundle.ready, [], 0
        for brought in ready:
            if isinstance(brought, BroughtIndex):
                self._put(brought)
        for brought in ready:
            if isinstance(brought, BroughtCrate):
                self._put_crate(brought)

    def _put_crate(self, brought: BroughtCrate) -> None:
        """Put a crate behind its index file, without which the signer cannot compare it."""
        flight = self._parts.flights.get(brought.crate.canonical_name)
        if flight is not None and not (flight.offered and flight.urgent):
            self._parts.tasks.create_task(self._put_crate_after(flight, brought))
            return
        result = self._refusal(brought, flight)
        if result is None:
            try:
                self._parts.outbox.add_crate(brought.crate, brought.file, brought.length)
            except OSError as error:
                result = Result(Kind.FAILED, f"spool: {error}")
        if result is not None:
            brought.file.unlink(missing_ok=True)
            self._parts.flights.land(str(brought.crate), result)

    async def _put_crate_after(self, flight: Flight, brought: BroughtCrate) -> None:
        await asyncio.wait([flight.future])
        self._put_crate(brought)

    def _refusal(self, brought: BroughtCrate, flight: Flight | None) -> Result | None:
        """Return what to answer for a crate whose index file is not to be had."""
        name = brought.crate.canonical_name
        cursor = self._parts.cursors.get(name)
        if flight is not None or (cursor is not None and cursor.known is Known.PUBLISHED):
            return None
        if cursor is not None and cursor.known is Known.REFUSED:
            # An earlier good version of the file may be published: the signer knows.
            return None
        return self._parts.remembered.get(name) or Result(
            Kind.FAILED, f"crate {brought.crate}: its index file could not be fetched"
        )

    def _put(self, brought: BroughtIndex) -> None:
        cursor = self._parts.cursors.get(brought.name) or Cursor(brought.name)
        flight = self._parts.flights.get(brought.name)
        lacking = flight is not None and flight.lacking
        urgent = flight is not None and flight.urgent
        try:
            match brought.answer.outcome:
                case Outcome.BYTES:
                    self._put_bytes(brought, cursor, lacking=lacking, urgent=urgent)
                case Outcome.UNCHANGED:
                    self._put_unchanged(brought, cursor, lacking=lacking)
                case Outcome.GONE:
                    self._put_gone(brought, cursor, urgent=urgent)
        except OSError as error:
            self._parts.flights.land(brought.name, Result(Kind.FAILED, f"spool: {error}"))

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
            self._note_offered(brought.name)
        else:
            self._land_unchanged(seen)

    def _put_unchanged(self, brought: BroughtIndex, cursor: Cursor, *, lacking: bool) -> None:
        if lacking:
            # Somebody who lacks the file joined a conditional look: the bytes are needed after all.
            bundle = Bundle(is_open=False)
            self._collect_name(brought.name, Fetch(conditional=False), bundle)
            return
        self._land_unchanged(replace(cursor, looked_at=brought.at, trouble=""))

    def _note_offered(self, name: CrateName) -> None:
        flight = self._parts.flights.get(name)
        if flight is not None:
            flight.offered = True

    def _land_unchanged(self, cursor: Cursor) -> None:
        self._parts.cursors.note(cursor)
        result = Result(Kind.UNCHANGED, timestamp=self._parts.outbox.timestamp)
        self._parts.flights.land(cursor.name, result)

    def _put_gone(self, brought: BroughtIndex, cursor: Cursor, *, urgent: bool) -> None:
        parts = self._parts
        gone = Cursor(brought.name, Known.ABSENT, looked_at=brought.at)
        held = cursor.known in (Known.PUBLISHED, Known.REFUSED)
        parts.remembered.put(brought.name, ABSENT, self._config.max_age)
        if held or (parts.following.whole_source and plan.is_worth_reporting_gone(cursor)):
            parts.outbox.add_gone(gone, urgent=urgent)
            self._note_offered(brought.name)
            return
        if parts.following.whole_source:
            parts.cursors.note(gone)
        parts.flights.land(brought.name, ABSENT)


async def _wait(tasks: Sequence[asyncio.Task[None]], seconds: float) -> None:
    if tasks:
        # Those that are late go on, and go ahead alone.
        await asyncio.wait(tasks, timeout=seconds)


def _remembered_result(cursor: Cursor, timestamp: int) -> Result:
    match cursor.known:
        case Known.REFUSED:
            return Result(Kind.REFUSED, cursor.trouble, timestamp)
        case Known.ABSENT:
            return ABSENT
    return Result(Kind.PUBLISHED, timestamp=timestamp)
