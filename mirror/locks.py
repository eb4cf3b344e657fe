"""One process at a time: locks in `run/` that the kernel lets go of when their holder ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mirror.errors import BusyError
from mirror.waiting import WAIT_SECONDS, Pause, try_for

_STEP_SECONDS = 0.1


def is_held(path: Path) -> bool:
    """Whether some process holds this lock now."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return _lock(fd) is None
    finally:
        os.close(fd)


@contextmanager
def hold(
    path: Path,
    what: str,
    *,
    wait_seconds: float = WAIT_SECONDS,
    pause: Pause = time.sleep,
) -> Iterator[None]:
    """Hold the lock; `what` names its usual holder, for the error.

    Raises:
        BusyError: another process still holds it after `wait_seconds`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if try_for(lambda: _lock(fd), wait_seconds, _STEP_SECONDS, pause) is None:
            raise BusyError(
                f"{path}: {what} is running on this folder already; stop it, or use another --data"
            )
        yield
    finally:
        os.close(fd)


def _lock(fd: int) -> int | None:
    """Return the descriptor once it holds the lock, or None: another process does."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    return fd
