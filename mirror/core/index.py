"""The sparse index's files: parse them, never rewrite them.

Bytes are kept as they came; an `IndexEntry` is a view on one line. Source of the format: the cargo
book, chapter "Registry Index". How one line is read: index_line.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mirror.core.index_line import DoubtfulLineError, NotJsonError, UnusedLineError, read_fields
from mirror.core.names import CrateId, CrateName, CrateVersion, index_path, parse_name
from mirror.errors import InvalidNameError, InvalidVersionError, MalformedIndexError

_CKSUM_CHARS = frozenset("0123456789abcdef")
_U64_MAX = 2**64 - 1
_LONG_NUMBER = re.compile(r"[0-9]{20}")
# What cargo's semver crate takes beyond our own pattern: long numbers in a pre-release, long texts.
_SEMVER = re.compile(
    r"(?:0|[1-9][0-9]{0,19})(?:\.(?:0|[1-9][0-9]{0,19})){2}"
    r"(?:-(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
    r"(?:\.(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*))*)?"
    r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?\Z"
)


@dataclass(frozen=True, slots=True)
class IndexLimits:
    """What an index file may be at most. The largest real one of 2026 has 1.3 MB."""

    file_max_bytes: int = 32_000_000
    line_max_bytes: int = 2_000_000
    entries_max: int = 50_000


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One line: one published version."""

    crate: CrateId
    cksum: str
    """sha256 of the crate file, 64 lower-case hex digits."""
    yanked: bool
    line: bytes
    """The line as it came, without its newline."""

    def fields(self) -> dict[str, Any]:
        """Return all fields of the line, the unknown ones too."""
        return read_fields(self.line)


@dataclass(frozen=True, slots=True)
class SkippedLine:
    """A line that cargo would skip, so that it says nothing."""

    number: int
    """From 1."""
    reason: str


@dataclass(frozen=True, slots=True)
class IndexFile:
    """One crate's index file, as it came, and what its lines say."""

    name: CrateName
    data: bytes
    entries: tuple[IndexEntry, ...]
    skipped: tuple[SkippedLine, ...] = ()

    def by_version(self) -> dict[str, IndexEntry]:
        """Return the entry that counts for each version: the last one, as in cargo."""
        return {entry.crate.version: entry for entry in self.entries}

    def newest(self) -> IndexEntry | None:
        """Return the version cargo would most likely take: not yanked, a release, the highest."""
        return max(
            self.by_version().values(),
            key=lambda entry: (
                not entry.yanked,
                not (version := CrateVersion(entry.crate.version)).is_prerelease,
                version,
            ),
            default=None,
        )


def parse_index_file(name: CrateName, data: bytes, limits: IndexLimits) -> IndexFile:
    """Parse every line of an index file; what no cargo uses counts as absent.

    Raises:
        MalformedIndexError: no line is an entry of this crate, the last line was cut short, cargo
            may read a line otherwise than we do, or a limit is passed.
    """
    subject = f"index file {index_path(name)}"
    if len(data) > limits.file_max_bytes:
        raise MalformedIndexError(subject, f"at most {limits.file_max_bytes} bytes", f"{len(data)}")
    lines = [(n, text) for n, text in enumerate(data.split(b"\n"), start=1) if text.strip()]
    if not lines:
        raise MalformedIndexError(subject, "at least one line", "nothing")
    if len(lines) > limits.entries_max:
        raise MalformedIndexError(subject, f"at most {limits.entries_max} lines", f"{len(lines)}")
    entries: list[IndexEntry] = []
    skipped: list[SkippedLine] = []
    for number, line in lines:
        where = f"{subject}, line {number}"
        if len(line) > limits.line_max_bytes:
            raise MalformedIndexError(
                where, f"at most {limits.line_max_bytes} bytes", f"{len(line)}"
            )
        try:
            entries.append(_parse_line(where, name, line))
        except UnusedLineError as error:
            if isinstance(error, NotJsonError) and line is lines[-1][1] and data[-1:] != b"\n":
                raise _malformed(where, "a whole line", line, error) from error
            skipped.append(SkippedLine(number, str(error)))
    if not entries:
        where = f"{subject}, line {skipped[0].number}"
        raise _malformed(where, f"an entry of {name}", lines[0][1], skipped[0].reason)
    return IndexFile(name, data, tuple(entries), tuple(skipped))


def find_entry(file: bytes, name: CrateName, version: str) -> IndexEntry | None:
    """Return the entry that counts for one version, without parsing the other lines.

    `file` has been parsed whole before it was signed; None if no line is about that version.

    Raises:
        MalformedIndexError: a line that may be about it cannot be believed.
    """
    for line in _lines_with(file, json.dumps(version).encode()):
        try:
            entry = _parse_line(f"index file {index_path(name)}", name, line)
        except UnusedLineError:
            continue
        if entry.crate.version == version:
            return entry
    return None


def newest_entry(file: bytes, name: CrateName) -> IndexEntry | None:
    """Return the version cargo would most likely take (`IndexFile.newest`), of a signed file.

    Raises:
        MalformedIndexError: it is no index file of this crate.
    """
    return parse_index_file(name, file, IndexLimits()).newest()


def _lines_with(file: bytes, text: bytes) -> Iterator[bytes]:
    """Yield the lines that may have this text in them, the last one first."""
    # A version may be spelled with escapes; those of its letters all begin with \u.
    escaped = b"\\u" in file
    end = len(file)
    while end > 0:
        at = file.rfind(text, 0, end)
        if escaped:
            at = max(at, file.rfind(b"\\u", 0, end))
        if at < 0:
            return
        start = file.rfind(b"\n", 0, at) + 1
        yield file[start : end if (stop := file.find(b"\n", at, end)) < 0 else stop]
        end = start - 1


def _parse_line(where: str, name: CrateName, line: bytes) -> IndexEntry:
    """Make an entry of one line.

    Raises:
        UnusedLineError: no cargo uses it for this crate.
        MalformedIndexError: cargo may use it, and we cannot say for what.
    """
    try:
        fields = read_fields(line)
        crate = _crate(name, fields["name"], fields["vers"])
    except DoubtfulLineError as error:
        raise _malformed(where, "a line that reads in one way", line, error) from error
    cksum = fields["cksum"]
    if len(cksum) != 64 or not _CKSUM_CHARS.issuperset(cksum):
        raise MalformedIndexError(where, "cksum of 64 hex digits", ascii(cksum))
    return IndexEntry(crate, cksum, bool(fields.get("yanked")), line)


def _crate(name: CrateName, own: str, version: str) -> CrateId:
    if own.lower() != name:
        raise UnusedLineError(f"it is about {ascii(own)[:60]}")
    try:
        crate = CrateId(own, version)
    except InvalidNameError as error:  # letters that only look like ours in lower case
        raise DoubtfulLineError(f"name {ascii(own)[:60]}") from error
    except InvalidVersionError as error:
        if _SEMVER.match(version):
            raise DoubtfulLineError(f"version {ascii(version)[:60]}") from error
        raise UnusedLineError(f"version {ascii(version)[:60]}") from error
    if _LONG_NUMBER.search(version) and any(
        int(number) > _U64_MAX for number in re.split("[.+-]", version, maxsplit=3)[:3]
    ):
        raise UnusedLineError(f"version {ascii(version)[:60]}")
    return crate


def _malformed(
    where: str, expected: str, line: bytes, why: UnusedLineError | DoubtfulLineError | str
) -> MalformedIndexError:
    excerpt = line[:80].decode(errors="replace")
    return MalformedIndexError(where, expected, f"{why} in {excerpt!r}")


def dependencies_of_newest(file: IndexFile, at_most: int) -> tuple[CrateName, ...]:
    """Name the crates that a build of the newest version may ask the index for next.

    Dev-dependencies and those from other registries are left out; required ones come first.
    """
    newest = file.newest()
    if newest is None:
        return ()
    return _dependencies(file.name, newest.fields())[:at_most]


def hinted_dependencies(name: CrateName, file: bytes) -> tuple[CrateName, ...]:
    """Name what the last line of an index file depends on, or nothing if that cannot be read.

    The last line is most often the newest version. A hint of what is asked for next, cheap to have:
    no other line is looked at.
    """
    line = file[file.rfind(b"\n", 0, max(0, len(file) - 1)) + 1 :].strip()
    try:
        fields = read_fields(line)
    except (UnusedLineError, DoubtfulLineError):
        return ()
    return _dependencies(name, fields)


def _dependencies(own: CrateName, fields: Mapping[str, Any]) -> tuple[CrateName, ...]:
    required: dict[CrateName, None] = {}
    optional: dict[CrateName, None] = {}
    for dep in fields["deps"]:
        if not isinstance(dep, dict) or dep.get("kind") == "dev" or dep.get("registry"):
            continue
        try:
            name = parse_name(str(dep.get("package") or dep.get("name")))
        except InvalidNameError:
            continue
        (optional if dep.get("optional") else required)[name] = None
    return tuple(name for name in (required | optional) if name != own)
