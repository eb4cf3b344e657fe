"""Keys as files: private ones that only their owner may read, public ones as JSON.

Rule: no error, log line or `repr` here holds private material or a passphrase, and no exception
that might is chained.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from tuf_repo import durable, pkcs8, strict
from tuf_repo.core import names
from tuf_repo.core.publickeys import ECDSA, ED25519, OUR_KINDS, canonical_key, is_ours
from tuf_repo.errors import KeyFileError

FILE_MAX_BYTES = 10_000
_FIELDS = {"keyid", "keytype", "scheme", "keyval"}

Ask = Callable[[str], bytes]
"""Asks for the secret that it is told the name of."""
PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey


def create(path: Path, kind: str, passphrase: bytes | None) -> SSlibKey:
    """Make a private key, durable and 0600; return its public half.

    Args:
        path: a file that is not there yet.
        kind: `ed25519` or `ecdsa` (P-256).
        passphrase: what to encrypt it with; None: not at all.

    Raises:
        KeyFileError: something is there already, or the kind is not one of ours.
    """
    makers: dict[str, Callable[[], PrivateKey]] = {
        ED25519: Ed25519PrivateKey.generate,
        ECDSA: lambda: generate_private_key(SECP256R1()),
    }
    if kind not in makers:
        raise KeyFileError(str(path), " or ".join(makers), kind)
    key = makers[kind]()
    if passphrase is None:
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    else:
        der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        pem = pkcs8.encrypt(der, passphrase)
    _write_new(path, pem, 0o600)
    return SSlibKey.from_crypto(key.public_key())


def load(path: Path, ask: Ask | None) -> CryptoSigner:
    """Load a private key; `ask` is called for its passphrase where it is encrypted.

    Raises:
        KeyFileError: it is missing, open to others, not a key of ours in PEM, encrypted where there
            is nobody to ask, or encrypted with another passphrase.
    """
    pem = read_private(path)
    key = _decode(pem, None)
    if key is _ENCRYPTED:
        if ask is None:
            raise KeyFileError(str(path), "a private key that is not encrypted", "an encrypted one")
        key = _decode(pem, ask(f"passphrase for {path}"))
        if key is None:
            raise KeyFileError(str(path), "the passphrase of this key", "another one")
    if not isinstance(key, PrivateKey) or not is_ours(key.public_key()):
        raise KeyFileError(str(path), f"{OUR_KINDS} in PEM", "something else")
    return CryptoSigner(key)


def read_private(path: Path, what: str = "a private key") -> bytes:
    """Read a small file that nobody but its owner can read.

    Raises:
        KeyFileError: it is not there, a link, no regular file, open to others, or too large.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        got = "a symbolic link" if error.errno == errno.ELOOP else error.strerror or "nothing"
        raise KeyFileError(str(path), what, got) from None
    except ValueError:
        raise KeyFileError(repr(str(path)), what, "no name of a file") from None
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            raise KeyFileError(str(path), "a regular file", stat.filemode(mode))
        if mode & 0o077:
            raise KeyFileError(str(path), "a file for its owner alone (0600)", stat.filemode(mode))
        with open(fd, "rb", closefd=False) as file:
            return _bounded(path, file.read(FILE_MAX_BYTES + 1))
    finally:
        os.close(fd)


def write_public(path: Path, key: Key, name: str | None = None) -> None:
    """Write the public half of a key, to be handed to whoever drafts.

    Args:
        path: a file that is not there yet.
        key: the key.
        name: whose it is, for people to read.

    Raises:
        KeyFileError: something is there already, or the key is of no kind of ours.
    """
    text = json.dumps(public_fields(canonical_key(str(path), key), name), indent=2)
    _write_new(path, f"{text}\n".encode(), 0o644)


def public_fields(key: Key, name: str | None = None) -> dict[str, Any]:
    """Return what a public key's file says."""
    fields: dict[str, Any] = {"keyid": key.keyid, **key.to_dict()}
    return fields if name is None else {**fields, "name": name}


def read_public(path: Path) -> SSlibKey:
    """Read the public half of a key.

    Raises:
        KeyFileError: it is not what `write_public` writes.
    """
    return read_public_named(path)[0]


def read_public_named(path: Path) -> tuple[SSlibKey, str | None]:
    """Read the public half of a key, and the name it was given.

    Raises:
        KeyFileError: it is not what `write_public` writes.
    """
    try:
        with open(path, "rb") as file:
            data = _bounded(path, file.read(FILE_MAX_BYTES + 1))
    except OSError as error:
        raise KeyFileError(str(path), "a public key", error.strerror or "nothing") from None
    fields = parse_object(str(path), data)
    name = fields.pop("name", None)
    if name is not None and not is_name(name):
        raise KeyFileError(str(path), f"a name of {names.NAME_KIND}", ascii(name)[:60])
    return parse_public(str(path), fields), name


def is_name(value: object) -> bool:
    """Whether a key may carry this as its name: every reader of a ceremony sees it."""
    return isinstance(value, str) and names.is_name(value)


def parse_public(subject: str, fields: object) -> SSlibKey:
    """Read a public key from its fields, spelled as we spell them and no other way.

    Raises:
        KeyFileError: they are not such fields, or say something of the key that is not so.
    """
    if not isinstance(fields, dict) or set(fields) != _FIELDS:
        raise KeyFileError(subject, "keyid, keytype, scheme and keyval", _names(fields))
    keyval = fields["keyval"]
    keyid, keytype, scheme = (fields[name] for name in ("keyid", "keytype", "scheme"))
    if not isinstance(keyval, dict) or set(keyval) != {"public"}:
        raise KeyFileError(subject, "a keyval with the public key alone", _names(keyval))
    if not all(isinstance(text, str) for text in (keyid, keytype, scheme, keyval["public"])):
        raise KeyFileError(subject, "texts", "something else")
    key = canonical_key(subject, SSlibKey(keyid, keytype, scheme, keyval))
    if key.keyval != keyval:
        raise KeyFileError(subject, "the public key in its usual spelling", "another spelling")
    if key.keyid != keyid:
        raise KeyFileError(subject, f"keyid {key.keyid[:8]}…", f"{keyid[:8]}…")
    return key


def parse_object(subject: str, data: bytes) -> dict[str, Any]:
    """Read a JSON object in which no name stands twice.

    Raises:
        KeyFileError: it is none.
    """
    try:
        value = strict.load(data)
    except ValueError:
        # Outside of a handler below: what is in the way may quote the file.
        value = None
    if not isinstance(value, dict):
        raise KeyFileError(subject, "a JSON object, each name once", "something else")
    return value


_ENCRYPTED = object()


def _decode(pem: bytes, passphrase: bytes | None) -> object:
    """Return the key, `_ENCRYPTED`, or None where it cannot be read."""
    try:
        return load_pem_private_key(pem, passphrase)
    except TypeError:
        # cryptography's word for "encrypted, and no passphrase".
        return _ENCRYPTED
    except (ValueError, UnsupportedAlgorithm):
        return None


def _write_new(path: Path, data: bytes, mode: int) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        durable.write_new(path, data, mode)
    except FileExistsError:
        is_there = True
    else:
        is_there = False
    if is_there:
        raise KeyFileError(str(path), "no file there yet", "one that is there")
    durable.sync_folder(path.parent.parent)


def _bounded(path: Path, data: bytes) -> bytes:
    if len(data) > FILE_MAX_BYTES:
        raise KeyFileError(str(path), f"at most {FILE_MAX_BYTES} bytes", "more")
    return data


def _names(value: object) -> str:
    return ", ".join(sorted(map(str, value))) if isinstance(value, dict) else type(value).__name__
