"""Who is asked to sign a file, who has signed, who is missing.

Rule: one public key counts once, under whatever keyid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import Key, Signature

from tuf_repo.core.publickeys import public_bytes
from tuf_repo.core.roles import ROOT
from tuf_repo.core.root import Offline, Quorum
from tuf_repo.errors import CeremonyError

Signatures = Mapping[str, str]
"""Keyid -> signature, in hex digits."""


@dataclass(frozen=True, slots=True)
class Count:
    """One quorum, asked about one file."""

    role: str
    """The file's role."""
    whose: str
    """`old` or `new` for the quorum of the root before and of this one; else empty."""
    threshold: int
    signed: tuple[Key, ...]
    missing: tuple[Key, ...]

    @property
    def lacks(self) -> int:
        """How many signatures are still to come."""
        return max(0, self.threshold - len(self.signed))


def asked(role: str, old: Offline | None, new: Offline) -> list[tuple[str, Quorum]]:
    """Return the quorums that a file needs: a root that of the root before too (TUF 5.3.4)."""
    quorum = new.quorums[role]
    if role == ROOT and old is not None and old.quorums[ROOT] != quorum:
        return [("old", old.quorums[ROOT]), ("new", quorum)]
    return [("", quorum)]


def count(role: str, whose: str, quorum: Quorum, payload: bytes, signatures: Signatures) -> Count:
    """Look who of a quorum has signed."""
    signed: dict[bytes, Key] = {}
    missing: dict[bytes, Key] = {}
    for key in quorum.keys:
        group = signed if verifies(key, payload, signatures.get(key.keyid)) else missing
        group.setdefault(public_bytes(key), key)
    open_ones = tuple(key for raw, key in missing.items() if raw not in signed)
    return Count(role, whose, quorum.threshold, tuple(signed.values()), open_ones)


def verifies(key: Key, payload: bytes, signature: str | None) -> bool:
    """Whether a signature by this key is there, and is good."""
    if signature is None:
        return False
    try:
        key.verify_signature(Signature(key.keyid, signature), payload)
    except (UnverifiedSignatureError, VerificationError, ValueError):
        return False
    return True


def member(key: Key, quorums: list[tuple[str, Quorum]]) -> Key | None:
    """Return a key as these quorums name it; None where it is in none of them."""
    raw = public_bytes(key)
    for _, quorum in quorums:
        for each in quorum.keys:
            if public_bytes(each) == raw:
                return each
    return None


def refuse_bad_signatures(
    role: str, quorums: list[tuple[str, Quorum]], payload: bytes, signatures: Signatures
) -> None:
    """Every signature is by somebody who is asked, over what now stands there.

    Raises:
        CeremonyError: one is not.
    """
    keys = {key.keyid: key for _, quorum in quorums for key in quorum.keys}
    for keyid, signature in signatures.items():
        if keyid not in keys:
            raise CeremonyError(
                f"{role} in the draft", "signatures by its keys only", f"one by {keyid[:8]}"
            )
        if not verifies(keys[keyid], payload, signature):
            raise CeremonyError(
                f"{role} in the draft",
                "what was signed",
                f"something else: the signature by {keyid[:8]} does not fit, so the draft was"
                " changed after it; start from an untouched copy",
            )
