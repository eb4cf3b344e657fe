"""The folder that `crateseal vendor` writes: what in it is ours, and how a package gets its place.

Rule: under its final name a package is whole or not there. It is written below `.crateseal.tmp`,
which cargo does not look into, and renamed; what is there is removed only if it can be made again,
because it is exactly what its own `.cargo-checksum.json` says. Nothing else is ever removed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mirror.client.commands.checked import shown
from mirror.client.commands.compare import Difference, differences
from mirror.client.commands.directory_source import (
    CHECKSUM_FILE,
    CHECKSUM_MAX_BYTES,
    ChecksumFile,
    checksum_file,
    is_left_out,
    parse_checksum_file,
)
from mirror.client.commands.files import read_file
from mirror.client.commands.unpack import (
    Contents,
    limits_of_clients,
    opened,
    plain_files,
    unpack_crate,
)
from mirror.core.index import IndexEntry
from mirror.errors import BusyError, ProofError, UsageError
from tuf_repo.disk import PosixDisk

TMP = ".crateseal.tmp"
INCOMPLETE = ".crateseal-incomplete"
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAKE_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MINE = "do not build from it; look at what changed, and move the folder away or delete it"


class VendorFolder:
    """A folder of packages, held for one process; made by `open`.

    Attributes:
        path: where it is, for people.
    """

    def __init__(self, path: Path, fd: int, tmp: int) -> None:
        self.path = path
        self._fd = fd
        self._tmp = tmp

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[VendorFolder]:
        """Make the folder, or take the one that is there, and hold it.

        Raises:
            UsageError: something else is there.
            BusyError: another process writes it now.
            OSError: it cannot be made.
        """
        fd = _made(path)
        try:
            _lock(path, fd)
            _remove_tmp(fd)  # what a run that did not end has left
            os.mkdir(TMP, 0o700, dir_fd=fd)
            try:
                with opened(TMP, fd) as tmp:
                    yield cls(path, fd, tmp)
            finally:
                _remove_tmp(fd)
        finally:
            os.close(fd)

    def superseded(self, wanted: Iterable[str]) -> list[str]:
        """Return the packages that are there, are not wanted, and may be removed.

        Raises:
            UsageError: there is something that is neither wanted nor may be removed; nothing has
                been touched.
        """
        wanted = frozenset(wanted)
        found = sorted(name for name in os.listdir(self._fd) if not name.startswith("."))
        for name in found:
            if name not in wanted:
                self._require_removable(name)
            elif not self._is_folder(name):
                where = shown(str(self.path / name))
                raise UsageError(f"{where}: stands where a package belongs; move it away")
        return [name for name in found if name not in wanted]

    def is_right(self, entry: IndexEntry, data: bytes) -> bool:
        """Whether this crate is there already, whole and unchanged.

        Raises:
            ArchiveError: it is not safe to unpack.
            ProofError: what is there was changed since it was written, so that it stays.
        """
        name = folder_name(entry)
        if not os.path.lexists(self.path / name):
            return False
        contents = vendored_contents(plain_files(entry.crate, data, limits_of_clients()))
        if self._changed(name, ChecksumFile(entry.cksum, contents.files)) is None:
            return True
        difference = self._changed(name)
        if difference is not None:
            raise ProofError(
                str(entry.crate),
                shown(str(self.path / name / difference.path)),
                shown(difference.expected),
                shown(difference.got),
                _MINE,
            )
        return False

    def write(self, entry: IndexEntry, data: bytes) -> int:
        """Unpack a verified crate beside the others, not in its place yet; return how many files.

        Raises:
            ArchiveError: it is not safe to unpack.
        """
        name = folder_name(entry)
        contents = unpack_crate(
            entry.crate, data, (self._tmp, name), limits_of_clients(), _is_vendored
        )
        with opened(name, self._tmp) as folder:
            _write(folder, CHECKSUM_FILE, checksum_file(entry.cksum, contents.files))
        return len(contents.files)

    def mark_incomplete(self, missing: Iterable[str]) -> None:
        """Say in the folder which packages it lacks."""
        self.mark_complete()
        text = "".join(f"{each}\n" for each in missing)
        _write(self._fd, INCOMPLETE, f"Run `crateseal vendor` again. Missing:\n{text}".encode())

    def mark_complete(self) -> None:
        """Take that back."""
        with suppress(FileNotFoundError):
            os.unlink(INCOMPLETE, dir_fd=self._fd)

    def put_in_place(self, names: Iterable[str]) -> None:
        """Give packages that were written their places; what stood there goes."""
        PosixDisk(self.path).sync()  # What has its name has its bytes after a power failure, too.
        for name in names:
            if os.path.lexists(self.path / name):
                self.remove(name)
            os.rename(name, name, src_dir_fd=self._tmp, dst_dir_fd=self._fd)

    def remove(self, name: str) -> None:
        """Remove a package: at once from its place, then file by file."""
        old = f"old {name}"
        os.rename(name, old, src_dir_fd=self._fd, dst_dir_fd=self._tmp)
        shutil.rmtree(old, dir_fd=self._tmp)

    def _require_removable(self, name: str) -> None:
        where = shown(str(self.path / name))
        if not os.path.lexists(self.path / name / CHECKSUM_FILE):
            raise UsageError(
                f"{where}: no package of this lock, and nothing that we wrote; move it away, or"
                " name a new or empty folder"
            )
        difference = self._changed(name)
        if difference is not None:
            raise UsageError(
                f"{where}: no package of this lock, and changed since it was written"
                f" ({shown(difference.path) or 'the folder'}); move it away or delete it"
            )

    def _is_folder(self, name: str) -> bool:
        path = self.path / name
        return path.is_dir() and not path.is_symlink()

    def _changed(self, name: str, expected: ChecksumFile | None = None) -> Difference | None:
        """Return what first differs from `expected`, or from what the package says of itself."""
        folder = self.path / name
        try:
            said = parse_checksum_file(read_file(folder / CHECKSUM_FILE, CHECKSUM_MAX_BYTES))
        except (OSError, ValueError) as error:
            return Difference(CHECKSUM_FILE, "a checksum file", str(error))
        if said.package is None or expected not in (None, said):
            return Difference(CHECKSUM_FILE, "that of this crate", f"that of {said.package}")
        found = differences(folder, Contents(said.files), own=CHECKSUM_FILE)
        return found[0] if found else None


def _made(path: Path) -> int:
    # A stranger's checkout may have a link there, to wherever its author likes us to write.
    if path.is_symlink():
        raise UsageError(f"{path}: a link to {os.readlink(path)!r}; name that folder itself")
    try:
        path.mkdir(parents=True, exist_ok=True)
        return os.open(path, _OPEN_FOLDER)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{path}: not a folder; name a new or empty one") from error


def _lock(path: Path, fd: int) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BusyError(f"{path}: another process is writing it; wait for it") from error


def _remove_tmp(fd: int) -> None:
    with suppress(FileNotFoundError):
        shutil.rmtree(TMP, dir_fd=fd)


def folder_name(entry: IndexEntry) -> str:
    """Return what a package's folder is called."""
    return f"{entry.crate.name}-{entry.crate.version}"


def vendored_contents(contents: Contents) -> Contents:
    """Return what of a crate lies in a vendored folder."""
    return Contents({path: each for path, each in contents.files.items() if _is_vendored(path)})


def _is_vendored(path: str) -> bool:
    return not is_left_out(path)


def _write(folder: int, name: str, data: bytes) -> None:
    with open(os.open(name, _MAKE_FILE, 0o644, dir_fd=folder), "wb") as file:
        file.write(data)
