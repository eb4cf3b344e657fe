"""Names and versions of crates, checked once and then carried as types.

Whatever comes from outside (an index line, a URL, a lock file, a socket) becomes a `CrateName` or a
`CrateId` here or is refused here; everything below may put these into paths without a second look.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering
from typing import NewType

from mirror.errors import InvalidNameError, InvalidVersionError

NAME_MAX_CHARS = 64
VERSION_MAX_CHARS = 170
"""crates.io has one of 147 (rraaaaaaaaaaaaaaah 0.8.1, 2024)."""
CRATE_MAX_CHARS = 178
"""Name and version together: with a sha256 and `.tmp` they are one file name of 255."""

CrateName = NewType("CrateName", str)
"""The canonical name: lower case, as index paths and target paths have it."""

# The rule of crates.io: ASCII, starts with a letter, 64 characters at most.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}\Z")

# semver.org, item 2, 9, 10. Numbers have no leading zero; build metadata may.
_NUMBER = r"(?:0|[1-9][0-9]{0,19})"
_PRE = rf"(?:{_NUMBER}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = re.compile(
    rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER})"
    rf"(?:-({_PRE}(?:\.{_PRE})*))?"
    r"(?:\+([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?\Z"
)


def parse_name(text: str) -> CrateName:
    """Return the canonical name for a name in any case.

    Raises:
        InvalidNameError: no crate can be called that.
    """
    if not _NAME.match(text):
        raise InvalidNameError("crate name", "a letter, then letters, digits, - or _", repr(text))
    return CrateName(text.lower())


def index_path(name: CrateName) -> str:
    """Return where the sparse index keeps this crate: `se/rd/serde` (cargo book, index format)."""
    match len(name):
        case 1:
            return f"1/{name}"
        case 2:
            return f"2/{name}"
        case 3:
            return f"3/{name[0]}/{name}"
        case _:
            return f"{name[:2]}/{name[2:4]}/{name}"


@total_ordering
@dataclass(frozen=True, slots=True)
class CrateVersion:
    """A semantic version; compares by precedence, with build metadata as the last tie-break."""

    text: str

    def __post_init__(self) -> None:
        if len(self.text) > VERSION_MAX_CHARS or not _VERSION.match(self.text):
            raise InvalidVersionError("crate version", "MAJOR.MINOR.PATCH", repr(self.text))

    @property
    def is_prerelease(self) -> bool:
        """Whether semver calls this a pre-release."""
        return bool(self._parts()[3])

    def _parts(self) -> tuple[int, int, int, str, str]:
        found = _VERSION.match(self.text)
        assert found
        major, minor, patch, pre, build = found.groups()
        return int(major), int(minor), int(patch), pre or "", build or ""

    def _precedence(self) -> tuple[object, ...]:
        major, minor, patch, pre, build = self._parts()
        # semver.org, item 11: numbers before words, a pre-release before the release.
        words = tuple(
            (0, int(word), "") if word.isdigit() else (1, 0, word)
            for word in pre.split(".")
            if word
        )
        return major, minor, patch, not pre, words, build

    def __lt__(self, other: CrateVersion) -> bool:
        return self._precedence() < other._precedence()


@dataclass(frozen=True, slots=True)
class CrateId:
    """One published crate: its name in the case its index line has, and its version's text.

    Both halves are safe in a path and in a URL; `+` stands literally.
    """

    name: str
    version: str

    def __post_init__(self) -> None:
        parse_name(self.name)
        CrateVersion(self.version)
        if len(self.name) + len(self.version) > CRATE_MAX_CHARS:
            raise InvalidVersionError(
                f"version of {self.name}",
                f"{CRATE_MAX_CHARS} letters at most, with the name",
                repr(self.version),
            )

    @property
    def canonical_name(self) -> CrateName:
        """The name as index paths have it."""
        return CrateName(self.name.lower())

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def parse_subject(text: str) -> tuple[CrateName, str | None]:
    """Take `NAME` or `NAME@VERSION`, as people write them, apart.

    Raises:
        InvalidNameError, InvalidVersionError: it is neither.
    """
    name, at, version = text.partition("@")
    return parse_name(name), CrateVersion(version).text if at else None
