"""Mode `list`: what the operator's lock files name, and what of it is not held yet."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from mirror.core.layout import crate_file
from mirror.core.names import CrateId
from mirror.errors import UsageError
from mirror.store.lockfile import read_lock
from mirror.sync.changes import Names

logger = logging.getLogger(__name__)


def read_lists(paths: Sequence[Path], *, now: float) -> Names:
    """Read all lock files; together they name what is followed.

    The list is the operator's word, not somebody's copy of what upstream has: it is as old as its
    reading, not as its file.

    Raises:
        UsageError: there is none, one cannot be read, or they name no crate of crates.io.
    """
    if not paths:
        raise UsageError("mode list holds what lock files name: give --lock FILE")
    crates: dict[CrateId, None] = {}
    for path in paths:
        lock = read_lock(path)
        crates |= dict.fromkeys(locked.crate for locked in lock.crates)
        if lock.not_covered:
            logger.info(
                "%s: %d packages are not from crates.io and are not mirrored: %s",
                path,
                len(lock.not_covered),
                ", ".join(lock.not_covered[:5]),
            )
    if not crates:
        where = ", ".join(map(str, paths))
        raise UsageError(f"{where}: no package of crates.io in it; name another with --lock")
    ordered = sorted(crates, key=lambda crate: (crate.canonical_name, crate.version))
    names = tuple(sorted({crate.canonical_name for crate in ordered}))
    return Names(names, now, tuple(ordered))


def lacking(www: Path, crates: Iterable[CrateId]) -> list[CrateId]:
    """Return the crates whose file is not in place."""
    return [crate for crate in crates if not (www / crate_file(crate)).exists()]
