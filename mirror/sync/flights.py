"""What is being fetched right now, and what need not be asked again for a while.

One flight per name or crate, however many wait for it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mirror.sync.values import Kind, Result

REMEMBERED_MAX = 10_000


@dataclass(slots=True)
class Flight:
    """One fetch, from the question until the signer settled what came."""

    urgent: bool
    """Somebody asked for it; else a sweep did."""
    lacking: bool
    """Somebody lacks the file: "unchanged" is no answer."""
    offered: bool = False
    """What came is on its way to the signer."""
    future: asyncio.Future[Result] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Remembered:
    """Answers that hold for a while without asking; the oldest go when there are too many."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._answers: OrderedDict[str, tuple[float, Result]] = OrderedDict()

    def put(self, key: str, result: Result, seconds: float) -> None:
        """Remember an answer for so long."""
        self._answers.pop(key, None)
        self._answers[key] = (self._clock() + seconds, result)
        if len(self._answers) > REMEMBERED_MAX:
            self._answers.popitem(last=False)

    def get(self, key: str) -> Result | None:
        """Return the answer, while it holds."""
        until, result = self._answers.get(key, (0.0, None))
        return result if self._clock() < until else None


class Flights:
    """All flights, by name or `name version`."""

    def __init__(self, remembered: Remembered, *, crate_seconds: Mapping[Kind, float]) -> None:
        self._flights: dict[str, Flight] = {}
        self._remembered = remembered
        self._crate_seconds = crate_seconds
        self.refused: dict[str, str] = {}
        """What the signer refused since the last sweep began, with the reason."""

    def get(self, key: str) -> Flight | None:
        """Return the flight under way, if there is one."""
        return self._flights.get(key)

    def start(self, key: str, *, urgent: bool, lacking: bool) -> Flight:
        """Begin a flight; the caller sees to it that it lands."""
        flight = self._flights[key] = Flight(urgent, lacking)
        return flight

    def land(self, key: str, result: Result) -> None:
        """End a flight: everybody who waits hears the result."""
        if result.kind is Kind.REFUSED:
            self.refused[key] = result.reason
        # Names have cursors; crates have only this.
        if " " in key and result.kind in self._crate_seconds:
            self._remembered.put(key, result, self._crate_seconds[result.kind])
        flight = self._flights.pop(key, None)
        if flight is not None and not flight.future.done():
            flight.future.set_result(result)
