"""A committed repository, read as a client would read it, but that what has expired still loads.

A missed renewal must not keep the signer from renewing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tuf.api.metadata import Metadata, MetaFile, Root, Signed, Snapshot, Targets, Timestamp

from tuf_repo import verify
from tuf_repo.core import check
from tuf_repo.core.bins import BinLayout, compile_patterns
from tuf_repo.core.roles import ROOT, SNAPSHOT, TARGETS, TIMESTAMP, X_SIGNED_AT
from tuf_repo.core.times import from_text
from tuf_repo.core.update import BinFacts, FileFacts, Json, State, count_targets, file_name
from tuf_repo.errors import KeyFileError, MetadataError
from tuf_repo.keys import OnlineSigners, public_bytes, refuse_shared_keys
from tuf_repo.storage import TIMESTAMP_FILE, MetadataFolder, parse_file_name


@dataclass(frozen=True, slots=True)
class Trust:
    """The offline roles: whose signature counts, and how the bins are laid out."""

    root: Root
    targets: Targets
    """What delegates to the one role below."""
    delegate: Targets
    """The role that delegates to the bins."""
    delegation: str
    """Its name."""
    layout: BinLayout
    paths: re.Pattern[str]
    """The target paths that clients look for in the bins."""
    fixed: Mapping[str, FileFacts]
    """Version, length and digest of `targets` and of the delegation."""
    expires: Mapping[str, int]
    """When each offline role expires."""


def establish(root: Root, targets: Targets, delegate: Targets, files: Mapping[str, bytes]) -> Trust:
    """Put the verified offline roles together, after checking them against each other.

    Args:
        root: the newest root.
        targets: what it trusts as targets.
        delegate: what those trust as the one role below.
        files: the bytes of those two by role name.

    Raises:
        MetadataError: the delegations are not the ones we publish.
        KeyFileError: a key stands under two keyids, or serves two offline roles.
    """
    delegation, patterns = sole_delegation(targets)
    refuse_offline_key_mix(root, targets, delegate)
    try:
        paths = compile_patterns(patterns)
    except ValueError as error:
        raise MetadataError(TARGETS, "simple path patterns", str(error)) from error
    versions = {TARGETS: targets.version, delegation: delegate.version}
    return Trust(
        root=root,
        targets=targets,
        delegate=delegate,
        delegation=delegation,
        layout=bin_layout(delegation, delegate),
        paths=paths,
        fixed={
            role: FileFacts(version, len(files[role]), hashlib.sha256(files[role]).hexdigest())
            for role, version in versions.items()
        },
        expires={
            role: int(signed.expires.timestamp())
            for role, signed in ((ROOT, root), (TARGETS, targets), (delegation, delegate))
        },
    )


def sole_delegation(targets: Targets) -> tuple[str, list[str]]:
    """Name and path patterns of the one role that the top-level targets delegate to.

    Raises:
        MetadataError: there are none or several, or it has no patterns.
    """
    roles = (targets.delegations.roles if targets.delegations else None) or {}
    if len(roles) != 1:
        raise MetadataError(TARGETS, "one delegation", f"{len(roles)}")
    (delegated,) = roles.values()
    if not delegated.paths:
        raise MetadataError(TARGETS, "a delegation by path patterns", "none")
    return delegated.name, delegated.paths


def bin_layout(delegation: str, delegate: Targets) -> BinLayout:
    """How that role's bins are named and filled.

    Raises:
        MetadataError: it does not delegate to bins of its own name.
    """
    succinct = delegate.delegations.succinct_roles if delegate.delegations else None
    if succinct is None or succinct.name_prefix != delegation:
        raise MetadataError(delegation, f"a succinct delegation to {delegation}-…", "none")
    try:
        return BinLayout(succinct.name_prefix, succinct.bit_length)
    except ValueError as error:
        raise MetadataError(delegation, "a bin count we can publish", str(error)) from error


def refuse_offline_key_mix(root: Root, targets: Targets, delegate: Targets) -> None:
    """One public key, one keyid; and no key that signs both `targets` and the role below.

    Raises:
        KeyFileError: it is not so.
    """
    delegations = [role.delegations for role in (targets, delegate) if role.delegations]
    refuse_shared_keys(
        [*root.keys.values(), *(key for each in delegations for key in each.keys.values())]
    )
    upper = {public_bytes(root.get_key(keyid)) for keyid in root.roles[TARGETS].keyids}
    delegation, _ = sole_delegation(targets)
    lower = targets.get_delegated_role(delegation).keyids
    if upper & {public_bytes(targets.get_key(keyid)) for keyid in lower}:
        raise KeyFileError(delegation, f"keys that {TARGETS} does not have", "a shared one")


def require_signers(trust: Trust, signers: OnlineSigners) -> None:
    """The keys at hand are the ones that clients trust.

    Raises:
        KeyFileError: one is not.
    """
    succinct = trust.delegate.delegations and trust.delegate.delegations.succinct_roles
    wanted = (
        ("timestamp", signers.timestamp, trust.root.roles["timestamp"]),
        (SNAPSHOT, signers.snapshot, trust.root.roles[SNAPSHOT]),
        ("bins", signers.bins, succinct),
    )
    for role, signer, trusted in wanted:
        keyid = signer.public_key.keyid
        if not trusted or keyid not in trusted.keyids:
            raise KeyFileError(f"{role} key", "one that the metadata names", f"keyid {keyid[:8]}…")


def load_roots(folder: MetadataFolder) -> list[Root]:
    """Walk the chain from `1.root.json` to the newest root; return all of it.

    Raises:
        MetadataError: a link of it does not verify, or there is none.
    """
    chain = [verify.root("1.root.json", folder.read("1.root.json"), None, 1)]
    while (data := folder.read_if_there(file_name(ROOT, chain[-1].version + 1))) is not None:
        version = chain[-1].version + 1
        chain.append(verify.root(file_name(ROOT, version), data, chain[-1], version))
    return chain


def online_keyids(folder: MetadataFolder, delegation: str) -> set[str]:
    """Return the keyids that any file in the folder names for what is signed online."""
    keyids: set[str] = set()
    for file in folder.files():
        name = parse_file_name(file)
        if name is None or name[0] not in {ROOT, delegation}:
            continue
        signed: Signed = Metadata.from_bytes(folder.read(file)).signed
        if isinstance(signed, Root):
            for role in (SNAPSHOT, TIMESTAMP):
                keyids.update(signed.roles[role].keyids)
        elif isinstance(signed, Targets) and signed.delegations:
            keyids.update(signed.delegations.keys)
    return keyids


def load(folder: MetadataFolder, *, promoting: bool = False) -> tuple[Trust, State]:
    """Read and verify everything that the committed timestamp names.

    `promoting`: a crash may have cut between a new root and the timestamp that goes with it. Then
    `Trust.root` is the one that the committed timestamp was published under, and what came after is
    taken again. Where that cannot be, only the newest root counts: an older one may have been
    replaced because of a thief.

    Raises:
        MetadataError: a file is missing or does not verify.
        KeyFileError: the keys it names are not kept apart.
    """
    chain = load_roots(folder)
    top = _load_top(folder, chain if promoting else chain[-1:])
    state = _state(top, load_bins(folder, top.trust, top.snapshot))
    return top.trust, state


def load_trust(folder: MetadataFolder) -> Trust:
    """Read and verify what stands above the bins, as `load` does.

    Raises:
        MetadataError: a file is missing or does not verify.
        KeyFileError: the keys it names are not kept apart.
    """
    return _load_top(folder, load_roots(folder)).trust


def load_bins(folder: MetadataFolder, trust: Trust, snapshot: Snapshot) -> dict[str, BinFacts]:
    """Verify every bin; return what is remembered of each."""
    bins = {}
    for name in trust.layout.names():
        version = snapshot.meta[f"{name}.json"].version
        file = file_name(name, version)
        data = folder.read(file)
        signed = verify.targets(file, data, name, trust.delegate, version)
        bins[name] = bin_facts(signed, data)
    return bins


def bin_facts(signed: Targets, data: bytes) -> BinFacts:
    """What is remembered of a verified bin."""
    return BinFacts(
        version=signed.version,
        expires=int(signed.expires.timestamp()),
        sha256=hashlib.sha256(data).digest(),
        counts=count_targets(signed.targets),
    )


class BinReader:
    """Reads bins that were verified before: the same bytes, or an error. The last ones are kept."""

    def __init__(self, folder: MetadataFolder, kept: int) -> None:
        self._folder = folder
        self._kept = kept
        self._cache: OrderedDict[str, dict[str, Json]] = OrderedDict()

    def targets(self, name: str, facts: BinFacts) -> Mapping[str, Json]:
        """Return the targets of a bin, by path.

        Raises:
            MetadataError: the file is not the one that was verified.
        """
        file = file_name(name, facts.version)
        found = self._cache.get(file)
        if found is None:
            found = self._cache[file] = self._read(file, facts)
            while len(self._cache) > self._kept:
                self._cache.popitem(last=False)
        else:
            self._cache.move_to_end(file)
        return found

    def stream(self, bins: Iterable[tuple[str, BinFacts]]) -> Iterator[tuple[str, Json]]:
        """Yield every target of the bins, one bin in memory at a time."""
        for name, facts in bins:
            yield from self._read(file_name(name, facts.version), facts).items()

    def _read(self, file: str, facts: BinFacts) -> dict[str, Json]:
        data = self._folder.read(file)
        if hashlib.sha256(data).digest() != facts.sha256:
            raise MetadataError(file, "the bytes that were verified", "others")
        targets: dict[str, Json] = json.loads(data)["signed"]["targets"]
        return targets


@dataclass(frozen=True, slots=True)
class _Top:
    """What stands above the bins."""

    stamp: Timestamp
    snapshot: Snapshot
    snapshot_data: bytes
    trust: Trust


def _load_top(folder: MetadataFolder, chain: Sequence[Root]) -> _Top:
    """Load it under the newest root that it verifies under; the newest root's error counts."""
    errors = []
    for root in reversed(chain):
        try:
            return _load_top_under(folder, root)
        except MetadataError as error:
            errors.append(error)
    raise errors[0]


def _load_top_under(folder: MetadataFolder, root: Root) -> _Top:
    stamp = verify.timestamp(TIMESTAMP_FILE, folder.read(TIMESTAMP_FILE), root, None)
    snapshot_file = file_name(SNAPSHOT, stamp.snapshot_meta.version)
    snapshot_data = folder.read(snapshot_file)
    snapshot = verify.snapshot(snapshot_file, snapshot_data, root, stamp)
    targets_data, targets = _load_fixed(folder, TARGETS, root, snapshot)
    delegation, _ = sole_delegation(targets)
    data, delegate = _load_fixed(folder, delegation, targets, snapshot)
    trust = establish(root, targets, delegate, {TARGETS: targets_data, delegation: data})
    check.refuse(
        check.snapshot_findings(snapshot_file, _plain_meta(snapshot), delegation, trust.layout),
        MetadataError,
    )
    return _Top(stamp, snapshot, snapshot_data, trust)


def _load_fixed(
    folder: MetadataFolder, role: str, delegator: Root | Targets, snapshot: Snapshot
) -> tuple[bytes, Targets]:
    meta: MetaFile | None = snapshot.meta.get(f"{role}.json")
    if meta is None:
        raise MetadataError(SNAPSHOT, f"an entry for {role}.json", "none")
    file = file_name(role, meta.version)
    data = folder.read(file)
    verify.described(file, data, meta)
    return data, verify.targets(file, data, role, delegator, meta.version)


def _plain_meta(snapshot: Snapshot) -> dict[str, Json]:
    return {name: meta.to_dict() for name, meta in snapshot.meta.items()}


def _state(top: _Top, bins: Mapping[str, BinFacts]) -> State:
    stamp, snapshot = top.stamp, top.snapshot
    extra = dict(stamp.unrecognized_fields)
    try:
        signed_at = from_text(extra.pop(X_SIGNED_AT))
    except (KeyError, ValueError, TypeError) as error:
        raise MetadataError(TIMESTAMP_FILE, f"a time as {X_SIGNED_AT}", repr(error)) from error
    digest = hashlib.sha256(top.snapshot_data).hexdigest()
    return State(
        timestamp_version=stamp.version,
        timestamp_expires=int(stamp.expires.timestamp()),
        signed_at=signed_at,
        extra=extra,
        snapshot=FileFacts(snapshot.version, len(top.snapshot_data), digest),
        snapshot_expires=int(snapshot.expires.timestamp()),
        fixed=top.trust.fixed,
        bins=bins,
    )
