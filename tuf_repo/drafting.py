"""Drafting: from what is in force, and what somebody wants changed, to a draft for people to sign.

Rule: no key is made and nothing is written before the draft that needs it keeps the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from securesystemslib.signer import CryptoSigner, Key, Signer

from tuf_repo import drafts, keyfiles
from tuf_repo.ceremony import Files, offline_of, read_base, signed
from tuf_repo.core.edits import Edits, edited, new_quorums
from tuf_repo.core.names import is_delegation
from tuf_repo.core.quorums import asked, member
from tuf_repo.core.roles import ROOT, TARGETS, Policy
from tuf_repo.core.root import ONLINE, Offline
from tuf_repo.drafts import Draft
from tuf_repo.errors import CeremonyError, EditError
from tuf_repo.folder import DataFolder
from tuf_repo.keys import key_file
from tuf_repo.online import file_beside, make_beside, references
from tuf_repo.proposal import Proposal, propose
from tuf_repo.storage import MetadataFolder

_DEFAULT_ROOT_THRESHOLD = 3
_DEFAULT_THRESHOLD = 2


@dataclass(frozen=True, slots=True)
class OnlineHalf:
    """What the signing machine tells of itself."""

    delegation: str
    paths: tuple[str, ...]
    bits: int
    keys: Mapping[str, Key]
    """By online role."""


# ---- what there is


def read_online(path: Path) -> OnlineHalf:
    """Read the public halves that `crateseal init` printed.

    Raises:
        CeremonyError, KeyFileError: the file is none of that kind.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(keyfiles.FILE_MAX_BYTES + 1)
    if len(data) > keyfiles.FILE_MAX_BYTES:
        raise CeremonyError(str(path), f"at most {keyfiles.FILE_MAX_BYTES} bytes", "more")
    fields = keyfiles.parse_object(str(path), data)
    keys, paths = fields.get("keys"), fields.get("paths")
    if fields.get("format") != drafts.FORMAT or not isinstance(keys, dict):
        raise CeremonyError(str(path), "what `crateseal init` prints, format 1", "something else")
    if set(keys) != set(ONLINE) or type(fields.get("bin_bits")) is not int:
        raise CeremonyError(str(path), f"bin_bits, and keys of {', '.join(ONLINE)}", "others")
    if not isinstance(paths, list) or not all(isinstance(each, str) for each in paths):
        raise CeremonyError(str(path), "paths, a list of texts", "something else")
    delegation = fields.get("delegation")
    if not isinstance(delegation, str) or not is_delegation(delegation):
        raise CeremonyError(str(path), "the name of a delegation", repr(delegation))
    return OnlineHalf(
        delegation=delegation,
        paths=tuple(paths),
        bits=fields["bin_bits"],
        keys={role: keyfiles.parse_public(f"{path}: {role}", each) for role, each in keys.items()},
    )


# ---- drafting


def init(online: OnlineHalf, edits: Edits, *, now: float, policy: Policy) -> Draft:
    """Draft the first root, `targets` and role below them.

    Raises:
        EditError: keys are missing, or a rule is broken.
    """
    _refuse_drops(edits)
    edits = replace(edits, replaced={**edits.replaced, **_each(online.keys)})
    new = Offline(
        delegation=online.delegation,
        paths=online.paths,
        bits=online.bits if edits.bits is None else edits.bits,
        quorums=new_quorums(edits, online.delegation, _defaults(online.delegation)),
        extra=edits.extra,
    )
    return propose(None, new, (), now, policy).draft


def draft(
    base: Files, edits: Edits, online: OnlineHalf | None = None, *, now: float, policy: Policy
) -> Draft:
    """Draft a change of keys, thresholds or bins; `online` brings new online keys.

    Raises:
        EditError: nothing changes, or a rule is broken.
        CeremonyError: `online` is of another repository.
    """
    old = offline_of(base)
    if online is not None:
        if (online.delegation, online.paths) != (old.delegation, old.paths):
            raise CeremonyError(
                "--online", f"{old.delegation} for {', '.join(old.paths)}", online.delegation
            )
        edits = replace(edits, replaced={**edits.replaced, **_each(online.keys)})
    return propose(base, edited(old, edits), (), now, policy).draft


def resign(base: Files, roles: Collection[str], *, now: float, policy: Policy) -> Draft:
    """Draft the same again, to live longer: the roles with files of their own, or some of them.

    Raises:
        EditError: a role has no file that people sign.
    """
    old = offline_of(base)
    for role in sorted(set(roles) - set(old.files)):
        raise EditError(f"role {role}", f"one of {', '.join(old.files)}", "another")
    return propose(base, old, roles or old.files, now, policy).draft


def rotate(  # noqa: PLR0913 - what comes from outside is an argument, each by its name
    base: Files,
    roles: Sequence[str],
    edits: Edits,
    keys: Path | None,
    *,
    now: float,
    policy: Policy,
) -> Draft:
    """Draft a change of one key, or of online keys: new ones for what `edits` brings none for.

    Args:
        base: what is in force.
        roles: whose keys change.
        edits: what else changes; for an offline role, the key that goes and the one that comes.
        keys: folder of the online keys, where new ones are made beside the old.
        now: seconds since 1970.
        policy: durations.

    Raises:
        EditError: for an offline role, what goes or comes is not said; or a rule is broken.
    """
    old = offline_of(base)
    online = [role for role in roles if role in ONLINE]
    _refuse_halves(roles, edits)
    missing = [role for role in online if role not in edits.added]
    if missing and keys is None:
        raise EditError(
            f"rotate {missing[0]}", "--data DIR, to make a key in, or --key FILE.pub", "neither"
        )
    brought = {role: edits.added[role] for role in online if role in edits.added}
    others = {role: added for role, added in edits.added.items() if role not in brought}

    def make(made: Mapping[str, Sequence[Key]]) -> Proposal:
        all_new = {**edits.replaced, **brought, **made}
        new = edited(old, replace(edits, added=others, replaced=all_new))
        return propose(base, new, (), now, policy)

    return _with_new_keys(keys, missing, make).draft


def _refuse_halves(roles: Sequence[str], edits: Edits) -> None:
    for role in roles:
        if role not in ONLINE and not (edits.added.get(role) and edits.dropped.get(role)):
            raise EditError(
                f"rotate {role}", "--drop KEYID and --key FILE.pub, the old and the new", "not both"
            )


def adopt(data: DataFolder, edits: Edits, *, now: float, policy: Policy) -> Draft:
    """Draft the step from a trial to real quorums, and sign it with the trial's own root key.

    All keys are replaced, the online ones by new ones made beside them; what the trial's root said
    in extra fields goes.

    Raises:
        EditError: keys are missing, or a rule is broken.
        CeremonyError: it is no trial.
    """
    _refuse_drops(edits)
    base = read_base(MetadataFolder(data.metadata))
    old = offline_of(base)
    signer = _trial_signer(data, old)

    def make(made: Mapping[str, Sequence[Key]]) -> Proposal:
        all_new = replace(edits, replaced={**edits.replaced, **made})
        new = replace(
            old,
            quorums=new_quorums(all_new, old.delegation, _defaults(old.delegation)),
            bits=old.bits if edits.bits is None else edits.bits,
            extra={**old.extra, ROOT: {}, **edits.extra},
        )
        _refuse_trial_keys(old, new)
        return propose(base, new, new.files, now, policy)

    return signed(_with_new_keys(data.keys, ONLINE, make), signer)


def services_left(keys: Path, proposal: Proposal) -> Iterator[str]:
    """Say where a key of a service makes room for a plain file, which nobody may have meant."""
    elsewhere = references(keys)
    for role in ONLINE if proposal.old else ():
        before, after = (each.quorums[role].ids() for each in (proposal.old, proposal.new) if each)
        left = [elsewhere[keyid] for keyid in before if keyid in elsewhere and keyid not in after]
        if left and any(file_beside(keys, role, keyid).exists() for keyid in after):
            yield (
                f"{role}: the key at {left[0]} makes room for a plain file in {keys}; for another"
                f" key of that kind draft again with --key {role}=FILE.pub"
            )


def _with_new_keys(
    folder: Path | None,
    roles: Sequence[str],
    make: Callable[[Mapping[str, Sequence[Key]]], Proposal],
) -> Proposal:
    """Make a draft with new online keys, and the keys only where it keeps the rules."""
    if not roles or folder is None:
        return make({})
    make({role: [CryptoSigner.generate_ed25519().public_key] for role in roles})
    return make(_each(make_beside(folder, roles)))


def _each(keys: Mapping[str, Key]) -> dict[str, Sequence[Key]]:
    return {role: [key] for role, key in keys.items()}


def _defaults(delegation: str) -> dict[str, int]:
    return {
        ROOT: _DEFAULT_ROOT_THRESHOLD,
        TARGETS: _DEFAULT_THRESHOLD,
        delegation: _DEFAULT_THRESHOLD,
    }


def _refuse_drops(edits: Edits) -> None:
    if edits.dropped:
        raise EditError("--drop", "keys to add only, as all are new", "one to drop")


def _trial_signer(data: DataFolder, old: Offline) -> Signer:
    path = key_file(data.offline_keys, ROOT)
    if old.quorums[ROOT].threshold != 1 or not path.exists():
        raise CeremonyError(
            str(data.path),
            f"a trial, its root key in {path}",
            "none; for a change to a real quorum use `tuf-repo draft`",
        )
    return keyfiles.load(path, None)


def _refuse_trial_keys(old: Offline, new: Offline) -> None:
    for role in new.files:
        for key in new.quorums[role].keys:
            if any(member(key, asked(each, None, old)) for each in old.roles):
                raise EditError(f"role {role}", "keys that the trial did not have", key.keyid[:8])
