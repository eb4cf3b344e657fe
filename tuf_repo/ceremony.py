"""The ceremony, step by step: look, sign, merge, count, finish. Drafts are made in drafting.py.

Rule: what happens in here is decided by files and arguments alone; terminal, clock and secrets
belong to cli.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import Key, Signer

from tuf_repo import drafts, online
from tuf_repo.core.publickeys import same_key
from tuf_repo.core.quorums import asked, member, verifies
from tuf_repo.core.roles import ROOT, TARGETS
from tuf_repo.core.root import ONLINE, Offline, read_offline, stamp_of
from tuf_repo.core.update import file_name
from tuf_repo.core.words import person, spelled
from tuf_repo.disk import Disk
from tuf_repo.drafts import Draft, RoleFile
from tuf_repo.durable import OwnersDisk
from tuf_repo.errors import CeremonyError, KeyFileError
from tuf_repo.folder import DataFolder
from tuf_repo.handover import hand_over, settle
from tuf_repo.loading import Trust, load_roots, load_trust
from tuf_repo.proposal import Proposal, fingerprint, read_proposal, refuse_expired, trust_of
from tuf_repo.storage import TIMESTAMP_FILE, MetadataFolder, parse_file_name
from tuf_repo.succession import verify_first, verify_next

Files = Mapping[str, RoleFile]


@dataclass(frozen=True, slots=True)
class Finished:
    """What a ceremony came to."""

    files: tuple[str, ...]
    root_version: int
    root_sha256: str
    unseen: tuple[str, ...] = ()
    """New online keys of which nobody here may see whether the signer has them."""
    is_in_force: bool = False
    """The signer had taken them before: nothing was to be done, or a mark of that `finish` only."""


# ---- what is in force


def read_base(folder: MetadataFolder) -> dict[str, RoleFile]:
    """Read the offline roles that are in force in a metadata folder.

    Raises:
        CeremonyError: there are none, or the signer is in the middle of taking new ones.
        MetadataError: they do not verify.
    """
    trust, newest = _trust_of(folder), load_roots(folder)[-1]
    if newest.version != trust.root.version:
        raise CeremonyError(
            str(folder.path),
            f"a publication under root {newest.version}",
            f"one under root {trust.root.version}; start the signer, which finishes it",
        )
    versions = {ROOT: newest.version, **{r: facts.version for r, facts in trust.fixed.items()}}
    files = {role: file_name(role, version) for role, version in versions.items()}
    return {role: drafts.parse_role_file(file, folder.read(file)) for role, file in files.items()}


def idle_keys(data: DataFolder) -> dict[Path, Key]:
    """Return the online keys that nothing published names: they wait for a draft, or are left over.

    Raises:
        CeremonyError: nothing is published there.
        MetadataError: it does not verify.
    """
    return online.unnamed_keys(data.keys, _trust_of(MetadataFolder(data.metadata)))


def _trust_of(folder: MetadataFolder) -> Trust:
    if folder.read_if_there(TIMESTAMP_FILE) is None:
        raise CeremonyError(
            str(folder.path), "a published repository", "none; for the first one: `tuf-repo init`"
        )
    return load_trust(folder)


def offline_of(base: Files) -> Offline:
    """What files say that were read with `read_base`."""
    (delegation,) = base.keys() - {ROOT, TARGETS}
    return read_offline({role: file.signed for role, file in base.items()}, delegation)


# ---- signing


def signed(proposal: Proposal, signer: Signer) -> Draft:
    """Return the draft with a signature on every file where this key counts.

    Raises:
        CeremonyError: it counts for none.
        KeyFileError: what the key made does not verify.
    """
    key = signer.public_key
    more: dict[str, dict[str, str]] = {}
    for role in roles_of(proposal, key):
        file = proposal.draft.roles[role]
        named = member(key, asked(role, proposal.old, proposal.new))
        assert named is not None
        if named.keyid not in file.signatures:
            signature = signer.sign(file.payload).signature
            if not verifies(named, file.payload, signature):
                raise KeyFileError(f"key {key.keyid[:8]}", "signatures that verify", "another")
            more[role] = {named.keyid: signature}
    return proposal.draft.with_signatures(more)


def roles_of(proposal: Proposal, key: Key) -> list[str]:
    """Return the files of a draft that this key is asked to sign, from root down.

    Raises:
        CeremonyError: there are none.
    """
    roles = [
        role
        for role in proposal.new.files
        if role in proposal.draft.roles and member(key, asked(role, proposal.old, proposal.new))
    ]
    if not roles:
        raise CeremonyError(
            f"key {key.keyid[:8]}",
            "a key that one of the draft's files asks for (`tuf-repo status` lists them)",
            "one that counts for none",
        )
    return roles


def look(path: Path, kept: Path | None, *, now: float) -> Proposal:
    """Read a draft that is to be signed.

    Args:
        path: the draft.
        kept: the newest root that the signer keeps, or a folder with the newest of all three files
            (`N.root.json`, …); None: theirs to compare by eye.
        now: seconds since 1970.

    Raises:
        CeremonyError: it is none, expired, changed after a signature, or starts from other files.
        OSError: what is kept cannot be read.
    """
    proposal = read_proposal(drafts.read(path))
    refuse_expired(proposal, now)
    base = proposal.draft.base
    for role, data in _kept_files(kept, proposal.new.files).items() if kept else ():
        if base is None or base[role].data != data:
            got = f"{role} {fingerprint(base[role].data)[:16]}…" if base else "a new repository"
            raise CeremonyError(str(path), f"a draft from {role} {fingerprint(data)[:16]}…", got)
    return proposal


def _kept_files(kept: Path, roles: Sequence[str]) -> dict[str, bytes]:
    """Read what a signer keeps: a root alone, or the newest file of each role in a folder."""
    if not kept.is_dir():
        return {ROOT: kept.read_bytes()}
    folder = MetadataFolder(kept)
    names = [name for name in map(parse_file_name, folder.files()) if name is not None]
    newest = {role: max((n for each, n in names if each == role), default=0) for role in roles}
    for role, version in newest.items():
        if not version:
            raise CeremonyError(str(kept), f"the newest {' and '.join(roles)}", f"no N.{role}.json")
    return {role: folder.read(file_name(role, version)) for role, version in newest.items()}


def add_signatures(path: Path, seen: Proposal, signer: Signer) -> Draft:
    """Sign what was looked at, and put the signatures into the file beside those of others.

    Raises:
        CeremonyError: the file is another draft by now.
    """
    mine = signed(seen, signer)
    return drafts.update(
        path, lambda now_there: drafts.merged([(str(path), now_there), ("what was shown", mine)])
    )


def merge(path: Path, others: Sequence[Path]) -> Proposal:
    """Take over the signatures of other copies.

    Raises:
        CeremonyError: one is no copy of this draft, or has a signature that does not fit.
    """
    copies = [(str(other), drafts.read(other)) for other in others]

    def change(there: Draft) -> Draft:
        return _together([(str(path), there), *copies]).draft

    return read_proposal(drafts.update(path, change))


def status(paths: Sequence[Path]) -> Proposal:
    """Look at a draft, with the signatures of all its copies.

    Raises:
        CeremonyError: one is no draft, or not a copy of the first.
    """
    return _together([(str(path), drafts.read(path)) for path in paths])


def _together(copies: Sequence[tuple[str, Draft]]) -> Proposal:
    merged = drafts.merged(copies)
    if len(copies) > 1:
        for name, copy in copies:
            try:
                read_proposal(copy)
            except CeremonyError as error:
                # Which of them it is matters: the others are good.
                raise CeremonyError(f"{name}: {error.subject}", error.expected, error.got) from None
    return read_proposal(merged)


# ---- finishing


def finish(
    paths: Sequence[Path],
    *,
    data: DataFolder | None,
    out: Path,
    now: float,
    disk: Callable[[Path], Disk] = OwnersDisk,
) -> Finished:
    """Write the signed files where the signer takes them from, all or none (handover.py).

    Where this very draft is in force already, what a `finish` that was cut short left goes.

    Args:
        paths: the draft, and copies of it.
        data: the repository that it is for; None where that is elsewhere.
        out: the folder to write to.
        now: seconds since 1970.
        disk: what writes to that folder.

    1. Enough have signed, nothing has expired.
    2. It starts from what is in force there, where the signer has its new online keys.
    3. A client that trusts the base takes every file.
    4. Nothing else lies where they go.

    Raises:
        CeremonyError: one of these is not so; nothing was written.
        OSError: the disk; run again, it goes on where it stopped.
    """
    proposal = status(paths)
    if _is_in_force(proposal, in_force := _in_force(data)):
        settle(out, _named(proposal, in_force), disk)
        return _finished(proposal, in_force[ROOT], is_in_force=True)
    refuse_expired(proposal, now)  # 1.
    _refuse_short(proposal)
    if data is not None:  # 2.
        _refuse_other_base(proposal.draft.base, in_force, data)
    unseen = _unseen_keys(proposal, data.keys) if data else ()
    _verify_as_client(proposal, now)  # 3.
    hand_over(out, dict(proposal.files()), disk)  # 4.
    return _finished(proposal, proposal.draft.files[ROOT], unseen=unseen)


def _finished(
    proposal: Proposal, root: RoleFile, *, unseen: tuple[str, ...] = (), is_in_force: bool = False
) -> Finished:
    files = tuple(name for name, _ in proposal.files())
    version = stamp_of(ROOT, root.signed).version
    return Finished(files, version, fingerprint(root.data), unseen, is_in_force)


def _in_force(data: DataFolder | None) -> Files:
    """Return what is published there; nothing where nothing is."""
    folder = MetadataFolder(data.metadata) if data else None
    if folder is None or folder.read_if_there(TIMESTAMP_FILE) is None:
        return {}
    return read_base(folder)


def _is_in_force(proposal: Proposal, in_force: Files) -> bool:
    # Not byte for byte: copies that came later may have brought more signatures.
    return {role: file.payload for role, file in in_force.items()} == {
        role: file.payload for role, file in proposal.draft.files.items()
    }


def _named(proposal: Proposal, in_force: Files) -> dict[str, bytes]:
    """Return the draft's files with the signatures that they were published with."""
    published = {file_name(r, proposal.after[r].version): in_force[r] for r in proposal.after}
    return {name: published[name].data for name, _ in proposal.files()}


def _unseen_keys(proposal: Proposal, keys: Path) -> tuple[str, ...]:
    """Look for each new online key in the signer's folder; return those that cannot be looked for.

    Raises:
        CeremonyError: one is not there, so it is somebody else who has it.
    """
    unseen = []
    for role in ONLINE:
        before = [key.keyid for key in proposal.old.quorums[role].keys] if proposal.old else []
        new = [key for key in proposal.new.quorums[role].keys if key.keyid not in before]
        there = online.at_hand(keys, role)
        if there is None:
            unseen += [f"{role} {person(key)}" for key in new]
            continue
        for key in new:
            if not any(same_key(key, each) for each in there):
                raise CeremonyError(
                    f"{role} key {spelled(key.keyid)} in the draft",
                    f"its private key, or a reference to it, in {keys}",
                    "none; ask who drafted it whose key that is",
                )
    return tuple(unseen)


def _refuse_short(proposal: Proposal) -> None:
    for count in proposal.counts():
        if count.lacks:
            whose = f"{count.whose} " if count.whose else ""
            missing = ", ".join(key.keyid[:8] for key in count.missing)
            raise CeremonyError(
                f"{count.role} in the draft",
                f"{count.threshold} signatures by its {whose}keys",
                f"{len(count.signed)}; ask for more of {missing}",
            )


def _refuse_other_base(base: Files | None, in_force: Files, data: DataFolder) -> None:
    if base is None:
        if in_force:
            raise CeremonyError(
                str(data.metadata), "no repository yet, as the draft is for a first one", "one"
            )
        return
    current = in_force or read_base(MetadataFolder(data.metadata))
    for role, file in base.items():
        if role not in current or current[role].data != file.data:
            there = current[role].signed["version"] if role in current else "nothing"
            raise CeremonyError(
                str(data.metadata),
                f"the {role} that the draft starts from, version {file.signed['version']}",
                f"another, version {there}; the draft is for another repository or is outdated:"
                " make a new one",
            )


def _verify_as_client(proposal: Proposal, now: float) -> None:
    """Verify the new files as the signer will, for whom what is in force lies in its folder."""
    base, files = proposal.draft.base, dict(proposal.files())
    if base is None:
        verify_first(files, now=now)
        return
    in_force = {
        file_name(role, proposal.before[role].version): file.data for role, file in base.items()
    }
    before = trust_of(base, proposal.new.delegation)
    verify_next(before, _InForce(in_force), files, now=now)


class _InForce(MetadataFolder):
    """The base of a draft, as the folder that it was taken from."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        super().__init__(Path("base"))
        self._files = files

    def read_if_there(self, file: str) -> bytes | None:
        return self._files.get(file)
