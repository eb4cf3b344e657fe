"""The safety rules for a `.crate`: a gzip tar under one folder `name-version/`; nothing escapes.

What cargo itself refuses is refused, and what would leave the folder; old real crates must stay
buildable, so nothing is refused for taste. Source: cargo's `unpack_package`. How the archive is
read stands in tar.py: what we check must be what cargo unpacks.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from mirror.core.names import CrateId
from mirror.core.tar import FILE, FOLDER, HARD_LINK, SYMLINK, TarEntry, read_entries
from mirror.errors import ArchiveError

_CHUNK_BYTES = 65_536

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What a crate may be at most. 512 MB unpacked is cargo's own limit."""

    file_max_bytes: int = 64_000_000
    unpacked_max_bytes: int = 512_000_000
    entries_max: int = 100_000


def check_archive(crate: CrateId, stream: BinaryIO, limits: ArchiveLimits) -> None:
    """Read a crate file through once and apply every rule.

    1. It is one gzip member, nothing behind it, and a tar archive that all readers read alike.
    2. It unpacks within the limits.
    3. Everything lies under `name-version/`; files, folders and links only.
    4. No path, and no way to a link's target, goes through another link.

    Raises:
        ArchiveError: one of these does not hold.
    """
    subject, top = str(crate), f"{crate.name}-{crate.version}"
    inflated = _Inflated(subject, stream, limits.unpacked_max_bytes)
    links: set[Path] = set()
    ways: set[Path] = set()
    count = 0
    try:
        for entry in read_entries(inflated.read):  # 1. and 2.
            count += 1
            if count > limits.entries_max:
                raise ArchiveError(subject, f"at most {limits.entries_max} entries", "more")
            path = _checked_path(subject, top, entry)  # 3.
            ways.update(path[:depth] for depth in range(1, len(path)))
            if entry.kind == SYMLINK:
                links.add(path)
            if entry.kind in (SYMLINK, HARD_LINK):
                ways.update(_way_to_target(subject, top, path, entry))
    except (ValueError, OverflowError) as error:
        raise ArchiveError(subject, "a gzip tar archive", str(error)) from error
    inflated.end()
    if count == 0:
        raise ArchiveError(subject, f"files under {top}/", "an empty archive")
    if through := links & ways:  # 4.
        raise ArchiveError(subject, "no way through a link", "/".join(min(through)))


def _checked_path(subject: str, top: str, entry: TarEntry) -> Path:
    if entry.kind not in (FILE, FOLDER, HARD_LINK, SYMLINK):
        raise ArchiveError(subject, "files, folders and links only", repr(entry.path))
    parts = _parts(entry.path)
    if _is_absolute(entry.path) or ".." in parts or parts[:1] != (top,):
        raise ArchiveError(subject, f"everything under {top}/", repr(entry.path))
    return parts


def _way_to_target(subject: str, top: str, path: Path, entry: TarEntry) -> Iterator[Path]:
    """Yield each place that is passed on the way to a link's target, short of the target."""
    # A hard link names its target from the archive's root, a symlink from its own folder.
    place = list(path[:-1]) if entry.kind == SYMLINK else []
    steps = _parts(entry.link)
    for step in steps:
        if place:
            yield tuple(place)
        if step == "..":
            del place[-1:]
        else:
            place.append(step)
        if entry.kind == SYMLINK and place[:1] != [top]:
            break
    if _is_absolute(entry.link) or not steps or place[:1] != [top]:
        raise ArchiveError(
            subject, f"links that stay under {top}/", f"{entry.path!r} -> {entry.link!r}"
        )


def _parts(path: str) -> Path:
    return tuple(part for part in path.split("/") if part not in ("", "."))


def _is_absolute(path: str) -> bool:
    # A backslash separates folders, and a colon names a drive, where Windows unpacks this crate.
    return path.startswith("/") or "\\" in path or "\0" in path or path[1:2] == ":"


class _Inflated:
    """What one gzip member inflates to, up to a limit."""

    def __init__(self, subject: str, stream: BinaryIO, max_bytes: int) -> None:
        self._subject = subject
        self._stream = stream
        self._left = max_bytes
        self._inflate = zlib.decompressobj(31)

    def read(self, size: int) -> bytes:
        """Return so many bytes; fewer only where the member ends."""
        parts, want = [], size
        while want and not self._inflate.eof:
            part = self._some(want)
            parts.append(part)
            want -= len(part)
        return b"".join(parts)

    def _some(self, want: int) -> bytes:
        data = self._inflate.unconsumed_tail or self._stream.read(_CHUNK_BYTES)
        try:
            out = self._inflate.decompress(data, want)
        except zlib.error as error:
            raise ArchiveError(self._subject, "a gzip stream", str(error)) from error
        if not data and not out and not self._inflate.eof:
            raise ArchiveError(self._subject, "a whole gzip stream", "its end is missing")
        self._left -= len(out)
        if self._left < 0:
            raise ArchiveError(self._subject, "to unpack within the limit", "more")
        return out

    def end(self) -> None:
        """Make sure that the member has ended, and that nothing comes after it."""
        self.read(1)
        if not self._inflate.eof or self._inflate.unused_data or self._stream.read(1):
            raise ArchiveError(self._subject, "one gzip member and nothing after it", "more")
