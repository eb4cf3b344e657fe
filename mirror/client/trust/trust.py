"""Where trust begins: the bytes of a root, and where a mirror serves them.

Rule: a root comes from the user, never from the mirror alone and never from the current folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from tuf.api.exceptions import DownloadError, DownloadHTTPError

from mirror.client.fetch.fetcher import MirrorFetcher
from mirror.client.home.remembered import ROOT_MAX_BYTES
from mirror.core.layout import METADATA_DIR
from mirror.errors import ProofError, UnreachableError
from mirror.store.roots import is_trial

ROOTS_MAX = 256
"""As many roots as python-tuf follows."""
FIRST_ROOT = f"{METADATA_DIR}/1.root.json"


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


def root_by_fingerprint(fetcher: MirrorFetcher, sha256: str) -> TrustedRoot:
    """Return the mirror's root, of whatever version, whose bytes have this fingerprint.

    Raises:
        ProofError: none of the mirror's roots has it.
        UnreachableError: no root was to be had.
    """
    first, sha256 = None, sha256.lower()
    for data in served_roots(fetcher):
        root = TrustedRoot(data)
        # All of it: a root that shares a part is quickly made.
        if root.sha256 == sha256:
            return root
        first = first or root
    assert first is not None
    raise other_root(fetcher.where(FIRST_ROOT), sha256, first)


def other_root(where: str, sha256: str, got: TrustedRoot) -> ProofError:
    """Return the finding that a mirror has no root with this fingerprint; `got` is its first."""
    return ProofError(
        "root",
        where,
        f"the fingerprint {sha256}",
        got.sha256,
        "this is not the mirror you meant, or somebody stands between; nothing else was checked",
    )


def served_roots(fetcher: MirrorFetcher) -> Iterator[bytes]:
    """Yield the roots that a mirror serves, from version 1 on; nothing of them is verified.

    Raises:
        UnreachableError: the mirror gave no answer, or has not even the first.
    """
    for version in range(1, ROOTS_MAX + 1):
        try:
            yield fetcher.read(f"{METADATA_DIR}/{version}.root.json", ROOT_MAX_BYTES)
        except DownloadHTTPError as error:
            if version == 1:
                raise UnreachableError(
                    f"{error}; is this the URL of a Crateseal mirror?"
                ) from error
            return
        except DownloadError as error:
            raise UnreachableError(f"{error}; is the mirror running?") from error
