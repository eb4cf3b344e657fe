"""What the operator's decisions, the holds and the lists make of an audited index file: pure.

The audit compares upstream with upstream; what stands here comes after it, and is the only thing
that ever makes a published index file differ from upstream's bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mirror.core.index import IndexEntry, IndexFile
from mirror.core.index_line import read_fields, span_of_value
from mirror.core.meaning import canonical
from mirror.core.names import CrateName, index_path
from mirror.core.times import rfc3339
from mirror.errors import MalformedIndexError


class WithheldKind(StrEnum):
    """Why something is withheld (the `kind` of a note's entry)."""

    DENY = "deny"
    HOLD = "hold"
    QUARANTINE = "quarantine"


@dataclass(frozen=True, slots=True)
class Withheld:
    """One reason why a crate, or one version of it, is not to be had here."""

    kind: WithheldKind
    rule: str
    reason: str
    since: float
    """Seconds since 1970."""
    version: str | None = None
    """None: the whole crate."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one crate besides its index file."""

    denials: tuple[Withheld, ...] = ()
    finding: Withheld | None = None
    """Why nothing of it is published, where audit or hold keeps it back."""
    listed: frozenset[str] | None = None
    """Mode list: the versions that are on a list and held; None: there is no list."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is published of one crate."""

    data: bytes | None
    """The index file's bytes; None: no index file."""
    note: bytes | None
    """The note `withheld/…`; None: nothing is withheld."""


def decide(name: CrateName, file: IndexFile | None, facts: Facts) -> Decision:
    """Decide what of the last audited bytes is published; `file` is None where there are none.

    1. A denied crate is not published at all.
    2. A list leaves the lines of its versions only, as they came.
    3. A denied version's lines stay, with `yanked` set.
    4. A finding is noted where there is no file: else the last good one is published.

    Raises:
        MalformedIndexError: a line does not keep its meaning with `yanked` set.
    """
    denied = frozenset(d.version for d in facts.denials if d.version is not None)
    data = None
    # 1.
    if file and all(denial.version is not None for denial in facts.denials):
        # 2. and 3.
        data = _published(file, facts.listed, denied)
    yanked = _yanked_upstream(file, denied)
    entries = [_note_entry(denial, yanked) for denial in sorted(facts.denials, key=_order)]
    # 4.
    if facts.finding and file is None:
        entries.append(_note_entry(facts.finding, yanked))
    return Decision(data, _note(name, entries) if entries else None)


def _order(denial: Withheld) -> tuple[bool, str, float]:
    return denial.version is not None, denial.version or "", denial.since


def _published(
    file: IndexFile, listed: frozenset[str] | None, denied: frozenset[str]
) -> bytes | None:
    if listed is None and denied.isdisjoint(entry.crate.version for entry in file.entries):
        return file.data
    entries = iter(file.entries)
    entry = next(entries, None)
    lines = []
    for line in file.data.split(b"\n"):
        if entry is None or line != entry.line:
            # What counts as absent: it passes through, but not through a list.
            if listed is None:
                lines.append(line)
            continue
        version = entry.crate.version
        if listed is None or version in listed:
            lines.append(_with_yanked_set(file.name, entry) if version in denied else line)
        entry = next(entries, None)
    if listed is None:
        return b"\n".join(lines)
    return b"".join(line + b"\n" for line in lines) or None


def _with_yanked_set(name: CrateName, entry: IndexEntry) -> bytes:
    """Return the line with `yanked` set, and not one other byte changed."""
    if entry.yanked:
        return entry.line
    start, end = span_of_value(entry.line, "yanked")
    token = b"true" if start < end else b',"yanked":true'
    line = entry.line[:start] + token + entry.line[end:]
    try:
        fields = read_fields(line)
    except ValueError as error:
        raise _not_kept(name, entry, str(error)) from error
    if fields.get("yanked") is not True or _but_yanked(fields) != _but_yanked(entry.fields()):
        raise _not_kept(name, entry, "other fields")
    return line


def _but_yanked(fields: Mapping[str, Any]) -> str:
    return canonical({key: value for key, value in fields.items() if key != "yanked"})


def _not_kept(name: CrateName, entry: IndexEntry, got: str) -> MalformedIndexError:
    subject = f"{entry.crate} in {index_path(name)}, with yanked set"
    return MalformedIndexError(subject, "the same fields", got)


def _yanked_upstream(file: IndexFile | None, denied: frozenset[str]) -> frozenset[str]:
    by_version = file.by_version() if file and denied else {}
    return frozenset(v for v in denied if v in by_version and by_version[v].yanked)


def _note_entry(withheld: Withheld, yanked: frozenset[str]) -> dict[str, Any]:
    version = withheld.version
    return {
        "kind": withheld.kind.value,
        "rule": withheld.rule,
        "reason": withheld.reason,
        "since": rfc3339(withheld.since),
        "until": None,
        "versions": None if version is None else [version],
        "upstream_yanked": [version] if version in yanked else [],
    }


def _note(name: CrateName, entries: list[dict[str, Any]]) -> bytes:
    return json.dumps({"name": name, "entries": entries}, indent=1).encode() + b"\n"
