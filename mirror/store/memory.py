"""What the signer remembers of crates: records, deletions, tombstones, the operator's decisions.

Rules. A *record* is the last upstream bytes of an index file that passed the audit. It stands here,
compressed, only where what is published is not those bytes (a denial or a list cut them); else the
published target is the record. Rows that belong to a publication carry its number, are written
before its commit, and are thrown away if it never comes (`drop_after`).
"""

from __future__ import annotations

import sqlite3
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mirror.core.audit import Tombstones
from mirror.core.names import CrateName

MEMORY_SCHEMA = """
CREATE TABLE IF NOT EXISTS record(
    name TEXT, number INTEGER, data BLOB, PRIMARY KEY(name, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS doubt(name TEXT PRIMARY KEY, since REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deletion(
    name TEXT, number INTEGER, since REAL NOT NULL, at REAL NOT NULL, returned INTEGER NOT NULL,
    PRIMARY KEY(name, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tombstone(
    name TEXT, version TEXT, cksum TEXT, at REAL NOT NULL,
    PRIMARY KEY(name, version, cksum)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS past(name TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS decision(
    name TEXT, version TEXT, verb TEXT, reason TEXT NOT NULL, at REAL NOT NULL,
    sha256 TEXT NOT NULL, PRIMARY KEY(name, version, verb)) WITHOUT ROWID;
"""
_MARKED = ("record", "doubt", "deletion", "tombstone")


@dataclass(frozen=True, slots=True)
class Deletion:
    """A crate that upstream deleted."""

    name: CrateName
    since: float
    """When a look first found it gone."""
    at: float
    """When that was confirmed, and recorded."""


@dataclass(frozen=True, slots=True)
class Decided:
    """One decision of the operator that stands."""

    name: CrateName
    version: str | None
    verb: str
    """`deny`, or `accept` (of one crate's archive)."""
    reason: str
    at: float
    sha256: str = ""
    """For `accept`: of the crate that was looked at."""


def pack(data: bytes) -> bytes:
    """Compress bytes as the ledger keeps them: quickly, as a list packs every index file."""
    return zlib.compress(data, 1)


class MemoryReader:
    """The read half; others than the signer may use it."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def marked_names(self) -> set[CrateName]:
        """Return the names of which more is remembered than what is published.

        For a start: at each publication it would cost more than the publication.
        """
        names: set[CrateName] = set()
        for table in _MARKED:
            names.update(CrateName(row[0]) for row in self._db.execute(f"SELECT name FROM {table}"))  # noqa: S608 - a constant
        return names

    def record(self, name: CrateName) -> bytes | None:
        """Return the record; None: it is what is published, or there is none."""
        row = self._db.execute(
            "SELECT data FROM record WHERE name=? ORDER BY number DESC LIMIT 1", (name,)
        ).fetchone()
        return zlib.decompress(row[0]) if row and row[0] is not None else None

    def recorded_names(self) -> set[CrateName]:
        """Return the names whose published index file is not upstream's."""
        rows = self._db.execute("SELECT DISTINCT name FROM record WHERE data IS NOT NULL")
        return {CrateName(row[0]) for row in rows}

    def doubted_since(self, name: CrateName) -> float | None:
        """Return when a look first found a crate gone, if that is not settled yet."""
        row = self._db.execute("SELECT since FROM doubt WHERE name=?", (name,)).fetchone()
        return float(row[0]) if row else None

    def deletion(self, name: CrateName) -> Deletion | None:
        """Return the deletion that stands."""
        row = self._db.execute(
            "SELECT since, at, returned FROM deletion WHERE name=? ORDER BY number DESC LIMIT 1",
            (name,),
        ).fetchone()
        return Deletion(name, row[0], row[1]) if row and not row[2] else None

    def deletion_count(self) -> int:
        """Return how many crates are recorded as deleted by upstream."""
        return int(
            self._db.execute("SELECT count(*) FROM deletion WHERE NOT returned").fetchone()[0]
        )

    def deletions(self) -> list[Deletion]:
        """Return every deletion that stands."""
        names = self._db.execute("SELECT DISTINCT name FROM deletion ORDER BY name").fetchall()
        return [found for (name,) in names if (found := self.deletion(name))]

    def tombstones(self, name: CrateName) -> Tombstones:
        """Return the checksums of the versions that upstream deleted."""
        found: dict[str, set[str]] = defaultdict(set)
        rows = self._db.execute("SELECT version, cksum FROM tombstone WHERE name=?", (name,))
        for version, cksum in rows:
            found[version].add(cksum)
        return {version: frozenset(cksums) for version, cksums in found.items()}

    def past(self, name: CrateName) -> bytes | None:
        """Return the lines of every version that upstream dropped, the newest last."""
        row = self._db.execute("SELECT data FROM past WHERE name=?", (name,)).fetchone()
        return zlib.decompress(row[0]) if row else None

    def decisions(self) -> Iterator[Decided]:
        """Yield the operator's decisions, by name and version."""
        rows = self._db.execute(
            "SELECT name, version, verb, reason, at, sha256 FROM decision ORDER BY name, version"
        )
        for name, version, verb, reason, at, sha256 in rows:
            yield Decided(CrateName(name), version or None, verb, reason, at, sha256)


class Memory(MemoryReader):
    """The write half; the ledger's transactions stand around it."""

    def put_records(self, records: Mapping[CrateName, bytes | None], *, number: int) -> None:
        """Remember raw bytes (packed), or None: what is published is the record."""
        self._db.executemany(
            "INSERT OR REPLACE INTO record VALUES(?,?,?)",
            [(name, number, data) for name, data in records.items()],
        )

    def put_deletions(self, deletions: Mapping[CrateName, Deletion | None], *, number: int) -> None:
        """Remember that crates are deleted, or (None) that they are back."""
        self._db.executemany(
            "INSERT OR REPLACE INTO deletion VALUES(?,?,?,?,?)",
            [
                (name, number, found.since if found else 0.0, found.at if found else 0.0, not found)
                for name, found in deletions.items()
            ],
        )

    def put_tombstones(self, entries: Iterable[tuple[CrateName, str, str]], *, at: float) -> None:
        """Remember name, version and checksum for ever; the first date is kept."""
        self._db.executemany(
            "INSERT OR IGNORE INTO tombstone VALUES(?,?,?,?)", [(*entry, at) for entry in entries]
        )

    def put_past(self, name: CrateName, lines: Iterable[bytes]) -> None:
        """Remember lines of versions that upstream drops, for ever, each once."""
        before = (self.past(name) or b"").split(b"\n")
        every = dict.fromkeys(line for line in (*before, *lines) if line)
        if every:
            data = pack(b"\n".join(every) + b"\n")
            self._db.execute("INSERT OR REPLACE INTO past VALUES(?,?)", (name, data))

    def put_doubts(self, doubts: Mapping[CrateName, float | None]) -> None:
        """Remember since when crates seem to be gone, or (None) that they are not."""
        for name, since in doubts.items():
            if since is None:
                self._db.execute("DELETE FROM doubt WHERE name=?", (name,))
            else:
                self._db.execute("INSERT OR REPLACE INTO doubt VALUES(?,?)", (name, since))

    def put_decision(self, decided: Decided) -> None:
        """Remember a decision; one about the same thing is replaced."""
        self._db.execute(
            "INSERT OR REPLACE INTO decision VALUES(?,?,?,?,?,?)",
            (
                decided.name,
                decided.version or "",
                decided.verb,
                decided.reason,
                decided.at,
                decided.sha256,
            ),
        )

    def drop_decision(self, name: CrateName, version: str | None, verb: str) -> None:
        """Take a decision back."""
        self._db.execute(
            "DELETE FROM decision WHERE name=? AND version=? AND verb=?",
            (name, version or "", verb),
        )

    def drop_after(self, number: int) -> None:
        """Throw away what belongs to publications after `number`: they were never committed."""
        for table in ("record", "deletion"):
            self._db.execute(f"DELETE FROM {table} WHERE number>?", (number,))  # noqa: S608 - a constant

    def drop_older(self, names: Iterable[CrateName]) -> None:
        """Forget what newer rows of these names took the place of."""
        for table in ("record", "deletion"):
            self._db.executemany(
                f"DELETE FROM {table} WHERE name=?1 AND number<"  # noqa: S608 - a constant
                f"(SELECT max(number) FROM {table} WHERE name=?1)",
                [(name,) for name in names],
            )
        # What says "as published" or "not deleted" says no more than no row at all.
        self._db.executemany(
            "DELETE FROM record WHERE name=? AND data IS NULL", [(name,) for name in names]
        )
        self._db.executemany(
            "DELETE FROM deletion WHERE name=? AND returned", [(name,) for name in names]
        )
