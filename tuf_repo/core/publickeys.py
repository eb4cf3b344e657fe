"""Public keys: which kinds we use, and when two of them are one.

Rule: keys are compared by what they are, never by keyid or by the text that spells them. python-tuf
counts keyids towards a threshold, so one key under two keyids would count twice.
"""

from __future__ import annotations

from collections.abc import Iterable

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)
from securesystemslib.signer import Key, SSlibKey

from tuf_repo.errors import KeyFileError

ED25519 = "ed25519"
ECDSA = "ecdsa"
SCHEMES = {ED25519: "ed25519", ECDSA: "ecdsa-sha2-nistp256"}
"""Our kinds of key, and how each signs."""
OUR_KINDS = "an ed25519 or ECDSA P-256 key"
_ED25519_BYTES = 32


def is_ours(key: object) -> bool:
    """Whether a public key of `cryptography` is of a kind that we use: ed25519 or ECDSA P-256."""
    if isinstance(key, EllipticCurvePublicKey):
        return isinstance(key.curve, SECP256R1)
    return isinstance(key, Ed25519PublicKey)


def public_bytes(key: Key) -> bytes:
    """Return the public key itself: the same bytes however its fields are spelled.

    Raises:
        KeyFileError: it cannot be read.
    """
    text = str(key.keyval.get("public", ""))
    try:
        if key.keytype == ED25519:
            public = bytes.fromhex(text)
            if len(public) == _ED25519_BYTES:
                return public
        else:
            # From DER to DER: line ends, text around the PEM, a compressed point and curve
            # parameters in full all come out as one.
            return load_pem_public_key(text.encode()).public_bytes(
                Encoding.DER, PublicFormat.SubjectPublicKeyInfo
            )
    except (ValueError, UnsupportedAlgorithm):
        pass
    raise KeyFileError(f"key {key.keyid[:8]}", "a public key", "something else")


def same_key(one: Key, other: Key) -> bool:
    """Whether two are one key, under whatever keyids.

    Raises:
        KeyFileError: one cannot be read.
    """
    return public_bytes(one) == public_bytes(other)


def refuse_shared_keys(keys: Iterable[Key]) -> None:
    """One public key has one keyid: clients count keyids, and would count it twice.

    Raises:
        KeyFileError: one stands under two keyids.
    """
    seen: dict[bytes, str] = {}
    for key in keys:
        other = seen.setdefault(public_bytes(key), key.keyid)
        if other != key.keyid:
            raise KeyFileError(
                f"key {key.keyid[:8]}", "a public key of its own", f"that of {other[:8]}"
            )


def canonical_key(subject: str, key: Key) -> SSlibKey:
    """Return the key as we write it, with the keyid that follows from it.

    Raises:
        KeyFileError: it is neither ed25519 nor ECDSA P-256, or cannot be read.
    """
    if SCHEMES.get(key.keytype) != key.scheme:
        raise KeyFileError(subject, OUR_KINDS, f"{key.keytype} / {key.scheme}")
    raw = public_bytes(key)
    public = (
        Ed25519PublicKey.from_public_bytes(raw)
        if key.keytype == ED25519
        else load_der_public_key(raw)
    )
    if not is_ours(public):
        raise KeyFileError(subject, OUR_KINDS, "a key of another kind")
    return SSlibKey.from_crypto(public)
