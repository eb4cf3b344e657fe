"""The notes `withheld/…`: why a crate, or a version of it, is not to be had here, in plain words.

A note is an open map, and nothing here verified it: what is there is taken, whatever its shape.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_NO_REASON = "the note gives no reason"
_IN_WORDS = {
    "deny": "is denied by the operator of this mirror",
    "hold": "is held back by this mirror",
    "quarantine": "is quarantined by this mirror",
    "unreadable": "is withheld by this mirror",
}
DENY = "deny"
UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Entry:
    """One reason."""

    kind: str
    rule: str
    reason: str
    since: str | None = None
    until: str | None = None
    versions: frozenset[str] | None = None
    """None: the whole crate."""

    def about(self, what: str) -> str:
        """Return it in one line, about a crate or a version."""
        words = _IN_WORDS.get(self.kind, f"is withheld by this mirror ({self.kind})")
        rule = "" if self.kind == DENY or not self.rule else f" (rule {self.rule})"
        until = f", until {self.until}" if self.until else ""
        return f"{what} {words}{rule}{until}: {self.reason}"

    def as_fields(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        versions = None if self.versions is None else sorted(self.versions)
        return {
            "kind": self.kind,
            "rule": self.rule,
            "reason": self.reason,
            "since": self.since,
            "until": self.until,
            "versions": versions,
        }


@dataclass(frozen=True, slots=True)
class Note:
    """All reasons of one crate."""

    entries: tuple[Entry, ...]

    def about_crate(self, name: str) -> str:
        """Return why nothing of a crate is to be had, in one line."""
        whole = [entry for entry in self.entries if entry.versions is None]
        return "; ".join(entry.about(f"crate {name}") for entry in whole or self.entries)

    def about_version(self, name: str, version: str) -> str | None:
        """Return why a version is not to be had though its crate may be, or None: it is."""
        found = [entry for entry in self.entries if _covers(entry, version)]
        return "; ".join(entry.about(f"{name} {version}") for entry in found) or None


def _covers(entry: Entry, version: str) -> bool:
    if entry.versions is None:
        # A finding on the whole crate leaves its last good publication; a denial leaves nothing,
        # and what cannot be read may be one.
        return entry.kind in {DENY, UNREADABLE}
    return version in entry.versions


def parse_note(data: bytes) -> Note:
    """Read a note's bytes, whatever they are: a note that cannot be read withholds all the same."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        fields = {}
    items = fields.get("entries") if isinstance(fields, dict) else None
    items = items if isinstance(items, list) else []
    entries = tuple(parse_entry(item) for item in items if isinstance(item, dict))
    return Note(entries or (Entry(UNREADABLE, "", _NO_REASON),))


def parse_entry(item: Mapping[str, Any]) -> Entry:
    """Read one reason, of a note or of the heartbeat, whatever its fields are."""
    versions = item.get("versions")
    return Entry(
        kind=_text(item.get("kind")) or "unknown",
        rule=_text(item.get("rule")) or "",
        reason=_text(item.get("reason")) or _NO_REASON,
        since=_text(item.get("since")),
        until=_text(item.get("until")),
        versions=frozenset(map(str, versions)) if isinstance(versions, list) else None,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
