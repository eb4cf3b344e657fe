"""Cargo.lock read in about a millisecond, as each build needs it; or with TOML's own parser.

Cargo writes a lock line by line in one way only (its `core/resolver/encode.rs`). Where each line
reads as that, lines are all that is needed; a lock with any other line goes through `tomllib`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

_CRATES_IO = (
    "registry+https://github.com/rust-lang/crates.io-index",
    "sparse+https://index.crates.io/",
)
_KEYS = frozenset({"name", "version", "source", "checksum", "replace"})


class Package(NamedTuple):
    """One package of a lock, as the lock has it; nothing is checked."""

    name: str
    version: str
    source: str | None
    checksum: str | None

    @property
    def is_of_crates_io(self) -> bool:
        """Whether it comes from there."""
        return self.source in _CRATES_IO

    def __str__(self) -> str:
        return printable(f"{self.name} {self.version}")


def read_packages(data: bytes) -> tuple[Package, ...] | None:
    """Return what a lock names; None: it is none that cargo would read."""
    try:
        text = data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError:
        return None
    fields = _line_by_line(text.replace("\r\n", "\n"))
    return _parsed(text) if fields is None else tuple(map(_package, fields))


def printable(text: str) -> str:
    """Return a text cut short, without what steers a terminal: it may be a stranger's."""
    return "".join(char if char.isprintable() else "?" for char in text[:300])


def _line_by_line(text: str) -> list[dict[str, Any]] | None:
    """Return the packages' fields; None: there is a line that cargo would not write."""
    # No expressions: to compile them takes longer than to read the lock.
    packages: list[dict[str, Any]] = []
    if not text.replace("\n", "").isprintable():
        return None
    for line in text.split("\n"):
        key, equals, value = line.partition(" = ")
        if line == "[[package]]":
            packages.append({})
        elif equals and key in _KEYS and packages:
            # A key twice is no TOML.
            if key in packages[-1] or not _is_text(value):
                return None
            packages[-1][key] = value[1:-1]
        elif not (
            line in {"", "]", "dependencies = ["}
            or line.startswith("#")
            or (line.startswith(' "') and line.endswith(",") and _is_text(line[1:-1]))
            or (key == "version" and value.isdecimal())
        ):
            return None
    return packages


def _is_text(value: str) -> bool:
    is_quoted = len(value) > 1 and value[0] == value[-1] == '"'
    return is_quoted and '"' not in value[1:-1] and "\\" not in value


def _parsed(text: str) -> tuple[Package, ...] | None:
    import tomllib  # noqa: PLC0415 - slow to load, seldom wanted

    try:
        fields = tomllib.loads(text)
        sums = fields.get("metadata", {})
        return tuple(_package(each, sums) for each in fields.get("package", []))
    except (ValueError, RecursionError, TypeError, AttributeError):
        return None


def _package(fields: dict[str, Any], sums: dict[str, Any] | None = None) -> Package:
    name, version, source = (
        str(fields.get("name")),
        str(fields.get("version")),
        fields.get("source"),
    )
    checksum = fields.get("checksum")
    if checksum is None and sums:
        # Locks of version 1 keep them all in one table of their own.
        checksum = sums.get(f"checksum {name} {version} ({source})")
    return Package(
        name,
        version,
        None if source is None else str(source),
        checksum if isinstance(checksum, str) else None,
    )
