"""What may change between two looks at one crate's index file: the rules, pure.

The signer vouches for nothing that crates.io itself would not do: a published version keeps its
checksum and its meaning, and never vanishes. What is compared is meaning, not text: half of the
lines of 2019 are written otherwise today.

Rule: *every* line of a version is held against the record, not only the last one, which counts. A
line that some cargo takes offence at makes the line before it count there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mirror.core.index import IndexEntry, IndexFile, IndexLimits, parse_index_file
from mirror.core.meaning import (
    Dep,
    canonical,
    dep_changes,
    deps_of,
    feature_changes,
    features_of,
    short,
    split_of,
)
from mirror.core.names import CrateName, index_path
from mirror.core.readable import unreadable
from mirror.core.times import parse_rfc3339, rfc3339
from mirror.errors import (
    AuditError,
    CksumChangedError,
    DepsChangedError,
    DuplicateVersionError,
    FeaturesChangedError,
    LinksChangedError,
    PubtimeChangedError,
    ReturnedError,
    UnreadableFieldError,
    VersionVanishedError,
)

Tombstones = Mapping[str, frozenset[str]]
"""Version -> every cksum it had when upstream deleted it, now or earlier."""

REMARKS_MAX = 20

# Of several findings the first kind here is the one that is told.
_SEVERITY: tuple[type[AuditError], ...] = (
    CksumChangedError,
    DuplicateVersionError,
    VersionVanishedError,
    DepsChangedError,
    FeaturesChangedError,
    LinksChangedError,
    PubtimeChangedError,
    UnreadableFieldError,
)
# Fields with a rule of their own; the others may change, which is logged.
_RULED = frozenset(
    ("name", "vers", "deps", "cksum", "features", "features2", "v", "yanked", "links", "pubtime")
)


@dataclass(frozen=True, slots=True)
class Audited:
    """An index file that may follow the last accepted one."""

    file: IndexFile
    remarks: tuple[str, ...] = ()
    """Harmless changes that are worth a line in the log; few."""


@dataclass(slots=True)
class _Seen:
    """What the audit of one file came upon."""

    path: str
    findings: list[AuditError] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    more_remarks: int = 0

    def find(self, kind: type[AuditError], entry: IndexEntry, expected: str, got: str) -> None:
        self.findings.append(kind(f"{entry.crate} in {self.path}", expected, got))

    def remark(self, text: str) -> None:
        if len(self.remarks) < REMARKS_MAX:
            self.remarks.append(text)
        else:
            self.more_remarks += 1

    def raise_the_worst(self) -> None:
        if not self.findings:
            return
        worst = min(self.findings, key=lambda finding: _SEVERITY.index(type(finding)))
        if (others := len(self.findings) - 1) > 0:
            more = f"{worst.got[:160]}; and {others} more finding{'s' if others > 1 else ''}"
            raise type(worst)(worst.subject, worst.expected, more)
        raise worst

    def all_remarks(self) -> tuple[str, ...]:
        more = [f"and {self.more_remarks} more"] if self.more_remarks else []
        return (*self.remarks, *more)


def audit_index_file(
    name: CrateName,
    accepted: bytes | None,
    fetched: bytes,
    limits: IndexLimits,
    tombstones: Tombstones,
) -> Audited:
    """Return the fetched index file if it may follow the last accepted one.

    1. It reads as an index file of this crate (see `parse_index_file`).
    2. A version that is new has one cksum, and none but its own if it was there once before.
    3. Every version that was accepted before is still there, with the same cksum and meaning.

    `accepted` is None at first sight, and after a deletion (then `audit_return` comes first): what
    2 would find is a remark then.

    Raises:
        MalformedIndexError: rule 1.
        AuditError: rules 2 and 3, the most serious finding.
    """
    # 1.
    file = parse_index_file(name, fetched, limits)
    if accepted == fetched:
        return Audited(file)
    seen = _Seen(index_path(name))
    for skipped in file.skipped:
        seen.remark(f"{seen.path}: line {skipped.number} counts as absent: {skipped.reason}")
    now = _lines_by_version(file.entries)
    old = parse_index_file(name, accepted, limits).entries if accepted is not None else ()
    before = _lines_by_version(old)
    # 2.
    for version, lines in now.items():
        if version not in before:
            stones = tombstones.get(version) if accepted is not None else None
            _audit_new(seen, lines, stones, first_sight=accepted is None)
            _find_twin(seen, lines[-1], before)
    # 3.
    for version, lines in before.items():
        _audit_known(seen, lines, now.get(version, ()))
    seen.raise_the_worst()
    return Audited(file, seen.all_remarks())


def baseline(
    name: CrateName, record: bytes | None, past: bytes | None, fetched: bytes, limits: IndexLimits
) -> bytes | None:
    """Return what fetched bytes have to follow: the record, and what came back from before it.

    `past`: the lines of versions that upstream dropped earlier. Of those, the ones that are back
    count, so that a version cannot change its dependencies by way of a deletion.

    Raises:
        MalformedIndexError: the fetched bytes are no index file of this crate.
    """
    if past is None:
        return record
    back = set(parse_index_file(name, fetched, limits).by_version())
    if record is not None:
        back -= parse_index_file(name, record, limits).by_version().keys()
    kept = [
        entry.line
        for entry in parse_index_file(name, past, limits).entries
        if entry.crate.version in back
    ]
    joined = b"\n".join([*([record.rstrip(b"\n")] if record else []), *kept])
    return joined + b"\n" if joined else None


def audit_return(file: IndexFile, gone_since: float, tombstones: Tombstones) -> None:
    """Look at a crate that is back after its deletion was recorded.

    1. A version that was there before has the cksum it had.
    2. At least one line is from before: its `pubtime` says so, or, where it has none, a tombstone.

    Raises:
        ReturnedError: it may be somebody else's.
    """
    subject = f"{file.name} in {index_path(file.name)}"
    # 1.
    for entry in file.entries:
        stones = tombstones.get(entry.crate.version)
        if stones is not None and entry.cksum not in stones:
            raise ReturnedError(
                f"{entry.crate} in {index_path(file.name)}",
                f"cksum {' or '.join(sorted(stones))}, as before its deletion",
                entry.cksum,
            )
    # 2.
    if not any(_is_from_before(entry, gone_since, tombstones) for entry in file.entries):
        raise ReturnedError(
            subject,
            f"a version from before {rfc3339(gone_since)}, when it was gone",
            "only versions published later",
        )


def _is_from_before(entry: IndexEntry, gone_since: float, tombstones: Tombstones) -> bool:
    pubtime = entry.fields().get("pubtime")
    try:
        return parse_rfc3339(pubtime if isinstance(pubtime, str) else "") <= gone_since
    except ValueError:  # none, or one that no cargo reads
        return entry.cksum in tombstones.get(entry.crate.version, ())


def _lines_by_version(entries: Sequence[IndexEntry]) -> dict[str, list[IndexEntry]]:
    lines: dict[str, list[IndexEntry]] = {}
    for entry in entries:
        lines.setdefault(entry.crate.version, []).append(entry)
    return lines


def _audit_new(
    seen: _Seen,
    lines: Sequence[IndexEntry],
    stones: frozenset[str] | None,
    *,
    first_sight: bool,
) -> None:
    last = lines[-1]
    if stones is not None:
        for entry in lines:
            if entry.cksum not in stones:
                expected = f"cksum {' or '.join(sorted(stones))}, as before its deletion"
                seen.find(CksumChangedError, entry, expected, entry.cksum)
                return
    if len(lines) == 1:
        return
    other = next((entry for entry in lines if entry.cksum != last.cksum), None)
    if other and not first_sight:
        _find_duplicate(seen, last, other)
    else:
        cksums = f"with cksums {other.cksum[:8]} and {last.cksum[:8]}" if other else "alike"
        seen.remark(f"{last.crate} is given {len(lines)} times, {cksums}; the last line counts")


def _find_twin(seen: _Seen, entry: IndexEntry, before: Mapping[str, object]) -> None:
    """Find a new version that differs from an older one in its build metadata only.

    To a requirement they are one: it could take the place of what people pinned.
    """
    core = entry.crate.version.partition("+")[0]
    twin = next((known for known in before if known.partition("+")[0] == core), None)
    if twin is not None:
        seen.find(DuplicateVersionError, entry, f"no second {core} beside {twin}", "one")


def _find_duplicate(seen: _Seen, counts: IndexEntry, other: IndexEntry) -> None:
    expected = f"one line, with cksum {counts.cksum}"
    seen.find(DuplicateVersionError, counts, expected, f"another line with cksum {other.cksum}")


def _audit_known(seen: _Seen, before: Sequence[IndexEntry], after: Sequence[IndexEntry]) -> None:
    if [entry.line for entry in before] == [entry.line for entry in after]:
        return
    last = before[-1]
    if not after:
        seen.find(VersionVanishedError, last, "the version that was published", "no such line")
        return
    if after[-1].cksum != last.cksum:
        seen.find(CksumChangedError, last, f"cksum {last.cksum}", after[-1].cksum)
        return
    cksums = Counter(entry.cksum for entry in before)
    for cksum in Counter(entry.cksum for entry in after) - cksums:
        if cksum != last.cksum:
            other = next(entry for entry in after if entry.cksum == cksum)
            _find_duplicate(seen, last, other)
            return
        seen.remark(f"{last.crate} is given once more, with the same cksum")
    _compare(seen, last, after[-1], strict=len(cksums) > 1)
    for entry in after[:-1]:
        alike = [old for old in before if old.cksum == entry.cksum]
        _compare_any(seen, alike, entry, strict=len(cksums) > 1)


def _compare_any(
    seen: _Seen, before: Sequence[IndexEntry], after: IndexEntry, *, strict: bool
) -> None:
    """Compare a line that does not count with those of which it may be one, the last one first."""
    tries = []
    for old in reversed(before):
        tries.append(_Seen(seen.path))
        _compare(tries[-1], old, after, strict=strict)
        if not tries[-1].findings:
            break
    else:
        seen.findings += tries[0].findings
    for remark in tries[-1].remarks:
        seen.remark(remark)


def _compare(seen: _Seen, before: IndexEntry, after: IndexEntry, *, strict: bool) -> None:
    """Compare two lines of one version with one cksum.

    `strict`: the version has lines with several cksums, so that a line which some cargo no longer
    reads would bring back another crate file. Then nothing may change that is free otherwise.
    """
    if before.line == after.line:
        return
    if before.crate.name != after.crate.name:
        # To who depends on it by its old spelling it is not there.
        seen.find(VersionVanishedError, before, f"name {before.crate.name}", after.crate.name)
        return
    old, new = before.fields(), after.fields()
    (was, was_dev), (now, now_dev) = deps_of(old), deps_of(new)
    if was != now:
        seen.find(DepsChangedError, before, *dep_changes(was, now))
    _compare_features(seen, before, old, new)
    for key, kind in (("links", LinksChangedError), ("pubtime", PubtimeChangedError)):
        if old.get(key) is not None and canonical(old[key]) != canonical(new.get(key)):
            seen.find(kind, before, f"{key} {short(old[key])}", short(new.get(key)))
    for text in unreadable(old, new):
        seen.find(UnreadableFieldError, before, "fields that cargo reads", text)
    appeared = _appeared(old, new) if strict else ()
    for text in (*_dev_changes(was_dev, now_dev), *_other_changes(old, new), *appeared):
        if strict:
            expected = "no change, as it has lines with several cksums"
            seen.find(DuplicateVersionError, before, expected, text)
        else:
            seen.remark(f"{before.crate}: {text}")


def _compare_features(
    seen: _Seen, entry: IndexEntry, old: Mapping[str, Any], new: Mapping[str, Any]
) -> None:
    was, now = features_of(old), features_of(new)
    if was != now:
        seen.find(FeaturesChangedError, entry, *feature_changes(was, now))
        return
    (v, in_second), (new_v, new_in_second) = split_of(old), split_of(new)
    # The format is 2 where `features2` is in use, and changes only with what stands there.
    moved = in_second != new_in_second and new_v == (2 if new_in_second else 1)
    if not moved and (v != new_v or bool(in_second) != bool(new_in_second)):
        seen.find(
            FeaturesChangedError,
            entry,
            f"v {v} with {len(in_second)} names in features2",
            f"v {new_v} with {len(new_in_second)}",
        )


def _dev_changes(was: Counter[Dep], now: Counter[Dep]) -> Iterator[str]:
    if was != now:
        expected, got = dep_changes(was, now)
        yield f"dev-dependencies changed: was {expected}, is {got}"


def _appeared(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for key in new:
        if old.get(key) is None and new[key] is not None and key not in _RULED:
            yield f"{short(key)} appeared"


def _other_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Say what changed that may; what appeared is not worth a word."""
    for key, value in old.items():
        if key not in _RULED and value is not None and canonical(value) != canonical(new.get(key)):
            yield f"{short(key)} changed: was {short(value)}, is {short(new.get(key))}"
