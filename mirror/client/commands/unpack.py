"""From the bytes of a verified crate to files, and nowhere else.

Rule: the archive has passed every rule of core/archive.py before its first file is made; then each
file is made new, by its folder's descriptor, and no link is ever followed, so that even an archive
that those rules misjudge writes nothing outside of its folder.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Self

from mirror.core.archive import ArchiveLimits, check_archive, unpacked
from mirror.core.names import CrateId
from mirror.core.tar import FILE, FOLDER, SYMLINK, TarEntry
from mirror.errors import ArchiveError

CARGO_OK = ".cargo-ok"
"""cargo's own mark in an unpacked crate; one in an archive is never unpacked."""
CRATE_MAX_BYTES = 256_000_000

_FILE_MODE, _PROGRAM_MODE, _FOLDER_MODE = 0o644, 0o755, 0o755
"""At most: this user's umask counts."""
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAKE_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Contents:
    """What a crate holds, by paths below its folder."""

    files: dict[str, str] = field(default_factory=dict)
    """Path -> sha256. Of a file given twice the last one counts."""
    links: dict[str, str] = field(default_factory=dict)
    """Symlinks, path -> target. A cargo before CVE-2026-5223 unpacks them, later ones refuse."""
    hard_links: set[str] = field(default_factory=set)
    """Those of `files` that are given as another name of a file before them."""


def limits_of_clients() -> ArchiveLimits:
    """Return what a crate may be at most on this side; cargo's own limit unpacked."""
    return ArchiveLimits(file_max_bytes=CRATE_MAX_BYTES)


def archive_files(crate: CrateId, data: bytes, limits: ArchiveLimits) -> Contents:
    """Return what cargo unpacks of a crate file.

    Raises:
        ArchiveError: it is not safe to unpack.
    """
    contents = Contents()

    def note(path: str, entry: TarEntry) -> None:
        if path.rpartition("/")[2] != CARGO_OK:
            _note(crate, contents, path, entry)

    check_archive(crate, io.BytesIO(data), limits, note)
    return contents


def plain_files(crate: CrateId, data: bytes, limits: ArchiveLimits) -> Contents:
    """Return what a crate file unpacks to, which is files and folders only.

    Raises:
        ArchiveError: it is not safe to unpack, or has links.
    """
    contents = archive_files(crate, data, limits)
    for path in sorted(contents.hard_links.union(contents.links)):
        raise ArchiveError(str(crate), "files and folders only", f"a link {path!r}")
    return contents


def unpack_crate(
    crate: CrateId,
    data: bytes,
    place: tuple[int, str],
    limits: ArchiveLimits,
    wanted: Callable[[str], bool] = lambda _path: True,
) -> Contents:
    """Unpack a crate file into a new folder: `place` is its parent's descriptor, and its name.

    1. The whole archive is safe; it has no links, since a current cargo refuses those, too.
    2. The folder is new, and every file in it is.
    3. Modes are 0644 and 0755, less the umask; owner and time are those of the one who unpacks.

    Return what was written: the files whose paths are `wanted`.

    Raises:
        ArchiveError: rule 1; nothing has been written.
        FileExistsError: rule 2.
    """
    contents = plain_files(crate, data, limits)  # 1.
    # 2.
    parent, name = place
    os.mkdir(name, _FOLDER_MODE, dir_fd=parent)
    written = {path: sha256 for path, sha256 in contents.files.items() if wanted(path)}
    with opened(name, parent) as top, Folders(top) as folders:
        for path, entry in unpacked(crate, io.BytesIO(data), limits):
            if entry.kind == FOLDER and wanted(path):
                folders.open(path)
            elif entry.kind == FILE and path in written:
                write_entry(folders, path, entry)
    return Contents(written)


class Folders:
    """Folders below one, opened part by part and made where they are missing. Follows no link."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._path = ""
        self._fd: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._close()

    def open(self, path: str) -> int:
        """Return the descriptor of a folder; it is good until the next call."""
        if self._fd is not None and path == self._path:
            return self._fd
        self._close()
        parts = [part for part in path.split("/") if part]
        if ".." in parts:
            raise ValueError(f"no way up: {path!r}")
        fd = os.dup(self._top)
        try:
            for part in parts:
                with suppress(FileExistsError):
                    os.mkdir(part, _FOLDER_MODE, dir_fd=fd)
                below = os.open(part, _OPEN_FOLDER, dir_fd=fd)
                os.close(fd)
                fd = below
        except BaseException:
            os.close(fd)
            raise
        self._path, self._fd = path, fd
        return fd

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
        self._fd = None


def _note(crate: CrateId, contents: Contents, path: str, entry: TarEntry) -> None:
    if entry.kind == FILE:
        contents.files[path] = hashlib.sha256(entry.data or b"").hexdigest()
    elif entry.kind == SYMLINK:
        contents.links[path] = entry.link
    elif entry.kind != FOLDER:
        # A hard link is the file that stands there by then.
        sha256 = contents.files.get(_below_top(entry.link))
        if sha256 is None:
            got = f"{path!r} -> {entry.link!r}"
            raise ArchiveError(str(crate), "hard links to files before them", got)
        contents.files[path] = sha256
        contents.hard_links.add(path)


def _below_top(link: str) -> str:
    parts: list[str] = []
    for part in link.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts[1:])


def write_entry(folders: Folders, path: str, entry: TarEntry) -> None:
    """Write one file; whatever has its name is not written into, but replaced."""
    folder, _, name = path.rpartition("/")
    parent = folders.open(folder)
    mode = _PROGRAM_MODE if entry.is_executable else _FILE_MODE
    try:
        fd = os.open(name, _MAKE_FILE, mode, dir_fd=parent)
    except FileExistsError:
        # Given twice: the last one counts.
        os.unlink(name, dir_fd=parent)
        fd = os.open(name, _MAKE_FILE, mode, dir_fd=parent)
    with open(fd, "wb", buffering=0) as file:
        left = memoryview(entry.data or b"")
        while left:
            left = left[file.write(left) :]


@contextmanager
def opened(name: str, parent: int) -> Iterator[int]:
    """Open a folder of a folder, through no link, for as long as it is used."""
    fd = os.open(name, _OPEN_FOLDER, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)
