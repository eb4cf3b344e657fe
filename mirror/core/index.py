"""The sparse index's files: parse them, never rewrite them.

Bytes are kept as they came; an `IndexEntry` is a view on one line. Source of the format: the cargo
book, chapter "Registry Index".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import orjson

from mirror.core.names import CrateId, CrateName, CrateVersion, index_path, parse_name
from mirror.errors import InvalidNameError, InvalidVersionError, MalformedIndexError

_spaced = json.JSONEncoder(ensure_ascii=False).encode
_CKSUM_CHARS = frozenset("0123456789abcdef")


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
        return _parse_object(self.line)


@dataclass(frozen=True, slots=True)
class IndexFile:
    """One crate's index file, as it came, and what its lines say."""

    name: CrateName
    data: bytes
    entries: tuple[IndexEntry, ...]

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
    """Parse every line of an index file.

    Raises:
        MalformedIndexError: a line is not an entry of this crate, or a limit is passed.
    """
    subject = f"index file {index_path(name)}"
    if len(data) > limits.file_max_bytes:
        raise MalformedIndexError(subject, f"at most {limits.file_max_bytes} bytes", f"{len(data)}")
    lines = [line for line in data.split(b"\n") if line.strip()]
    if not lines:
        raise MalformedIndexError(subject, "at least one line", "nothing")
    if len(lines) > limits.entries_max:
        raise MalformedIndexError(subject, f"at most {limits.entries_max} lines", f"{len(lines)}")
    entries = []
    for number, line in enumerate(lines, start=1):
        if len(line) > limits.line_max_bytes:
            raise MalformedIndexError(
                f"{subject}, line {number}",
                f"at most {limits.line_max_bytes} bytes",
                f"{len(line)}",
            )
        entries.append(_parse_line(f"{subject}, line {number}", name, line))
    return IndexFile(name, data, tuple(entries))


def find_entry(file: bytes, name: CrateName, version: str) -> IndexEntry | None:
    """Return the entry that counts for one version, without parsing the other lines.

    `file` has been parsed whole before it was signed; None if no line is about that version.

    Raises:
        MalformedIndexError: the line that looks like it is none.
    """
    text = json.dumps(version).encode()
    for line in reversed(file.split(b"\n")):
        if text in line:
            entry = _parse_line(f"index file {index_path(name)}", name, line)
            if entry.crate.version == version:
                return entry
    return None


def _parse_line(subject: str, name: CrateName, line: bytes) -> IndexEntry:
    try:
        fields = _parse_object(line)
    except (ValueError, TypeError, RecursionError) as error:  # orjson's deep nesting: TypeError
        excerpt = line[:80].decode(errors="replace")
        raise MalformedIndexError(subject, "one JSON object", f"{error} in {excerpt!r}") from error
    cksum, yanked = fields.get("cksum"), fields.get("yanked", False)
    if not isinstance(cksum, str) or len(cksum) != 64 or not _CKSUM_CHARS.issuperset(cksum):
        raise MalformedIndexError(subject, "cksum of 64 hex digits", repr(cksum))
    if yanked is not None and not isinstance(yanked, bool):
        raise MalformedIndexError(subject, "yanked true or false", repr(yanked))
    if not isinstance(fields.get("deps"), list):
        raise MalformedIndexError(subject, "a list of deps", repr(fields.get("deps")))
    if json.dumps(fields.get("vers")).encode() not in line:
        # `find_entry` looks for the text: an escaped spelling must not hide a line from it.
        raise MalformedIndexError(subject, "a version in plain letters", repr(fields.get("vers")))
    try:
        crate = CrateId(_string(fields, "name"), _string(fields, "vers"))
    except (InvalidNameError, InvalidVersionError) as error:
        raise MalformedIndexError(subject, "a crate name and a version", error.got) from error
    if crate.canonical_name != name:
        raise MalformedIndexError(subject, f"name {name}", repr(crate.name))
    return IndexEntry(crate, cksum, bool(yanked), line)


def _string(fields: dict[str, Any], key: str) -> str:
    value = fields.get(key)
    return value if isinstance(value, str) else ""


def _parse_object(line: bytes) -> dict[str, Any]:
    fields = orjson.loads(line)  # strict: UTF-8 only, no NaN, no lone surrogate
    if orjson.dumps(fields) != line and _spaced(fields).encode() != line:
        # The round trip lost something: odd spacing, or a field given twice, which serde and so
        # cargo refuses. The slow way tells; neither crates.io's own lines come here, nor those of
        # registries that write a space after each colon and comma.
        fields = json.loads(line.decode(), object_pairs_hook=_no_duplicates)
    if not isinstance(fields, dict):
        raise ValueError(f"a {type(fields).__name__}")  # noqa: TRY004 - the caller's one branch
    return fields


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field given twice")
    return fields


def dependencies_of_newest(file: IndexFile, at_most: int) -> tuple[CrateName, ...]:
    """Name the crates that a build of the newest version may ask the index for next.

    Dev-dependencies and those from other registries are left out; required ones come first.
    """
    newest = file.newest()
    if newest is None:
        return ()
    required: dict[CrateName, None] = {}
    optional: dict[CrateName, None] = {}
    for dep in newest.fields()["deps"]:
        if not isinstance(dep, dict) or dep.get("kind") == "dev" or dep.get("registry"):
            continue
        try:
            name = parse_name(str(dep.get("package") or dep.get("name")))
        except InvalidNameError:
            continue
        (optional if dep.get("optional") else required)[name] = None
    names = [name for name in (required | optional) if name != file.name]
    return tuple(names[:at_most])
