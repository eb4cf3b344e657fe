"""The safety rules for a `.crate`: a gzip tar under one folder `name-version/`; nothing escapes.

What cargo itself refuses is refused, and what would leave the folder; old real crates must stay
buildable, so nothing is refused for taste. Source: cargo's `unpack` in sources/registry, tried
with cargo 1.95. How the archive is read stands in tar.py: what we check must be what cargo unpacks.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from mirror.core.manifest import MANIFEST_MAX_BYTES, manifest_owner
from mirror.core.names import CrateId
from mirror.core.places import Places
from mirror.core.tar import FILE, FOLDER, HARD_LINK, SYMLINK, TarEntry, read_entries
from mirror.errors import ArchiveError

_INPUT_BYTES = 65_536
_OUTPUT_BYTES = 262_144

_MAGIC = (b"\x1f", b"PK\x03\x04")
_MAGIC_BYTES = 4
"""What gzip takes for the beginning of something packed."""

_NAME_MAX_BYTES = 255
_PATH_MAX_BYTES = 4_096
"""What Linux takes: cargo fails at anything longer."""
_NAMES_MAX_CHARS = 32_000_000
"""All paths of files and folders together: what one hostile crate takes of our memory."""


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What a crate may be at most. 512 MiB unpacked is cargo's own limit and crates.io's.

    The ratio has no limit of its own: cargo has none below 512 MiB. Of 2.7 million releases, 29
    have more than 30,000 entries (crates.io, 2026).
    """

    file_max_bytes: int = 64_000_000
    unpacked_max_bytes: int = 536_870_912
    entries_max: int = 100_000


OnEntry = Callable[[str, TarEntry], None]
"""Told a path below `name-version/` (empty for that folder itself), and what is unpacked there."""


def check_archive(
    crate: CrateId, stream: BinaryIO, limits: ArchiveLimits, on_entry: OnEntry | None = None
) -> None:
    """Read a crate file through once and apply every rule.

    1. It is one gzip member, nothing to unpack behind it, and a tar archive that all readers read
       alike.
    2. It unpacks within the limits.
    3. Everything lies under `name-version/`; files, folders and links only, and no name that a
       file system would not take.
    4. No path, and no way to a link's target, goes through another link; nothing is a file and a
       folder at once. Of a file given twice the last one counts, as in cargo.
    5. `name-version/Cargo.toml` is a file, and this crate's manifest.

    `on_entry` is told of each entry, with its contents, in the order in which cargo unpacks; what
    it was told counts only if nothing is raised in the end.

    Raises:
        ArchiveError: one of these does not hold.
    """
    subject, top = str(crate), f"{crate.name}-{crate.version}"
    inflated = _Inflated(subject, stream, limits.unpacked_max_bytes)
    try:
        manifest = _check_entries(subject, top, inflated, limits.entries_max, on_entry)
    except (ValueError, OverflowError) as error:
        raise ArchiveError(subject, "a gzip tar archive", str(error)) from error
    inflated.end()
    _check_manifest(crate, f"{top}/Cargo.toml", manifest)  # 5.


def _check_entries(
    subject: str, top: str, inflated: _Inflated, entries_max: int, on_entry: OnEntry | None
) -> TarEntry | None:
    """Apply rules 1 to 4; return the entry that is unpacked as the manifest."""
    places = Places(top)
    manifest: TarEntry | None = None
    count = 0
    wanted = _is_manifest if on_entry is None else _is_any
    for entry in read_entries(inflated.read, wanted):  # 1. and 2.
        count += 1
        if count > entries_max:
            raise ArchiveError(subject, f"at most {entries_max} entries", "more")
        path = _checked_path(subject, top, entry)  # 3.
        if path == f"{top}/Cargo.toml":
            manifest = entry if _is_manifest(entry) else replace(entry, data=None)
        if not places.add(path, entry):  # 4.
            got = f"{entry.path!r} -> {entry.link!r}"
            raise ArchiveError(subject, f"links that stay under {top}/", got)
        if places.chars > _NAMES_MAX_CHARS:
            raise ArchiveError(subject, f"names of {_NAMES_MAX_CHARS} letters at most", "more")
        if on_entry is not None:
            on_entry(_path_below(entry), entry)
    if count == 0:
        raise ArchiveError(subject, f"files under {top}/", "an empty archive")
    for rule, path in places.conflicts():  # 4.
        raise ArchiveError(subject, rule, repr(path))
    return manifest


def unpacked(
    crate: CrateId, stream: BinaryIO, limits: ArchiveLimits
) -> Iterator[tuple[str, TarEntry]]:
    """Yield what `check_archive` tells `on_entry`. Ask it first: this is safe only after it.

    Raises:
        ArchiveError: it is no such archive.
    """
    subject, top = str(crate), f"{crate.name}-{crate.version}"
    inflated = _Inflated(subject, stream, limits.unpacked_max_bytes)
    try:
        for entry in read_entries(inflated.read, _is_any):
            _checked_path(subject, top, entry)
            yield _path_below(entry), entry
    except (ValueError, OverflowError) as error:
        raise ArchiveError(subject, "a gzip tar archive", str(error)) from error


def _path_below(entry: TarEntry) -> str:
    # On the file system that this is for, a backslash is a letter like others.
    parts = [part for part in entry.path.split("/") if part not in ("", ".")]
    return "/".join(parts[1:])


def _is_any(_entry: TarEntry) -> bool:
    return True


def _is_manifest(entry: TarEntry) -> bool:
    """Whether the contents are wanted; where it lies is checked later."""
    return entry.path.endswith("Cargo.toml") and entry.size <= MANIFEST_MAX_BYTES


def _check_manifest(crate: CrateId, path: str, entry: TarEntry | None) -> None:
    if entry is None or entry.kind != FILE:
        raise ArchiveError(str(crate), f"a file {path}", "none")
    owner = None if entry.data is None else manifest_owner(entry.data)
    if owner is not None and owner != (crate.name, crate.version):
        got = " ".join(owner).strip() or "no crate"
        raise ArchiveError(str(crate), "its own manifest", f"that of {got}")


def _checked_path(subject: str, top: str, entry: TarEntry) -> str:
    """Return the path that cargo unpacks to, with `/` between its parts."""
    path = entry.path
    if entry.kind not in (FILE, FOLDER, HARD_LINK, SYMLINK):
        raise ArchiveError(subject, "files, folders and links only", repr(path))
    parts = list(_parts(path))
    if (path != top and not path.startswith(f"{top}/")) or any(map(_escapes, parts)):
        raise ArchiveError(subject, f"everything under {top}/", repr(path))
    if entry.kind in (HARD_LINK, SYMLINK) and "\\" in path + entry.link:
        # Linux and Windows would follow it to two places.
        raise ArchiveError(subject, "links without a backslash", f"{path!r} -> {entry.link!r}")
    if _is_too_long(path, parts) or len(entry.link) > _PATH_MAX_BYTES:
        raise ArchiveError(subject, "names that a file system takes", repr(path))
    return "/".join(parts)


def _parts(path: str) -> Iterator[str]:
    # A backslash separates folders where Windows unpacks this crate.
    return (part for part in path.replace("\\", "/").split("/") if part not in ("", "."))


def _escapes(part: str) -> bool:
    # A colon in second place names a drive of Windows; one further on is a file of Linux.
    return part == ".." or part[1:2] == ":" or "\0" in part


def _is_too_long(path: str, parts: list[str]) -> bool:
    if len(path) * 4 <= _NAME_MAX_BYTES:  # a character has four bytes at most
        return False
    whole = len(path.encode("utf-8", "surrogateescape"))
    longest = max(len(part.encode("utf-8", "surrogateescape")) for part in parts)
    return whole > _PATH_MAX_BYTES or longest > _NAME_MAX_BYTES


class _Inflated:
    """What one gzip member inflates to, up to a limit."""

    def __init__(self, subject: str, stream: BinaryIO, max_bytes: int) -> None:
        self._subject = subject
        self._stream = stream
        self._left = max_bytes
        self._inflate = zlib.decompressobj(31)
        self._ready = b""
        self._at = 0

    def read(self, size: int) -> bytes:
        """Return so many bytes; fewer only where the member ends."""
        end = self._at + size
        if end <= len(self._ready):
            part = self._ready[self._at : end]
            self._at = end
            return part
        parts, want = [self._ready[self._at :]], size - (len(self._ready) - self._at)
        self._ready, self._at = b"", 0
        while want and not self._inflate.eof:
            self._ready = self._more()
            self._at = min(want, len(self._ready))
            parts.append(self._ready[: self._at])
            want -= self._at
        return b"".join(parts)

    def _more(self) -> bytes:
        data = self._inflate.unconsumed_tail or self._stream.read(_INPUT_BYTES)
        try:
            out = self._inflate.decompress(data, _OUTPUT_BYTES)
        except zlib.error as error:
            raise ArchiveError(self._subject, "a gzip stream", str(error)) from error
        if not data and not out and not self._inflate.eof:
            raise ArchiveError(self._subject, "a whole gzip stream", "its end is missing")
        self._left -= len(out)
        if self._left < 0:
            raise ArchiveError(self._subject, "to unpack within the limit", "more")
        return out

    def end(self) -> None:
        """Make sure that nothing behind the member, which has ended, can be unpacked.

        cargo reads one member and no further, and real crates end in a stray newline (forust 0.1.0
        of 2016). Others go on with what begins like a packed file, some behind zeros.
        """
        rest = self._inflate.unused_data
        while more := self._stream.read(_INPUT_BYTES):
            rest = rest.lstrip(b"\0")[:_MAGIC_BYTES] + more
        if rest.lstrip(b"\0").startswith(_MAGIC):
            raise ArchiveError(self._subject, "one gzip member", "another one behind it")
