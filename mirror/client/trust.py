"""Where trust begins: the bytes of a root, and why they are believed.

Rule: a root comes from the user, never from the mirror alone and never from the current folder.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from tuf.api.exceptions import DownloadError, DownloadHTTPError

from mirror.client.fetcher import MirrorFetcher
from mirror.core.layout import METADATA_DIR
from mirror.errors import ProofError, UnreachableError, UsageError
from mirror.store.roots import is_trial

ROOT_MAX_BYTES = 512_000
ROOTS_MAX = 256
"""As many roots as python-tuf follows."""
FIRST_ROOT = f"{METADATA_DIR}/1.root.json"
_SHA256 = re.compile(r"[0-9a-fA-F]{64}\Z")

HOW = (
    "say which root you trust: --root FILE (its 1.root.json), --root-sha256 HEX (its fingerprint),"
    " both from the mirror's operator and not from the mirror; or --data DIR on the mirror itself"
)


@dataclass(frozen=True, slots=True)
class TrustedRoot:
    """The root that everything is checked against."""

    data: bytes

    @property
    def sha256(self) -> str:
        """The fingerprint: over the exact bytes."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def is_trial(self) -> bool:
        """Whether it says that it was made for a first try. Ask this of a verified one only."""
        return is_trial(self.data)


def root_from_file(path: Path) -> TrustedRoot:
    """Return a root that the user names.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(ROOT_MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}; {HOW}") from error
    if len(data) > ROOT_MAX_BYTES:
        raise UsageError(f"{path}: larger than {ROOT_MAX_BYTES} bytes, so no root; {HOW}")
    return TrustedRoot(data)


def root_by_fingerprint(fetcher: MirrorFetcher, sha256: str) -> TrustedRoot:
    """Return the mirror's root, of whatever version, whose bytes have this fingerprint.

    Raises:
        UsageError: that is no fingerprint.
        ProofError: none of the mirror's roots has it.
        UnreachableError: no root was to be had.
    """
    if not _SHA256.match(sha256):
        raise UsageError(
            f"--root-sha256 {sha256!r}: expected all 64 hex digits of the fingerprint; {HOW}"
        )
    root = first = _first_root(fetcher)
    where, version = fetcher.asked, 1
    while root.sha256 != sha256.lower():
        version += 1
        later = _root(fetcher, version) if version <= ROOTS_MAX else None
        if later is None:
            raise ProofError(
                "root",
                where,
                f"the fingerprint {sha256.lower()}",
                first.sha256,
                "this is not the mirror you meant, or somebody stands between; nothing was checked",
            )
        root = later
    return root


def root_of_own_folder(fetcher: MirrorFetcher) -> TrustedRoot:
    """Return the first root of a mirror's own folder, which is trusted as the folder is.

    Raises:
        UsageError: there is none.
    """
    try:
        return _first_root(fetcher)
    except UnreachableError as error:
        raise UsageError(
            f"{fetcher.asked}: no root there; --data takes the folder that `crateseal up` made"
        ) from error


def _root(fetcher: MirrorFetcher, version: int) -> TrustedRoot | None:
    """Return a later root; None where there is none."""
    try:
        return TrustedRoot(fetcher.read(f"{METADATA_DIR}/{version}.root.json", ROOT_MAX_BYTES))
    except DownloadError:
        return None


def _first_root(fetcher: MirrorFetcher) -> TrustedRoot:
    try:
        return TrustedRoot(fetcher.read(FIRST_ROOT, ROOT_MAX_BYTES))
    except DownloadHTTPError as error:
        raise UnreachableError(f"{error}; is this the URL of a Crateseal mirror?") from error
    except DownloadError as error:
        raise UnreachableError(f"{error}; is the mirror running?") from error
