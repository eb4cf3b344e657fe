"""The safety rules for a `.crate`: a gzip tar under one folder `name-version/`; nothing escapes.

What cargo itself refuses is refused, and what would leave the folder; old real crates must stay
buildable, so nothing is refused for taste. Source: cargo's `unpack_package`.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from mirror.core.names import CrateId
from mirror.errors import ArchiveError

_CHUNK_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What a crate may be at most. 512 MB unpacked is cargo's own limit."""

    file_max_bytes: int = 64_000_000
    unpacked_max_bytes: int = 512_000_000
    entries_max: int = 100_000


def check_archive(crate: CrateId, stream: BinaryIO, limits: ArchiveLimits) -> None:
    """Read a crate file through once and apply every rule.

    Raises:
        ArchiveError: it is no gzip tar, too large, or an entry leaves `name-version/`.
    """
    top = f"{crate.name}-{crate.version}"
    inflated = _Inflated(str(crate), stream, limits.unpacked_max_bytes)
    count = 0
    try:
        with tarfile.open(fileobj=inflated, mode="r|") as archive:
            for entry in archive:
                count += 1
                if count > limits.entries_max:
                    raise ArchiveError(str(crate), f"at most {limits.entries_max} entries", "more")
                _check_entry(str(crate), top, entry)
                # A stream's members would be kept for ever; we never go back.
                archive.members = []  # type: ignore[attr-defined]
    except (tarfile.TarError, EOFError, UnicodeError, ValueError) as error:
        raise ArchiveError(str(crate), "a gzip tar archive", str(error)) from error
    if count == 0:
        raise ArchiveError(str(crate), f"files under {top}/", "an empty archive")
    inflated.drain()


def _check_entry(subject: str, top: str, entry: tarfile.TarInfo) -> None:
    if not _is_under(top, entry.name):
        raise ArchiveError(subject, f"everything under {top}/", repr(entry.name))
    if entry.issym() or entry.islnk():
        # A hard link names its target from the archive's root, a symlink from its own folder.
        base = posixpath.dirname(entry.name) if entry.issym() else ""
        if entry.linkname.startswith("/") or not _is_under(
            top, posixpath.normpath(posixpath.join(base, entry.linkname))
        ):
            raise ArchiveError(
                subject, f"links that stay under {top}/", f"{entry.name!r} -> {entry.linkname!r}"
            )
    elif not (entry.isreg() or entry.isdir()):
        raise ArchiveError(subject, "files, folders and links only", repr(entry.name))


def _is_under(top: str, path: str) -> bool:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    # A backslash separates folders on Windows, where the same crate is unpacked too.
    unsafe = path.startswith("/") or "\\" in path or "\0" in path or ".." in parts
    return not unsafe and parts[:1] == [top]


class _Inflated(io.RawIOBase):
    """What one gzip member inflates to, up to a limit."""

    def __init__(self, subject: str, stream: BinaryIO, max_bytes: int) -> None:
        self._subject = subject
        self._stream = stream
        self._left = max_bytes
        self._inflate = zlib.decompressobj(31)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        want = _CHUNK_BYTES if size < 0 else size
        out = b""
        while not out and want and not self._inflate.eof:
            data = self._inflate.unconsumed_tail or self._stream.read(_CHUNK_BYTES)
            if not data:
                raise ArchiveError(self._subject, "a whole gzip stream", "its end is missing")
            try:
                out = self._inflate.decompress(data, want)
            except zlib.error as error:
                raise ArchiveError(self._subject, "a gzip stream", str(error)) from error
        self._left -= len(out)
        if self._left < 0:
            raise ArchiveError(self._subject, "to unpack within the limit", "more")
        return out

    def drain(self) -> None:
        """Read to the end, so that the gzip checksum is compared."""
        while self.read(_CHUNK_BYTES):
            pass
