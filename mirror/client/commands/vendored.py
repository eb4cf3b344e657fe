"""`crateseal verify --vendor DIR`: is every file of a vendored folder what was signed?

cargo compares a directory source with checksums that lie in it, beside the files, and compiles
what they do not list. Here each file is compared with what the verified crate holds, and nothing
else may be there; for folders made by us and by `cargo vendor`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from mirror.client.commands.checked import Checked, as_error, shown
from mirror.client.commands.compare import differences
from mirror.client.commands.directory_source import (
    CHECKSUM_FILE,
    CHECKSUM_MAX_BYTES,
    ChecksumFile,
    may_be_left_out,
    parse_checksum_file,
)
from mirror.client.commands.files import read_file
from mirror.client.commands.unpack import Contents, archive_files, limits_of_clients
from mirror.client.source.source import Source
from mirror.core.lockfile import Lock, LockedCrate
from mirror.core.manifest import MANIFEST_MAX_BYTES, manifest_owner
from mirror.core.names import CrateId
from mirror.errors import (
    ArchiveError,
    CratesealError,
    MachineError,
    ProofError,
    RejectedError,
    UnreachableError,
    UsageError,
)

JOBS = 16
_ADVICE = "do not build from it; remove that folder and let `crateseal vendor` write it again"
_VERSION_SUFFIX = re.compile(r"-(\d+\.\d+\.\d+.*)\Z")


@dataclass(frozen=True, slots=True)
class Package:
    """A folder of a directory source, and the crate that it says it is."""

    folder: Path
    crate: CrateId
    said: ChecksumFile


def check_vendor(folder: Path, lock: Lock | None, source: Source) -> Iterator[Checked]:
    """Yield what became of each package in the folder, then those of the lock that it lacks.

    Raises:
        UsageError: it is no folder.
        MachineError: it cannot be read.
        ProofError, UnreachableError: the look at the mirrors as a whole.
    """
    found = [_read_package(each) for each in package_folders(folder)]
    packages = [each for each in found if isinstance(each, Package)]
    source.refresh()
    source.prefetch({each.crate.canonical_name for each in packages})
    with ThreadPoolExecutor(JOBS) as pool:
        yield from pool.map(
            lambda each: each if isinstance(each, Checked) else _check(each, lock, source), found
        )
    there = {(each.crate.name, each.crate.version) for each in packages}
    for locked in lock.crates if lock else ():
        if (locked.crate.name, locked.crate.version) not in there:
            yield _missing(folder, locked)


def package_folders(folder: Path) -> list[Path]:
    """Return the folders that cargo reads as packages of a directory source.

    Raises:
        UsageError: it is no folder.
        MachineError: it cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{folder}: not a folder; name a vendored one") from error
    except OSError as error:
        raise MachineError(f"{folder}: cannot be read: {error.strerror}") from error
    return [folder / name for name in names if os.path.lexists(folder / name / "Cargo.toml")]


def _read_package(folder: Path) -> Package | Checked:
    """Return what a folder says it is, as cargo would take it."""
    try:
        if folder.is_symlink():
            raise _finding(folder, "a folder", f"a link to {os.readlink(folder)!r}")
        said = _said(folder)
        owner = manifest_owner(_read(folder / "Cargo.toml", MANIFEST_MAX_BYTES))
        if owner is None:  # not to be read by our TOML reader; wrong names are found by comparing
            owner = _owner_by_name(folder)
        return Package(folder, CrateId(*owner), said)
    except RejectedError as error:
        finding = _finding(folder, "a crate's manifest", str(error))
        return Checked(shown(folder.name), shown(str(folder)), (finding,))
    except ProofError as error:
        return Checked(shown(folder.name), shown(str(folder)), (error,))


def _said(folder: Path) -> ChecksumFile:
    path = folder / CHECKSUM_FILE
    try:
        return parse_checksum_file(_read(path, CHECKSUM_MAX_BYTES))
    except ValueError as error:
        raise _finding(path, "a checksum file", str(error)) from error


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        return read_file(path, max_bytes)
    except OSError as error:
        raise _finding(path, "a file that can be read", str(error.strerror)) from error


def _owner_by_name(folder: Path) -> tuple[str, str]:
    found = _VERSION_SUFFIX.search(folder.name)
    return (folder.name[: found.start()], found[1]) if found else (folder.name, "")


def _finding(path: Path, expected: str, got: str) -> ProofError:
    return ProofError(shown(path.name), shown(str(path)), expected, shown(got), _ADVICE)


def _check(package: Package, lock: Lock | None, source: Source) -> Checked:
    """Prove one folder.

    1. It is a crate of a registry, and the signed index line of its name and version has the
       checksum that the folder, and the lock, say.
    2. Every file of the crate is there, byte by byte, and nothing else is.
    """
    crate = package.crate
    checked = Checked(str(crate), shown(str(package.folder)), note=_note(crate, lock))
    try:
        # 1.
        if package.said.package is None and _is_from_elsewhere(crate, lock):
            return replace(checked, not_covered="not from crates.io, says the lock")
        own = _signed_crate(package, lock, source)
        # 2.
        contents = archive_files(own, source.crate(own), limits_of_clients())
    except ArchiveError as error:
        return replace(checked, errors=(_as_finding(package.folder, error),))
    except (ProofError, UnreachableError) as error:
        return replace(checked, errors=(error,))
    errors = _compare(package, contents)
    return replace(checked, errors=errors, files=len(contents.files))


def _signed_crate(package: Package, lock: Lock | None, source: Source) -> CrateId:
    """Return the crate as its signed line names it, if the folder and the lock mean the same."""
    crate = package.crate
    entry = source.entry(crate)
    subject, where = str(crate), shown(str(package.folder / CHECKSUM_FILE))
    expected = f"package {entry.cksum} (signed)"
    if package.said.package != entry.cksum:
        raise ProofError(subject, where, expected, str(package.said.package), _ADVICE)
    for locked in lock.crates if lock else ():
        if locked.crate == crate and not locked.admits(entry.cksum):
            raise ProofError(
                subject,
                lock.where if lock else "",
                f"the lock's checksum {locked.checksum}",
                f"{entry.cksum} (signed)",
                "the lock was made from another source, or changed: see where it comes from",
            )
    return entry.crate


def _compare(package: Package, contents: Contents) -> tuple[CratesealError, ...]:
    contents.files.pop(CHECKSUM_FILE, None)
    found = differences(package.folder, contents, may_lack=may_be_left_out, own=CHECKSUM_FILE)
    return tuple(as_error(str(package.crate), package.folder, each, _ADVICE) for each in found)


def _as_finding(folder: Path, error: ArchiveError) -> ProofError:
    advice = "it cannot be compared safely; see who published it"
    return ProofError(error.subject, shown(str(folder)), error.expected, error.got, advice)


def _is_from_elsewhere(crate: CrateId, lock: Lock | None) -> bool:
    return any(each.startswith(f"{crate} (") for each in (lock.not_covered if lock else ()))


def _note(crate: CrateId, lock: Lock | None) -> str:
    if lock is None or _is_from_elsewhere(crate, lock):
        return ""
    return "" if any(each.crate == crate for each in lock.crates) else "the lock does not name it"


def _missing(folder: Path, locked: LockedCrate) -> Checked:
    advice = "`crateseal vendor` writes what is missing"
    error = ProofError(str(locked), shown(str(folder)), "a folder of this package", "none", advice)
    return Checked(str(locked), shown(str(folder)), (error,))
