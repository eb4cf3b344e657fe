"""Wants: what somebody asked `serve` for becomes fetches, and their ends become one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mirror.core.names import CrateId, CrateName
from mirror.core.plan import Fetch
from mirror.seam import Want, WantAnswer
from mirror.sync.budgets import Budgets
from mirror.sync.fetcher import Fetcher
from mirror.sync.flights import Flight
from mirror.sync.parts import Parts
from mirror.sync.values import Kind, Result

LOOK_BEHIND_RETRY = 30.0
"""After a look at a held file was begun, `serve` need not ask again for so many seconds."""


@dataclass(slots=True)
class _Begun:
    """What one want led to, so far."""

    client: str
    waiting: dict[str, Flight] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)
    names: dict[CrateName, Fetch] = field(default_factory=dict)
    crates: list[CrateId] = field(default_factory=list)
    over_budget: list[str] = field(default_factory=list)


class Wants:
    """Answers the wants of one process."""

    def __init__(self, parts: Parts, fetcher: Fetcher) -> None:
        self._parts = parts
        self._config = parts.life.config
        self._fetcher = fetcher
        self._budgets = Budgets(self._config.names_per_client, parts.life.clock)

    async def answer(self, want: Want) -> WantAnswer:
        """Fetch what is wanted; answer when all of it is settled, or when the time is up."""
        if self._config.offline:
            absent = (*want.names, *map(str, want.crates))
            return WantAnswer(absent=absent, fresh_seconds=self._config.max_age)
        begun = self._begin(want)
        fresh_seconds = self._look_behind(want)
        if begun.waiting:
            futures = {key: flight.future for key, flight in begun.waiting.items()}
            # Beyond this `serve` has long told its client to come again.
            await asyncio.wait(futures.values(), timeout=2 * self._config.max_hold)
            for key, future in futures.items():
                late = begun.waiting[key]
                begun.results[key] = future.result() if future.done() else self._late(late)
        answer = _answer(begun.results, self._parts.outbox.timestamp, fresh_seconds)
        return replace(answer, over_budget=tuple(begun.over_budget))

    def _begin(self, want: Want) -> _Begun:
        """Join or begin the flight of everything that is lacked."""
        begun = _Begun(want.client)
        for name in dict.fromkeys(want.names):
            match self._fetcher.index_files.lack(name):
                case Result() as result:
                    begun.results[name] = result
                case Flight() as flight:
                    begun.waiting[name] = flight
                case Fetch() as step:
                    self._begin_name(name, step, begun)
        for crate in dict.fromkeys(want.crates):
            self._begin_crate(crate, begun)
        if begun.names or begun.crates:
            self._parts.tasks.create_task(self._fetcher.bring(begun.names, begun.crates))
        return begun

    def _begin_name(self, name: CrateName, step: Fetch, begun: _Begun) -> None:
        if not self._may_ask(name, begun):
            begun.over_budget.append(name)
            return
        begun.names[name] = step
        begun.waiting[name] = self._parts.flights.start(
            name, urgent=True, lacking=True, wanted=True
        )

    def _begin_crate(self, crate: CrateId, begun: _Begun) -> None:
        key = str(crate)
        known = self._fetcher.crates.lack(crate)
        if isinstance(known, Result):
            begun.results[key] = known
            return
        if known is None:
            if not self._begin_index_of(crate, begun):
                begun.over_budget.append(key)
                return
            known = self._parts.flights.start(key, urgent=True, lacking=True, wanted=True)
            begun.crates.append(crate)
        begun.waiting[key] = known

    def _begin_index_of(self, crate: CrateId, begun: _Begun) -> bool:
        """Look at a crate's index file too where it is not held, or old; False: over budget."""
        name = crate.canonical_name
        step = self._fetcher.index_files.see(name)
        if name not in begun.names and isinstance(step, Fetch):
            if not self._may_ask(name, begun):
                return False
            begun.names[name] = step
            self._parts.flights.start(name, urgent=True, lacking=False)
        return True

    def _may_ask(self, name: CrateName, begun: _Begun) -> bool:
        """Whether this client may still lead to a request for a name that nobody asked for yet."""
        if not self._fetcher.index_files.is_first_time(name):
            return True
        return name not in begun.over_budget and self._budgets.spend(begun.client)

    def _look_behind(self, want: Want) -> float:
        """Begin looks at what is held and old; return for how long nobody need ask again."""
        seconds = self._config.max_age
        names: dict[CrateName, Fetch] = {}
        for name in want.seen:
            match self._fetcher.index_files.see(name):
                case Fetch() as step:
                    names[name] = step
                    self._parts.flights.start(name, urgent=True, lacking=False)
                    seconds = min(seconds, LOOK_BEHIND_RETRY)
                case float() as fresh:
                    seconds = min(seconds, fresh)
        for name, step in self._fetcher.next_wave(want.seen).items():
            names[name] = step
            self._parts.flights.start(name, urgent=True, lacking=False)
        if names:
            self._parts.tasks.create_task(self._fetcher.bring(names, []))
        return seconds

    def _late(self, flight: Flight) -> Result:
        if self._parts.outbox.signer_silence:
            reason = f"the signer does not answer: {self._parts.outbox.signer_silence}"
        elif flight.offered:
            reason = "fetched, and not signed yet; ask again"
        else:
            reason = "still being fetched; ask again"
        return Result(Kind.FAILED, reason)


def _answer(results: Mapping[str, Result], timestamp: int, fresh_seconds: float) -> WantAnswer:
    def of(kind: Kind) -> dict[str, str]:
        return {key: result.reason for key, result in results.items() if result.kind is kind}

    return WantAnswer(
        timestamp=max([timestamp, *(result.timestamp for result in results.values())]),
        absent=tuple(of(Kind.ABSENT)),
        refused=of(Kind.REFUSED),
        failed=of(Kind.FAILED),
        fresh_seconds=fresh_seconds,
    )
