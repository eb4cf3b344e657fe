"""A whole repository for a first try: one key per role, all of them on this machine.

Safe to stop at any write: until the first `timestamp.json` is committed nothing is trusted yet, and
a new run starts over with the same keys and with numbers of its own. A committed repository and a
key that is there are never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner, Signer

from tuf_repo.core.roles import BINS, ROOT, SNAPSHOT, TARGETS, TIMESTAMP, Policy
from tuf_repo.core.root import Offline, Quorum, next_files
from tuf_repo.core.update import file_name
from tuf_repo.first import begin, clear_unfinished
from tuf_repo.keys import OnlineSigners, create_key, create_online_signers, key_file, load_signer
from tuf_repo.signing import sign
from tuf_repo.staging import Extra
from tuf_repo.storage import Storage


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
    # Before a key is made: files of strangers are no place for a repository.
    clear_unfinished(storage)
    online = create_online_signers(keys)
    files = _signed_files(online, _offline_signers(offline_keys), plan, now, policy)
    begin(
        storage,
        online,
        files,
        plan.timestamp_extra,
        now=now,
        policy=policy,
        entropy=entropy,
        wait=wait,
    )
    return True


def _offline_signers(folder: Path) -> _OfflineSigners:
    paths = [key_file(folder, role) for role in (ROOT, TARGETS, "delegation")]
    for path in paths:
        create_key(path)
    return _OfflineSigners(*map(load_signer, paths))


def _signed_files(
    online: OnlineSigners, offline: _OfflineSigners, plan: TrialPlan, now: float, policy: Policy
) -> dict[str, bytes]:
    signers: dict[str, Signer] = {
        ROOT: offline.root,
        TARGETS: offline.targets,
        plan.delegation: offline.delegation,
        SNAPSHOT: online.snapshot,
        TIMESTAMP: online.timestamp,
        BINS: online.bins,
    }
    roles = Offline(
        delegation=plan.delegation,
        paths=tuple(plan.paths),
        bits=plan.bin_bits,
        quorums={role: Quorum((signer.public_key,), 1) for role, signer in signers.items()},
        extra={ROOT: plan.root_extra},
    )
    return {
        file_name(role, signed["version"]): sign(signed, signers[role])
        for role, signed in next_files(None, roles, roles.files, now, policy).items()
    }
