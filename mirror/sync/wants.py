"""Wants: what somebody asked `serve` for becomes fetches, and their ends become one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from mirror.core.names import CrateId, CrateName
from mirror.core.plan import Fetch
from mirror.seam import Want, WantAnswer
from mirror.sync.fetcher import Fetcher
from mirror.sync.flights import Flight
from mirror.sync.parts import Parts
from mirror.sync.values import Kind, Result

LOOK_BEHIND_RETRY = 30.0
"""After a look at a held file was begun, `serve` need not ask again for so many seconds."""


class Wants:
    """Answers the wants of one process."""

    def __init__(self, parts: Parts, fetcher: Fetcher) -> None:
        self._parts = parts
        self._config = parts.life.config
        self._fetcher = fetcher

    async def answer(self, want: Want) -> WantAnswer:
        """Fetch what is wanted; answer when all of it is settled, or when the time is up."""
        if self._config.offline:
            absent = (*want.names, *map(str, want.crates))
            return WantAnswer(absent=absent, fresh_seconds=self._config.max_age)
        waiting, results = self._begin(want)
        fresh_seconds = self._look_behind(want)
        if waiting:
            futures = {key: flight.future for key, flight in waiting.items()}
            # Beyond this `serve` has long told its client to come again.
            await asyncio.wait(futures.values(), timeout=2 * self._config.max_hold)
            for key, future in futures.items():
                results[key] = future.result() if future.done() else self._late(waiting[key])
        return _answer(results, self._parts.outbox.timestamp, fresh_seconds)

    def _begin(self, want: Want) -> tuple[dict[str, Flight], dict[str, Result]]:
        """Join or begin the flight of everything that is lacked."""
        waiting: dict[str, Flight] = {}
        results: dict[str, Result] = {}
        names: dict[CrateName, Fetch] = {}
        for name in dict.fromkeys(want.names):
            match self._fetcher.index_files.lack(name):
                case Result() as result:
                    results[name] = result
                case Flight() as flight:
                    waiting[name] = flight
                case Fetch() as step:
                    names[name] = step
                    waiting[name] = self._parts.flights.start(name, urgent=True, lacking=True)
        crates = self._begin_crates(want.crates, names, waiting, results)
        if names or crates:
            self._parts.tasks.create_task(self._fetcher.bring(names, crates))
        return waiting, results

    def _begin_crates(
        self,
        wanted: Iterable[CrateId],
        names: dict[CrateName, Fetch],
        waiting: dict[str, Flight],
        results: dict[str, Result],
    ) -> list[CrateId]:
        crates = []
        for crate in dict.fromkeys(wanted):
            known = self._fetcher.crates.lack(crate)
            if isinstance(known, Result):
                results[str(crate)] = known
                continue
            if known is None:
                known = self._parts.flights.start(str(crate), urgent=True, lacking=True)
                crates.append(crate)
                self._begin_index_of(crate, names)
            waiting[str(crate)] = known
        return crates

    def _begin_index_of(self, crate: CrateId, names: dict[CrateName, Fetch]) -> None:
        """Look at a crate's index file too where it is not held, or old."""
        name = crate.canonical_name
        step = self._fetcher.index_files.see(name)
        if name not in names and isinstance(step, Fetch):
            names[name] = step
            self._parts.flights.start(name, urgent=True, lacking=False)

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
