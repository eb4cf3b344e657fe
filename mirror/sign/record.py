"""What is written down of a publication: its line in the ledger's log, its files, its links."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from mirror.core.layout import INDEX, target_file
from mirror.sign.desk import Examined
from tuf_repo.core.update import Changes
from tuf_repo.staging import Staged


def ceremony(staged: Staged) -> dict[str, Any]:
    """Return what a ceremony brought, file by digest, for the log."""
    if staged.succession is None:
        return {}
    files = {**staged.succession.roots, **staged.succession.files}
    return {"ceremony": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}}


def lives(done: Examined) -> dict[str, Any]:
    """Return which crates were deleted upstream, and which are back, for the log."""
    return {
        "deleted": {name: found.since for name, found in done.deletions.items() if found},
        "returned": [name for name, found in done.deletions.items() if not found],
    }


def links(changes: Changes) -> dict[str, str | None]:
    """Return the index paths whose links change: path -> sha256, or None to unlink."""
    index = ((path, t) for path, t in changes.items() if path.startswith(f"{INDEX}/"))
    return {path: target.sha256 if target else None for path, target in index}


def named_files(changes: Changes) -> Iterable[str]:
    """Return the files that changes name from now on, relative to the web root."""
    return [f for path, t in changes.items() if t for f in target_files(path, t.sha256)]


def target_files(path: str, sha256: str) -> tuple[str, str]:
    """Return a target's two files, plain and compressed, relative to the web root."""
    file = target_file(path, sha256)
    return file, f"{file}.gz"


def summary(changes: Changes) -> str:
    """Return the first names that changed, and how many more."""
    names = sorted({path.rpartition("/")[2] for path in changes})
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
