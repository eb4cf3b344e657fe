"""What `sync` remembers of upstream, name by name. Losing it costs requests, nothing else.

So nothing here is synced to disk, and a file that is damaged or not ours is dropped and made anew.
Looks that found nothing new are kept in memory and written many at a time.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mirror.core.names import CrateName
from mirror.core.plan import Cursor, Known

logger = logging.getLogger(__name__)

APPLICATION_ID = 0x43726375  # "Crcu"
FORMAT = 1
UNWRITTEN_MAX = 1_000
_FOLLOWED = (Known.PUBLISHED.value, Known.REFUSED.value)

_SCHEMA = """
    CREATE TABLE cursor (
        name TEXT PRIMARY KEY, known TEXT NOT NULL, sha256 TEXT NOT NULL, etag TEXT NOT NULL,
        last_modified TEXT NOT NULL, looked_at REAL NOT NULL, trouble TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE fact (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


class Cursors:
    """The table of cursors, open for one process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unwritten: dict[CrateName, Cursor] = {}
        self.is_new = False
        """Whether nothing was remembered when it was opened."""
        try:
            self._db = self._open()
        except (sqlite3.DatabaseError, _ForeignFileError) as error:
            logger.warning("%s: %s; made anew, everything is asked for again", path, error)
            self._remove()
            self._db = self._open()

    def close(self) -> None:
        """Write what is in memory and close the file."""
        self.flush()
        self._db.close()

    def get(self, name: CrateName) -> Cursor | None:
        """Return what is remembered of a name."""
        found = self._unwritten.get(name)
        if found is not None:
            return found
        row = self._db.execute("SELECT * FROM cursor WHERE name = ?", (name,)).fetchone()
        return None if row is None else _cursor(row)

    def put(self, cursors: Iterable[Cursor]) -> None:
        """Remember these, all in one transaction."""
        self.flush()
        self._write(cursors)

    def note(self, cursor: Cursor) -> None:
        """Remember one, sooner or later: for looks that changed nothing."""
        self._unwritten[cursor.name] = cursor
        if len(self._unwritten) >= UNWRITTEN_MAX:
            self.flush()

    def flush(self) -> None:
        """Write what `note` collected."""
        unwritten, self._unwritten = self._unwritten, {}
        if unwritten:
            self._write(unwritten.values())

    def followed(self) -> list[CrateName]:
        """Return the names that are held, in order."""
        self.flush()
        rows = self._db.execute(
            "SELECT name FROM cursor WHERE known IN (?, ?) ORDER BY name", _FOLLOWED
        )
        return [CrateName(row[0]) for row in rows]

    def __iter__(self) -> Iterator[Cursor]:
        """Go through all cursors in the order of their names."""
        self.flush()
        for row in self._db.execute("SELECT * FROM cursor ORDER BY name"):
            yield _cursor(row)

    def __len__(self) -> int:
        self.flush()
        count: int = self._db.execute("SELECT count(*) FROM cursor").fetchone()[0]
        return count

    def holds_any(self) -> bool:
        """Whether any name is held."""
        self.flush()
        row = self._db.execute("SELECT 1 FROM cursor WHERE known IN (?, ?) LIMIT 1", _FOLLOWED)
        return row.fetchone() is not None

    def oldest_look_at_held(self) -> float | None:
        """Return the time of the oldest look at a held name; None if one was never looked at."""
        self.flush()
        (oldest,) = self._db.execute(
            "SELECT min(looked_at) FROM cursor WHERE known IN (?, ?)", _FOLLOWED
        ).fetchone()
        return oldest or None

    def oldest_look_at_all(self, names: int) -> float | None:
        """Return the time of the oldest look; None if one of so many names was never looked at."""
        self.flush()
        oldest, count = self._db.execute("SELECT min(looked_at), count(*) FROM cursor").fetchone()
        return (oldest or None) if count >= names else None

    def keep_only(self, names: Sequence[CrateName]) -> None:
        """Forget every name that is not among these (sorted): it is followed no longer."""
        self.flush()
        kept = set(names)
        strange = [(cursor.name,) for cursor in self if cursor.name not in kept]
        with self._db:
            self._db.executemany("DELETE FROM cursor WHERE name = ?", strange)

    def forget_validators(self) -> None:
        """Keep the names only: the next look at each is unconditional and counts as the first."""
        self.flush()
        with self._db:
            self._db.execute("UPDATE cursor SET etag = '', last_modified = '', looked_at = 0")

    def fact(self, key: str) -> str:
        """Return a remembered fact, or nothing."""
        row = self._db.execute("SELECT value FROM fact WHERE key = ?", (key,)).fetchone()
        return "" if row is None else str(row[0])

    def set_fact(self, key: str, value: str) -> None:
        """Remember a fact about the whole table."""
        with self._db:
            self._db.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (key, value))

    def _write(self, cursors: Iterable[Cursor]) -> None:
        with self._db:
            self._db.executemany(
                "INSERT OR REPLACE INTO cursor VALUES (?, ?, ?, ?, ?, ?, ?)",
                (_columns(cursor) for cursor in cursors),
            )

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self.is_new = not self._path.exists() or self._path.stat().st_size == 0
        db = sqlite3.connect(self._path)
        try:
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        if self.is_new:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(_SCHEMA)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {FORMAT}")
            db.commit()
        marks = tuple(
            db.execute(f"PRAGMA {key}").fetchone()[0] for key in ("application_id", "user_version")
        )
        if marks != (APPLICATION_ID, FORMAT):
            raise _ForeignFileError("not a table of cursors of this format")
        # Nothing is synced, so a power cut may have left anything.
        if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise _ForeignFileError("damaged")
        db.execute("PRAGMA synchronous = OFF")

    def _remove(self) -> None:
        for ending in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                self._path.with_name(self._path.name + ending).unlink()


class _ForeignFileError(Exception):
    """The file cannot be used."""


def _columns(cursor: Cursor) -> tuple[Any, ...]:
    """Return the columns of a cursor."""
    return (
        cursor.name,
        cursor.known.value,
        cursor.sha256,
        cursor.etag,
        cursor.last_modified,
        cursor.looked_at,
        cursor.trouble,
    )


def _cursor(row: tuple[Any, ...]) -> Cursor:
    name, known, sha256, etag, last_modified, looked_at, trouble = row
    return Cursor(CrateName(name), Known(known), sha256, etag, last_modified, looked_at, trouble)
