"""The counter of one run, between its pure rules (core/numbers.py), the disk and the clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tuf_repo.core.numbers import Counter, Reservation, start
from tuf_repo.core.roles import Policy
from tuf_repo.core.times import to_text
from tuf_repo.errors import ClockError
from tuf_repo.storage import Storage


@dataclass(frozen=True, slots=True)
class Known:
    """What a start knows of the past."""

    highest: int
    """No number above this is known to have been used."""
    last_signature: int | None
    """When the last signature was made that we know of; None before the first."""


class NumberSource:
    """Hands out numbers that were reserved durably, not too fast, and not before their time."""

    def __init__(
        self,
        storage: Storage,
        counter: Counter,
        last_signature: float,
        policy: Policy,
        wait: Callable[[float], object],
    ) -> None:
        self._storage = storage
        self._counter = counter
        self._last_signature = last_signature
        self._policy = policy
        self._wait = wait

    def ready(self, now: float) -> float:
        """Return `now`, or the last signature's time after waiting for it.

        Raises:
            ClockError: that would take too long.
        """
        now = _after(self._last_signature, now, self._policy, self._wait)
        self._last_signature = now
        return now

    def take(self, count: int, now: float) -> tuple[Iterator[int], float]:
        """Return `count` numbers, and the time after waiting for them.

        Raises:
            CounterError: the numbers are used up.
            OSError: the disk; none were handed out.
        """
        delay = self._counter.delay(count, now)
        if delay > 0:
            self._wait(delay)
            now += delay
        if self._counter.lacks(count):
            counter = self._counter.reserved(count, self._policy.block)
            self._storage.write_reservation(Reservation(counter.reserved_below, int(now)))
            self._counter = counter
        taken, self._counter = self._counter.taken(count, now)
        self._last_signature = now
        return iter(taken), now

    def jump(self, beyond: int) -> None:
        """Go on beyond a number that somebody else may have reached, and far beyond it.

        Raises:
            CounterError: no numbers are left there.
        """
        self._counter = self._counter.beyond(beyond)


def start_numbers(  # noqa: PLR0913 - what comes from outside is an argument, each by its name
    storage: Storage,
    known: Known,
    *,
    now: float,
    policy: Policy,
    entropy: int,
    wait: Callable[[float], object],
) -> NumberSource:
    """Start beyond all that may have been used: as known, as reserved, as any file is named.

    Raises:
        ClockError: the clock stands before the last signature.
        CounterError: the counter's file does not read, or the entropy is none.
    """
    highest, last = known.highest, known.last_signature
    reservation = storage.read_reservation()
    if reservation:
        highest, last = max(highest, reservation.below - 1), max(last or 0, reservation.at)
    now = _after(last or 0, now, policy, wait)
    counter = start(max(highest, storage.highest_number()), last, now, entropy)
    return NumberSource(storage, counter, last or 0, policy, wait)


def _after(last: float, now: float, policy: Policy, wait: Callable[[float], object]) -> float:
    if now >= last:
        return now
    if last - now > policy.clock_patience_seconds:
        raise ClockError("clock", f"a time after the last signature, {to_text(last)}", to_text(now))
    wait(last - now)
    return last
