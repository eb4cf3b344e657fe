"""The offline roles as values: who signs what, how the bins are laid out, what comes next.

Rule: everything that `root`, `targets` and the role below them say stands in `Offline`; a file that
says more than can be built from it is none of ours. So whoever looks at the value has seen it all.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from securesystemslib.signer import Key
from tuf.api.metadata import DelegatedRole, Delegations, Role, Root, SuccinctRoles, Targets

from tuf_repo.core.bins import BinLayout
from tuf_repo.core.names import is_delegation
from tuf_repo.core.numbers import LIMIT
from tuf_repo.core.roles import (
    BINS,
    ROOT,
    SNAPSHOT,
    SPEC_VERSION,
    TARGETS,
    TIMESTAMP,
    X_ROLE,
    Policy,
)
from tuf_repo.core.times import from_text
from tuf_repo.errors import CeremonyError

T = TypeVar("T")
Json = dict[str, Any]
X_NAME = "x-name"
"""Extra field of a public key: whose it is."""
ONLINE = (SNAPSHOT, TIMESTAMP, BINS)
"""The roles that the signing machine holds keys of."""
# python-tuf looks at shapes, not at every type: a keyid may be a list, a threshold a text.
_ODD = (ValueError, KeyError, TypeError, AttributeError)
_RESERVED = frozenset({ROOT, TARGETS, *ONLINE})


@dataclass(frozen=True, slots=True)
class Quorum:
    """Some keys, and how many of them must sign."""

    keys: tuple[Key, ...]
    threshold: int

    def ids(self) -> list[str]:
        """The keyids, in order."""
        return [key.keyid for key in self.keys]


@dataclass(frozen=True, slots=True)
class Offline:
    """What the offline roles say, all of it but versions and times."""

    delegation: str
    """The role below `targets`; the prefix of its bins' names."""
    paths: tuple[str, ...]
    bits: int
    quorums: Mapping[str, Quorum]
    """By role: root, targets, the delegation, and the three that sign online."""
    extra: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By file: extra signed fields (`x-…`), without those of our own."""

    @property
    def files(self) -> tuple[str, str, str]:
        """The roles with a file of their own, from the top down."""
        return ROOT, TARGETS, self.delegation

    @property
    def roles(self) -> tuple[str, ...]:
        """All roles with keys: the offline ones, then the online ones."""
        return (*self.files, *ONLINE)

    @property
    def layout(self) -> BinLayout:
        """How the bins are named."""
        return BinLayout(self.delegation, self.bits)


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a file says of itself."""

    version: int
    expires: int
    """Seconds since 1970."""


# ---- reading


def read_offline(signed: Mapping[str, Json], delegation: str) -> Offline:
    """Read the signed parts of the three files, by role.

    Raises:
        CeremonyError: one is not such a file, or says something that we would not write.
    """
    if delegation in _RESERVED:
        raise CeremonyError("delegation", "a name of its own", delegation)
    if not is_delegation(delegation):
        raise CeremonyError(
            "delegation", "a name of at most 31 of a-z, 0-9 and -", repr(delegation)
        )
    root = _parsed(Root.from_dict, signed, ROOT)
    targets = _parsed(Targets.from_dict, signed, TARGETS)
    below = _parsed(Targets.from_dict, signed, delegation)
    try:
        offline = _offline(root, targets, below, delegation)
        for role in offline.files:
            _refuse_more(role, signed[role], offline)
    except _ODD as error:
        raise CeremonyError("roles", "what this program writes", repr(error)) from None
    return offline


def stamp_of(role: str, signed: Json) -> Stamp:
    """Read version and expiry of a signed part.

    Raises:
        CeremonyError: they do not read.
    """
    version, expires = signed.get("version"), signed.get("expires")
    if type(version) is not int or not 0 < version < LIMIT:
        raise CeremonyError(role, f"a version from 1, below {LIMIT}", repr(version))
    try:
        return Stamp(version, from_text(str(expires)))
    except ValueError:
        raise CeremonyError(role, "expires as in 2031-01-31T12:00:00Z", repr(expires)) from None


def _parsed(read: Callable[[Json], T], signed: Mapping[str, Json], role: str) -> T:
    try:
        # python-tuf takes what it reads apart.
        return read(copy.deepcopy(signed[role]))
    except _ODD as error:
        raise CeremonyError(role, "the signed part of its file", repr(error)) from None


def _offline(root: Root, targets: Targets, below: Targets, delegation: str) -> Offline:
    delegated = (targets.delegations.roles if targets.delegations else None) or {}
    succinct = below.delegations.succinct_roles if below.delegations else None
    if targets.delegations is None or set(delegated) != {delegation}:
        raise CeremonyError(TARGETS, f"one delegation, to {delegation}", repr(sorted(delegated)))
    if below.delegations is None or succinct is None:
        raise CeremonyError(delegation, "a delegation to bins", "none")
    quorums = {
        ROOT: _quorum(ROOT, root.roles[ROOT], root.keys),
        TARGETS: _quorum(TARGETS, root.roles[TARGETS], root.keys),
        delegation: _quorum(delegation, delegated[delegation], targets.delegations.keys),
        SNAPSHOT: _quorum(SNAPSHOT, root.roles[SNAPSHOT], root.keys),
        TIMESTAMP: _quorum(TIMESTAMP, root.roles[TIMESTAMP], root.keys),
        BINS: _quorum(BINS, succinct, below.delegations.keys),
    }
    _expect_number(f"{delegation}: bit_length", succinct.bit_length)
    files = ((ROOT, root), (TARGETS, targets), (delegation, below))
    return Offline(
        delegation=delegation,
        paths=tuple(delegated[delegation].paths or ()),
        bits=succinct.bit_length,
        quorums=quorums,
        extra={role: _extra(file.unrecognized_fields) for role, file in files},
    )


def _quorum(name: str, role: Role, keys: Mapping[str, Key]) -> Quorum:
    lost = [keyid for keyid in role.keyids if keyid not in keys]
    if lost:
        raise CeremonyError(name, "the keys that it names", f"none for keyid {lost[0][:8]}")
    _expect_number(f"{name}: threshold", role.threshold)
    return Quorum(tuple(keys[keyid] for keyid in role.keyids), role.threshold)


def _expect_number(subject: str, value: object) -> None:
    # For Python `true` is 1, and the other way round; for the next reader it is not.
    if type(value) is not int:
        raise CeremonyError(subject, "a whole number", repr(value))


def _extra(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key != X_ROLE}


def _refuse_more(role: str, signed: Json, offline: Offline) -> None:
    ours = build(role, offline, stamp_of(role, signed))
    for key in sorted(ours.keys() | signed.keys()):
        if key not in ours or key not in signed or as_text(ours[key]) != as_text(signed[key]):
            raise CeremonyError(role, "what this program writes and can show, nothing more", key)


def as_text(value: object) -> str:
    """Return a JSON value so that two are one text only where they are one value: 1 is not true."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


# ---- writing


def build(role: str, offline: Offline, stamp: Stamp) -> Json:
    """Return the signed part of one file; SPEC_VERSION is ours, whatever python-tuf is at hand."""
    expires = datetime.fromtimestamp(stamp.expires, UTC)
    extra = dict(offline.extra.get(role, {}))
    if role == ROOT:
        quorums = {name: offline.quorums[name] for name in (ROOT, TARGETS, SNAPSHOT, TIMESTAMP)}
        return Root(
            version=stamp.version,
            spec_version=SPEC_VERSION,
            expires=expires,
            keys=_keys(quorums.values()),
            roles={name: Role(each.ids(), each.threshold) for name, each in quorums.items()},
            consistent_snapshot=True,
            unrecognized_fields=extra,
        ).to_dict()
    delegations = _to_bins(offline) if role != TARGETS else _to_delegation(offline)
    return Targets(
        version=stamp.version,
        spec_version=SPEC_VERSION,
        expires=expires,
        delegations=delegations,
        unrecognized_fields={**extra, X_ROLE: role},
    ).to_dict()


def _to_delegation(offline: Offline) -> Delegations:
    quorum, name = offline.quorums[offline.delegation], offline.delegation
    role = DelegatedRole(
        name, quorum.ids(), quorum.threshold, terminating=True, paths=list(offline.paths)
    )
    return Delegations(_keys([quorum]), roles={name: role})


def _to_bins(offline: Offline) -> Delegations:
    quorum = offline.quorums[BINS]
    succinct = SuccinctRoles(quorum.ids(), quorum.threshold, offline.bits, offline.delegation)
    return Delegations(_keys([quorum]), succinct_roles=succinct)


def _keys(quorums: Iterable[Quorum]) -> dict[str, Key]:
    return {key.keyid: key for quorum in quorums for key in quorum.keys}


# ---- what comes next


def changed_files(old: Offline | None, new: Offline) -> list[str]:
    """The files in which something is to change; all of them where there are none yet."""
    if old is None:
        return list(new.files)
    return [role for role in new.files if _built(role, old) != _built(role, new)]


def _built(role: str, offline: Offline) -> str:
    return as_text(build(role, offline, Stamp(1, 0)))


def next_versions(
    base: Mapping[str, Stamp], new: Offline, wanted: Collection[str]
) -> dict[str, int]:
    """Return the versions of the wanted files: what may come, and nothing else.

    `targets` and the role below never carry one number: hosts could answer one with the other.

    Args:
        base: what is in force, by file; empty for a first repository.
        new: the roles as they will be.
        wanted: the files that are new.

    Raises:
        CeremonyError: the numbers are used up.
    """
    # TUF 5.3.5: a root is exactly one newer, so that clients can walk the chain.
    versions = {ROOT: base[ROOT].version + 1 if base else 1} if ROOT in wanted else {}
    below = max(base[role].version for role in new.files[1:]) if base else 0
    for role in new.files[1:]:
        if role in wanted:
            versions[role] = below = below + 1
    for role, version in versions.items():
        if version >= LIMIT:
            raise CeremonyError(role, f"a version below {LIMIT}", str(version))
    return versions


def next_files(
    base: Mapping[str, Stamp] | None,
    new: Offline,
    wanted: Collection[str],
    now: float,
    policy: Policy,
) -> dict[str, Json]:
    """Build the next version of the wanted files.

    Raises:
        CeremonyError: the numbers are used up.
    """
    seconds = {ROOT: policy.root_seconds, TARGETS: policy.targets_seconds}
    return {
        role: build(
            role,
            new,
            Stamp(version, int(now) + seconds.get(role, policy.delegation_seconds)),
        )
        for role, version in next_versions(base or {}, new, wanted).items()
    }


def refuse_versions(
    new: Offline,
    before: Mapping[str, Stamp],
    stamps: Mapping[str, Stamp],
    fresh: Collection[str],
) -> None:
    """Versions are the very ones that `next_files` gives.

    A number that was merely higher would let a draft pass that starts from files of long ago.

    Args:
        new: the roles as they will be.
        before: what is in force, by file; empty for a first repository.
        stamps: what will be.
        fresh: the files that are new.

    Raises:
        CeremonyError: a version is not the one that follows, or two files share one.
    """
    for role, version in next_versions(before, new, fresh).items():
        if stamps[role].version != version:
            raise CeremonyError(
                f"{role} in the draft", f"version {version}", str(stamps[role].version)
            )
    below = new.files[1:]
    if len({stamps[role].version for role in below}) < len(below):
        raise CeremonyError("draft", f"different versions of {' and '.join(below)}", "the same")
