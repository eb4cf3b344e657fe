"""What a ceremony brought, verified as a client would verify it: the next trust, or why not.

Nothing is written here. Roots that lie in the metadata folder already, where a crash cut between
them and the timestamp that goes with them, are taken along: clients may have seen them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from tuf.api.metadata import Metadata, Root, Signed, Targets

from tuf_repo import verify
from tuf_repo.core.edits import refuse_broken_rules
from tuf_repo.core.quorums import verifies
from tuf_repo.core.roles import ROOT, SNAPSHOT, TARGETS, TIMESTAMP
from tuf_repo.core.root import Offline, read_offline
from tuf_repo.core.times import to_text
from tuf_repo.core.update import file_name
from tuf_repo.errors import CeremonyError, MetadataError
from tuf_repo.keys import public_bytes
from tuf_repo.loading import Trust, establish, sole_delegation
from tuf_repo.storage import MetadataFolder, parse_file_name

Files = Mapping[str, bytes]
"""Names as in the metadata folder -> bytes."""


@dataclass(frozen=True, slots=True)
class Succession:
    """A verified step from one trust to the next."""

    trust: Trust
    roots: Files
    """New roots, oldest first."""
    files: Files
    """New files of `targets` and of the role below."""
    renews_bins: bool
    """Whether all bins are to be signed anew: another key, or another layout."""
    forgets_history: bool
    """Whether no snapshot and no timestamp from before counts for a client that sees this: then
    bins may vanish, and what another signer has used is of no account."""


@dataclass(frozen=True, slots=True)
class _Offered:
    """What was offered, by role: role -> version -> (file, bytes)."""

    roles: Mapping[str, Mapping[int, tuple[str, bytes]]]

    def newest(self, role: str, above: int) -> tuple[int, str, bytes] | None:
        versions = self.roles.get(role, {})
        newest = max(versions, default=0)
        return (newest, *versions[newest]) if newest > above else None


def verify_first(files: Files, *, now: float) -> Succession:
    """Verify the offline files of a repository that has not published yet.

    Raises:
        CeremonyError: something is missing, or not part of a ceremony.
        MetadataError: a file does not verify.
        KeyFileError: keys are not kept apart.
    """
    offered = _sort(files)
    roots: dict[str, bytes] = {}
    root = _follow(None, offered, roots)
    if root is None:
        raise CeremonyError("1.root.json", "the first root", "nothing")
    targets_file, targets_data, targets = _required(offered, TARGETS, root)
    delegation, _ = sole_delegation(targets)
    file, data, delegate = _required(offered, delegation, targets)
    for each, signed in ((list(roots)[-1], root), (targets_file, targets), (file, delegate)):
        _refuse_expired(each, signed, now)
    trust = establish(root, targets, delegate, {TARGETS: targets_data, delegation: data})
    _refuse_one_version(targets, delegate, delegation)
    refuse_broken_rules(None, _offline(trust))
    return Succession(
        trust=trust,
        roots=roots,
        files={targets_file: targets_data, file: data},
        renews_bins=True,
        forgets_history=True,
    )


def verify_next(
    before: Trust, folder: MetadataFolder, files: Files, *, now: float
) -> Succession | None:
    """Verify what a ceremony brought to a repository; None where all of it is in force.

    Args:
        before: the trust that the committed timestamp was published under.
        folder: the committed metadata.
        files: what was brought.
        now: seconds since 1970.

    1. Each new root by the one before and by itself, none left out; the newest has not expired.
    2. `targets`: the new file, else the present one, by the new root.
    3. The role below, by those targets.
    4. The delegation stays the one it was; `targets` and the role below have two versions.
    5. Every rule that a draft must keep (core/edits.py).

    Raises:
        CeremonyError: a file is not part of a ceremony, or breaks a rule of ours.
        MetadataError: a file does not verify.
        KeyFileError: keys are not kept apart.
    """
    offered = _sort(_with_visible_roots(before, folder, files))
    _refuse_others_of_old_versions(before, folder, offered)
    roots: dict[str, bytes] = {}
    root = _follow(before.root, offered, roots) or before.root  # 1.
    if roots:
        _refuse_expired(list(roots)[-1], root, now)
    fresh: dict[str, bytes] = {}
    targets, targets_data = _present_or_new(before, folder, offered, TARGETS, root, fresh)  # 2.
    delegation, _ = sole_delegation(targets)
    if delegation != before.delegation:  # 4.
        raise CeremonyError(TARGETS, f"a delegation to {before.delegation}", delegation)
    delegate, data = _present_or_new(before, folder, offered, delegation, targets, fresh)  # 3.
    for role, signed in ((TARGETS, targets), (delegation, delegate)):
        if file_name(role, signed.version) in fresh:
            _refuse_expired(file_name(role, signed.version), signed, now)
    if not roots and not fresh:
        return None
    _refuse_one_version(targets, delegate, delegation)  # 4.
    trust = establish(root, targets, delegate, {TARGETS: targets_data, delegation: data})
    refuse_broken_rules(_offline(before), _offline(trust))  # 5.
    return Succession(
        trust=trust,
        roots=roots,
        files=fresh,
        renews_bins=_bin_facts(trust) != _bin_facts(before),
        forgets_history=not any(
            _role_keys(root, role) & _role_keys(before.root, role) for role in (SNAPSHOT, TIMESTAMP)
        ),
    )


def _sort(files: Files) -> _Offered:
    roles: dict[str, dict[int, tuple[str, bytes]]] = {}
    for file, data in files.items():
        name = parse_file_name(file)
        if name is None or name[0] in {SNAPSHOT, TIMESTAMP} or file_name(*name) != file:
            raise CeremonyError(file, "files of offline roles only, such as 2.root.json", "another")
        roles.setdefault(name[0], {})[name[1]] = (file, data)
    return _Offered(roles)


def _with_visible_roots(before: Trust, folder: MetadataFolder, files: Files) -> Files:
    """Add the roots that clients may have seen already; what is offered may not differ."""
    visible: dict[str, bytes] = {}
    version = before.root.version + 1
    while (data := folder.read_if_there(file_name(ROOT, version))) is not None:
        file = file_name(ROOT, version)
        if files.get(file, data) != data:
            raise CeremonyError(file, "the bytes that clients have seen already", "others")
        visible[file] = data
        version += 1
    return {**files, **visible}


def _refuse_others_of_old_versions(
    before: Trust, folder: MetadataFolder, offered: _Offered
) -> None:
    """What is offered for a version that is in force, or was, must be that very file."""
    known = {ROOT, TARGETS, before.delegation}
    for role, versions in offered.roles.items():
        if role not in known:
            file = next(iter(versions.values()))[0]
            raise CeremonyError(file, f"a file of {', '.join(sorted(known))}", f"of {role}")
        current = before.root.version if role == ROOT else before.fixed[role].version
        for version, (file, data) in versions.items():
            if version <= current and folder.read_if_there(file) != data:
                raise CeremonyError(
                    file,
                    f"a version above {current}, which is published",
                    "another file; draft it again from what is in force",
                )


def _follow(before: Root | None, offered: _Offered, roots: dict[str, bytes]) -> Root | None:
    """Walk the new roots; `roots` takes them, oldest first."""
    root, version = before, before.version + 1 if before else 1
    versions = offered.roles.get(ROOT, {})
    while version in versions:
        file, data = versions[version]
        older, root = root, verify.root(file, data, root, version)
        _refuse_other_signatures(file, data, ROOT, (older, root))
        roots[file] = data
        version += 1
    beyond = max(versions, default=0)
    if beyond >= version:
        raise CeremonyError(file_name(ROOT, beyond), f"also {file_name(ROOT, version)}", "a gap")
    return root


def _required(
    offered: _Offered, role: str, delegator: Root | Targets
) -> tuple[str, bytes, Targets]:
    found = offered.newest(role, 0)
    if found is None:
        raise CeremonyError(f"N.{role}.json", "the signed file", "nothing")
    version, file, data = found
    signed = verify.targets(file, data, role, delegator, version)
    _refuse_other_signatures(file, data, role, (delegator,))
    return file, data, signed


def _present_or_new(  # noqa: PLR0913, PLR0917 - private, called twice
    before: Trust,
    folder: MetadataFolder,
    offered: _Offered,
    role: str,
    delegator: Root | Targets,
    fresh: dict[str, bytes],
) -> tuple[Targets, bytes]:
    found = offered.newest(role, before.fixed[role].version)
    version = found[0] if found else before.fixed[role].version
    file = file_name(role, version)
    data = found[2] if found else folder.read(file)
    try:
        signed = verify.targets(file, data, role, delegator, version)
    except MetadataError as error:
        if found:
            raise
        # The present one is good: it is the new quorum that has not signed it.
        raise CeremonyError(
            role, f"a file above version {version} that the new keys sign", error.got
        ) from error
    if found:
        fresh[file] = data
        _refuse_other_signatures(file, data, role, (delegator,))
    return signed, data


def _refuse_other_signatures(
    file: str, data: bytes, role: str, delegators: Iterable[Root | Targets | None]
) -> None:
    """A published root stays as it is for ever: nothing goes along that nobody is asked for."""
    metadata = Metadata[Root].from_bytes(data)
    payload = metadata.signed_bytes
    keys = {
        keyid: delegator.get_key(keyid)
        for delegator in delegators
        if delegator is not None
        for keyid in delegator.get_delegated_role(role).keyids
    }
    for keyid, each in metadata.signatures.items():
        text = each.signature
        if keyid not in keys or text != text.lower() or not verifies(keys[keyid], payload, text):
            raise CeremonyError(
                file, "signatures by those who are asked for them, and no other", keyid[:8]
            )


def _refuse_one_version(targets: Targets, delegate: Targets, delegation: str) -> None:
    # A host could answer one with the other, which clients take for a cycle (core/check.py).
    if targets.version == delegate.version:
        raise CeremonyError(
            file_name(delegation, delegate.version),
            f"another version than that of {TARGETS}",
            "the same; were two drafts made from one base? draft one of them again",
        )


def _refuse_expired(file: str, signed: Signed, now: float) -> None:
    if signed.is_expired(datetime.fromtimestamp(int(now), UTC)):
        raise CeremonyError(
            file, "metadata that has not expired", f"expired {to_text(signed.expires.timestamp())}"
        )


def _offline(trust: Trust) -> Offline:
    roles = {ROOT: trust.root, TARGETS: trust.targets, trust.delegation: trust.delegate}
    return read_offline({role: each.to_dict() for role, each in roles.items()}, trust.delegation)


def _bin_facts(trust: Trust) -> object:
    """Return what every bin depends on."""
    succinct = trust.delegate.delegations and trust.delegate.delegations.succinct_roles
    keys = frozenset(
        public_bytes(trust.delegate.get_key(keyid))
        for keyid in (succinct.keyids if succinct else ())
    )
    return keys, trust.layout


def _role_keys(root: Root, role: str) -> set[bytes]:
    return {public_bytes(root.get_key(keyid)) for keyid in root.roles[role].keyids}
