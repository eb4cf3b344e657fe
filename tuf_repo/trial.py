"""A whole repository for a first try: one key per role, all of them on this machine.

Safe to stop at any write: until the first `timestamp.json` is committed nothing is trusted yet, and
a new run starts over with the same keys and with numbers of its own. A committed repository and a
key that is there are never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Delegations, Role, Root, SuccinctRoles, Targets

from tuf_repo import verify
from tuf_repo.core.roles import ROOT, SNAPSHOT, TARGETS, TIMESTAMP, X_ROLE, Policy
from tuf_repo.core.update import State, file_name
from tuf_repo.counting import Known, start_numbers
from tuf_repo.errors import MetadataError
from tuf_repo.keys import OnlineSigners, create_key, create_online_signers, key_file, load_signer
from tuf_repo.loading import Trust, establish, require_signers
from tuf_repo.publisher import Extra, Publisher, highest_number
from tuf_repo.signing import sign
from tuf_repo.storage import Storage

_ROOT_VERSION = 1
# Never the same for these two: a host could answer one with the other (see core/check.py).
_TARGETS_VERSION = 1
_DELEGATION_VERSION = 2


@dataclass(frozen=True, slots=True)
class TrialPlan:
    """What a trial repository is to be."""

    delegation: str
    """The role below `targets`, and the prefix of its bins' names."""
    paths: Sequence[str]
    """The target path patterns it covers."""
    bin_bits: int
    root_extra: Mapping[str, Any] = field(default_factory=dict)
    """Extra signed fields of the root (`x-…`)."""
    timestamp_extra: Extra = field(default_factory=dict)
    """Extra signed fields of the first timestamp (`x-…`)."""


@dataclass(frozen=True, slots=True, repr=False)
class _OfflineSigners:
    root: CryptoSigner
    targets: CryptoSigner
    delegation: CryptoSigner


def init_trial(  # noqa: PLR0913 - what comes from outside is an argument, each by its name
    storage: Storage,
    keys: Path,
    offline_keys: Path,
    plan: TrialPlan,
    *,
    now: float,
    policy: Policy,
    entropy: Callable[[], int],
    wait: Callable[[float], object],
) -> bool:
    """Make keys and a repository without targets; leave its first publication committed.

    Args:
        storage: where the repository is to be.
        keys: folder of the online keys; what is missing is made.
        offline_keys: folder of the other keys; what is missing is made.
        plan: what it is to be.
        now: seconds since 1970.
        policy: durations.
        entropy: as for `Publisher.open`.
        wait: as for `Publisher.open`.

    Returns:
        False where a committed repository lies there already; nothing was changed then.

    Raises:
        MetadataError: files lie there that are no committed repository, and not ours to remove.
        KeyFileError: a key that is there cannot be used.
        OSError: the disk.
    """
    if storage.timestamp_version():
        storage.clear_setup()
        return False
    _clear_unfinished(storage)
    storage.mark_setup()
    online = create_online_signers(keys)
    offline = _offline_signers(offline_keys)
    trust = _write_offline_roles(storage, online, offline, plan, now, policy)
    require_signers(trust, online)
    state = State(0, 0, 0, {}, None, 0, trust.fixed, {})
    known = Known(highest_number(state), None)
    numbers = start_numbers(storage, known, now=now, policy=policy, entropy=entropy(), wait=wait)
    first = Publisher(storage, online, trust, state, numbers, policy)
    first.commit(first.stage({}, plan.timestamp_extra, now=now))
    storage.clear_setup()
    return True


def _clear_unfinished(storage: Storage) -> None:
    files = storage.files()
    if files and not storage.setup_unfinished():
        raise MetadataError(
            str(storage.path), "an empty folder, or one with a timestamp.json", min(files)
        )
    for file in files:
        storage.remove(file)
    storage.recover()


def _offline_signers(folder: Path) -> _OfflineSigners:
    paths = [key_file(folder, role) for role in (ROOT, TARGETS, "delegation")]
    for path in paths:
        create_key(path)
    return _OfflineSigners(*map(load_signer, paths))


def _write_offline_roles(  # noqa: PLR0913, PLR0917 - private, called once
    storage: Storage,
    online: OnlineSigners,
    offline: _OfflineSigners,
    plan: TrialPlan,
    now: float,
    policy: Policy,
) -> Trust:
    root_data = sign(_root(online, offline, plan, now + policy.root_seconds), offline.root)
    targets_data = sign(_targets(offline, plan, now + policy.targets_seconds), offline.targets)
    delegate_data = sign(
        _delegate(online, plan, now + policy.delegation_seconds), offline.delegation
    )
    root_file = file_name(ROOT, _ROOT_VERSION)
    targets_file = file_name(TARGETS, _TARGETS_VERSION)
    delegate_file = file_name(plan.delegation, _DELEGATION_VERSION)
    root = verify.root(root_file, root_data, None, _ROOT_VERSION)
    targets = verify.targets(targets_file, targets_data, TARGETS, root, _TARGETS_VERSION)
    delegate = verify.targets(
        delegate_file, delegate_data, plan.delegation, targets, _DELEGATION_VERSION
    )
    trust = establish(
        root, targets, delegate, {TARGETS: targets_data, plan.delegation: delegate_data}
    )
    storage.write(root_file, root_data)
    storage.write(targets_file, targets_data)
    storage.write(delegate_file, delegate_data)
    return trust


def _root(
    online: OnlineSigners, offline: _OfflineSigners, plan: TrialPlan, expires: float
) -> dict[str, Any]:
    signers = {
        ROOT: offline.root,
        TARGETS: offline.targets,
        SNAPSHOT: online.snapshot,
        TIMESTAMP: online.timestamp,
    }
    return Root(
        version=_ROOT_VERSION,
        expires=_moment(expires),
        keys={signer.public_key.keyid: signer.public_key for signer in signers.values()},
        roles={role: Role([signer.public_key.keyid], 1) for role, signer in signers.items()},
        consistent_snapshot=True,
        unrecognized_fields=dict(plan.root_extra),
    ).to_dict()


def _targets(offline: _OfflineSigners, plan: TrialPlan, expires: float) -> dict[str, Any]:
    key = offline.delegation.public_key
    delegated = DelegatedRole(
        plan.delegation, [key.keyid], 1, terminating=True, paths=list(plan.paths)
    )
    return Targets(
        version=_TARGETS_VERSION,
        expires=_moment(expires),
        delegations=Delegations({key.keyid: key}, roles={plan.delegation: delegated}),
        unrecognized_fields={X_ROLE: TARGETS},
    ).to_dict()


def _delegate(online: OnlineSigners, plan: TrialPlan, expires: float) -> dict[str, Any]:
    key = online.bins.public_key
    succinct = SuccinctRoles([key.keyid], 1, plan.bin_bits, plan.delegation)
    return Targets(
        version=_DELEGATION_VERSION,
        expires=_moment(expires),
        delegations=Delegations({key.keyid: key}, succinct_roles=succinct),
        unrecognized_fields={X_ROLE: plan.delegation},
    ).to_dict()


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)
