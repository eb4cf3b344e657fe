"""The one counter: every number that an online signature uses comes from here, once.

Two files of one number would let a host without keys answer one bin with another. So a number is
reserved durably before it is used, what is dropped stays used, and a new start jumps over all that
a lost history can have used: at most `RATE` a second since the last signature known, and a random
distance, so that two starts from one backup do not meet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tuf_repo.errors import CounterError

RATE = 10_000
"""Numbers a second at most, with a burst of one second."""
ENTROPY = 2**32
"""A new start jumps a random distance below this."""
LIMIT = 2**53
"""Numbers stay below: JSON readers that know only doubles read them exactly."""
LEAP = 2**40
"""How far a recovery goes: beyond what 250 starts of a lost history can have jumped."""
RECOVERY_LIMIT = LIMIT // 2
"""No recovery goes on above this: a thief who shows a high number must not use up what is left."""

_BURST_SECONDS = 1.0
_ROUNDING_SECONDS = 1e-5


@dataclass(frozen=True, slots=True)
class Reservation:
    """What is on the disk: any number below `below` may have been used, the last ones at `at`."""

    below: int
    at: int


@dataclass(frozen=True, slots=True)
class Counter:
    """The counter of one run. A value: `taken` and `reserved` give the next one."""

    next: int
    reserved_below: int
    """Numbers below this may be used; the caller has made that durable."""
    busy_until: float
    """At `RATE` numbers a second, what was taken is used up by then."""

    def delay(self, count: int, now: float) -> float:
        """Seconds to wait before `count` numbers may be taken."""
        return max(0.0, self._busy_after(count, now) - now)

    def lacks(self, count: int) -> bool:
        """Whether more must be reserved before `count` numbers are taken."""
        return self.next + count > self.reserved_below

    def reserved(self, count: int, block: int) -> Counter:
        """Return the counter with room for `count` numbers, and for a block at least.

        Raises:
            CounterError: that would pass the limit.
        """
        below = self.next + max(count, block)
        if below > LIMIT:
            raise CounterError("counter", f"numbers below {LIMIT}", str(below))
        return replace(self, reserved_below=below)

    def taken(self, count: int, now: float) -> tuple[range, Counter]:
        """Return `count` numbers, and the counter without them.

        Raises:
            CounterError: they are not reserved, or come too fast.
        """
        if self.lacks(count):
            raise CounterError("counter", f"{count} reserved numbers", "fewer")
        busy_until = self._busy_after(count, now)
        if busy_until > now + _ROUNDING_SECONDS:
            raise CounterError("counter", f"at most {RATE} numbers a second", f"{count} more")
        numbers = range(self.next, self.next + count)
        return numbers, replace(self, next=numbers.stop, busy_until=busy_until)

    def beyond(self, number: int) -> Counter:
        """Return the counter a leap beyond all of its own numbers and beyond another one's.

        Raises:
            CounterError: that would pass the limit.
        """
        first = max(self.reserved_below, number + 1) + LEAP
        if first >= RECOVERY_LIMIT:
            raise CounterError(
                "counter",
                f"numbers below {RECOVERY_LIMIT}; replace the snapshot and timestamp keys",
                str(first),
            )
        return replace(self, next=first, reserved_below=first)

    def _busy_after(self, count: int, now: float) -> float:
        # A burst beyond one second's numbers is paid for by the time that passed before it.
        seconds = count / RATE
        return max(self.busy_until, now - max(_BURST_SECONDS, seconds)) + seconds


def start(highest: int, last_signature: float | None, now: float, entropy: int) -> Counter:
    """Return the counter of a new run, with nothing reserved yet.

    Args:
        highest: no number above this is known to have been used.
        last_signature: when the last signature we know of was made; None before the first.
        now: not before that.
        entropy: random, from 0, below `ENTROPY`.

    Raises:
        CounterError: the entropy is none.
    """
    if not 0 <= entropy < ENTROPY:
        raise CounterError("counter", f"a random number below {ENTROPY}", str(entropy))
    elapsed = 0.0 if last_signature is None else now - last_signature
    # One second more than passed: the burst, and the fraction that stored times leave out.
    skip = RATE * (math.ceil(max(0.0, elapsed) + _BURST_SECONDS) + 1)
    first = highest + 1 + skip + entropy
    return Counter(next=first, reserved_below=first, busy_until=now - _BURST_SECONDS)
