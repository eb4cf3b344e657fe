"""What must hold: of what is asked for, of one file, of one publication, of two in a row.

Each rule yields its findings and goes on; who wants an error raises the first one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tuf_repo.core.bins import BinLayout
from tuf_repo.core.numbers import LIMIT
from tuf_repo.core.roles import TARGETS, X_ROLE, X_SIGNED_AT
from tuf_repo.core.update import Changes, FileFacts, State, Target
from tuf_repo.errors import RepositoryError

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_CONTROL = re.compile(r"[\x00-\x1f]")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not hold, and where."""

    file: str
    """A file's name in the metadata folder, a role or a target path."""
    expected: str
    got: str

    def __str__(self) -> str:
        return f"{self.file}: expected {self.expected}, got {self.got}"


def refuse(findings: Iterable[Finding], error: type[RepositoryError]) -> None:
    """Raise the first finding as such an error; do nothing where there is none."""
    for finding in findings:
        raise error(finding.file, finding.expected, finding.got)


def change_findings(changes: Changes, paths: re.Pattern[str]) -> Iterator[Finding]:
    """What is asked for can be published, and clients will look there."""
    for path, target in changes.items():
        # Canonical JSON has control characters bare, other JSON must not.
        if _CONTROL.search(path) or not _encodes(path):
            yield Finding(repr(path), "a target path of printable characters", "others")
        elif target is not None and not paths.match(path):
            yield Finding(repr(path), "a path that the delegation covers", "one it does not")
        elif target is not None and not _is_target(target):
            yield Finding(path, "a length and 64 hex digits", repr(target))


def extra_findings(extra: Mapping[str, Any]) -> Iterator[Finding]:
    """Extra fields of the timestamp stay out of the way of TUF's and of our own."""
    for key in extra:
        if not key.startswith("x-") or key in (X_ROLE, X_SIGNED_AT):
            yield Finding("timestamp.json", "an extra field x-…, not one of ours", repr(key))


def bin_findings(
    file: str, name: str, paths: Iterable[str], layout: BinLayout
) -> Iterator[Finding]:
    """Every target lies in the bin that clients look for it in."""
    index = layout.index(name)
    for path in paths:
        if layout.index_of(path) != index:
            yield Finding(file, f"{path} in bin {layout.bin_of(path)}", f"in {name}")


def snapshot_findings(
    file: str, meta: Mapping[str, Any], delegation: str, layout: BinLayout
) -> Iterator[Finding]:
    """The snapshot lists the offline roles with length and sha256, every bin, and nothing else.

    `meta` is the field `meta` of its signed part.
    """
    fixed = {f"{TARGETS}.json", f"{delegation}.json"}
    named = fixed | {f"{name}.json" for name in layout.names()}
    for name in sorted(named - meta.keys()):
        yield Finding(file, f"an entry for {name}", "none")
    for name in sorted(meta.keys() - named):
        yield Finding(file, "entries for roles that are delegated", name)
    for name in sorted(fixed & meta.keys()):
        entry = meta[name]
        if "length" not in entry or "sha256" not in entry.get("hashes", {}):
            yield Finding(file, f"length and sha256 of {name}", "a version only")
    # Else one could be answered with the other, which clients take for a cycle: all seems absent.
    versions = {meta[name]["version"] for name in fixed & meta.keys()}
    if len(versions) < len(fixed & meta.keys()):
        yield Finding(file, f"different versions of targets and {delegation}", "the same")


def field_findings(file: str, targets: Mapping[str, Any]) -> Iterator[Finding]:
    """Every target is described as we describe them. Values as in a bin's file."""
    for path, fields in targets.items():
        if fields.keys() != {"hashes", "length"} or fields["hashes"].keys() != {"sha256"}:
            yield Finding(file, f"length and sha256 of {path}, nothing else", str(fields))
        elif not _is_target(Target(fields["length"], fields["hashes"]["sha256"])):
            yield Finding(file, f"a length and 64 hex digits for {path}", str(fields))


def target_findings(path: str, target: Target, data: bytes | None) -> Iterator[Finding]:
    """A target's bytes are the ones that its bin names; None where there are none."""
    if data is None:
        yield Finding(path, f"a file of {target.length} bytes", "none")
    elif len(data) != target.length:
        yield Finding(path, f"{target.length} bytes", str(len(data)))
    elif (digest := hashlib.sha256(data).hexdigest()) != target.sha256:
        yield Finding(path, f"sha256 {target.sha256}", digest)


def extra_file_findings(
    files: Iterable[str], named: Collection[str], may_lie_there: Callable[[str], bool]
) -> Iterator[Finding]:
    """Nothing lies there that is neither named nor allowed."""
    for file in sorted(files):
        if file not in named and not may_lie_there(file):
            yield Finding(file, "only files that the repository names", "an extra one")


def number_findings(numbers: Iterable[tuple[str, int]]) -> Iterator[Finding]:
    """No number is used by two files, and none is too large. Pairs of file and number."""
    seen: dict[int, str] = {}
    for file, number in numbers:
        if not 0 < number < LIMIT:
            yield Finding(file, f"a number from 1, below {LIMIT}", str(number))
        other = seen.setdefault(number, file)
        if other != file:
            yield Finding(file, "a number of its own", f"{number}, the number of {other} too")


def reserved_findings(numbers: Iterable[tuple[str, int]], below: int) -> Iterator[Finding]:
    """Every number was reserved before it was used: else a start could hand it out again."""
    for file, number in numbers:
        if number >= below:
            yield Finding(file, f"a number that is reserved, below {below}", str(number))


def rising_findings(
    bins: Iterable[tuple[str, int]], snapshot: tuple[str, int], timestamp: tuple[str, int]
) -> Iterator[Finding]:
    """In one publication bins are numbered before the snapshot, and that before the timestamp.

    Pairs of file and number.
    """
    for file, number in (*bins, snapshot):
        highest = timestamp if file == snapshot[0] else snapshot
        if number >= highest[1]:
            yield Finding(file, f"a number below that of {highest[0]}, {highest[1]}", str(number))


def online_numbers(state: State) -> Iterator[tuple[str, int]]:
    """Everything the counter numbered in a publication, as (role, number)."""
    yield "timestamp", state.timestamp_version
    if state.snapshot:
        yield "snapshot", state.snapshot.version
    for name, facts in state.bins.items():
        yield name, facts.version


def successor_findings(old: State, new: State, *, renamed: bool = False) -> Iterator[Finding]:
    """What must hold between a publication and the next one.

    `renamed`: bins may vanish, as no client keeps the old snapshot.
    """
    known, fresh = dict(online_numbers(old)), dict(online_numbers(new))
    numbers = fresh.values()
    if len(set(numbers)) < len(numbers) or not 0 < min(numbers) <= max(numbers) < LIMIT:
        # Thousands, each time: only where something is amiss is it worth finding out what.
        yield from number_findings(fresh.items())
    highest = max(known.values(), default=0)
    for role, number in fresh.items():
        if number != known.get(role) and number <= highest:
            yield Finding(role, f"a number above {highest}", str(number))
    # TUF 5.5.5: nothing that a snapshot lists may vanish, no version may fall.
    vanished = known.keys() - fresh.keys()
    for role in () if renamed else sorted(vanished):
        yield Finding(role, "an entry in the next snapshot", "none")
    if new.timestamp_version == old.timestamp_version:
        yield Finding("timestamp", f"a version above {old.timestamp_version}", "the same")
    yield from _fixed_findings(old.fixed, new.fixed)


def _fixed_findings(
    old: Mapping[str, FileFacts], new: Mapping[str, FileFacts]
) -> Iterator[Finding]:
    for role, facts in old.items():
        later = new.get(role)
        if later is None or later.version < facts.version:
            yield Finding(role, f"version {facts.version} or later", str(later))


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_target(target: Target) -> bool:
    return (
        isinstance(target.length, int)
        and not isinstance(target.length, bool)
        and target.length >= 0
        and _SHA256.match(target.sha256) is not None
    )
