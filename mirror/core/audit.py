"""What may change between two looks at one crate's index file: the rules, pure.

The signer vouches for nothing that crates.io itself would not do: a published version keeps its
checksum and never vanishes. Everything else in a line passes through unchanged.
"""

from __future__ import annotations

from mirror.core.index import IndexFile, IndexLimits, parse_index_file
from mirror.core.names import CrateName, index_path
from mirror.errors import CksumChangedError, VersionVanishedError


def audit_index_file(
    name: CrateName, accepted: bytes | None, fetched: bytes, limits: IndexLimits
) -> IndexFile:
    """Return the fetched index file if it may follow the last accepted one.

    1. Every line parses, within limits, and carries the path's name.
    2. Every version that was accepted before is still there.
    3. With the same checksum.

    `accepted` is None at first sight.

    Raises:
        MalformedIndexError: rule 1.
        VersionVanishedError: rule 2.
        CksumChangedError: rule 3.
    """
    # 1.
    file = parse_index_file(name, fetched, limits)
    if accepted is None:
        return file
    now = file.by_version()
    for version, before in parse_index_file(name, accepted, limits).by_version().items():
        subject = f"{before.crate} in {index_path(name)}"
        entry = now.get(version)
        # 2.
        if entry is None:
            raise VersionVanishedError(subject, "the version that was published", "no such line")
        # 3.
        if entry.cksum != before.cksum:
            raise CksumChangedError(subject, f"cksum {before.cksum}", entry.cksum)
    return file
