"""One look at a repository: all rules of TUF, no network, no disk, no clock.

The rules are python-tuf's own (`TrustedMetadataSet`, which its `Updater` is built on). The stock
`Updater` reads files again by their path, fetches one after another, and takes one mirror only;
here bytes come in, are verified in memory once, and are used from memory. This is the only module
that touches python-tuf's private part; a contract test pins what it uses.

Errors are python-tuf's `RepositoryError`s: who fetched the bytes knows where from, and says so.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from tuf.api.exceptions import (
    BadVersionNumberError,
    EqualVersionNumberError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
)
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, TargetFile, Targets, Timestamp
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from mirror.client.source.standing import State, state_of
from mirror.core.layout import METADATA_DIR, STATE_FIELD
from mirror.core.times import rfc3339

ROOT_MAX_BYTES = 512_000
TIMESTAMP_MAX_BYTES = 16_384
SNAPSHOT_MAX_BYTES = 16_000_000
"""65,536 bins; like the next it counts only where nothing signed says more."""
TARGETS_MAX_BYTES = 5_000_000
DELEGATIONS_MAX = 32
"""As many roles as python-tuf visits for one target."""
_ROLE_FIELD = "x-role"
_BEFORE_ALL = datetime.fromtimestamp(0, UTC)


class BehindError(RepositoryError):
    """Well signed, and older than what is known: its host is late, which is no lie."""


class PastError(ExpiredMetadataError):
    """What says when it expired.

    Attributes:
        expired_at: in seconds since 1970.
    """

    def __init__(self, role: str, expired_at: float) -> None:
        self.expired_at = expired_at
        super().__init__(f"{role} expired at {rfc3339(expired_at)}")


class WrongRoleError(RepositoryError):
    """Well signed, but for another role.

    Attributes:
        role: whose metadata was asked for.
        said: whose it says it is.
    """

    def __init__(self, role: str, said: object) -> None:
        self.role = role
        self.said = said
        super().__init__(f"metadata signed for the role {said!r}, not {role}")


@dataclass(frozen=True, slots=True)
class TargetInfo:
    """What signed metadata says of one target."""

    path: str
    length: int
    hashes: Mapping[str, str]

    @property
    def sha256(self) -> str | None:
        """Its sha256 as hex; None: signed under other hashes only."""
        return self.hashes.get("sha256")

    def check(self, data: bytes) -> None:
        """Make sure that these are its bytes; every hash that was signed counts.

        Raises:
            LengthOrHashMismatchError: they are not.
        """
        if len(self.hashes) == 1 and self.sha256 is not None:
            if len(data) != self.length or hashlib.sha256(data).hexdigest() != self.sha256:
                raise LengthOrHashMismatchError(f"{self.path}: other bytes than were signed")
            return
        TargetFile(self.length, dict(self.hashes), self.path).verify_length_and_hashes(data)


@dataclass(frozen=True, slots=True)
class Need:
    """A metadata file that has to be fetched and verified before more can be said."""

    role: str
    parent: str
    version: int
    """As the snapshot has it."""
    max_bytes: int
    file: str
    """Its name under the metadata's URL."""
    kept_as: str
    """Its name without the version."""

    @property
    def path(self) -> str:
        """Where a mirror keeps it."""
        return f"{METADATA_DIR}/{self.file}"


class Look:
    """What one publication says, as far as it has been verified. Thread-safe once it is open.

    To be called in this order: `recall_timestamp` with what is remembered, `take_timestamp`;
    `recall_snapshot`, and `take` of `need_snapshot` if that was not it; then `find` and `take` by
    turns.
    """

    def __init__(
        self, root: bytes, now: float, *, accept_stale: bool = False, names_itself: bool = True
    ) -> None:
        """Begin with a trusted root.

        Args:
            root: its bytes.
            now: the time that expiry is compared with.
            accept_stale: timestamp and snapshot count though they have expired; all else does not.
            names_itself: every targets-type file must name its role in a signed field. All bins
                share a key, so only this (beside unique versions) tells one from another: a host
                without keys must not answer bin A with bin B.

        Raises:
            RepositoryError: it is no root, or not signed by itself.
        """
        self._set = TrustedMetadataSet(root, EnvelopeType.METADATA)
        self._now = datetime.fromtimestamp(int(now), UTC)
        self._set.reference_time = _BEFORE_ALL if accept_stale else self._now
        self._names_itself = names_itself
        self._taken: dict[tuple[str, str], _Taken] = {}
        self._lock = threading.Lock()
        self.root_data = root
        self.timestamp_data: bytes | None = None
        self.snapshot_data: bytes | None = None

    # ---- root

    @property
    def root_version(self) -> int:
        """The version of the root."""
        return self._set.root.version

    @property
    def is_consistent(self) -> bool:
        """Whether names of files have versions and hashes in them (TUF 6.2); ours always have."""
        return bool(self._set.root.consistent_snapshot)

    # ---- timestamp

    def recall_timestamp(self, data: bytes | None) -> None:
        """Begin with the newest timestamp that verified before; if it no longer does, without."""
        if data is not None:
            with suppress(RepositoryError):
                self._set.update_timestamp(data)
            if Timestamp.type in self._set:
                self.timestamp_data = data

    def take_timestamp(self, data: bytes) -> None:
        """Take what a mirror says is newest; the same as before is well.

        Raises:
            BehindError: it is well signed, and older than the one remembered.
            RepositoryError: it does not verify.
        """
        self._check_root_is_fresh()
        known = self._set.timestamp.version if self.timestamp_data is not None else 0
        try:
            self._set.update_timestamp(data)
        except EqualVersionNumberError:
            return
        except ExpiredMetadataError as error:
            raise _past(Timestamp.type, data) from error
        except BadVersionNumberError as error:
            offered = Metadata[Timestamp].from_bytes(data).signed.version
            if offered < known:
                raise BehindError(f"timestamp {offered}, after {known} was seen") from error
            raise
        self.timestamp_data = data

    @property
    def timestamp_version(self) -> int:
        """The version of the timestamp that was taken."""
        return self._set.timestamp.version

    @property
    def state(self) -> State:
        """What the signer says of itself in the timestamp, if one was taken."""
        if self.timestamp_data is None:
            return State()
        return state_of(self._set.timestamp.unrecognized_fields.get(STATE_FIELD))

    # ---- snapshot

    def recall_snapshot(self, data: bytes | None) -> bool:
        """Begin with the newest snapshot that verified before; return whether it is still it."""
        if data is None:
            return False
        try:
            self._set.update_snapshot(data, trusted=True)
        except RepositoryError:
            return False
        self.snapshot_data = data
        return True

    def need_snapshot(self) -> Need:
        """Say which snapshot the timestamp names."""
        meta = self._set.timestamp.snapshot_meta
        return self._need(Snapshot.type, Root.type, meta.version, meta.length or SNAPSHOT_MAX_BYTES)

    # ---- targets, and all that is delegated

    def need(self, role: str, parent: str) -> Need | None:
        """Say which file has to be taken for a role; None: it was.

        Raises:
            RepositoryError: the snapshot does not name it.
        """
        if (parent, role) in self._taken:
            return None
        meta = self._set.snapshot.meta.get(f"{role}.json")
        if meta is None:
            raise RepositoryError(f"{role} was delegated, and the snapshot does not name it")
        return self._need(role, parent, meta.version, meta.length or TARGETS_MAX_BYTES)

    def take(self, need: Need, data: bytes) -> None:
        """Take the metadata of a role, or the snapshot.

        Raises:
            RepositoryError: it does not verify, has expired, or is another role's.
        """
        if need.role == Snapshot.type:
            self._take_snapshot(data)
            return
        with self._lock:
            try:
                taken = self._set.update_delegated_targets(data, need.role, need.parent)
            except ExpiredMetadataError as error:
                raise _past(need.role, data) from error
            if taken.is_expired(self._now):
                raise _past(need.role, data)
            said = taken.unrecognized_fields.get(_ROLE_FIELD)
            if self._names_itself and said != need.role:
                raise WrongRoleError(need.role, said)
            # Only what stands here counts; the set keeps what was refused since, too.
            self._taken[need.parent, need.role] = _Taken(taken, taken.expires.timestamp())

    def find(self, path: str, now: float) -> TargetInfo | Need | None:
        """Return what is signed of a target, or what has to be taken first; None: there is none.

        The walk of python-tuf's `Updater`: preorder, depth first (TUF specification 5.6.7).

        Raises:
            ExpiredMetadataError: a role on the way has expired since it was taken.
            RepositoryError: a role on the way is not named by the snapshot.
        """
        to_visit = [(Targets.type, Root.type)]
        visited: set[str] = set()
        while to_visit and len(visited) <= DELEGATIONS_MAX:
            role, parent = to_visit.pop()
            if role in visited:
                continue
            taken = self._taken.get((parent, role))
            if taken is None:
                return self.need(role, parent)
            if taken.expires <= now:
                raise PastError(role, taken.expires)
            found = taken.targets.targets.get(path)
            if found is not None:
                return TargetInfo(path, found.length, found.hashes)
            visited.add(role)
            _push_children(role, taken.targets, path, to_visit)
        return None

    def expires(self) -> float:
        """Return when the first of what every answer rests on expires, in seconds since 1970.

        That is the root, all that delegates, and, unless they are accepted stale, timestamp and
        snapshot.
        """
        times = [self._set.root.expires.timestamp()]
        times += [each.expires for each in self._taken.values() if each.targets.delegations]
        if self._set.reference_time is not _BEFORE_ALL:
            times.append(self.dated_until())
        return min(times)

    def dated_until(self) -> float:
        """Return when the first of timestamp and snapshot expires."""
        return min(self._set.timestamp.expires.timestamp(), self._set.snapshot.expires.timestamp())

    # ---- within

    def _need(self, role: str, parent: str, version: int, max_bytes: int) -> Need:
        file = f"{quote(role, '')}.json"
        number = f"{version}." if self.is_consistent else ""
        return Need(role, parent, version, max_bytes, number + file, file)

    def _take_snapshot(self, data: bytes) -> None:
        try:
            self._set.update_snapshot(data)
        except ExpiredMetadataError as error:
            late = Snapshot.type if Snapshot.type in self._set else Timestamp.type
            raise PastError(late, self._set[late].expires.timestamp()) from error
        self.snapshot_data = data

    def _check_root_is_fresh(self) -> None:
        # 5.3.10; the set compares with its own time, which is none where stale ones are accepted.
        if self._set.root.is_expired(self._now):
            raise PastError("the newest root", self._set.root.expires.timestamp())


@dataclass(frozen=True, slots=True)
class _Taken:
    """A targets-type file that has verified."""

    targets: Targets
    expires: float


def _past(role: str, data: bytes) -> PastError:
    signed: Signed = Metadata.from_bytes(data).signed
    return PastError(role, signed.expires.timestamp())


def _push_children(role: str, targets: Targets, path: str, to_visit: list[tuple[str, str]]) -> None:
    if targets.delegations is None:
        return
    children = []
    for child, is_last in targets.delegations.get_roles_for_target(path):
        children.append((child, role))
        if is_last:
            to_visit.clear()
            break
    to_visit.extend(reversed(children))
