"""Everything that a repository holds, verified from the root down.

Like a client, with stock python-tuf code, but of all files, and going on after a finding as far as
what follows still means something.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Collection, Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path

from tuf.api.metadata import MetaFile, Root, Signed, Snapshot, Targets, Timestamp

from tuf_repo import loading, verify
from tuf_repo.core import check, edits
from tuf_repo.core.bins import BinLayout
from tuf_repo.core.check import Finding
from tuf_repo.core.numbers import Reservation
from tuf_repo.core.roles import ROOT, SNAPSHOT, TARGETS
from tuf_repo.core.root import read_offline
from tuf_repo.core.times import to_text
from tuf_repo.core.update import Target, file_name, target_from
from tuf_repo.disk import PosixDisk
from tuf_repo.errors import CounterError, RepositoryError
from tuf_repo.folder import DataFolder
from tuf_repo.storage import TIMESTAMP_FILE, MetadataFolder, Storage, parse_file_name

Reader = Callable[[str, Target], bytes | None]
"""(target path, what its bin says) -> the bytes that clients would get, None where there are none.

An `OSError` of it becomes a finding. Reading a byte more than the length is enough.
"""


class RepositoryCheck:
    """One look at a metadata folder.

    First exhaust `findings`; then `files` says what the repository names, `extra_files` finds what
    lies there besides, and `targets` says what its sound bins hold.
    """

    def __init__(
        self,
        folder: MetadataFolder,
        *,
        now: float,
        reader: Reader | None = None,
    ) -> None:
        self._folder = folder
        self._now = datetime.fromtimestamp(int(now), UTC)
        self._reader = reader
        self.files: set[str] = set()
        """Files that the root chain and the committed timestamp name."""
        self.root: Root | None = None
        self.timestamp: Timestamp | None = None
        self._delegation: str | None = None
        self._numbers: list[tuple[str, int]] = []
        self._sound: list[str] = []

    def findings(self) -> Iterator[Finding]:
        """Yield what does not hold; nothing for a sound repository.

        1. The chain of roots, each by the one before and by itself.
        2. Timestamp and snapshot; what the snapshot lists.
        3. `targets` and the role that delegates to the bins; keys kept apart.
        4. Every bin: signature, version, own name, each target where clients look for it.
        5. Every target's bytes, where there is a reader.
        6. No number used by two files, whether they are named still or not; numbers rise.
        """
        yield from self._roots()  # 1.
        if self.root is None:
            yield from self._unique_numbers()  # 6.
            return
        snapshot = yield from self._top(self.root)  # 2.
        yield from self._unique_numbers()  # 6.
        if snapshot is None:
            return
        delegate = yield from self._fixed(self.root, snapshot)  # 3.
        if delegate is not None:
            yield from self._bins(snapshot, *delegate)  # 4., 5.

    def extra_files(self, kept: Collection[str] | None = None) -> Iterator[Finding]:
        """Yield the files that do not belong in the metadata folder.

        Args:
            kept: names of files that nothing names any more, and that may lie there for a while.
                None where that is not known: then whatever an earlier or a crashed publication can
                have left may. An extra root never may.
        """
        if self._delegation is None:
            return  # The findings were such that we do not know what is named.
        allowed = self._may_be_left if kept is None else kept.__contains__
        yield from check.extra_file_findings(self._folder.files(), self.files, allowed)

    def unreserved(self, reservation: Reservation) -> Iterator[Finding]:
        """Yield the numbers in use that were not reserved before.

        The reservation is to be read after `findings` is exhausted: it only grows.
        """
        yield from check.reserved_findings(self._numbers, reservation.below)

    def targets(self) -> Iterator[tuple[str, Target]]:
        """Yield every target of the bins that were found sound."""
        for file in self._sound:
            for path, fields in json.loads(self._folder.read(file))["signed"]["targets"].items():
                yield path, target_from(fields)

    def _may_be_left(self, file: str) -> bool:
        name = parse_file_name(file)
        if name is None or file_name(*name) != file:
            return False
        bins = f"{self._delegation}-"
        return name[0] in {SNAPSHOT, TARGETS, self._delegation} or name[0].startswith(bins)

    def _unique_numbers(self) -> Iterator[Finding]:
        names = ((file, parse_file_name(file)) for file in sorted(self._folder.files()))
        self._numbers = [(file, name[1]) for file, name in names if name and name[0] != ROOT]
        if self.timestamp:
            self._numbers.append((TIMESTAMP_FILE, self.timestamp.version))
        yield from check.number_findings(self._numbers)

    def _roots(self) -> Iterator[Finding]:
        version = 1
        while True:
            file = file_name(ROOT, version)
            try:
                data = self._folder.read_if_there(file)
                if data is None and version > 1:
                    break
                self.files.add(file)
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
        self._delegation = delegation
        delegate = yield from self._one(delegation, targets, snapshot)
        if delegate is None:
            return None
        yield from self._together(root, targets, delegate)
        try:
            return delegate, loading.bin_layout(delegation, delegate)
        except RepositoryError:
            return None  # `_together` said so.

    def _together(self, root: Root, targets: Targets, delegate: Targets) -> Iterator[Finding]:
        """What must hold between the offline roles."""
        delegation, _ = loading.sole_delegation(targets)
        roles = ((TARGETS, targets), (delegation, delegate))
        for role, signed in roles:
            if signed.targets:
                # Clients would find them there first, whatever the bins say.
                file = file_name(role, signed.version)
                yield Finding(file, "delegations and no targets", f"{min(signed.targets)!r}")
                return
        try:
            files = {
                role: self._folder.read(file_name(role, signed.version)) for role, signed in roles
            }
            loading.establish(root, targets, delegate, files)
            parts = {role: signed.to_dict() for role, signed in ((ROOT, root), *roles)}
            edits.refuse_broken_rules(None, read_offline(parts, delegation))
        except RepositoryError as error:
            yield _finding(error)

    def _bins(self, snapshot: Snapshot, delegate: Targets, layout: BinLayout) -> Iterator[Finding]:
        file = file_name(SNAPSHOT, snapshot.version)
        meta = {name: entry.to_dict() for name, entry in snapshot.meta.items()}
        yield from check.snapshot_findings(file, meta, layout.prefix, layout)
        yield from self._rising(snapshot, layout)
        for name in layout.names():
            if f"{name}.json" not in snapshot.meta:
                continue  # The findings on the snapshot said so.
            signed = yield from self._one(name, delegate, snapshot)
            if signed is not None:
                yield from self._bin(name, signed, layout)

    def _bin(self, name: str, signed: Targets, layout: BinLayout) -> Iterator[Finding]:
        file = file_name(name, signed.version)
        fields = {path: target.to_dict() for path, target in signed.targets.items()}
        wrong = [
            *check.bin_findings(file, name, fields, layout),
            *check.field_findings(file, fields),
        ]
        yield from wrong
        if wrong:
            return
        self._sound.append(file)
        if self._reader:
            for path, described in fields.items():
                yield from self._target(path, target_from(described), self._reader)

    def _target(self, path: str, target: Target, reader: Reader) -> Iterator[Finding]:
        try:
            data = reader(path, target)
        except OSError as error:
            yield Finding(path, "a file that can be read", error.strerror or repr(error))
            return
        yield from check.target_findings(path, target, data)

    def _rising(self, snapshot: Snapshot, layout: BinLayout) -> Iterator[Finding]:
        listed = ((name, snapshot.meta.get(f"{name}.json")) for name in layout.names())
        bins = [(file_name(name, meta.version), meta.version) for name, meta in listed if meta]
        if self.timestamp:
            top = (file_name(SNAPSHOT, snapshot.version), snapshot.version)
            yield from check.rising_findings(bins, top, (TIMESTAMP_FILE, self.timestamp.version))

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


def check_data(
    folder: DataFolder, *, now: float, kept: Collection[str] | None = None
) -> Iterator[Finding]:
    """Yield what does not hold in a data folder: metadata, counter, targets, extra files.

    `kept` as for `RepositoryCheck.extra_files`.
    """
    look = RepositoryCheck(
        MetadataFolder(folder.metadata), now=now, reader=folder_reader(folder.targets)
    )
    yield from look.findings()
    yield from look.extra_files(kept)
    try:
        storage = Storage(folder.metadata, folder.state, PosixDisk(folder.path))
        reservation = storage.read_reservation()
    except CounterError as error:
        yield _finding(error)
        return
    if reservation:
        yield from look.unreserved(reservation)


def folder_reader(folder: Path) -> Reader:
    """Return what reads targets from a folder, by their consistent-snapshot names (TUF 7.3)."""

    def read(path: str, target: Target) -> bytes | None:
        parent, slash, name = path.rpartition("/")
        file = folder / f"{parent}{slash}{target.sha256}.{name}"
        if ".." in path.split("/") or path.startswith("/"):
            return None  # No URL that a client makes of it leads there.
        try:
            fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        with os.fdopen(fd, "rb") as opened:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return None
            return opened.read(target.length + 1)

    return read


def _finding(error: RepositoryError) -> Finding:
    return Finding(error.subject, error.expected, error.got)
