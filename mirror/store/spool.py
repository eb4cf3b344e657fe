"""The spool: batches from `sync` to `sign`, each a folder written as `N.tmp` and renamed to `N`.

`sync` writes and deletes; `sign` reads, as from a stranger: regular files only, no link followed,
sizes limited, bytes read once. Nothing here is ever synced to disk: what a crash loses is fetched
again, and what it tears is refused whole, by its digests.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mirror.core.batch import BATCH_JSON_MAX_BYTES, Batch, Look, parse_batch
from mirror.errors import MalformedMessageError


class BatchWriter:
    """One batch being written, in `N.tmp`; `finish` gives it its name."""

    def __init__(self, spool: Path, number: int) -> None:
        self.number = number
        self._final = spool / str(number)
        self.folder = spool / f"{number}.tmp"
        self.folder.mkdir(parents=True)
        try:
            self._data = (self.folder / "data").open("wb")
        except OSError:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        self._offset = 0

    def add(self, data: bytes) -> int:
        """Append an index file's bytes; return their offset."""
        offset = self._offset
        self._data.write(data)
        self._offset += len(data)
        return offset

    def finish(self, batch: Batch) -> None:
        """Write `batch.json` and make the batch visible."""
        self._data.close()
        (self.folder / "batch.json").write_bytes(batch.to_json())
        self.folder.rename(self._final)

    def abandon(self) -> None:
        """Drop what was written; a full disk cannot stop that."""
        with suppress(OSError):
            self._data.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def pending_batches(spool: Path) -> list[int]:
    """Return the numbers of the whole batches that lie there, oldest first."""
    if not spool.is_dir():
        return []
    return sorted(int(entry) for entry in os.listdir(spool) if entry.isdecimal())


def drop_batch(spool: Path, number: int) -> None:
    """Delete a batch that is settled."""
    shutil.rmtree(spool / str(number), ignore_errors=True)


def clear_unfinished(spool: Path) -> None:
    """Delete what a crash left half-written."""
    for entry in spool.glob("*.tmp"):
        shutil.rmtree(entry, ignore_errors=True)


class BatchReader:
    """One batch as the signer sees it."""

    def __init__(self, folder_fd: int, batch: Batch, data: BinaryIO) -> None:
        self.batch = batch
        self._folder_fd = folder_fd
        self._data = data

    def read(self, look: Look) -> bytes:
        """Return the bytes of one look.

        Raises:
            MalformedMessageError: the bytes are not those that `sync` wrote: a crash tore them.
        """
        try:
            self._data.seek(look.offset)
            data = self._data.read(look.length)
        except (OSError, ValueError, OverflowError, MemoryError) as error:
            raise MalformedMessageError("batch data", "readable bytes", str(error)) from error
        if hashlib.sha256(data).hexdigest() != look.sha256:
            raise MalformedMessageError(f"batch data of {look.name}", look.sha256, "other bytes")
        return data

    def open_crate(self, file: str) -> BinaryIO:
        """Open one crate file of the batch."""
        return _open_regular(file, self._folder_fd)


@contextmanager
def open_batch(spool: Path, number: int) -> Iterator[BatchReader]:
    """Open a batch for one reading.

    Raises:
        MalformedMessageError: it is not a batch, or not there.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        folder_fd = os.open(spool / str(number), flags)
    except OSError as error:
        raise MalformedMessageError("batch", f"a folder {number}", str(error)) from error
    try:
        with _open_regular("batch.json", folder_fd) as file:
            text = file.read(BATCH_JSON_MAX_BYTES + 1)
        if len(text) > BATCH_JSON_MAX_BYTES:
            raise MalformedMessageError("batch.json", f"{BATCH_JSON_MAX_BYTES} bytes", "more")
        batch = parse_batch(number, text)
        with _open_regular("data", folder_fd) as data:
            yield BatchReader(folder_fd, batch, data)
    finally:
        os.close(folder_fd)


def _open_regular(name: str, folder_fd: int) -> BinaryIO:
    # O_NONBLOCK: opening a fifo must not hang the signer.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=folder_fd)
    except OSError as error:
        raise MalformedMessageError("batch", f"a regular file {name}", str(error)) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise MalformedMessageError("batch", f"a regular file {name}", "something else")
    return os.fdopen(fd, "rb")
