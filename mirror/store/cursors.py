"""What `sync` remembers of upstream, name by name. Losing it costs requests, nothing else.

So nothing here is synced to disk, and a file that is damaged or not ours is dropped and made anew.
Looks that found nothing new are kept in memory and written many at a time; so is, until there is
room, what a full disk does not take.
"""

from __future__ import annotations

import errno
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mirror.core.names import CrateName
from mirror.core.plan import Cursor, Known
from mirror.store.retries import Retries

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
    """The table of cursors, open for one process.

    What concerns one name never fails: it is remembered in memory, or reads as not remembered.
    Questions about the whole table raise OSError where the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unwritten: dict[CrateName, Cursor] = {}
        self._unwritten_facts: dict[str, str] = {}
        self._flush_at = UNWRITTEN_MAX
        self._trouble = ""
        self.is_new = False
        """Whether nothing was remembered when it was opened."""
        self.retries = Retries()
        """What is wanted and missing; written by `save` and with everything else."""
        try:
            self._db = self._open()
        except (sqlite3.DatabaseError, _ForeignFileError) as error:
            logger.warning("%s: %s; made anew, everything is asked for again", path, error)
            with self._as_oserror():
                self._remove()
                self._db = self._open()

    def close(self) -> None:
        """Write what is in memory, if the disk takes it, and close the file."""
        self._try_flush()
        with suppress(sqlite3.Error):
            self._db.close()

    def get(self, name: CrateName) -> Cursor | None:
        """Return what is remembered of a name."""
        found = self._unwritten.get(name)
        if found is not None:
            return found
        row = self._row("SELECT * FROM cursor WHERE name = ?", name)
        return None if row is None else _cursor(row)

    def put(self, cursors: Iterable[Cursor]) -> None:
        """Remember these, all in one transaction."""
        self._unwritten.update((cursor.name, cursor) for cursor in cursors)
        self._try_flush()

    def note(self, cursor: Cursor) -> None:
        """Remember one, sooner or later: for looks that changed nothing."""
        self._unwritten[cursor.name] = cursor
        if len(self._unwritten) >= self._flush_at:
            self._try_flush()

    def save(self) -> None:
        """Write what is in memory, if the disk takes it."""
        self._try_flush()

    def flush(self) -> None:
        """Write what is in memory.

        Raises:
            OSError: it stays in memory.
        """
        if not (self._unwritten or self._unwritten_facts or self.retries.is_changed):
            return
        with self._as_oserror(), self._db:
            self._db.executemany(
                "INSERT OR REPLACE INTO cursor VALUES (?, ?, ?, ?, ?, ?, ?)",
                (_columns(cursor) for cursor in self._unwritten.values()),
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO fact VALUES (?, ?)", self._unwritten_facts.items()
            )
            self.retries.write(self._db)
        self.retries.note_written()
        self._unwritten, self._unwritten_facts = {}, {}

    def followed(self) -> list[CrateName]:
        """Return the names that are held, in order."""
        rows = self._rows("SELECT name FROM cursor WHERE known IN (?, ?) ORDER BY name", *_FOLLOWED)
        return [CrateName(row[0]) for row in rows]

    def looked_at_between(self, began: float, ended: float) -> Iterator[CrateName]:
        """Go through the names whose last look lies in this time, in order."""
        rows = self._rows(
            "SELECT name FROM cursor WHERE looked_at BETWEEN ? AND ? ORDER BY name", began, ended
        )
        return (CrateName(row[0]) for row in rows)

    def __iter__(self) -> Iterator[Cursor]:
        """Go through all cursors in the order of their names."""
        return map(_cursor, self._rows("SELECT * FROM cursor ORDER BY name"))

    def __len__(self) -> int:
        count: int = next(self._rows("SELECT count(*) FROM cursor"))[0]
        return count

    def holds_any(self) -> bool:
        """Whether any name is held."""
        rows = self._rows("SELECT 1 FROM cursor WHERE known IN (?, ?) LIMIT 1", *_FOLLOWED)
        return next(rows, None) is not None

    def oldest_look_at_held(self, now: float) -> float | None:
        """Return the time of the oldest look at a held name; None if one was never looked at.

        A look after `now` is none: the clock was set back since.
        """
        (oldest,) = next(
            self._rows(
                "SELECT min(CASE WHEN looked_at > ? THEN 0 ELSE looked_at END)"
                " FROM cursor WHERE known IN (?, ?)",
                now,
                *_FOLLOWED,
            )
        )
        return oldest or None

    def oldest_look_at_all(self, names: int, now: float) -> float | None:
        """Return the time of the oldest look; None if one of so many names was never looked at."""
        oldest, count = next(
            self._rows(
                "SELECT min(CASE WHEN looked_at > ? THEN 0 ELSE looked_at END), count(*)"
                " FROM cursor",
                now,
            )
        )
        return (oldest or None) if count >= names else None

    def last_seen(self, *, but: AbstractSet[CrateName]) -> Cursor | None:
        """Return the published name, not one of these, whose bytes were seen last."""
        rows = self._rows(
            "SELECT * FROM cursor WHERE known = ? AND sha256 != '' AND looked_at > 0"
            " ORDER BY looked_at DESC LIMIT ?",
            Known.PUBLISHED.value,
            len(but) + 1,
        )
        return next((cursor for cursor in map(_cursor, rows) if cursor.name not in but), None)

    def keep_only(self, names: Sequence[CrateName]) -> None:
        """Forget every name that is not among these (sorted): it is followed no longer."""
        kept = set(names)
        strange = [(cursor.name,) for cursor in self if cursor.name not in kept]
        with self._as_oserror(), self._db:
            self._db.executemany("DELETE FROM cursor WHERE name = ?", strange)

    def forget_validators(self) -> None:
        """Make the next look at each name unconditional, and count as the first."""
        self.flush()
        with self._as_oserror(), self._db:
            self._db.execute("UPDATE cursor SET etag = '', last_modified = '', looked_at = 0")

    def forget_publications(self) -> None:
        """Keep the names that are held, and nothing else: everything of them is news again."""
        self.forget_validators()
        with self._as_oserror(), self._db:
            self._db.execute("UPDATE cursor SET sha256 = ''")
            self._db.execute("DELETE FROM cursor WHERE known NOT IN (?, ?)", _FOLLOWED)

    def fact(self, key: str) -> str:
        """Return a remembered fact, or nothing."""
        if key in self._unwritten_facts:
            return self._unwritten_facts[key]
        row = self._row("SELECT value FROM fact WHERE key = ?", key)
        return "" if row is None else str(row[0])

    def set_fact(self, key: str, value: str) -> None:
        """Remember a fact about the whole table."""
        self._unwritten_facts[key] = value
        self._try_flush()

    def _row(self, query: str, key: str) -> tuple[Any, ...] | None:
        try:
            row: tuple[Any, ...] | None = self._db.execute(query, (key,)).fetchone()
        except sqlite3.Error as error:
            # Not to know it costs a request.
            self._say(f"{self._path}: {error}; cannot be read")
            return None
        return row

    def _rows(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """Go through what is written; nothing may be written meanwhile."""
        self.flush()
        with self._as_oserror():
            yield from self._db.execute(query, values)

    def _try_flush(self) -> None:
        try:
            self.flush()
        except OSError as error:
            self._flush_at = len(self._unwritten) + UNWRITTEN_MAX
            self._say(f"{self._path}: {error.strerror}; kept in memory until it can be written")
        else:
            self._flush_at = UNWRITTEN_MAX
            self._trouble = ""

    def _say(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            logger.error("%s", trouble)

    @contextmanager
    def _as_oserror(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
            number = errno.ENOSPC if full else errno.EIO
            raise OSError(number, str(error), str(self._path)) from error

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
        self.retries = Retries()
        self.retries.load(db)

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
