"""Lock files on the disk, for whoever follows, cuts or proves by them."""

from __future__ import annotations

from collections.abc import Iterable
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


class LockWatch:
    """Tells when a lock file is another than before, by time and size."""

    def __init__(self, locks: Iterable[Path]) -> None:
        self._locks = tuple(locks)
        self._seen = self._look()

    def changed(self) -> bool:
        """Whether one changed since the last call."""
        before, self._seen = self._seen, self._look()
        return before != self._seen

    def _look(self) -> list[tuple[int, int] | None]:
        return [_stamp(path) for path in self._locks]


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
