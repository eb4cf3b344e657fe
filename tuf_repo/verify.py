"""Stock python-tuf code reads and verifies a file, before we publish it or build upon it.

Nothing here trusts what we know of a file otherwise: bytes in, a verified value out, or an error
that names the file.
"""

from __future__ import annotations

from tuf.api.exceptions import RepositoryError as TufError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, T, Targets, Timestamp

from tuf_repo.core.roles import (
    FILE_MAX_BYTES,
    SNAPSHOT,
    STOCK_MAX_BYTES,
    TARGETS,
    TIMESTAMP,
    X_ROLE,
)
from tuf_repo.errors import MetadataError


def root(file: str, data: bytes, predecessor: Root | None, version: int) -> Root:
    """Verify a root against the one before it, and against itself (TUF 5.3.4).

    Raises:
        MetadataError: it is not the next root.
    """
    fresh = _parse(Root, file, data)
    if predecessor is not None:
        fresh = _verified(Root, "root", file, data, predecessor)
    _verified(Root, "root", file, data, fresh)
    # TUF 5.3.5: a root is exactly one newer, so that clients can walk the chain.
    _expect_version(file, version, fresh.version)
    _expect_size(file, data, STOCK_MAX_BYTES["root"])
    if not fresh.consistent_snapshot:
        raise MetadataError(file, "consistent snapshots", "none")
    return fresh


def timestamp(file: str, data: bytes, trusted: Root, version: int | None) -> Timestamp:
    """Verify a timestamp; `version` is None where any will do.

    Raises:
        MetadataError: stock clients would refuse it.
    """
    signed = _verified(Timestamp, TIMESTAMP, file, data, trusted)
    _expect_version(file, version, signed.version)
    _expect_size(file, data, STOCK_MAX_BYTES[TIMESTAMP])
    return signed


def snapshot(file: str, data: bytes, trusted: Root, stamp: Timestamp) -> Snapshot:
    """Verify a snapshot that a verified timestamp refers to.

    Raises:
        MetadataError: stock clients would refuse it.
    """
    described(file, data, stamp.snapshot_meta)
    signed = _verified(Snapshot, SNAPSHOT, file, data, trusted)
    _expect_version(file, stamp.snapshot_meta.version, signed.version)
    _expect_size(file, data, FILE_MAX_BYTES)
    return signed


def targets(
    file: str, data: bytes, role: str, delegator: Root | Targets, version: int | None
) -> Targets:
    """Verify a file of a targets-type role against the role that delegates to it.

    Raises:
        MetadataError: stock clients would refuse it, or it was signed for another role.
    """
    signed = _verified(Targets, role, file, data, delegator)
    _expect_version(file, version, signed.version)
    _expect_size(file, data, STOCK_MAX_BYTES[TARGETS])
    named = signed.unrecognized_fields.get(X_ROLE)
    if named != role:
        raise MetadataError(file, f"{X_ROLE} {role}", repr(named))
    return signed


def described(file: str, data: bytes, meta: MetaFile) -> None:
    """Compare bytes with the length and digest that the referring metadata gives.

    Raises:
        MetadataError: they differ.
    """
    try:
        meta.verify_length_and_hashes(data)
    except TufError as error:
        raise MetadataError(file, "the length and digest it is named with", str(error)) from error


def _parse(kind: type[T], file: str, data: bytes) -> T:
    try:
        signed = Metadata[T].from_bytes(data).signed
    except TufError as error:
        raise MetadataError(file, f"{kind.type} metadata", _reason(error)) from error
    if not isinstance(signed, kind):
        raise MetadataError(file, f"{kind.type} metadata", signed.type)
    return signed


def _verified(kind: type[T], role: str, file: str, data: bytes, delegator: Root | Targets) -> T:
    try:
        metadata = Metadata[T].from_bytes(data)
        signed = metadata.signed
        if not isinstance(signed, kind):
            raise MetadataError(file, f"{kind.type} metadata", signed.type)
        delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    # ValueError: the role is not delegated at all.
    except (TufError, ValueError) as error:
        raise MetadataError(file, f"{role} with its signatures", _reason(error)) from error
    return signed


def _expect_version(file: str, expected: int | None, got: int) -> None:
    if expected is not None and got != expected:
        raise MetadataError(file, f"version {expected}", str(got))


def _expect_size(file: str, data: bytes, max_bytes: int) -> None:
    if len(data) > max_bytes:
        raise MetadataError(file, f"at most {max_bytes} bytes", str(len(data)))


def _reason(error: Exception) -> str:
    # python-tuf wraps what its parser said: the innermost text is the one that helps.
    return str(error.__cause__ or error) or type(error).__name__
