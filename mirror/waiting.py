"""To try something again for a while: a predecessor may be on its way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

WAIT_SECONDS = 10.0

Got = TypeVar("Got")
Pause = Callable[[float], object]
"""Sleeps for so many seconds; a true answer from it ends the wait early."""


def try_for(
    attempt: Callable[[], Got | None], wait_seconds: float, step_seconds: float, pause: Pause
) -> Got | None:
    """Return the first thing that an attempt gives, or None: none did in that time.

    There is one attempt at least, and one after the last pause.
    """
    waited = 0.0
    while (got := attempt()) is None:
        if waited >= wait_seconds or pause(step_seconds):
            return None
        waited += step_seconds
    return got
