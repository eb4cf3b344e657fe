"""Keys: private ones as PEM files that only their owner may read, public ones compared as keys.

Rule: no error, log line or `repr` here holds private material, and no exception that might is
chained.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.signer import CryptoSigner, Key, Signer

from tuf_repo.errors import KeyFileError

BINS_KEY = "bins"
SNAPSHOT_KEY = "snapshot"
TIMESTAMP_KEY = "timestamp"
_PEM_MAX_BYTES = 10_000


@dataclass(frozen=True, slots=True, repr=False)
class OnlineSigners:
    """What the signing machine holds: one key for all bins, one for each of the other two."""

    bins: Signer
    snapshot: Signer
    timestamp: Signer


def load_online_signers(keys: Path) -> OnlineSigners:
    """Load the three online keys of a folder.

    Raises:
        KeyFileError: one is missing, open to others, or not an ed25519 key.
    """
    return OnlineSigners(
        *(load_signer(key_file(keys, role)) for role in (BINS_KEY, SNAPSHOT_KEY, TIMESTAMP_KEY))
    )


def create_online_signers(keys: Path) -> OnlineSigners:
    """Load the three online keys, after making those that are missing."""
    for role in (BINS_KEY, SNAPSHOT_KEY, TIMESTAMP_KEY):
        create_key(key_file(keys, role))
    return load_online_signers(keys)


def key_file(folder: Path, role: str) -> Path:
    """Where the private key for a role lies."""
    return folder / f"{role}.pem"


def create_key(path: Path) -> None:
    """Make an ed25519 key, durable and 0600; a key that is there stays as it is."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists():
        return
    temporary = path.with_name(f".{path.name}.tmp")
    with suppress(FileNotFoundError):
        os.unlink(temporary)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
        file.write(CryptoSigner.generate_ed25519().private_bytes)
        file.flush()
        os.fsync(file.fileno())
    # link(2), not rename(2): it never takes the place of a key that came there meanwhile.
    with suppress(FileExistsError):
        os.link(temporary, path)
    os.unlink(temporary)
    _sync_folder(path.parent)
    _sync_folder(path.parent.parent)


def load_signer(path: Path) -> CryptoSigner:
    """Load a private key.

    Raises:
        KeyFileError: it is missing, open to others, or not an ed25519 key in PEM.
    """
    pem = _read_private(path)
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        # Outside the handler: what the parser said of the bytes is not carried along.
        raise KeyFileError(str(path), "an ed25519 key in PEM, not encrypted", "something else")
    return CryptoSigner(key)


def public_bytes(key: Key) -> bytes:
    """Return the public key itself: the same bytes however its fields are spelled.

    Raises:
        KeyFileError: it cannot be read.
    """
    text = str(key.keyval.get("public", ""))
    try:
        if key.keytype == "ed25519":
            return bytes.fromhex(text)
        public = load_pem_public_key(text.encode())
        return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except ValueError:
        raise KeyFileError(f"key {key.keyid[:8]}", "a public key", "something else") from None


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


def _read_private(path: Path) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise KeyFileError(str(path), "a private key", error.strerror or "nothing") from None
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            raise KeyFileError(str(path), "a regular file", stat.filemode(mode))
        if mode & 0o077:
            raise KeyFileError(str(path), "a file for its owner alone (0600)", stat.filemode(mode))
        return os.read(fd, _PEM_MAX_BYTES)
    finally:
        os.close(fd)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
