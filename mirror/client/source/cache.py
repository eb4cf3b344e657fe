"""The client's own cache: what has verified once, kept so that it need not be fetched again.

Rule: nothing in it is believed. Whoever reads checks the bytes again (blobs here, by their sha256;
metadata by its signatures, in `look.py`); whatever lies there instead of a file of ours is no file.
A cache that cannot be read or written costs requests, never an error. Trust does not lie here.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import secrets
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mirror.client.home.folders import make_private

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OWN_MAX_BYTES = 10_000_000_000
_METADATA, _BLOBS, _LOCK = "metadata", "blobs", "lock"


class Cache:
    """Verified bytes by sha256, and metadata by role, in one folder. Thread-safe."""

    def __init__(self, folder: Path, max_bytes: int, *, behind: Path | None = None) -> None:
        """Use a folder of ours.

        Args:
            folder: what is kept is written here.
            max_bytes: blobs are pruned to this, the oldest first.
            behind: another cache's folder, to read from where this one has nothing.
        """
        self.folder = folder
        self._max_bytes = max_bytes
        self._behind = behind
        self._lock = threading.Lock()
        self._unpruned_bytes = 0

    def blob(self, sha256: str, max_bytes: int) -> bytes | None:
        """Return the bytes with this sha256, or None: they are not here."""
        data = self._read((_BLOBS, sha256[:2], sha256), max_bytes)
        if data is None or hashlib.sha256(data).hexdigest() != sha256:
            return None
        return data

    def has_blob(self, sha256: str) -> bool:
        """Whether something lies where these bytes are kept: a hint, unverified."""
        return os.path.exists(self.folder / _BLOBS / sha256[:2] / sha256)

    def keep_blob(self, sha256: str, data: bytes) -> None:
        """Keep bytes that have verified, and have this sha256."""
        _write(self.folder, (_BLOBS, sha256[:2], sha256), data)
        with self._lock:
            self._unpruned_bytes += len(data)
            if self._unpruned_bytes <= self._max_bytes // 10:
                return
            self._unpruned_bytes = 0
        self.prune()

    def metadata(self, file: str, max_bytes: int) -> bytes | None:
        """Return what lies here for a role, UNVERIFIED, or None. `file`: as `Need.kept_as`."""
        return self._read((_METADATA, file), max_bytes)

    def keep_metadata(self, file: str, data: bytes) -> None:
        """Keep metadata that has verified."""
        _write(self.folder, (_METADATA, file), data)

    def prune(self) -> None:
        """Delete the oldest blobs beyond the cache's size."""
        found = sorted(_files(self.folder / _BLOBS))
        too_many = sum(size for _, size, _ in found) - self._max_bytes
        for _, size, path in found:
            if too_many <= 0:
                return
            with suppress(OSError):
                os.unlink(path)
            too_many -= size

    def close(self) -> None:
        """Leave the folder within its size."""
        if self._unpruned_bytes:
            self.prune()

    def _read(self, parts: tuple[str, ...], max_bytes: int) -> bytes | None:
        data = _read(self.folder, parts, max_bytes)
        if data is None and self._behind is not None:
            return _read(self._behind, parts, max_bytes)
        return data


@contextmanager
def open_cache(folder: Path, max_bytes: int) -> Iterator[Cache]:
    """Yield the cache in `folder`, which is made if it lacks.

    While another process has it: a private one, which reads what that one kept, and is gone
    afterwards.

    Raises:
        MachineError: the folder, or the one above it, is not ours alone.
    """
    make_private(folder.parent)
    make_private(folder)
    fd = _lock(folder)
    try:
        if fd is not None:
            cache = Cache(folder, max_bytes)
            yield cache
            cache.close()
            return
        with own_cache(behind=folder) as cache:
            yield cache
    finally:
        if fd is not None:
            os.close(fd)


@contextmanager
def own_cache(*, behind: Path | None = None) -> Iterator[Cache]:
    """Yield a cache that is nobody else's, and gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="crateseal-", ignore_cleanup_errors=True) as folder:
        yield Cache(Path(folder), _OWN_MAX_BYTES, behind=behind)


def _lock(folder: Path) -> int | None:
    """Return a descriptor that holds the cache's lock, or None: another process has it."""
    fd = None
    with suppress(OSError):
        fd = os.open(
            folder / _LOCK,
            os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
            0o600,
        )
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd
    if fd is not None:
        os.close(fd)
    return None


def _read(folder: Path, parts: tuple[str, ...], max_bytes: int) -> bytes | None:
    """Return a regular file's bytes; no link on the way is followed, nothing waits."""
    try:
        with _parent(folder, parts[:-1], make=False) as parent:
            fd = os.open(parts[-1], _READ, dir_fd=parent)
        try:
            state = os.fstat(fd)
            if not stat.S_ISREG(state.st_mode) or state.st_size > max_bytes:
                return None
            # Once, and no more than what was looked at: it may grow meanwhile.
            data = os.read(fd, state.st_size)
            return data if len(data) == state.st_size else None
        finally:
            os.close(fd)
    except OSError:
        return None


def _write(folder: Path, parts: tuple[str, ...], data: bytes) -> None:
    """Put a file in place by rename. What cannot be written is not kept."""
    temporary = f".{secrets.token_hex(8)}.tmp"
    with suppress(OSError), _parent(folder, parts[:-1], make=True) as parent:
        fd = os.open(temporary, _NEW, 0o600, dir_fd=parent)
        with os.fdopen(fd, "wb", buffering=0) as file:
            is_whole = _written(file, data)
        if is_whole:
            with suppress(OSError):
                os.rename(temporary, parts[-1], src_dir_fd=parent, dst_dir_fd=parent)
                return
        os.unlink(temporary, dir_fd=parent)


def _written(file: io.FileIO, data: bytes) -> bool:
    try:
        return file.write(data) == len(data)
    except OSError:  # the disk is full
        return False


@contextmanager
def _parent(folder: Path, parts: tuple[str, ...], *, make: bool) -> Iterator[int]:
    """Yield a descriptor of the folder that a file lies in; none of ours is a link."""
    fd = os.open(folder, _FOLDER)
    try:
        for part in parts:
            below = _below(fd, part, make=make)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def _below(fd: int, part: str, *, make: bool) -> int:
    try:
        return os.open(part, _FOLDER, dir_fd=fd)
    except OSError:
        if not make:
            raise
    with suppress(OSError):
        os.unlink(part, dir_fd=fd)  # whatever it is, if it is no folder: it stands in our place
    with suppress(FileExistsError):
        os.mkdir(part, 0o700, dir_fd=fd)
    return os.open(part, _FOLDER, dir_fd=fd)


def _files(folder: Path) -> Iterator[tuple[float, int, str]]:
    """Yield time, size and path of what lies two levels below; links are not followed."""
    with suppress(OSError), os.scandir(folder) as outer:
        for each in outer:
            if not each.is_dir(follow_symlinks=False):
                continue
            with suppress(OSError), os.scandir(each.path) as inner:
                for entry in inner:
                    if not entry.is_dir(follow_symlinks=False):
                        state = entry.stat(follow_symlinks=False)
                        yield state.st_mtime, state.st_size, entry.path
