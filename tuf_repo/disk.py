"""The only place that changes files which must survive a crash.

Rule: a change is durable only after `sync()`, which settles everything before it at once; nothing
else may be assumed about what a crash keeps. Crash tests put a `Disk` in here that loses, tears or
fails any single change.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol


class Disk(Protocol):
    """The verbs with which a repository is written. Paths are absolute, on one file system."""

    def write_new(self, path: Path, data: bytes, *, mode: int = 0o644) -> None:
        """Write a file that is not there yet; its folder is made where it is missing."""

    def replace(self, path: Path, data: bytes, *, mode: int = 0o644) -> None:
        """Put a whole file in place by rename: readers see the old bytes or the new."""

    def rename(self, source: Path, path: Path) -> None:
        """Move a file over whatever is at `path`; its folder is made where it is missing."""

    def link_over(self, source: Path, path: Path) -> None:
        """Make `path` a hard link to `source`, over whatever is there."""

    def set_mtime(self, path: Path, seconds: int) -> None:
        """Set the modification time, in whole seconds since 1970."""

    def remove(self, path: Path) -> None:
        """Remove a file; one that is gone already is no error."""

    def sync(self) -> None:
        """Return when everything so far is on the disk."""


class PosixDisk:
    """The real disk. `syncfs` where the kernel has it (30,000 files: 2 s; an fsync each: 88 s)."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._libc = ctypes.CDLL(None, use_errno=True)

    def write_new(self, path: Path, data: bytes, *, mode: int = 0o644) -> None:
        """Create the file; a failure leaves nothing under its name."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(path, flags, mode)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, flags, mode)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        except OSError:
            # A full disk must not leave a half file under a final name.
            with suppress(OSError):
                os.unlink(path)
            raise
        finally:
            os.close(fd)

    def replace(self, path: Path, data: bytes, *, mode: int = 0o644) -> None:
        """Write a temporary file beside it, then rename."""
        temporary = path.with_name(f".{path.name}.tmp")
        self.remove(temporary)
        self.write_new(temporary, data, mode=mode)
        os.rename(temporary, path)

    def rename(self, source: Path, path: Path) -> None:
        """Move by one rename, after making the folder where it is missing."""
        try:
            os.rename(source, path)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.rename(source, path)

    def link_over(self, source: Path, path: Path) -> None:
        """Call link(2); go over an existing name by way of a temporary one."""
        try:
            os.link(source, path)
        except FileExistsError:
            temporary = path.with_name(f".{path.name}.tmp")
            self.remove(temporary)
            os.link(source, temporary)
            os.rename(temporary, path)
            # rename(2) does nothing where both names are one file already: the name stays.
            self.remove(temporary)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, path)

    def set_mtime(self, path: Path, seconds: int) -> None:
        """Call utime(2), never through a symbolic link."""
        os.utime(path, (seconds, seconds), follow_symlinks=False)

    def remove(self, path: Path) -> None:
        """Call unlink(2)."""
        with suppress(FileNotFoundError):
            os.unlink(path)

    def sync(self) -> None:
        """Call syncfs(2) on the file system of the root."""
        fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if hasattr(self._libc, "syncfs"):
                if self._libc.syncfs(fd) != 0:
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number), str(self._root))
            else:  # macOS has no syncfs: the whole machine, then.
                os.sync()
        finally:
            os.close(fd)
