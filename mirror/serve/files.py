"""Files of the web root, read so that no path and no link leads out of it.

A path is walked folder by folder, no link followed, a regular file at its end. What is small is
kept in memory for as long as the file on disk stays the same one.
"""

from __future__ import annotations

import asyncio
import errno
import gzip
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mirror.serve.answers import Headers, Message, body_of, start_of

SMALL_MAX_BYTES = 256 * 1024
"""Up to here a file is read at once, sent in one write, and kept."""
KEPT_MAX_BYTES = 24_000_000
PACK_LEVEL = 6
"""A snapshot of 8,192 bins: 352 kB to 58 kB in 12 ms, once for each publication and worker."""
_KEPT_OVERHEAD_BYTES = 2_000  # of a file's headers and keys, so that many small ones count too

# macOS has no O_PATH; there a folder must be readable to be passed through.
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a fifo must not hang the server.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Key = tuple[int, int, int]
"""What makes a file the same one: modification time, inode, size."""


@dataclass(frozen=True, slots=True, eq=False)
class Dress:
    """The headers that all files of one kind go out with; part of a key, compared by identity."""

    headers: Headers


@dataclass(frozen=True, slots=True)
class Stored:
    """A file with its answer: 200 with these bytes, or 304."""

    path: str
    tag: bytes
    found: Message
    unchanged: Message
    body: Message | None
    """None: too big to be kept; it is streamed."""
    length: int


class Opened:
    """A descriptor that several threads may read; it closes once nobody does any more.

    Who stops waiting for a read (a request that was cancelled) does not stop the thread that is at
    it: closed under its hands, the number could be another file's by then.
    """

    def __init__(self, fd: int, pread: Callable[[int, int, int], bytes] = os.pread) -> None:
        self._fd = fd
        self._pread = pread
        self._users = 1  # who opened it, and each read that goes on
        self._lock = threading.Lock()

    def read(self, length: int, offset: int) -> bytes:
        """Return up to `length` bytes from `offset` on; none at the end, or when it is closed."""
        with self._lock:
            if self._users == 0:
                return b""
            self._users += 1
        try:
            return self._pread(self._fd, length, offset)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of it: once by who opened it."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                os.close(self._fd)


_NO_SUCH_FILE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR}


def _raise_unless_absent(error: OSError) -> None:
    """Raise again what does not say that there is no such file.

    A process out of descriptors, or a disk that fails, must never read as absence.
    """
    if error.errno not in _NO_SUCH_FILE:
        raise error


class Files:
    """The web root's files, by path relative to it."""

    def __init__(self, root: Path, kept_max_bytes: int = KEPT_MAX_BYTES) -> None:
        self._root = str(root)
        self._prefix = f"{root}/"
        self._kept: OrderedDict[tuple[str, Dress], tuple[Key, Stored]] = OrderedDict()
        self._kept_bytes = 0
        self._kept_max_bytes = kept_max_bytes

    def get(self, path: str, dress: Dress, tag: str | None = None) -> Stored | None:
        """Return a file as an answer with these headers, or None where there is no such file.

        Without a `tag` of the content (a digest, a version), inode and time become its ETag.
        """
        key = self._key_now(path)
        if key is None:
            return None
        return self._kept_as((path, dress), key) or self._load(path, dress, tag)

    async def get_packed(self, path: str, dress: Dress, tag: str) -> Stored | None:
        """Return a file as an answer that is gzip-compressed, or None where there is no such file.

        For files that never change and have no compressed twin on the disk. Packed off the loop,
        and kept.
        """
        key, name = self._key_now(path), (path, dress)
        if key is None:
            return None
        if (kept := self._kept_as(name, key)) is not None:
            return kept
        data = await asyncio.to_thread(self._packed, path)
        if data is None:
            return None
        stored = _answer(path, dress.headers, tag, data, len(data))
        self._forget(name)
        self._keep(name, key, stored)
        return stored

    def _key_now(self, path: str) -> Key | None:
        try:
            return _key(os.stat(self._prefix + path, follow_symlinks=False))
        except OSError as error:
            _raise_unless_absent(error)
            return None
        except ValueError:  # a NUL in it
            return None

    def _kept_as(self, name: tuple[str, Dress], key: Key) -> Stored | None:
        kept = self._kept.get(name)
        if kept is None or kept[0] != key:
            return None
        self._kept.move_to_end(name)
        return kept[1]

    def _packed(self, path: str) -> bytes | None:
        data = self.read(path)
        return None if data is None else gzip.compress(data, PACK_LEVEL, mtime=0)

    def exists(self, path: str) -> bool:
        """Whether there is a regular file of that path."""
        fd = self.open(path)
        if fd is not None:
            os.close(fd)
        return fd is not None

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes, or None where there is no such file; nothing is kept."""
        fd = self.open(path)
        if fd is None:
            return None
        with os.fdopen(fd, "rb") as file:
            return file.read()

    def open(self, path: str) -> int | None:
        """Return a descriptor of a regular file, or None where there is none."""
        folders, _, name = path.rpartition("/")
        parts = folders.split("/") if folders else []
        if "\0" in path or not {"", ".", ".."}.isdisjoint((*parts, name)):
            return None
        try:
            fd = self._open_beneath(parts, name)
        except OSError as error:
            _raise_unless_absent(error)
            return None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            return None
        return fd

    def _open_beneath(self, folders: list[str], name: str) -> int:
        # The root itself may be a link: that is the operator's choice, not a client's.
        here = os.open(self._root, _FOLDER & ~os.O_NOFOLLOW)
        try:
            for folder in folders:
                parent, here = here, os.open(folder, _FOLDER, dir_fd=here)
                os.close(parent)
            return os.open(name, _FILE, dir_fd=here)
        finally:
            os.close(here)

    def _load(self, path: str, dress: Dress, tag: str | None) -> Stored | None:
        self._forget((path, dress))
        fd = self.open(path)
        if fd is None:
            return None
        try:
            key = _key(os.fstat(fd))
            length = key[2]
            data = _read_whole(fd, length) if length <= SMALL_MAX_BYTES else None
        finally:
            os.close(fd)
        stored = _answer(path, dress.headers, tag or f"{key[0]:x}-{key[1]:x}", data, length)
        self._keep((path, dress), key, stored)
        return stored

    def _keep(self, name: tuple[str, Dress], key: Key, stored: Stored) -> None:
        self._kept[name] = (key, stored)
        self._kept_bytes += _cost(stored)
        while self._kept_bytes > self._kept_max_bytes:
            _, (_, oldest) = self._kept.popitem(last=False)
            self._kept_bytes -= _cost(oldest)

    def _forget(self, name: tuple[str, Dress]) -> None:
        kept = self._kept.pop(name, None)
        if kept is not None:
            self._kept_bytes -= _cost(kept[1])


def _key(found: os.stat_result) -> Key:
    return found.st_mtime_ns, found.st_ino, found.st_size


def _cost(stored: Stored) -> int:
    return _KEPT_OVERHEAD_BYTES + (stored.length if stored.body else 0)


def _read_whole(fd: int, length: int) -> bytes:
    data = os.read(fd, length)
    while len(data) < length and (more := os.read(fd, length - len(data))):
        data += more
    return data


def _answer(path: str, headers: Headers, tag: str, data: bytes | None, length: int) -> Stored:
    if data is not None:
        length = len(data)
    etag = f'"{tag}"'.encode()
    common = [*headers, (b"etag", etag)]
    # RFC 9110, 15.4.5: a 304 carries what caches need, not what describes the body.
    bare = [pair for pair in common if not pair[0].startswith(b"content-")]
    return Stored(
        path=path,
        tag=etag,
        found=start_of(200, [*common, (b"content-length", str(length).encode())]),
        unchanged=start_of(304, bare),
        body=None if data is None else body_of(data),
        length=length,
    )
