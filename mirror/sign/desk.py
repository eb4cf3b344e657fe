"""One publication in the making: what is known, what changes, and what is to be learned by it.

Rule: nothing here is visible to anybody. Targets and crates are written under names that no
committed metadata knows; what was learned is handed on as values, for the ledger.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from copy import copy
from dataclasses import dataclass, field, fields, replace

from mirror.core.audit import Tombstones
from mirror.core.batch import Sweep
from mirror.core.index import IndexFile, IndexLimits, parse_index_file
from mirror.core.layout import INDEX, STATE_FIELD, crate_file, note_path, target_path
from mirror.core.names import CrateId, CrateName
from mirror.core.policy import Facts, Withheld, WithheldKind, decide
from mirror.errors import LostRecordError
from mirror.sign.parts import Parts
from mirror.sign.rules import Rules
from mirror.store.ledger import Quarantined
from mirror.store.memory import Deletion, pack
from mirror.store.www import StagedCrate
from tuf_repo.core.update import Target


@dataclass(slots=True)
class Examined:
    """What the work on one publication comes to."""

    changes: dict[str, Target | None] = field(default_factory=dict)
    crates: dict[CrateId, StagedCrate] = field(default_factory=dict)
    findings: dict[str, Quarantined] = field(default_factory=dict)
    released: set[str] = field(default_factory=set)
    records: dict[CrateName, bytes | None] = field(default_factory=dict)
    """Raw upstream bytes, packed, where they are not what is published; None: they are again."""
    doubts: dict[CrateName, float | None] = field(default_factory=dict)
    doubted: dict[str, float] = field(default_factory=dict)
    """Names to be looked at again -> when that look counts."""
    deletions: dict[CrateName, Deletion | None] = field(default_factory=dict)
    tombstones: set[tuple[CrateName, str, str]] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    """Crate files that are to go after the commit."""
    past: dict[CrateName, list[bytes]] = field(default_factory=dict)
    """Lines of versions that upstream dropped."""
    sweep: Sweep | None = None
    confirmed: float | None = None
    sources: list[str] = field(default_factory=list)
    says_something: bool = False
    """A sweep ended, or something was confirmed: a timestamp is due though no target changed."""

    def copy(self) -> Examined:
        """Return a copy that can be filled without this one changing."""
        return replace(self, **{each.name: copy(getattr(self, each.name)) for each in fields(self)})


class Desk:
    """Where one publication is put together. Make a new one for the next."""

    def __init__(
        self, parts: Parts, rules: Rules, marked: AbstractSet[CrateName], *, now: float
    ) -> None:
        self.www = parts.www
        self.ledger = parts.ledger
        self.rules = rules
        self.now = now
        self.drop_deleted = parts.config.drop_deleted
        self.index_limits = IndexLimits(file_max_bytes=parts.config.index_max_bytes)
        self.examined = Examined()
        self._lookup_all = parts.publisher.lookup_all
        self._known: dict[str, Target | None] = {}
        self._quarantined = {item.subject: item for item in parts.ledger.quarantined()}
        self._marked = marked
        held = parts.publisher.extra.get(STATE_FIELD, {}).get("held", {}).get(INDEX, 0)
        self.published_count: int = held
        """How many index files are published."""

    def know(self, names: Iterable[CrateName]) -> None:
        """Look up what is published of these names: all at once, so that each bin is read once."""
        paths = [path for name in names for path in (target_path(name), note_path(name))]
        self._known.update(self._lookup_all(path for path in paths if path not in self._known))

    def published(self, path: str) -> Target | None:
        """Return what the committed publication says of a path."""
        return self._known[path]

    def current(self, path: str) -> Target | None:
        """Return what the publication in the making says of a path."""
        changes = self.examined.changes
        return changes[path] if path in changes else self._known[path]

    def quarantined(self, subject: str) -> Quarantined | None:
        """Return the finding that stands."""
        if subject in self.examined.released:
            return None
        return self.examined.findings.get(subject) or self._quarantined.get(subject)

    def quarantined_crates(self, name: CrateName) -> list[str]:
        """Return the crates of a name, as `name version`, of which a finding stands."""
        subjects = self._quarantined.keys() | self.examined.findings.keys()
        return [each for each in subjects if each.lower().startswith(f"{name} ")]

    # What is remembered of a crate

    def is_marked(self, name: CrateName) -> bool:
        """Whether more is remembered of a name than what is published."""
        return name in self._marked

    def deletion(self, name: CrateName) -> Deletion | None:
        """Return the deletion that stands."""
        if name in self.examined.deletions:
            return self.examined.deletions[name]
        return self.ledger.memory.deletion(name) if self.is_marked(name) else None

    def doubted_since(self, name: CrateName) -> float | None:
        """Return when a look first found a crate gone, if that is not settled yet."""
        if name in self.examined.doubts:
            return self.examined.doubts[name]
        return self.ledger.memory.doubted_since(name) if self.is_marked(name) else None

    def tombstones(self, name: CrateName) -> Tombstones:
        """Return the checksums of its versions that upstream deleted."""
        return self.ledger.memory.tombstones(name) if self.is_marked(name) else {}

    def past(self, name: CrateName) -> bytes | None:
        """Return the lines of its versions that upstream dropped."""
        return self.ledger.memory.past(name) if self.is_marked(name) else None

    def record_sha256(self, name: CrateName) -> str | None:
        """Return the digest of the last upstream bytes that passed; None: there are none."""
        own = self._own_record(name)
        if own is not None:
            return hashlib.sha256(own).hexdigest()
        current = self.current(target_path(name))
        return current.sha256 if current else None

    def record(self, name: CrateName) -> bytes | None:
        """Return the last upstream bytes that passed the audit; None: there are none.

        Raises:
            LostRecordError: they were published, and are lost or damaged on our disk.
        """
        own = self._own_record(name)
        if own is not None:
            return own
        path = target_path(name)
        current = self.current(path)
        if current is None:
            return None
        data = self.www.read_target(path, current.sha256)
        if data is None:
            # Without the bytes we signed there is nothing to compare with.
            raise LostRecordError(path, f"sha256 {current.sha256} on our own disk", "other bytes")
        return data

    def _own_record(self, name: CrateName) -> bytes | None:
        if name in self.examined.records:
            packed = self.examined.records[name]
            return zlib.decompress(packed) if packed is not None else None
        return self.ledger.memory.record(name) if self.is_marked(name) else None

    def holds(self, crate: CrateId, cksum: str) -> bool:
        """Whether a crate file with this checksum is held, or about to be."""
        staged = self.examined.crates.get(crate)
        if staged is not None:
            return staged.sha256 == cksum
        return self.ledger.holds_crate(crate_file(crate), cksum)

    # What is published

    def decide(self, name: CrateName, file: IndexFile | None) -> None:
        """Make of the last audited bytes what is published; None: upstream has none."""
        decision = decide(name, file, self._facts(name, file))
        self._put(target_path(name), decision.data)
        self._put(note_path(name), decision.note)
        self._drop_crates(name, file)
        if file is not None and decision.data != file.data:
            self.examined.records[name] = pack(file.data)
        elif self.is_marked(name) or name in self.examined.records:
            self.examined.records[name] = None

    def _drop_crates(self, name: CrateName, file: IndexFile | None) -> None:
        """Drop the held crates of which a line says another checksum, or that are to go."""
        if not self.is_marked(name) and name not in self.examined.deletions:
            return  # Nothing was overruled: the audit keeps checksums as they are.
        if file is None:
            if self.drop_deleted and self.deletion(name):
                self.examined.dropped.update(held for held, _ in self.ledger.crates_of(name))
            return
        named = {crate_file(entry.crate): entry.cksum for entry in file.by_version().values()}
        self.examined.dropped.update(
            held
            for held, sha256 in self.ledger.crates_of(name)
            if named.get(held, sha256) != sha256
        )

    def decide_again(self, name: CrateName) -> None:
        """Do so for the bytes that passed last: a rule changed, or a crate came.

        Raises:
            LostRecordError: those bytes are lost or damaged on our disk.
        """
        data = self.record(name)
        file = None if data is None else parse_index_file(name, data, self.index_limits)
        self.decide(name, file)

    def _facts(self, name: CrateName, file: IndexFile | None) -> Facts:
        finding = self.quarantined(name)
        withheld = None
        if finding is not None and file is None:
            kind = WithheldKind(finding.kind)
            withheld = Withheld(kind, finding.rule, finding.reason, finding.since)
        return Facts(self.rules.denials.get(name, ()), withheld, self._listed(name, file))

    def _listed(self, name: CrateName, file: IndexFile | None) -> frozenset[str] | None:
        if self.rules.listed is None:
            return None
        listed = self.rules.listed.get(name, {})
        entries = file.by_version() if file else {}
        return frozenset(
            version
            for version, locked in listed.items()
            if (entry := entries.get(version))
            and locked.admits(entry.cksum)
            and (self.rules.denial_of(name, version) or self.holds(entry.crate, entry.cksum))
        )

    def _put(self, path: str, data: bytes | None) -> None:
        current = self.current(path)
        if data is None:
            if current is not None:
                self.examined.changes[path] = None
        elif current is None or hashlib.sha256(data).hexdigest() != current.sha256:
            sha256 = self.www.put_target(path, data, at=self.now)
            self.examined.changes[path] = Target(len(data), sha256)
