"""Everything a repository's metadata folder holds, verified from the root down.

Like a client, with stock python-tuf code, but of all files, and going on after a finding as far as
what follows still means something.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from datetime import UTC, datetime

from tuf.api.metadata import MetaFile, Root, Signed, Snapshot, Targets, Timestamp

from tuf_repo import loading, verify
from tuf_repo.core import check
from tuf_repo.core.bins import BinLayout
from tuf_repo.core.check import Finding
from tuf_repo.core.roles import ROOT, SNAPSHOT, TARGETS
from tuf_repo.core.times import to_text
from tuf_repo.core.update import Target, file_name, target_from
from tuf_repo.errors import RepositoryError
from tuf_repo.storage import TIMESTAMP_FILE, MetadataFolder, parse_file_name


class RepositoryCheck:
    """One look at a metadata folder.

    First exhaust `findings`; then `files` says what the repository names, and `targets` what its
    sound bins hold.
    """

    def __init__(self, folder: MetadataFolder, *, now: float) -> None:
        self._folder = folder
        self._now = datetime.fromtimestamp(int(now), UTC)
        self.files: set[str] = set()
        """Files that the root chain and the committed timestamp name."""
        self.root: Root | None = None
        self.timestamp: Timestamp | None = None
        self._sound: list[str] = []

    def findings(self) -> Iterator[Finding]:
        """Yield what does not hold; nothing for a sound repository.

        1. The chain of roots, each by the one before and by itself.
        2. Timestamp and snapshot; what the snapshot lists.
        3. `targets` and the role that delegates to the bins; keys kept apart.
        4. Every bin: signature, version, own name, each target where clients look for it.
        5. No number used by two files, whether they are named still or not.
        """
        yield from self._unique_numbers()  # 5. first: it needs nothing but names
        yield from self._roots()  # 1.
        if self.root is None:
            return
        snapshot = yield from self._top(self.root)  # 2.
        if snapshot is None:
            return
        delegate = yield from self._fixed(self.root, snapshot)  # 3.
        if delegate is not None:
            yield from self._bins(snapshot, *delegate)  # 4.

    def targets(self) -> Iterator[tuple[str, Target]]:
        """Yield every target of the bins that were found sound."""
        for file in self._sound:
            for path, fields in json.loads(self._folder.read(file))["signed"]["targets"].items():
                yield path, target_from(fields)

    def _unique_numbers(self) -> Iterator[Finding]:
        names = ((file, parse_file_name(file)) for file in sorted(self._folder.files()))
        yield from check.number_findings(
            (file, name[1]) for file, name in names if name and name[0] != ROOT
        )

    def _roots(self) -> Iterator[Finding]:
        version = 1
        while True:
            file = file_name(ROOT, version)
            data = self._folder.read_if_there(file)
            if data is None and version > 1:
                break
            self.files.add(file)
            try:
                self.root = verify.root(file, data or self._folder.read(file), self.root, version)
            except RepositoryError as error:
                yield _finding(error)
                return
            version += 1
        yield from self._fresh(file_name(ROOT, version - 1), self.root)

    def _top(self, root: Root) -> Generator[Finding, None, Snapshot | None]:
        self.files.add(TIMESTAMP_FILE)
        try:
            data = self._folder.read(TIMESTAMP_FILE)
            self.timestamp = stamp = verify.timestamp(TIMESTAMP_FILE, data, root, None)
        except RepositoryError as error:
            yield _finding(error)
            return None
        yield from self._fresh(TIMESTAMP_FILE, stamp)
        file = file_name(SNAPSHOT, stamp.snapshot_meta.version)
        self.files.add(file)
        try:
            snapshot = verify.snapshot(file, self._folder.read(file), root, stamp)
        except RepositoryError as error:
            yield _finding(error)
            return None
        yield from self._fresh(file, snapshot)
        return snapshot

    def _fixed(
        self, root: Root, snapshot: Snapshot
    ) -> Generator[Finding, None, tuple[Targets, BinLayout] | None]:
        targets = yield from self._one(TARGETS, root, snapshot)
        if targets is None:
            return None
        try:
            delegation, _ = loading.sole_delegation(targets)
        except RepositoryError as error:
            yield _finding(error)
            return None
        delegate = yield from self._one(delegation, targets, snapshot)
        if delegate is None:
            return None
        try:
            loading.refuse_offline_key_mix(root, targets, delegate)
        except RepositoryError as error:
            yield _finding(error)
        try:
            layout = loading.bin_layout(delegation, delegate)
        except RepositoryError as error:
            yield _finding(error)
            return None
        return delegate, layout

    def _bins(self, snapshot: Snapshot, delegate: Targets, layout: BinLayout) -> Iterator[Finding]:
        file = file_name(SNAPSHOT, snapshot.version)
        meta = {name: entry.to_dict() for name, entry in snapshot.meta.items()}
        yield from check.snapshot_findings(file, meta, layout.prefix, layout)
        for name in layout.names():
            if f"{name}.json" not in snapshot.meta:
                continue  # The findings on the snapshot said so.
            signed = yield from self._one(name, delegate, snapshot)
            if signed is None:
                continue
            file = file_name(name, signed.version)
            misplaced = list(check.bin_findings(file, name, signed.targets, layout))
            yield from misplaced
            if not misplaced:
                self._sound.append(file)

    def _one(
        self, role: str, delegator: Root | Targets, snapshot: Snapshot
    ) -> Generator[Finding, None, Targets | None]:
        meta: MetaFile | None = snapshot.meta.get(f"{role}.json")
        if meta is None:
            yield Finding(
                file_name(SNAPSHOT, snapshot.version), f"an entry for {role}.json", "none"
            )
            return None
        file = file_name(role, meta.version)
        self.files.add(file)
        try:
            data = self._folder.read(file)
            verify.described(file, data, meta)
            signed = verify.targets(file, data, role, delegator, meta.version)
        except RepositoryError as error:
            yield _finding(error)
            return None
        yield from self._fresh(file, signed)
        return signed

    def _fresh(self, file: str, signed: Signed | None) -> Iterator[Finding]:
        if signed is not None and signed.is_expired(self._now):
            expired = to_text(signed.expires.timestamp())
            yield Finding(file, "metadata that has not expired", f"expired {expired}")


def check_repository(folder: MetadataFolder, *, now: float) -> Iterator[Finding]:
    """Yield what does not hold in a metadata folder; nothing for a sound repository."""
    return RepositoryCheck(folder, now=now).findings()


def _finding(error: RepositoryError) -> Finding:
    return Finding(error.subject, error.expected, error.got)
