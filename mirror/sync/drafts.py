"""One batch being filled, before the signer sees it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from mirror.core.batch import Batch, FetchedCrate, Look, Sweep, Sweeping
from mirror.core.plan import Cursor
from mirror.store.spool import BatchWriter

# Large batches touch each bin once; small ones keep the signer busy while we fetch.
BULK_LOOKS_MAX = 16_000
BULK_BYTES_MAX = 64_000_000
# A crate costs the signer more than an index file, and touches no bin.
BULK_CRATES = 200
BULK_CRATE_BYTES = 16_000_000


class Draft:
    """One batch being filled. Times are those of the event loop."""

    def __init__(self, spool: Path, number: int, due_at: float) -> None:
        self.writer = BatchWriter(spool, number)
        self.due_at = due_at
        """When it is offered, however little is in it."""
        self.added_at = 0.0
        """When something was added last."""
        self.looks: list[Look] = []
        self.cursors: list[Cursor] = []
        """What to remember of each look if the signer takes it."""
        self.crates: list[FetchedCrate] = []
        self.sweep: Sweep | None = None
        self.sweeping: Sweeping | None = None
        self.seen = ""
        """A timestamp that is served as ours and is not."""
        self.bytes = 0
        """Of index files."""
        self.crate_bytes = 0
        self.settled = asyncio.Event()
        """Set when it is done with, whatever became of it."""
        self.trouble = ""
        """Why nothing came of it."""

    @property
    def is_full(self) -> bool:
        """Whether a sweep has to wait."""
        size = self.bytes + self.crate_bytes
        return len(self.looks) >= BULK_LOOKS_MAX or size >= BULK_BYTES_MAX

    @property
    def is_worth_it(self) -> bool:
        """Whether there is enough in it for a publication of its own."""
        crates = len(self.crates) >= BULK_CRATES or self.crate_bytes >= BULK_CRATE_BYTES
        return self.is_full or crates

    def subjects(self) -> list[str]:
        """Return the names and crates in it."""
        return [look.name for look in self.looks] + [str(item.crate) for item in self.crates]

    def as_batch(self, source: str, confirmed: float | None) -> Batch:
        """Return what the signer is told."""
        return Batch(
            self.writer.number,
            source,
            tuple(self.looks),
            tuple(self.crates),
            self.sweep,
            confirmed,
            self.sweeping,
            self.seen,
        )
