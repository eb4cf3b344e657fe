"""A draft, read: what it says, whether it may be signed, who has, who is asked still.

Every signer's machine does this for itself, with nothing but the draft.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from tuf_repo import verify
from tuf_repo.core import words
from tuf_repo.core.edits import refuse_broken_rules
from tuf_repo.core.quorums import Count, asked, count, refuse_bad_signatures
from tuf_repo.core.roles import ROOT, TARGETS, Policy
from tuf_repo.core.root import (
    Offline,
    Stamp,
    changed_files,
    next_files,
    read_offline,
    refuse_versions,
    stamp_of,
)
from tuf_repo.core.times import to_text
from tuf_repo.core.update import file_name
from tuf_repo.drafts import Draft, RoleFile
from tuf_repo.errors import CeremonyError, EditError
from tuf_repo.loading import Trust, establish


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a draft says; `read_proposal` is the only maker."""

    draft: Draft
    old: Offline | None
    new: Offline
    before: Mapping[str, Stamp]
    """Of the files in force; empty for a first repository."""
    after: Mapping[str, Stamp]
    """Of the files in the draft."""

    def counts(self) -> list[Count]:
        """Every quorum that is asked, from root down."""
        return [
            count(role, whose, quorum, file.payload, file.signatures)
            for role, file in self._ordered()
            for whose, quorum in asked(role, self.old, self.new)
        ]

    def words(self) -> Iterator[str]:
        """All that is to be signed, in plain words, what differs in it, and from what."""
        if self.old is None or self.draft.base is None:
            yield from words.first(self.new, self.after)
            return
        yield from (f"starts from {line}" for line in self.based_on(self.old.files))
        after = {role: self.after[role] for role, _ in self._ordered()}
        yield from words.changes(self.old, self.new, self.before, after)

    def based_on(self, roles: Collection[str]) -> Iterator[str]:
        """Files that it starts from, as people compare them."""
        base = self.draft.base or {}
        for role in roles:
            digest = fingerprint(base[role].data)
            yield f"{role} {self.before[role].version}, sha256 {digest}"

    def files(self) -> list[tuple[str, bytes]]:
        """Names and bytes of the new files, root last."""
        return [
            (file_name(role, self.after[role].version), file.data)
            for role, file in reversed(list(self._ordered()))
        ]

    def _ordered(self) -> Iterator[tuple[str, RoleFile]]:
        for role in self.new.files:
            if role in self.draft.roles:
                yield role, self.draft.roles[role]


def fingerprint(data: bytes) -> str:
    """What people compare a file by, a root above all: its sha256."""
    return hashlib.sha256(data).hexdigest()


def read_proposal(draft: Draft) -> Proposal:
    """Read a draft and look whether its people may sign it.

    1. What it starts from is whole, and signed by its own quorums.
    2. The new files say what this program writes, and keep the rules.
    3. Versions go on as they must.
    4. Every signature is by somebody who is asked, and over what stands there.
    5. Files that stay meet the new quorums.

    Raises:
        CeremonyError: one of these is not so.
        MetadataError: what it starts from does not verify.
        KeyFileError: one public key stands under two keyids, or cannot be read.
    """
    old: Offline | None = None
    before: dict[str, Stamp] = {}
    if draft.base is not None:
        old, before = _read(draft.base, draft.delegation)
        trust_of(draft.base, draft.delegation)  # 1.
    new, stamps = _read(draft.files, draft.delegation)  # 2.
    refuse_broken_rules(old, new)
    refuse_versions(new, before, stamps, draft.roles)  # 3.
    for role, file in draft.roles.items():  # 4.
        refuse_bad_signatures(role, asked(role, old, new), file.payload, file.signatures)
    for role in sorted(_unmet(draft.base or {}, new) - set(draft.roles)):  # 5.
        raise CeremonyError("draft", f"{role} in it, as its keys or threshold change", "none")
    return Proposal(draft, old, new, before, {role: stamps[role] for role in draft.roles})


def trust_of(base: Mapping[str, RoleFile], delegation: str) -> Trust:
    """Verify what a draft starts from, as far as it can vouch for itself.

    Raises:
        MetadataError: a file is not signed by the quorum that the others name.
    """
    versions = {role: stamp_of(role, file.signed).version for role, file in base.items()}
    names = {role: f"base: {file_name(role, version)}" for role, version in versions.items()}
    root = verify.root(names[ROOT], base[ROOT].data, None, versions[ROOT])
    targets = verify.targets(names[TARGETS], base[TARGETS].data, TARGETS, root, None)
    below = verify.targets(names[delegation], base[delegation].data, delegation, targets, None)
    return establish(root, targets, below, {role: file.data for role, file in base.items()})


def propose(
    base: Mapping[str, RoleFile] | None,
    new: Offline,
    also: Collection[str],
    now: float,
    policy: Policy,
) -> Proposal:
    """Make the draft of a next state: the files that change, and those that are named.

    A file that stays as it is, but that the new quorum has not signed, comes in by itself.

    Raises:
        EditError: a rule is broken, or there is nothing to do.
    """
    old, before = _read(base, new.delegation) if base else (None, {})
    refuse_broken_rules(old, new)
    wanted = {*changed_files(old, new), *also, *_unmet(base or {}, new)}
    if not wanted:
        raise EditError(
            "draft", "a change", "none; use `tuf-repo resign` to sign the same for longer"
        )
    signed = next_files(before or None, new, wanted, now, policy)
    roles = {role: RoleFile(part) for role, part in signed.items()}
    return read_proposal(Draft(new.delegation, base, roles))


def refuse_expired(proposal: Proposal, now: float) -> None:
    """Nobody signs or publishes what is over.

    Raises:
        CeremonyError: a file of the draft has expired.
    """
    for role, stamp in proposal.after.items():
        if stamp.expires <= now:
            raise CeremonyError(
                f"{role} in the draft",
                f"one that has not expired (now: {to_text(now)})",
                f"expired {to_text(stamp.expires)}; make a new draft, or set this clock",
            )


def _read(files: Mapping[str, RoleFile], delegation: str) -> tuple[Offline, dict[str, Stamp]]:
    signed = {role: file.signed for role, file in files.items()}
    offline = read_offline(signed, delegation)
    return offline, {role: stamp_of(role, part) for role, part in signed.items()}


def _unmet(base: Mapping[str, RoleFile], new: Offline) -> set[str]:
    """Return the files below root whose present signatures do not meet the new quorum."""
    return {
        role
        for role in new.files[1:]
        if role in base
        and count(role, "", new.quorums[role], base[role].payload, base[role].signatures).lacks
    }
