"""Stock python-tuf code reads and verifies a file, before we publish it or build upon it.

Nothing here trusts what we know of a file otherwise: bytes in, a verified value out, or an error
that names the file.

Rule: of what python-tuf accepts we take only what `signing.sign` would have written, byte for byte.
So two readers cannot read two things in one file: no key stands twice, no number is spelled in a
second way, nothing lies beside what is signed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import takewhile

from securesystemslib.signer import Signature
from tuf.api.exceptions import RepositoryError as TufError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, T, Targets, Timestamp

from tuf_repo.core.numbers import LIMIT
from tuf_repo.core.roles import (
    FILE_MAX_BYTES,
    SNAPSHOT,
    STOCK_MAX_BYTES,
    TARGETS,
    TIMESTAMP,
    X_ROLE,
)
from tuf_repo.errors import MetadataError
from tuf_repo.signing import file_bytes

# Sixteen digits where a number can stand, or a text that looks so: then we look closer. One pattern
# for each of the three, as `re` is ten times as fast with a first letter that is fixed.
_LONG_NUMBERS = [re.compile(start + rb"-?[0-9]{16}") for start in (rb":", rb",", rb"\[")]
_SPEC_MAJOR = 1


def root(file: str, data: bytes, predecessor: Root | None, version: int) -> Root:
    """Verify a root against the one before it, and against itself (TUF 5.3.4).

    Raises:
        MetadataError: it is not the next root.
    """
    fresh = _parse(Root, file, data).signed
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
        MetadataError: stock clients would refuse it, it was signed for another role, or it is a bin
            that delegates in its turn.
    """
    signed = _verified(Targets, role, file, data, delegator)
    _expect_version(file, version, signed.version)
    _expect_size(file, data, STOCK_MAX_BYTES[TARGETS])
    named = signed.unrecognized_fields.get(X_ROLE)
    if named != role:
        raise MetadataError(file, f"{X_ROLE} {role}", repr(named))
    # The key of the bins is online: clients would follow it wherever it points.
    if signed.delegations is not None and _delegates_to_bins(delegator):
        raise MetadataError(file, "a bin, which delegates to nobody", "delegations")
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


def _parse(kind: type[T], file: str, data: bytes) -> Metadata[T]:
    try:
        metadata = Metadata[T].from_bytes(data)
    except TufError as error:
        _refuse_newer(file, data)
        raise MetadataError(file, f"{kind.type} metadata", _reason(error)) from error
    if not isinstance(metadata.signed, kind):
        raise MetadataError(file, f"{kind.type} metadata", metadata.signed.type)
    return metadata


def _verified(kind: type[T], role: str, file: str, data: bytes, delegator: Root | Targets) -> T:
    """Verify any file.

    1. It is metadata of that kind.
    2. The delegator's keys signed its canonical form, as python-tuf makes it.
    3. These are the bytes that we would have written.
    4. Every number in it is exact for every reader.
    """
    metadata = _parse(kind, file, data)  # 1.
    try:
        payload = metadata.signed_bytes
        delegator.verify_delegate(role, payload, metadata.signatures)  # 2.
    # ValueError: the role is not delegated at all.
    except (TufError, ValueError) as error:
        raise MetadataError(file, f"{role} with its signatures", _reason(error)) from error
    _expect_our_form(file, data, payload, metadata.signatures)  # 3.
    _expect_exact_numbers(file, payload)  # 4.
    return metadata.signed


def _expect_our_form(
    file: str, data: bytes, payload: bytes, signatures: Mapping[str, Signature]
) -> None:
    ours = file_bytes(payload, signatures.values())
    if data != ours:
        same = takewhile(lambda pair: pair[0] == pair[1], zip(data, ours, strict=False))
        at = sum(1 for _ in same)
        raise MetadataError(file, "the one form we write, each key once", f"another at byte {at}")


def _expect_exact_numbers(file: str, payload: bytes) -> None:
    if any(pattern.search(payload) for pattern in _LONG_NUMBERS):
        numbers: list[int] = []
        json.loads(payload, strict=False, parse_int=lambda text: numbers.append(int(text)))
        for number in numbers:
            if abs(number) >= LIMIT:
                raise MetadataError(file, f"numbers below {LIMIT}", str(number))


def _delegates_to_bins(delegator: Root | Targets) -> bool:
    delegations = delegator.delegations if isinstance(delegator, Targets) else None
    return delegations is not None and delegations.succinct_roles is not None


def _refuse_newer(file: str, data: bytes) -> None:
    """Say so where it is the specification's next major version that python-tuf did not read."""
    try:
        spec_version = str(json.loads(data)["signed"]["spec_version"])
        is_newer = int(spec_version.partition(".")[0]) > _SPEC_MAJOR
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    if is_newer:
        raise MetadataError(
            file,
            f"version {_SPEC_MAJOR} of the TUF specification",
            f"{spec_version}: a newer program made this, use that one",
        )


def _expect_version(file: str, expected: int | None, got: int) -> None:
    if expected is not None and got != expected:
        raise MetadataError(file, f"version {expected}", str(got))


def _expect_size(file: str, data: bytes, max_bytes: int) -> None:
    if len(data) > max_bytes:
        raise MetadataError(file, f"at most {max_bytes} bytes", str(len(data)))


def _reason(error: Exception) -> str:
    # python-tuf wraps what its parser said: the innermost text is the one that helps.
    return str(error.__cause__ or error) or type(error).__name__
