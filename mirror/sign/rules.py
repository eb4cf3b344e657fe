"""The operator's word: what is denied, what is accepted, and in mode list what is listed.

Loaded at the start, after each order, and when a lock file changed; a value until then.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mirror.config import Config
from mirror.core.lockfile import LockedCrate
from mirror.core.names import CrateName
from mirror.core.policy import Withheld, WithheldKind
from mirror.errors import UsageError
from mirror.seam import Verb
from mirror.store.lockfile import read_lock
from mirror.store.memory import MemoryReader

DENIED_RULE = "operator"

# What the audit comes to in this version; the digest of the policy changes when a rule does.
_AUDIT = (
    "index lines parse", "cksum never changes", "a version never vanishes",
    "deps, features, links and pubtime never change", "a deleted crate that returns is held",
    "crates are safe",
)  # fmt: skip

Listed = Mapping[CrateName, Mapping[str, LockedCrate]]
"""Name -> version -> what the lock files say of it."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds besides the audit."""

    denials: Mapping[CrateName, tuple[Withheld, ...]] = field(default_factory=dict)
    accepted: frozenset[tuple[CrateName, str, str]] = frozenset()
    """Name, version and sha256 of crates whose archive the operator let through."""
    listed: Listed | None = None
    """Mode list; None: there is no list."""
    digest: str = ""
    """sha256 of all of it, for the mirror's signed state."""

    def denial_of(self, name: CrateName, version: str) -> Withheld | None:
        """Return why this version is denied, or None."""
        for denial in self.denials.get(name, ()):
            if denial.version in (None, version):
                return denial
        return None

    def is_listed(self, name: CrateName) -> bool:
        """Whether this mirror is to hold anything of a name."""
        return self.listed is None or name in self.listed


def load_rules(memory: MemoryReader, listed: Listed | None) -> Rules:
    """Read the decisions that stand."""
    denials: dict[CrateName, list[Withheld]] = defaultdict(list)
    accepted = set()
    for decided in memory.decisions():
        if decided.verb == Verb.DENY:
            denials[decided.name].append(
                Withheld(
                    WithheldKind.DENY, DENIED_RULE, decided.reason, decided.at, decided.version
                )
            )
        elif decided.version is not None:
            accepted.add((decided.name, decided.version, decided.sha256))
    frozen = {name: tuple(each) for name, each in denials.items()}
    return Rules(frozen, frozenset(accepted), listed, _digest(frozen, accepted, listed))


def first_digest(config: Config) -> str:
    """Return the digest of the policy before there is any decision.

    Raises:
        UsageError: a lock file cannot be used.
    """
    return _digest({}, (), lists_of(config))


def lists_of(config: Config) -> Listed | None:
    """Return what is listed; None: this is not mode list.

    Raises:
        UsageError: a lock file cannot be used, there is none, or two contradict each other.
    """
    return read_lists(config.lock) if config.mode == "list" else None


def read_lists(locks: Iterable[Path]) -> Listed:
    """Return what lock files name.

    Raises:
        UsageError: one cannot be used, there is none, or two contradict each other.
    """
    listed: dict[CrateName, dict[str, LockedCrate]] = defaultdict(dict)
    for path in locks:
        for locked in read_lock(path).crates:
            before = listed[locked.crate.canonical_name].get(locked.crate.version, locked)
            if (
                None not in (before.checksum, locked.checksum)
                and before.checksum != locked.checksum
            ):
                raise UsageError(
                    f"{path}: {locked} has checksum {locked.checksum}, another lock file says"
                    f" {before.checksum}; find out which of them was made from another source"
                )
            listed[locked.crate.canonical_name][locked.crate.version] = (
                locked if before.checksum is None else before
            )
    if not listed:
        raise UsageError("mode list: no package is listed; name lock files with --lock")
    return listed


def _digest(
    denials: Mapping[CrateName, tuple[Withheld, ...]],
    accepted: Iterable[tuple[CrateName, str, str]],
    listed: Listed | None,
) -> str:
    denied = [
        [name, denial.version, denial.reason]
        for name, each in sorted(denials.items())
        for denial in each
    ]
    names = None if listed is None else {name: sorted(each) for name, each in listed.items()}
    text = json.dumps([_AUDIT, denied, sorted(accepted), names], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
