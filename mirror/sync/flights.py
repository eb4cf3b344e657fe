"""What is being fetched right now, and what need not be asked again for a while.

One flight per name or crate, however many wait for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from mirror.core.plan import seconds_left
from mirror.errors import UpstreamError, UpstreamUnreachableError
from mirror.sync.values import Kind, Result

logger = logging.getLogger(__name__)

REMEMBERED_MAX = 10_000
DISK, MISTAKE = "without room on our disk", "after a mistake of ours"
"""Behind a number, in reports."""


@dataclass(slots=True)
class Flight:
    """One fetch, from the question until the signer settled what came."""

    urgent: bool
    """Somebody asked for it; else a sweep did."""
    lacking: bool
    """Somebody lacks the file: "unchanged" is no answer."""
    wanted: bool = False
    """Somebody asked for it by name: if it fails, it is tried again by itself."""
    offered: bool = False
    """What came is on its way to the signer."""
    sent: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once what came is on its way to the signer, or nothing will be."""
    future: asyncio.Future[Result] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Remembered:
    """Answers that hold for a while without asking; the oldest go when there are too many."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._answers: OrderedDict[str, tuple[float, float, Result]] = OrderedDict()
        self.refusals_since = clock()
        """A refusal before this says nothing any more."""

    def put(self, key: str, result: Result, seconds: float) -> None:
        """Remember an answer for so long."""
        self._answers.pop(key, None)
        self._answers[key] = (self._clock(), seconds, result)
        if len(self._answers) > REMEMBERED_MAX:
            self._answers.popitem(last=False)

    def get(self, key: str) -> Result | None:
        """Return the answer, while it holds."""
        since, seconds, result = self._answers.get(key, (0.0, 0.0, None))
        return result if seconds_left(since, seconds, now=self._clock()) > 0 else None

    def last(self, key: str) -> Result | None:
        """Return the last answer, also where it holds no longer: for when nobody can be asked."""
        return self._answers.get(key, (0.0, 0.0, None))[2]

    def is_denied(self, key: str) -> bool:
        """Whether the operator denies it, as the signer said not long ago."""
        result = self.get(key)
        return result is not None and result.denied

    def forget_refusals(self) -> None:
        """Ask again for everything that was refused: the operator decided something."""
        self.refusals_since = self._clock()
        refused = [key for key, kept in self._answers.items() if kept[2].kind is Kind.REFUSED]
        for key in refused:
            del self._answers[key]


class Flights:
    """All flights, by name or `name version`."""

    def __init__(
        self,
        remembered: Remembered,
        *,
        name_seconds: Mapping[Kind, float],
        crate_seconds: Mapping[Kind, float],
        landed: Callable[[str, Result, bool], None],
    ) -> None:
        self._flights: dict[str, Flight] = {}
        self._remembered = remembered
        self._name_seconds = name_seconds
        self._crate_seconds = crate_seconds
        self._landed = landed
        """Told each end, and whether somebody had asked for it by name."""
        self.refused: dict[str, str] = {}
        """What the signer refused since the last sweep began, with the reason."""

    def get(self, key: str) -> Flight | None:
        """Return the flight under way, if there is one."""
        return self._flights.get(key)

    def start(self, key: str, *, urgent: bool, lacking: bool, wanted: bool = False) -> Flight:
        """Begin a flight; the caller sees to it that it lands."""
        flight = self._flights[key] = Flight(urgent, lacking, wanted)
        return flight

    def note_offered(self, key: str) -> None:
        """Take note that what came is on its way to the signer."""
        flight = self._flights.get(key)
        if flight is not None:
            flight.offered = True
            flight.sent.set()

    def land(self, key: str, result: Result) -> None:
        """End a flight: everybody who waits hears the result."""
        if result.kind is Kind.REFUSED and not result.denied:
            self.refused[key] = result.reason
        # Most names have cursors; crates have only this.
        seconds = self._crate_seconds if " " in key else self._name_seconds
        holds = seconds.get(result.kind, result.holds_seconds)
        if holds:
            self._remembered.put(key, result, holds)
        flight = self._flights.pop(key, None)
        self._landed(key, result, flight is not None and flight.wanted)
        if flight is not None:
            flight.sent.set()
            if not flight.future.done():
                flight.future.set_result(result)

    @contextmanager
    def fetching(self, *keys: str) -> Iterator[None]:
        """Stand around one fetch and what becomes of it: a failure ends the flights of its keys.

        Raises:
            UpstreamError: in place of whatever went wrong, so that nothing about one fetch, be it
                our own mistake, ends the process.
        """
        try:
            yield
        except UpstreamError as error:
            unreachable = isinstance(error, UpstreamUnreachableError)
            self._fail(keys, str(error), error.short, unreachable=unreachable)
            raise
        except OSError as error:
            text = f"disk: {error.strerror or error}"
            self._fail(keys, text, DISK)
            raise UpstreamError(f"{', '.join(keys)}: {text}", DISK) from error
        except Exception as error:
            logger.exception("fetch of %s: an error that nobody foresaw", ", ".join(keys) or "many")
            text = f"a mistake of ours: {type(error).__name__}"
            self._fail(keys, text, MISTAKE)
            raise UpstreamError(f"{', '.join(keys)}: {text}", MISTAKE) from error

    def _fail(
        self, keys: tuple[str, ...], reason: str, short: str, *, unreachable: bool = False
    ) -> None:
        for key in keys:
            self.land(key, Result(Kind.FAILED, reason, short=short, unreachable=unreachable))
