"""One process at a time: locks in `run/` that the kernel lets go of when their holder ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mirror.errors import BusyError

WAIT_SECONDS = 10.0
"""A predecessor may be on its way out."""
_STEP_SECONDS = 0.1


def is_held(path: Path) -> bool:
    """Whether some process holds this lock now."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _try(fd)
    finally:
        os.close(fd)


@contextmanager
def hold(
    path: Path,
    what: str,
    *,
    wait_seconds: float = WAIT_SECONDS,
    pause: Callable[[float], object] = time.sleep,
) -> Iterator[None]:
    """Hold the lock; `what` names its usual holder, for the error.

    `pause` sleeps for so many seconds; a true answer from it ends the wait early.

    Raises:
        BusyError: another process still holds it after `wait_seconds`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _wait(fd, path, what, wait_seconds, pause)
        yield
    finally:
        os.close(fd)


def _wait(
    fd: int, path: Path, what: str, wait_seconds: float, pause: Callable[[float], object]
) -> None:
    waited = 0.0
    while not _try(fd):
        if waited >= wait_seconds or pause(_STEP_SECONDS):
            raise BusyError(
                f"{path}: {what} is running on this folder already; stop it, or use another --data"
            )
        waited += _STEP_SECONDS


def _try(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
