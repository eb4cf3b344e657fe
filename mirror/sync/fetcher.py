"""Fetches what one want asked for, one upstream request each, and puts what came into the outbox.

It travels as one bundle: it goes to the signer together, with the index files that a build will
ask for next. Each fetch is a task of its own, and nothing about one ends another or the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from mirror.core import plan
from mirror.core.batch import Outcome
from mirror.core.index import IndexLimits, dependencies_of_newest, parse_index_file
from mirror.core.names import CrateId, CrateName
from mirror.core.plan import Fetch
from mirror.errors import RejectedError, UpstreamError
from mirror.sync.ahead import Ahead
from mirror.sync.crates import Crates
from mirror.sync.index_files import IndexFiles
from mirror.sync.parts import BroughtCrate, BroughtIndex, Bundle, Parts
from mirror.sync.slots import Turn

DEPENDENCIES_MAX = 64
BUNDLE_DEPENDENCIES_MAX = 2_000
BUNDLE_BYTES_MAX = 16_000_000
"""What a bundle holds in memory; beyond it, what is there goes ahead."""


class Fetcher:
    """All fetching of one process."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._pace = parts.life.pace
        self._limits = IndexLimits(file_max_bytes=parts.life.config.index_max_bytes)
        self._ahead = Ahead()
        self.index_files = IndexFiles(parts)
        self.crates = Crates(parts)

    async def bring(self, names: Mapping[CrateName, Fetch], crates: Sequence[CrateId]) -> None:
        """Fetch what one want asked for; its flights have begun.

        Dependencies come along for the names that somebody lacks.
        """
        bundle = Bundle()
        with suppress(UpstreamError), self._parts.flights.fetching():
            await self._collect(names, crates, bundle)
        bundle.is_open = False
        unasked = [
            brought
            for brought in bundle.ready
            if isinstance(brought, BroughtIndex) and brought.name not in bundle.served
        ]
        self._put_all(bundle)
        # Once the batch is on its way: what these will need, when somebody asks for them.
        with suppress(UpstreamError), self._parts.flights.fetching():
            for brought in unasked:
                if brought.answer.data:
                    self._ahead.put(brought.name, self._unknown_dependencies(brought))

    async def sweep(
        self, name: CrateName, turn: Turn, hold: Callable[[BroughtIndex], None]
    ) -> tuple[Outcome, bool]:
        """Look at one name unasked; return what came, and whether it goes to the signer.

        Its flight has begun; a failure ends it. `hold` is told of a loss, in place of the signer.

        Raises:
            UpstreamError: no usable answer.
        """
        with self._parts.flights.fetching(name):
            step = plan.plan_look(self._parts.cursors.get(name))
            flight = self._parts.flights.get(name)
            if flight is not None and flight.lacking:
                step = Fetch(conditional=False)
            brought = await self.index_files.look(name, step, turn)
            if self.index_files.is_loss(brought):
                hold(brought)
            else:
                self.index_files.put(brought)
        return brought.answer.outcome, self._parts.flights.get(name) is not None

    async def sweep_crate(self, crate: CrateId, turn: Turn) -> None:
        """Fetch one crate that nobody waits for; its flight has begun, and tells its end.

        Raises:
            UpstreamError: no usable answer.
        """
        with self._parts.flights.fetching(str(crate)):
            brought = await self.crates.fetch(crate, turn)
            if brought is None:
                self._parts.flights.land(str(crate), self._parts.retrying.absence(crate))
            else:
                self.crates.put(brought)

    def next_wave(self, seen: Sequence[CrateName]) -> dict[CrateName, Fetch]:
        """Return what builds of these, which came along for others, will ask for next.

        cargo asks for one or two at a time, we need not: each name that came along brings its own
        dependencies once somebody asks for it, behind the answer.
        """
        is_unknown = self.index_files.is_unknown
        names = [dep for name in seen for dep in self._ahead.pop(name) if is_unknown(dep)]
        return dict.fromkeys(names[:BUNDLE_DEPENDENCIES_MAX], Fetch(conditional=False))

    async def _collect(
        self, names: Mapping[CrateName, Fetch], crates: Sequence[CrateId], bundle: Bundle
    ) -> None:
        """Fill the bundle until it is whole or its time is up; each fetch is a task of its own."""
        spawn = self._parts.tasks.create_task
        tasks = [spawn(self._bring_name(name, step, bundle)) for name, step in names.items()]
        tasks += [spawn(self._bring_crate(crate, bundle)) for crate in crates]
        await _wait(tasks, self._pace.gather)
        bundle.served.update(name for name in names if self._is_lacked(name))
        more = self._dependencies(bundle)
        for name in more:
            self._parts.flights.start(name, urgent=True, lacking=True)
        step = Fetch(conditional=False)
        await _wait(
            [spawn(self._bring_name(name, step, bundle)) for name in more],
            self._pace.dependencies,
        )

    async def _bring_name(self, name: CrateName, step: Fetch, bundle: Bundle) -> None:
        with suppress(UpstreamError), self._parts.flights.fetching(name):
            brought = await self.index_files.look(name, step)
            self._add(bundle, brought, len(brought.answer.data))

    async def _bring_crate(self, crate: CrateId, bundle: Bundle) -> None:
        with suppress(UpstreamError), self._parts.flights.fetching(str(crate)):
            brought = await self.crates.fetch(crate)
            if brought is None:
                self._parts.flights.land(str(crate), self._parts.retrying.absence(crate))
            else:
                self._add(bundle, brought, 0)

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
        names = dependencies_of_newest(file, DEPENDENCIES_MAX)
        return [name for name in names if self.index_files.is_unknown(name)]

    def _add(self, bundle: Bundle, brought: BroughtIndex | BroughtCrate, size: int) -> None:
        bundle.ready.append(brought)
        bundle.bytes += size
        if not bundle.is_open or bundle.bytes > BUNDLE_BYTES_MAX:
            self._put_all(bundle)

    def _put_all(self, bundle: Bundle) -> None:
        for brought in bundle.take():
            if isinstance(brought, BroughtIndex):
                with suppress(UpstreamError), self._parts.flights.fetching(brought.name):
                    self.index_files.put(brought)
            else:
                with suppress(UpstreamError), self._parts.flights.fetching(str(brought.crate)):
                    self.crates.put(brought)


async def _wait(tasks: Sequence[asyncio.Task[None]], seconds: float) -> None:
    if tasks:
        # Those that are late go on, and go ahead alone.
        await asyncio.wait(tasks, timeout=seconds)
