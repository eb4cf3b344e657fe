"""What is wanted and missing, for ever until it is had: a table beside the cursors.

It is small, so all of it is in memory; the file is written as the cursors are (store/cursors.py).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from mirror.core.plan import Retry, Trouble

RETRIES_MAX = 100_000
"""The oldest make room, what somebody merely asked for once before all else."""

_SCHEMA = """
    CREATE TABLE IF NOT EXISTS retry (
        key TEXT PRIMARY KEY, trouble TEXT NOT NULL, short TEXT NOT NULL, reason TEXT NOT NULL,
        since REAL NOT NULL, tries INTEGER NOT NULL, due_at REAL NOT NULL
    ) WITHOUT ROWID
"""


class Retries:
    """The table, as it is in memory; `write` brings the file up to it."""

    def __init__(self, most: int = RETRIES_MAX) -> None:
        self._most = most
        self._all: dict[str, Retry] = {}
        self._wishes: dict[str, None] = {}
        """The keys of what nothing backs."""
        self._changed: dict[str, Retry | None] = {}

    def load(self, db: sqlite3.Connection) -> None:
        """Read the table; where there is none yet, it is made."""
        db.execute(_SCHEMA)
        db.commit()
        for row in db.execute("SELECT * FROM retry ORDER BY since"):
            self._all[row[0]] = Retry(row[0], Trouble(row[1]), *row[2:])

    def get(self, key: str) -> Retry | None:
        """Return what is known of a name or crate."""
        return self._all.get(key)

    def put(self, retry: Retry, *, is_wish: bool = False) -> None:
        """Take something in, or change what is known of it; `is_wish`: nothing backs it."""
        self._all[retry.key] = self._changed[retry.key] = retry
        self.mark(retry.key, is_wish=is_wish)
        if len(self._all) > self._most:
            self.drop(next(iter(self._wishes or self._all)))

    def mark(self, key: str, *, is_wish: bool) -> None:
        """Say whether something is merely wished for."""
        if is_wish:
            self._wishes[key] = None
        else:
            self._wishes.pop(key, None)

    def drop(self, key: str) -> bool:
        """Forget something; return whether it was there."""
        if self._all.pop(key, None) is None:
            return False
        self._wishes.pop(key, None)
        self._changed[key] = None
        return True

    def __iter__(self) -> Iterator[Retry]:
        """Go through all, the oldest first; the table may change meanwhile."""
        return iter(tuple(self._all.values()))

    def __len__(self) -> int:
        return len(self._all)

    @property
    def is_changed(self) -> bool:
        """Whether the file is behind."""
        return bool(self._changed)

    def write(self, db: sqlite3.Connection) -> None:
        """Write what changed; the caller commits, and says so."""
        for key, retry in self._changed.items():
            if retry is None:
                db.execute("DELETE FROM retry WHERE key = ?", (key,))
            else:
                db.execute("INSERT OR REPLACE INTO retry VALUES (?, ?, ?, ?, ?, ?, ?)", _row(retry))

    def note_written(self) -> None:
        """What was written is committed."""
        self._changed = {}


def _row(retry: Retry) -> tuple[object, ...]:
    return (
        retry.key, retry.trouble.value, retry.short, retry.reason,
        retry.since, retry.tries, retry.due_at,
    )  # fmt: skip
