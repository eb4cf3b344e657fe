"""From the root that is trusted to the newest one: each is signed by the one before, and by itself.

Rule: pure; bytes in, bytes out. A root proves itself, so it does not matter who offers it, and one
host that withholds the next, or makes one up, does not keep it from us while another has it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root
from tuf.api.serialization import DeserializationError


@dataclass(frozen=True, slots=True)
class NextRoot:
    """What came of offering the root after the current one."""

    root: bytes | None
    """The first that verifies; None: none was offered, or none does."""
    wrong: tuple[tuple[str, str], ...]
    """Who offered one that does not verify, and what is wrong with it."""


def next_root(current: bytes, offered: Iterable[tuple[str, bytes]]) -> NextRoot:
    """Choose, among what the mirrors offer as version N+1, a root that verifies.

    Args:
        current: the root that is trusted, version N.
        offered: (mirror, bytes), in the order of preference.

    Raises:
        RepositoryError: `current` is no root.
    """
    trusted = Metadata[Root].from_bytes(current)
    found, wrong = None, []
    for mirror, data in offered:
        reason = _what_is_wrong(trusted.signed, data)
        if reason:
            wrong.append((mirror, reason))
        elif found is None:
            found = data
    return NextRoot(found, tuple(wrong))


def check_root(data: bytes, version: int | None = None) -> None:
    """Make sure that trust may begin with this: it is a root, and its own keys have signed it.

    Args:
        data: its bytes.
        version: which one it was served as, if it was.

    Raises:
        RepositoryError: it is none, or another version.
    """
    root = Metadata[Root].from_bytes(data)
    if root.signed.type != Root.type:
        raise RepositoryError(f"expected a root, got {root.signed.type!r}")
    if version is not None and root.signed.version != version:
        raise RepositoryError(f"expected version {version}, got {root.signed.version}")
    root.signed.verify_delegate(Root.type, root.signed_bytes, root.signatures)


def _what_is_wrong(trusted: Root, data: bytes) -> str:
    """Return why these bytes are not the root that follows this one; "" if they are.

    1. They are a root.
    2. Its version is the next (TUF specification 5.3.5: one by one, so that the chain can be
       walked).
    3. Enough of the trusted root's keys have signed it, and enough of its own (5.3.4).
    """
    try:
        # 1.
        metadata = Metadata[Root].from_bytes(data)
        new = metadata.signed
        if new.type != Root.type:
            return f"expected a root, got {new.type!r}"
        # 2.
        if new.version != trusted.version + 1:
            return f"expected version {trusted.version + 1} of the root, got {new.version}"
        # 3.
        verdict = new.get_root_verification_result(
            trusted, metadata.signed_bytes, metadata.signatures
        )
    except DeserializationError as error:
        return f"expected a root, got something that cannot be read as one ({error.__cause__!r})"
    except (RepositoryError, ValueError) as error:
        return " ".join(str(error).split())
    for keys, each in (("the keys of the root before", verdict.first), ("its own", verdict.second)):
        if not each:
            return f"expected {each.threshold} signatures of {keys}, got {len(each.signed)}"
    return ""
