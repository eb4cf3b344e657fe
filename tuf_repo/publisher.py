"""The online entry: stage a publication, commit it.

`stage` signs and writes everything under names no client is told of yet; `commit` is one rename.
What is dropped in between, by a crash or by `abandon`, leaves at most files that nothing names, and
numbers that stay used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tuf_repo import loading, verify
from tuf_repo.core import check, update
from tuf_repo.core.roles import SNAPSHOT, TIMESTAMP, Policy
from tuf_repo.core.update import BinFacts, Changes, Counts, FileFacts, Json, State, Target
from tuf_repo.counting import Known, NumberSource, start_numbers
from tuf_repo.errors import (
    MetadataError,
    RepositoryError,
    StaleStateError,
    TargetError,
)
from tuf_repo.keys import OnlineSigners
from tuf_repo.loading import BinReader, Trust
from tuf_repo.signing import sign
from tuf_repo.storage import TIMESTAMP_FILE, Storage

Extra = Mapping[str, Any] | Callable[[Counts], Mapping[str, Any]]
"""Extra signed fields of a timestamp (`x-…`), or what makes them from the counts of targets."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A publication that is written and checked, and that no client sees yet."""

    timestamp_version: int
    superseded: tuple[str, ...]
    """Metadata files that the committed state names, and this one no longer does."""
    written: tuple[str, ...]
    """Metadata files that are new with it."""
    base_version: int
    """Version of the timestamp it was built upon."""
    state: State = field(repr=False)

    @property
    def extra(self) -> Mapping[str, Any]:
        """The extra signed fields of its timestamp."""
        return self.state.extra


@dataclass(slots=True)
class _Draft:
    """What one call of `stage` has written so far."""

    now: float
    numbers: Iterator[int]
    written: list[str] = field(default_factory=list)
    timestamp_version: int | None = None


class Publisher:
    """Publishes one repository. One at a time: the caller holds a lock for it.

    After any error from `commit` but a `StaleStateError`, what `timestamp_version` says is what
    clients see; after a `StaleStateError`, open the repository again.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - made in two places: `open`, and trial.py
        self,
        storage: Storage,
        signers: OnlineSigners,
        trust: Trust,
        state: State,
        numbers: NumberSource,
        policy: Policy,
    ) -> None:
        self._storage = storage
        self._signers = signers
        self._trust = trust
        self._state = state
        self._numbers = numbers
        self._policy = policy
        self._reader = BinReader(storage, policy.bins_kept)
        self._next_due: int | None = None

    @classmethod
    def open(  # noqa: PLR0913 - what comes from outside is an argument, each by its name
        cls,
        storage: Storage,
        signers: OnlineSigners,
        *,
        now: float,
        policy: Policy,
        entropy: Callable[[], int],
        wait: Callable[[float], object],
    ) -> Publisher:
        """Recover what a crash left, load and verify the committed state, start the counter.

        Args:
            storage: the repository's files.
            signers: the online keys.
            now: seconds since 1970.
            policy: durations.
            entropy: gives a random number from 0, below 2**32.
            wait: sleeps for so many seconds.

        Raises:
            MetadataError: the committed state does not verify.
            KeyFileError: the signers are not the ones it names.
            ClockError: the clock stands before the last signature.
            CounterError: the counter's file does not read.
        """
        storage.recover()
        trust, state = loading.load(storage)
        loading.require_signers(trust, signers)
        known = Known(highest_number(state), state.signed_at)
        numbers = start_numbers(
            storage, known, now=now, policy=policy, entropy=entropy(), wait=wait
        )
        return cls(storage, signers, trust, state, numbers, policy)

    @property
    def timestamp_version(self) -> int:
        """Version of the committed timestamp."""
        return self._state.timestamp_version

    @property
    def snapshot_version(self) -> int:
        """Version of the committed snapshot."""
        return self._state.snapshot.version if self._state.snapshot else 0

    @property
    def signed_at(self) -> int:
        """When the committed timestamp was signed."""
        return self._state.signed_at

    @property
    def extra(self) -> Mapping[str, Any]:
        """The extra signed fields of the committed timestamp, our own apart."""
        return self._state.extra

    @property
    def root_version(self) -> int:
        """Version of the newest root."""
        return self._trust.root.version

    @property
    def root_extra(self) -> Mapping[str, Any]:
        """The extra signed fields of the newest root."""
        return self._trust.root.unrecognized_fields

    @property
    def expires(self) -> Mapping[str, int]:
        """When each role expires, in seconds since 1970; for `bins`, the first of them."""
        return {
            **self._trust.expires,
            "bins": min((facts.expires for facts in self._state.bins.values()), default=0),
            SNAPSHOT: self._state.snapshot_expires,
            TIMESTAMP: self._state.timestamp_expires,
        }

    def lookup(self, path: str) -> Target | None:
        """Return what the committed state says of a target path."""
        fields = self._bin_targets(self._trust.layout.bin_of(path)).get(path)
        return update.target_from(fields) if fields else None

    def lookup_all(self, paths: Iterable[str]) -> Iterator[tuple[str, Target | None]]:
        """Look up many paths, each bin read once; in the order of the bins."""
        bin_of = self._trust.layout.bin_of
        for name, path in sorted((bin_of(path), path) for path in paths):
            fields = self._bin_targets(name).get(path)
            yield path, update.target_from(fields) if fields else None

    def targets(self) -> Iterator[tuple[str, Target]]:
        """Yield every target of the committed state, one bin in memory at a time."""
        for path, fields in self._reader.stream(self._state.bins.items()):
            yield path, update.target_from(fields)

    def counts(self) -> Counts:
        """How many targets the committed state has, by the first part of their paths."""
        return self._state.counts()

    def current_files(self) -> set[str]:
        """The files of the metadata folder that the committed state names, all roots among them."""
        roots = {f"{version}.root.json" for version in range(1, self._trust.root.version + 1)}
        return self._state.file_names() | roots | {TIMESTAMP_FILE}

    def due(self, now: float) -> bool:
        """Whether something is to be signed though nothing changed."""
        if self._next_due is None:
            self._next_due = update.next_due(self._state, self._trust.layout, self._policy)
        return now >= self._next_due

    def stage(self, changes: Changes, extra: Extra, *, now: float) -> Staged:
        """Sign and write the next publication, and check each of its files with stock code.

        1. The clock has passed the last signature; the changes can be published.
        2. Numbers are reserved, durably, before the first signature.
        3. Bins: those that change, and those due. Each is signed, checked and written at once.
        4. Snapshot, if a bin is new or its own time has come; then timestamp.
        5. What must hold between the two publications is checked.

        Raises:
            TargetError: a change or extra field that clients could not read.
            ClockError: the clock stands before the last signature.
            CounterError: the numbers are used up.
            MetadataError: something we produced, or build upon, does not verify.
            OSError: the disk; what was written is removed again.
        """
        now = self._numbers.ready(now)  # 1.
        check.refuse(check.change_findings(changes, self._trust.paths), TargetError)
        grouped = update.group_by_bin(changes, self._trust.layout)
        due = update.bins_due(self._state, self._trust.layout, now, self._policy)
        numbers, now = self._numbers.take(len(grouped.keys() | due) + 2, now)  # 2.
        draft = _Draft(now=now, numbers=numbers)
        try:
            bins = self._stage_bins(draft, grouped, due)  # 3.
            state = self._stage_top(draft, bins, extra)  # 4.
            check.refuse(check.successor_findings(self._state, state), MetadataError)  # 5.
        except (OSError, RepositoryError):
            self._discard(draft.written, draft.timestamp_version)
            raise
        return Staged(
            timestamp_version=state.timestamp_version,
            superseded=tuple(sorted(self._state.file_names() - state.file_names())),
            written=tuple(draft.written),
            base_version=self._state.timestamp_version,
            state=state,
        )

    def commit(self, staged: Staged) -> None:
        """Make a staged publication the one that clients see; durable when this returns.

        What else it needs (targets) has been written through the same file system before.

        Raises:
            StaleStateError: it was not built upon what is committed now.
            OSError: the disk. `timestamp_version` tells whether clients see it.
        """
        if staged.base_version != self._state.timestamp_version:
            raise StaleStateError(
                TIMESTAMP_FILE, f"version {staged.base_version}", str(self.timestamp_version)
            )
        try:
            self._storage.promote(staged.timestamp_version, staged.base_version)
            self._storage.settle()
        finally:
            # Done or not, reported or not: what lies there is what clients see.
            if self._storage.timestamp_version() == staged.timestamp_version:
                self._state = staged.state
                self._next_due = None

    def abandon(self, staged: Staged) -> None:
        """Remove the files of a staged publication; its numbers stay used.

        Does nothing to one that clients see already.
        """
        if self._storage.timestamp_version() != staged.timestamp_version:
            self._discard(staged.written, staged.timestamp_version)

    def _bin_targets(self, name: str) -> Mapping[str, Json]:
        facts = self._state.bins.get(name)
        return self._reader.targets(name, facts) if facts else {}

    def _stage_bins(
        self, draft: _Draft, grouped: Mapping[str, Changes], due: set[str]
    ) -> dict[str, BinFacts]:
        fresh = {}
        for name in sorted(grouped.keys() | due):
            old = self._bin_targets(name)
            targets = update.apply_changes(old, grouped.get(name, {}))
            if name in due or targets != old:
                fresh[name] = self._stage_bin(draft, name, targets)
        return fresh

    def _stage_bin(self, draft: _Draft, name: str, targets: Mapping[str, Json]) -> BinFacts:
        version = next(draft.numbers)
        file = update.file_name(name, version)
        signed = update.next_bin(name, version, targets, draft.now, self._policy)
        data = sign(signed, self._signers.bins)
        checked = verify.targets(file, data, name, self._trust.delegate, version)
        check.refuse(
            check.bin_findings(file, name, checked.targets, self._trust.layout), MetadataError
        )
        self._write(draft, file, data)
        return loading.bin_facts(checked, data)

    def _stage_top(self, draft: _Draft, bins: Mapping[str, BinFacts], extra: Extra) -> State:
        state = replace(self._state, bins={**self._state.bins, **bins})
        snapshot_data = None
        if bins or update.snapshot_renewal(state, self._policy) <= draft.now:
            state, snapshot_data = self._stage_snapshot(draft, state)
        fields = extra(state.counts()) if callable(extra) else extra
        check.refuse(check.extra_findings(fields), TargetError)
        return self._stage_timestamp(draft, replace(state, extra=dict(fields)), snapshot_data)

    def _stage_snapshot(self, draft: _Draft, state: State) -> tuple[State, bytes]:
        version = next(draft.numbers)
        signed = update.next_snapshot(version, state.fixed, state.bins, draft.now, self._policy)
        file = update.file_name(SNAPSHOT, version)
        check.refuse(
            check.snapshot_findings(
                file, signed["meta"], self._trust.delegation, self._trust.layout
            ),
            MetadataError,
        )
        data = sign(signed, self._signers.snapshot)
        self._write(draft, file, data)
        facts = FileFacts(version, len(data), hashlib.sha256(data).hexdigest())
        expires = int(draft.now) + self._policy.snapshot_seconds
        return replace(state, snapshot=facts, snapshot_expires=expires), data

    def _stage_timestamp(self, draft: _Draft, state: State, snapshot_data: bytes | None) -> State:
        version = next(draft.numbers)
        if state.snapshot is None:
            raise MetadataError(SNAPSHOT, "a snapshot to refer to", "none")
        signed = update.next_timestamp(
            version, state.snapshot, state.extra, draft.now, self._policy
        )
        data = sign(signed, self._signers.timestamp)
        stamp = verify.timestamp(TIMESTAMP_FILE, data, self._trust.root, version)
        if snapshot_data is not None:
            file = update.file_name(SNAPSHOT, state.snapshot.version)
            verify.snapshot(file, snapshot_data, self._trust.root, stamp)
        self._storage.stage_timestamp(version, data)
        draft.timestamp_version = version
        return replace(
            state,
            timestamp_version=version,
            timestamp_expires=int(draft.now) + self._policy.timestamp_seconds,
            signed_at=int(draft.now),
        )

    def _write(self, draft: _Draft, file: str, data: bytes) -> None:
        # Noted after: a file that could not be written because it is there already is not ours.
        self._storage.write(file, data)
        draft.written.append(file)

    def _discard(self, written: Iterable[str], timestamp_version: int | None) -> None:
        for file in written:
            self._storage.remove(file)
        if timestamp_version is not None:
            self._storage.discard_timestamp(timestamp_version)


def highest_number(state: State) -> int:
    """The highest number that a publication uses."""
    fixed = (facts.version for facts in state.fixed.values())
    return max(*(number for _, number in check.online_numbers(state)), *fixed)
