"""Lock files on the disk, for whoever follows, cuts or proves by them."""

from __future__ import annotations

from pathlib import Path

from mirror.core.lockfile import Lock, parse_lock
from mirror.errors import UsageError

LOCK_MAX_BYTES = 64_000_000


def read_lock(path: Path) -> Lock:
    """Read a lock file.

    Raises:
        UsageError: it cannot be read, or is no lock file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LOCK_MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read: {error.strerror}; name a lock file with --lock"
        ) from error
    if len(data) > LOCK_MAX_BYTES:
        raise UsageError(f"{path}: larger than {LOCK_MAX_BYTES} bytes, so no lock file")
    return parse_lock(str(path), data)
