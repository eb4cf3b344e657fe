"""The online keys of a machine that signs: made, loaded, compared with what clients trust."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from securesystemslib.signer import CryptoSigner, Signer

from tuf_repo import keyfiles
from tuf_repo.core.publickeys import (
    ED25519,
    public_bytes,
    refuse_shared_keys,
    same_key,
)
from tuf_repo.errors import KeyFileError

if TYPE_CHECKING:
    from tuf_repo.loading import Trust

__all__ = [
    "BINS_KEY",
    "ONLINE_ROLES",
    "SNAPSHOT_KEY",
    "TIMESTAMP_KEY",
    "OnlineSigners",
    "create_key",
    "create_online_signers",
    "key_file",
    "load_online_signers",
    "load_signer",
    "public_bytes",
    "refuse_shared_keys",
    "same_key",
]

BINS_KEY = "bins"
SNAPSHOT_KEY = "snapshot"
TIMESTAMP_KEY = "timestamp"
ONLINE_ROLES = (BINS_KEY, SNAPSHOT_KEY, TIMESTAMP_KEY)


@dataclass(frozen=True, slots=True, repr=False)
class OnlineSigners:
    """What signs online: one key for all bins, one for each of the other two."""

    bins: Signer
    snapshot: Signer
    timestamp: Signer

    def signers_for(self, trust: Trust) -> OnlineSigners:
        """Return these, after making sure that they are the ones clients trust.

        Raises:
            KeyFileError: one is not.
        """
        from tuf_repo.loading import require_signers  # noqa: PLC0415 - it imports this file

        require_signers(trust, self)
        return self


def load_online_signers(keys: Path) -> OnlineSigners:
    """Load the three online keys of a folder that were made first.

    Raises:
        KeyFileError: one is missing, open to others, or not a key of ours.
    """
    return OnlineSigners(*(load_signer(key_file(keys, role)) for role in ONLINE_ROLES))


def create_online_signers(keys: Path) -> OnlineSigners:
    """Load the three online keys, after making those that are missing."""
    for role in ONLINE_ROLES:
        create_key(key_file(keys, role))
    return load_online_signers(keys)


def key_file(folder: Path, role: str) -> Path:
    """Where the first private key for a role lies."""
    return folder / f"{role}.pem"


def create_key(path: Path) -> None:
    """Make an ed25519 key, not encrypted; a key that is there stays as it is."""
    if not path.exists():
        with suppress(KeyFileError):  # Somebody else made it meanwhile.
            keyfiles.create(path, ED25519, None)


def load_signer(path: Path) -> CryptoSigner:
    """Load a private key that is not encrypted.

    Raises:
        KeyFileError: it is missing, open to others, encrypted, or not a key of ours in PEM.
    """
    return keyfiles.load(path, None)
