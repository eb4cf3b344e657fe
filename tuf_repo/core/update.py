"""From the committed state and the changes to the next bins, snapshot and timestamp.

Everything here is a value; the results are the `signed` parts, as plain JSON values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tuf_repo.core.bins import BinLayout
from tuf_repo.core.roles import SNAPSHOT, SPEC_VERSION, TIMESTAMP, X_ROLE, X_SIGNED_AT, Policy
from tuf_repo.core.times import DAY, to_text

Json = dict[str, Any]
Targets = Mapping[str, Json]
"""Target path -> its fields, as in a bin's file."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a bin says of one file."""

    length: int
    sha256: str
    """64 lower-case hex digits."""

    def fields(self) -> Json:
        """As it stands in metadata."""
        return {"hashes": {"sha256": self.sha256}, "length": self.length}


def target_from(fields: Json) -> Target:
    """Read what `Target.fields` gave."""
    return Target(fields["length"], fields["hashes"]["sha256"])


Changes = Mapping[str, Target | None]
"""Target path -> what it is now; None removes it."""
Counts = Mapping[str, int]
"""First part of the target paths -> how many there are."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A metadata file, as the one that refers to it describes it."""

    version: int
    length: int
    sha256: str

    def meta(self) -> Json:
        """As it stands in the referring metadata."""
        return {
            "hashes": {"sha256": self.sha256},
            "length": self.length,
            "version": self.version,
        }


@dataclass(frozen=True, slots=True)
class BinFacts:
    """What we remember of one bin without holding its targets."""

    version: int
    expires: int
    sha256: bytes
    """Of the whole file: what is read again later is compared with it."""
    counts: tuple[tuple[str, int], ...]
    """First part of its target paths -> how many."""


@dataclass(frozen=True, slots=True)
class State:
    """One publication without its targets. Times are seconds since 1970."""

    timestamp_version: int
    """0 before the first publication."""
    timestamp_expires: int
    signed_at: int
    extra: Mapping[str, Any]
    snapshot: FileFacts | None
    snapshot_expires: int
    fixed: Mapping[str, FileFacts]
    """The offline roles below root: `targets` and the one that delegates to the bins."""
    bins: Mapping[str, BinFacts]

    def counts(self) -> Counts:
        """How many targets there are, by the first part of their paths."""
        total: Counter[str] = Counter()
        for facts in self.bins.values():
            total.update(dict(facts.counts))
        return total

    def file_names(self) -> set[str]:
        """The metadata files this publication names, without roots and timestamp."""
        return {file_name(role, version) for role, version in self._versions().items()}

    def files_not_in(self, later: State) -> set[str]:
        """Those of them that another publication no longer names."""
        kept = later._versions().items()
        return {file_name(*role) for role in self._versions().items() - kept}

    def _versions(self) -> dict[str, int]:
        versions = {name: facts.version for name, facts in self.bins.items()}
        versions.update((name, facts.version) for name, facts in self.fixed.items())
        if self.snapshot:
            versions[SNAPSHOT] = self.snapshot.version
        return versions


def file_name(role: str, version: int) -> str:
    """`7.snapshot.json` (TUF 7.2, consistent snapshots)."""
    return f"{version}.{role}.json"


def group_by_bin(changes: Changes, layout: BinLayout) -> dict[str, dict[str, Target | None]]:
    """Sort the changes by the bin they belong to."""
    grouped: dict[str, dict[str, Target | None]] = {}
    for path, target in changes.items():
        grouped.setdefault(layout.bin_of(path), {})[path] = target
    return grouped


def apply_changes(targets: Targets, changes: Changes) -> dict[str, Json]:
    """Return a bin's targets with the changes made."""
    changed = dict(targets)
    for path, target in changes.items():
        if target is None:
            changed.pop(path, None)
        else:
            changed[path] = target.fields()
    return changed


def count_targets(paths: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """Count target paths by their first part."""
    return tuple(sorted(Counter(path.partition("/")[0] for path in paths).items()))


def renewal_time(index: int, expires: int, policy: Policy) -> int:
    """When bin number `index` is signed anew: on its own day of the round.

    So one thirtieth of the bins is due each day, whenever they were signed last, and none grows
    older than a round and a day.
    """
    earliest = expires - policy.bin_seconds + policy.bin_min_age_seconds
    day = -(-earliest // DAY)
    return (day + (index - day) % policy.bin_round_days) * DAY


def bins_due(state: State, layout: BinLayout, now: float, policy: Policy) -> set[str]:
    """The bins that are to be signed though nothing in them changed; those never signed, too."""
    due = set()
    # No bin is renewed younger than this: most need no closer look.
    too_young = now + policy.bin_seconds - policy.bin_min_age_seconds
    for index, name in enumerate(layout.names()):
        facts = state.bins.get(name)
        if facts is not None and facts.expires > too_young:
            continue
        if facts is None or renewal_time(index, facts.expires, policy) <= now:
            due.add(name)
    return due


def next_due(state: State, layout: BinLayout, policy: Policy) -> int:
    """The first moment at which something is to be signed though nothing changed."""
    times = [
        state.signed_at + policy.timestamp_resign_seconds,
        snapshot_renewal(state, policy),
    ]
    for index, name in enumerate(layout.names()):
        facts = state.bins.get(name)
        times.append(0 if facts is None else renewal_time(index, facts.expires, policy))
    return min(times)


def snapshot_renewal(state: State, policy: Policy) -> int:
    """When the snapshot is to be signed anew though nothing changed."""
    return state.snapshot_expires - policy.snapshot_seconds + policy.snapshot_resign_seconds


def next_bin(name: str, version: int, targets: Targets, now: float, policy: Policy) -> Json:
    """The signed part of one bin."""
    return {
        "_type": "targets",
        "expires": to_text(now + policy.bin_seconds),
        "spec_version": SPEC_VERSION,
        "targets": targets,
        "version": version,
        X_ROLE: name,
    }


def next_snapshot(
    version: int,
    fixed: Mapping[str, FileFacts],
    bins: Mapping[str, BinFacts],
    now: float,
    policy: Policy,
) -> Json:
    """The signed part of a snapshot.

    Bins stand in it with their version only: unique numbers make that enough, and it stays small.
    """
    meta = {f"{name}.json": {"version": facts.version} for name, facts in bins.items()}
    meta.update({f"{name}.json": facts.meta() for name, facts in fixed.items()})
    return {
        "_type": SNAPSHOT,
        "expires": to_text(now + policy.snapshot_seconds),
        "meta": meta,
        "spec_version": SPEC_VERSION,
        "version": version,
    }


def next_timestamp(
    version: int, snapshot: FileFacts, extra: Mapping[str, Any], now: float, policy: Policy
) -> Json:
    """The signed part of a timestamp."""
    return {
        **extra,
        "_type": TIMESTAMP,
        "expires": to_text(now + policy.timestamp_seconds),
        "meta": {"snapshot.json": snapshot.meta()},
        "spec_version": SPEC_VERSION,
        "version": version,
        X_SIGNED_AT: to_text(now),
    }
