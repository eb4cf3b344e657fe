"""From untrusted bytes to a `VerifiedCrate`, and no other way there.

Whoever holds a `VerifiedCrate` may store it: its bytes are the ones a signed index line names, and
its archive stays within its folder, or the operator has looked at it and accepts it.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

from mirror.core.archive import ArchiveLimits, check_archive
from mirror.core.index import IndexEntry
from mirror.core.names import CrateId
from mirror.errors import ArchiveError, CksumMismatchError


@dataclass(frozen=True, slots=True)
class VerifiedCrate:
    """A crate file that is what its index line says. Made by `verify_crate` only."""

    crate: CrateId
    sha256: str
    data: bytes


def verify_crate(
    entry: IndexEntry, data: bytes, limits: ArchiveLimits, *, accepted: bool = False
) -> VerifiedCrate:
    """Check a crate file against its index line.

    1. Its length is within the limit.
    2. Its sha256 is the line's `cksum`.
    3. Its archive is safe to unpack, and this crate's; `accepted`: the operator has looked at
       the archive, and answers for it.

    Raises:
        CksumMismatchError: rule 2.
        ArchiveError: rules 1 and 3.
    """
    subject = f"crate file of {entry.crate}"
    # 1.
    if len(data) > limits.file_max_bytes:
        raise ArchiveError(subject, f"at most {limits.file_max_bytes} bytes", f"{len(data)} bytes")
    # 2.
    digest = hashlib.sha256(data).hexdigest()
    if digest != entry.cksum:
        raise CksumMismatchError(subject, f"sha256 {entry.cksum}", digest)
    # 3.
    if not accepted:
        check_archive(entry.crate, io.BytesIO(data), limits)
    return VerifiedCrate(entry.crate, digest, data)
