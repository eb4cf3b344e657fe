"""One publication in the making: signed, checked with stock code, written where no client looks.

The order is the design: bins, then the snapshot that lists them, then the timestamp. What a stage
has written it can take away again, until the publication is committed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any

from tuf_repo import loading, verify
from tuf_repo.core import check, update
from tuf_repo.core.roles import SNAPSHOT, Policy
from tuf_repo.core.update import BinFacts, Changes, Counts, FileFacts, Json, State
from tuf_repo.errors import MetadataError, TargetError
from tuf_repo.keys import OnlineSigners
from tuf_repo.loading import BinReader, Trust
from tuf_repo.signing import sign
from tuf_repo.storage import TIMESTAMP_FILE, Storage
from tuf_repo.succession import Succession

Extra = Mapping[str, Any] | Callable[[Counts], Mapping[str, Any]]
"""Extra signed fields of a timestamp (`x-…`), or what makes them from the counts of targets."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A publication that is written and checked, and that no client sees yet."""

    timestamp_version: int
    superseded: tuple[str, ...]
    """Metadata files that the committed state names, and this one no longer does."""
    written: tuple[str, ...]
    """Metadata files that are new with it, roots apart."""
    base_version: int
    """Version of the timestamp it was built upon."""
    state: State = field(repr=False)
    signers: OnlineSigners = field(repr=False)
    succession: Succession | None = field(default=None, repr=False)

    @property
    def extra(self) -> Mapping[str, Any]:
        """The extra signed fields of its timestamp."""
        return self.state.extra


@dataclass(frozen=True, slots=True)
class Ground:
    """What a stage builds upon."""

    storage: Storage
    reader: BinReader
    policy: Policy
    state: State
    """The committed one."""
    trust: Trust
    """Under which it was committed."""
    signers: OnlineSigners
    """Those that are to sign now."""


class Stage:
    """One publication. Call the steps in their order; after an error call `discard`."""

    def __init__(
        self, ground: Ground, succession: Succession | None, numbers: Iterator[int], now: float
    ) -> None:
        self._ground = ground
        self._storage = ground.storage
        self._succession = succession
        self._trust = succession.trust if succession else ground.trust
        self._layout_stays = self._trust.layout == ground.trust.layout
        self._numbers = numbers
        self._now = now
        self._last_split: tuple[str, Mapping[str, Mapping[str, Json]]] = ("", {})
        self._written: list[str] = []
        self._timestamp_version: int | None = None

    def offline_roles(self) -> None:
        """Write what a ceremony brought, if it did."""
        if self._succession is None:
            return
        for file, data in self._succession.files.items():
            # A stage that was dropped may have left it: no snapshot has named it yet.
            self._storage.remove(file)
            self._write(file, data)
        for file, data in self._succession.roots.items():
            self._storage.stage_root(file, data)
        if self._succession.roots:
            self._storage.note_promotion(self._ground.state.timestamp_version)

    def bins(self, grouped: Mapping[str, Changes], due: set[str]) -> dict[str, BinFacts]:
        """Sign and write those that change, and those due."""
        fresh = {}
        for name in sorted(grouped.keys() | due):
            old = self._targets_before(name)
            targets = update.apply_changes(old, grouped.get(name, {}))
            if name in due or targets != old:
                # Where the layout is the same, what was in the bin before belongs there still.
                placed = old.keys() if self._layout_stays else set()
                fresh[name] = self._bin(name, targets, placed)
        return fresh

    def top(self, bins: Mapping[str, BinFacts], extra: Extra) -> State:
        """Sign and write the snapshot, if a bin is new or its own time has come; the timestamp."""
        state = replace(self._ground.state, fixed=self._trust.fixed, bins=self._bins_after(bins))
        snapshot_data = None
        renewal = update.snapshot_renewal(state, self._ground.policy)
        if bins or self._succession or renewal <= self._now:
            state, snapshot_data = self._snapshot(state)
        fields = extra(state.counts()) if callable(extra) else extra
        check.refuse(check.extra_findings(fields), TargetError)
        return self._timestamp(replace(state, extra=dict(fields)), snapshot_data)

    def staged(self, state: State) -> Staged:
        """Check it against what is committed; return it."""
        before = self._ground.state
        renamed = self._succession is not None and self._succession.forgets_history
        findings = check.successor_findings(before, state, renamed=renamed)
        check.refuse(findings, MetadataError)
        return Staged(
            timestamp_version=state.timestamp_version,
            superseded=tuple(sorted(before.files_not_in(state))),
            written=tuple(self._written),
            base_version=before.timestamp_version,
            state=state,
            signers=self._ground.signers,
            succession=self._succession,
        )

    def discard(self) -> None:
        """Remove what was written; its numbers stay used."""
        discard(self._storage, self._written, self._timestamp_version)

    def _targets_before(self, name: str) -> Mapping[str, Json]:
        """Return what a bin held, in the layout that counts from now on."""
        before, now = self._ground.trust.layout, self._trust.layout
        if self._layout_stays:
            return self._of(name)
        found: dict[str, Json] = {}
        for source in now.sources(now.index(name), before):
            found.update(self._split(before.name(source)).get(name, {}))
        return found

    def _split(self, source: str) -> Mapping[str, Mapping[str, Json]]:
        """Sort what a bin of the old layout holds into the new ones; the last one is kept."""
        if self._last_split[0] != source:
            parts: dict[str, dict[str, Json]] = {}
            for path, fields in self._of(source).items():
                parts.setdefault(self._trust.layout.bin_of(path), {})[path] = fields
            self._last_split = (source, parts)
        return self._last_split[1]

    def _of(self, name: str) -> Mapping[str, Json]:
        facts = self._ground.state.bins.get(name)
        return self._ground.reader.targets(name, facts) if facts else {}

    def _bins_after(self, fresh: Mapping[str, BinFacts]) -> dict[str, BinFacts]:
        bins = {**self._ground.state.bins, **fresh}
        if self._layout_stays:
            return bins
        return {name: bins[name] for name in self._trust.layout.names()}

    def _bin(self, name: str, targets: Mapping[str, Json], placed: AbstractSet[str]) -> BinFacts:
        version = next(self._numbers)
        file = update.file_name(name, version)
        signed = update.next_bin(name, version, targets, self._now, self._ground.policy)
        data = sign(signed, self._ground.signers.bins)
        checked = verify.targets(file, data, name, self._trust.delegate, version)
        fresh = checked.targets.keys() - placed
        check.refuse(check.bin_findings(file, name, fresh, self._trust.layout), MetadataError)
        self._write(file, data)
        return loading.bin_facts(checked, data)

    def _snapshot(self, state: State) -> tuple[State, bytes]:
        version = next(self._numbers)
        policy = self._ground.policy
        signed = update.next_snapshot(version, state.fixed, state.bins, self._now, policy)
        file = update.file_name(SNAPSHOT, version)
        findings = check.snapshot_findings(
            file, signed["meta"], self._trust.delegation, self._trust.layout
        )
        check.refuse(findings, MetadataError)
        data = sign(signed, self._ground.signers.snapshot)
        self._write(file, data)
        facts = FileFacts(version, len(data), hashlib.sha256(data).hexdigest())
        expires = int(self._now) + policy.snapshot_seconds
        return replace(state, snapshot=facts, snapshot_expires=expires), data

    def _timestamp(self, state: State, snapshot_data: bytes | None) -> State:
        version = next(self._numbers)
        policy = self._ground.policy
        if state.snapshot is None:
            raise MetadataError(SNAPSHOT, "a snapshot to refer to", "none")
        signed = update.next_timestamp(version, state.snapshot, state.extra, self._now, policy)
        data = sign(signed, self._ground.signers.timestamp)
        stamp = verify.timestamp(TIMESTAMP_FILE, data, self._trust.root, version)
        if snapshot_data is not None:
            file = update.file_name(SNAPSHOT, state.snapshot.version)
            verify.snapshot(file, snapshot_data, self._trust.root, stamp)
        self._storage.stage_timestamp(version, data)
        self._timestamp_version = version
        return replace(
            state,
            timestamp_version=version,
            timestamp_expires=int(self._now) + policy.timestamp_seconds,
            signed_at=int(self._now),
        )

    def _write(self, file: str, data: bytes) -> None:
        # Noted after: a file that could not be written because it is there already is not ours.
        self._storage.write(file, data)
        self._written.append(file)


def discard(storage: Storage, written: list[str], timestamp_version: int | None) -> None:
    """Remove what a stage has written, the newest first."""
    for file in reversed(written):
        storage.remove(file)
    storage.discard_staged(timestamp_version)
