"""How `finish` hands its files to the signer: all of them, or none that it may take.

Rule: while `.finishing` lies in the folder, what else lies there is not whole. It is on the disk
before the first file has its name, and goes when the last one is on the disk. It says which files
these are to be, so that the same `finish`, run again, completes what was cut short.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tuf_repo import durable
from tuf_repo.disk import Disk
from tuf_repo.errors import CeremonyError
from tuf_repo.folder import FINISHING
from tuf_repo.storage import MetadataFolder


def hand_over(
    folder: Path, files: Mapping[str, bytes], disk: Callable[[Path], Disk] = durable.OwnersDisk
) -> None:
    """Put files where the signer takes them from, in this order.

    Args:
        folder: made where it is missing.
        files: by name.
        disk: what writes to a folder.

    Raises:
        CeremonyError: something else lies there.
        OSError: the disk, and run again it goes on where it stopped; or the folder is a link.
    """
    durable.make_folder(folder)
    with _locked(folder):
        _refuse_others(folder, files)
        writer, mark = disk(folder), folder / FINISHING
        writer.replace(mark, _mark(files))
        writer.sync()
        for name, data in files.items():
            writer.replace(folder / name, data)
        writer.sync()
        writer.remove(mark)
        writer.sync()


def settle(
    folder: Path, files: Mapping[str, bytes], disk: Callable[[Path], Disk] = durable.OwnersDisk
) -> None:
    """Tidy away what a `finish` left that was cut short after all its files were taken.

    Args:
        folder: where the signer takes files from.
        files: what it took, in the order of `hand_over`.
        disk: what writes to a folder.

    Raises:
        OSError: the disk; run again it goes on where it stopped.
    """
    if not folder.is_dir():
        return
    with _locked(folder):
        there = MetadataFolder(folder)
        if there.read_if_there(FINISHING) != _mark(files):
            return
        writer = disk(folder)
        for name in sorted(files.keys() & set(there.files())):
            writer.remove(folder / name)
        # Last: without it the signer would take what is left of them.
        writer.sync()
        writer.remove(folder / FINISHING)
        writer.sync()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with durable.opened_folder(folder, os.O_NOFOLLOW) as locked:
        with suppress(OSError):  # Some network folders have no locks.
            fcntl.flock(locked, fcntl.LOCK_EX)
        yield


def _refuse_others(folder: Path, files: Mapping[str, bytes]) -> None:
    """Nothing else lies there than these very files, or what a kill left of them."""
    there = MetadataFolder(folder)
    mark = there.read_if_there(FINISHING)
    for name in sorted(name for name in there.files() if not name.startswith(".")):
        is_ours = name in files and (mark == _mark(files) or there.read(name) == files[name])
        if not is_ours:
            left = "the signer has not taken; let it"
            if mark is not None:
                left = "a `finish` that was cut short left; run that one again"
            raise CeremonyError(
                str(folder),
                "an empty folder, or these very files",
                f"{name}, which {left}, or remove the file",
            )


def _mark(files: Mapping[str, bytes]) -> bytes:
    lines = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items()]
    return "".join(lines).encode()
