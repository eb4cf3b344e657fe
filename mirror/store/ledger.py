"""The signer's memory: what is quarantined, which crates are held, what may be pruned, the log.

Rules. Only `sign` writes here. Rows that belong to a publication carry its number; they are written
before its commit, become durable with the same sync of the file system, and count only once the
commit has happened: `settle_at` throws away the rest. Doing a thing twice is a no-op.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mirror.store.memory import MEMORY_SCHEMA, Memory, MemoryReader

_SCHEMA = """
CREATE TABLE IF NOT EXISTS quarantine(
    subject TEXT PRIMARY KEY, since REAL NOT NULL, rule TEXT NOT NULL, reason TEXT NOT NULL,
    first_sight INTEGER NOT NULL, kind TEXT NOT NULL DEFAULT 'quarantine',
    sha256 TEXT NOT NULL DEFAULT '', data BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS crates(
    file TEXT PRIMARY KEY, sha256 TEXT NOT NULL, length INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS crates_by_name ON crates(lower(file));
CREATE TABLE IF NOT EXISTS retired(
    file TEXT PRIMARY KEY, sha256 TEXT NOT NULL, number INTEGER NOT NULL, at REAL NOT NULL)
    WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS retired_at ON retired(at);
CREATE TABLE IF NOT EXISTS log(
    seq INTEGER PRIMARY KEY, number INTEGER NOT NULL, record TEXT NOT NULL, sha256 TEXT NOT NULL);
"""
_SCHEMA += MEMORY_SCHEMA
_FROM_1 = """
ALTER TABLE quarantine ADD COLUMN kind TEXT NOT NULL DEFAULT 'quarantine';
ALTER TABLE quarantine ADD COLUMN sha256 TEXT NOT NULL DEFAULT '';
ALTER TABLE quarantine ADD COLUMN data BLOB;
"""
_FORMAT = 2
_FIRST = "0" * 64


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One finding that stands. `subject`: a canonical name, or `name version` of a crate file."""

    subject: str
    since: float
    rule: str
    reason: str
    first_sight: bool
    """Nothing of it is published; a signed note says so."""
    kind: str = "quarantine"
    """Or `hold`: nothing is wrong with it, but somebody has to look."""
    sha256: str = ""
    """Of the bytes that were refused."""
    data: bytes | None = None
    """Those bytes, packed, where `accept` can let them through; not read back by `quarantined`."""


@dataclass(frozen=True, slots=True)
class Retired:
    """A file under the web root that only kept publications name."""

    file: str
    sha256: str


class LedgerReader:
    """The ledger as others than the signer may see it; nothing is written, or made."""

    memory: MemoryReader

    def __init__(self, path: Path) -> None:
        if path.exists():
            self._db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
        else:  # No signer has run yet: there is nothing to remember.
            self._db = sqlite3.connect(":memory:")
            self._db.executescript(_SCHEMA)
        self.memory = MemoryReader(self._db)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def quarantined(self) -> list[Quarantined]:
        """Return every finding that stands, by subject."""
        rows = self._db.execute(
            "SELECT subject, since, rule, reason, first_sight, kind, sha256 FROM quarantine"
            " ORDER BY subject"
        )
        return [Quarantined(a, b, c, d, bool(e), f, g) for a, b, c, d, e, f, g in rows]

    def quarantined_bytes(self, subject: str) -> bytes | None:
        """Return the bytes that were refused; None: they are none that could be accepted."""
        row = self._db.execute("SELECT data FROM quarantine WHERE subject=?", (subject,)).fetchone()
        return zlib.decompress(row[0]) if row and row[0] is not None else None

    def crates(self) -> Iterator[tuple[str, str]]:
        """Yield file and sha256 of every crate that is held."""
        yield from self._db.execute("SELECT file, sha256 FROM crates ORDER BY file")

    def holds_crate(self, file: str, sha256: str) -> bool:
        """Whether a crate file with this digest is held."""
        row = self._db.execute("SELECT sha256 FROM crates WHERE file=?", (file,)).fetchone()
        return bool(row) and row[0] == sha256

    def crates_of(self, name: str) -> list[tuple[str, str]]:
        """Return file and sha256 of the crates that are held of one name, in any case."""
        rows = self._db.execute(
            "SELECT file, sha256 FROM crates WHERE lower(file)>=? AND lower(file)<?",
            (f"crates/{name}/", f"crates/{name}0"),  # "0" comes next after "/"
        )
        return list(rows)

    def crate_count(self) -> int:
        """Return how many crates are held."""
        return int(self._db.execute("SELECT count(*) FROM crates").fetchone()[0])

    def retired(self) -> Iterator[Retired]:
        """Yield the files that only kept publications name."""
        for file, sha256 in self._db.execute("SELECT file, sha256 FROM retired ORDER BY file"):
            yield Retired(file, sha256)

    def retired_before(self, at: float, at_most: int) -> list[str]:
        """Return files whose grace has ended, oldest first."""
        rows = self._db.execute(
            "SELECT file FROM retired WHERE at<? ORDER BY at LIMIT ?", (at, at_most)
        )
        return [row[0] for row in rows]

    def newest_number(self) -> int | None:
        """Return the number of the newest publication in the log; None before the first."""
        row = self._db.execute("SELECT number FROM log ORDER BY seq DESC LIMIT 1").fetchone()
        return int(row[0]) if row else None

    def log(self) -> Iterator[tuple[int, str, str]]:
        """Yield sequence number, record and sha256, oldest first."""
        yield from self._db.execute("SELECT seq, record, sha256 FROM log ORDER BY seq")


class Ledger(LedgerReader):
    """The signer's ledger: one SQLite file (WAL; synced by the publication's own sync)."""

    memory: Memory

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        # NORMAL: a crash may lose the newest transactions, never tear one. What must last is
        # synced with the publication it belongs to.
        self._db.execute("PRAGMA synchronous=NORMAL")
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        self.is_new = found == 0
        if found not in (0, 1, _FORMAT):
            self._db.close()
            raise sqlite3.DatabaseError(f"ledger format {found}; this program knows {_FORMAT}")
        if found == 1:
            self._db.executescript(f"BEGIN;{_FROM_1}PRAGMA user_version={_FORMAT};COMMIT;")
        self._db.executescript(_SCHEMA)
        self._db.execute(f"PRAGMA user_version={_FORMAT}")
        self.memory = Memory(self._db)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written inside is written, or nothing of it."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # Quarantine

    def quarantine(self, finding: Quarantined) -> None:
        """Note a finding; of one that stands, the first date is kept."""
        self._db.execute(
            "INSERT INTO quarantine VALUES(?,?,?,?,?,?,?,?) ON CONFLICT(subject) DO UPDATE"
            " SET rule=excluded.rule, reason=excluded.reason, first_sight=excluded.first_sight,"
            " kind=excluded.kind, sha256=excluded.sha256, data=excluded.data",
            (
                finding.subject,
                finding.since,
                finding.rule,
                finding.reason,
                finding.first_sight,
                finding.kind,
                finding.sha256,
                finding.data,
            ),
        )

    def release(self, subject: str) -> None:
        """Forget a finding: what came since was good."""
        self._db.execute("DELETE FROM quarantine WHERE subject=?", (subject,))

    # Crates that are held

    def hold_crate(self, file: str, sha256: str, length: int) -> None:
        """Note that a crate file lies under the web root."""
        self._db.execute("INSERT OR REPLACE INTO crates VALUES(?,?,?)", (file, sha256, length))

    def drop_crate(self, file: str) -> None:
        """Note that a crate file is no longer there."""
        self._db.execute("DELETE FROM crates WHERE file=?", (file,))

    # Files that kept publications still need

    def retire(self, files: Iterable[Retired], *, number: int, at: float) -> None:
        """Note that publication `number` no longer names these files."""
        rows = [(item.file, item.sha256, number, at) for item in files]
        self._db.executemany("INSERT OR REPLACE INTO retired VALUES(?,?,?,?)", rows)

    def revive(self, files: Iterable[str]) -> None:
        """Note that these files are named again, or are gone."""
        self._db.executemany("DELETE FROM retired WHERE file=?", [(file,) for file in files])

    # The log

    def append(self, number: int, record: Mapping[str, Any]) -> None:
        """Append one record, chained to the one before by its sha256."""
        row = self._db.execute("SELECT seq, sha256 FROM log ORDER BY seq DESC LIMIT 1").fetchone()
        seq, before = (row[0] + 1, row[1]) if row else (1, _FIRST)
        text = json.dumps({"seq": seq, "prev": before, **record}, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()
        self._db.execute("INSERT INTO log VALUES(?,?,?,?)", (seq, number, text, digest))

    def settle_at(self, number: int, *, at: float) -> None:
        """Throw away what belongs to publications after `number`: they were never committed."""
        with self.transaction():
            newest = self._db.execute("SELECT number FROM log ORDER BY seq DESC LIMIT 1").fetchone()
            if newest is None or newest[0] <= number:
                return  # Rows and record of a publication are written together.
            self._db.execute("DELETE FROM retired WHERE number>?", (number,))
            self.memory.drop_after(number)
            # The log is append-only: what it said too early, it takes back.
            self.append(number, {"event": "lost", "after": number, "at": at})
