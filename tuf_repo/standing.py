"""How things stand, in words and as JSON: who has signed a draft, which online keys lie idle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from securesystemslib.signer import Key

from tuf_repo.core import words
from tuf_repo.core.root import X_NAME
from tuf_repo.proposal import Proposal


def who(proposal: Proposal) -> list[str]:
    """Say who has signed, and who is missing."""
    return [line for count in proposal.counts() for line in words.who(count)]


def to_compare(proposal: Proposal, kept: Path | None) -> Iterator[str]:
    """Say which files that a draft starts from were compared with nothing that its signer keeps."""
    if proposal.old is None or (kept is not None and kept.is_dir()):
        return
    files = proposal.old.files if kept is None else proposal.old.files[1:]
    if kept is not None:
        yield "root is the one that you keep; the others may be of long ago"
    yield "compare yourself with what you keep, or name a folder with all three after --root:"
    yield from (f"  {line}" for line in proposal.based_on(files))
    yield ""


def idle(keys: Mapping[Path, Key], proposal: Proposal | None) -> Iterator[str]:
    """Say of each online key that nothing published names what it may be there for."""
    quorums = proposal.new.quorums.values() if proposal else ()
    drafted = {keyid for quorum in quorums for keyid in quorum.ids()}
    for path, key in keys.items():
        if key.keyid in drafted:
            why = "this draft names it"
        else:
            why = "it waits for its draft, or is left over: remove it where no draft names it"
        yield f"{path}: key {key.keyid[:8]} is named by nothing that is published; {why}"
    if not keys:
        yield "every online key here is named by what is published"


def as_json(proposal: Proposal | None, keys: Mapping[Path, Key] | None) -> dict[str, Any]:
    """Return the same as fields; those of what was not asked for are left out."""
    fields: dict[str, Any] = {}
    if proposal is not None:
        counts = proposal.counts()
        fields["complete"] = not any(count.lacks for count in counts)
        fields["changes"] = list(proposal.words())
        fields["quorums"] = [
            {
                "role": count.role,
                "whose": count.whose or None,
                "threshold": count.threshold,
                "signed": _people(count.signed),
                "missing": _people(count.missing),
            }
            for count in counts
        ]
    if keys is not None:
        fields["idle_keys"] = {str(path): key.keyid for path, key in keys.items()}
    return fields


def _people(keys: tuple[Key, ...]) -> list[dict[str, object]]:
    return [{"keyid": key.keyid, "name": key.unrecognized_fields.get(X_NAME)} for key in keys]
