"""Files that people and the signer rely on: whole or not there, on the disk, and whose they are.

Rule: whose a file becomes is decided by descriptor, never by name: where root writes into a folder
of somebody else, that somebody may put anything under a name at any moment.
"""

from __future__ import annotations

import errno
import glob
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tuf_repo.disk import PosixDisk

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# What link(2) says on FAT, exFAT and many a network folder.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}


def write_new(
    path: Path, data: bytes, mode: int, link: Callable[[Path, Path], None] = os.link
) -> None:
    """Write a file under a name that is free: whole and durable, or not there.

    As root, it becomes that of the folder's owner.

    Args:
        path: where.
        data: what.
        mode: who may read it.
        link: link(2), which not every file system has.

    Raises:
        FileExistsError: the name is taken.
        OSError: the disk.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.*tmp"):
        left.unlink(missing_ok=True)  # A crash left it.
    temporary = _beside(path)
    try:
        with opened_folder(path.parent) as folder:
            _write(temporary.name, folder, data, mode)
        try:
            # link(2), not rename(2): it never takes the place of what came there meanwhile.
            link(temporary, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            with claimed(path):
                os.rename(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
    sync_folder(path.parent)


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Hold a name that is free, by an empty file; it goes again if what is done fails.

    Raises:
        FileExistsError: the name is taken.
        OSError: nothing can be written there.
    """
    with opened_folder(path.parent) as folder:
        _write(path.name, folder, b"", 0o666)
    try:
        yield
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(path)
        raise


def replace(path: Path, data: bytes) -> None:
    """Put other bytes under a name by one rename, durable; mode, owner and group stay.

    Owner and group stay where this user may give files to them.

    Raises:
        OSError: the disk; what was there is there still.
    """
    temporary = _beside(path)
    before = os.stat(path)
    try:
        with os.fdopen(os.open(temporary, _NEW, 0o600), "wb") as file:
            for owner, group in ((-1, before.st_gid), (before.st_uid, -1)):
                with suppress(PermissionError):
                    os.fchown(file.fileno(), owner, group)
            # Not every file system has modes.
            with suppress(PermissionError):
                os.fchmod(file.fileno(), before.st_mode & 0o777)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
    sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder where there is none; as root, it becomes that of its parent's owner."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with opened_folder(path.parent) as parent:
        try:
            os.mkdir(path.name, dir_fd=parent)
        except FileExistsError:
            return
        made = os.open(path.name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
        try:
            _give_to_owner_of(parent, made)
        finally:
            os.close(made)


def sync_folder(folder: Path) -> None:
    """Return when the names in a folder are on the disk."""
    with opened_folder(folder) as fd:
        os.fsync(fd)


@contextmanager
def opened_folder(folder: Path, flags: int = 0) -> Iterator[int]:
    """Open a folder; the descriptor stays that folder whatever its name comes to mean."""
    fd = os.open(folder, _FOLDER | flags)
    try:
        yield fd
    finally:
        os.close(fd)


class OwnersDisk(PosixDisk):
    """A disk on which root's new files become those of their folder's owner."""

    def write_new(self, path: Path, data: bytes, *, mode: int = 0o644) -> None:
        """Create the file in a folder that is no link; a failure leaves nothing under its name."""
        with opened_folder(path.parent, os.O_NOFOLLOW) as folder:
            _write(path.name, folder, data, mode)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _write(name: str, folder: int, data: bytes, mode: int) -> None:
    with os.fdopen(os.open(name, _NEW, mode, dir_fd=folder), "wb") as file:
        try:
            _give_to_owner_of(folder, file.fileno())
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            with suppress(OSError):
                os.unlink(name, dir_fd=folder)
            raise


def _give_to_owner_of(folder: int, fd: int) -> None:
    """As root in the folder of a signer with a user of its own: that user must read it."""
    if os.geteuid() == 0:
        owner = os.fstat(folder)
        os.fchown(fd, owner.st_uid, owner.st_gid)
