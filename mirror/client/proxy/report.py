"""What a proxy tells about itself to those it runs for: one JSON object, format 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mirror.errors import CratesealError

if TYPE_CHECKING:
    from mirror.client.source.source import Source
    from mirror.client.source.standing import Mark

FORMAT = 1


def report_since(source: Source, mark: Mark, clock: Callable[[], float]) -> dict[str, Any]:
    """Return what was handed on and what was refused since `mark`, and what it stands on."""
    counts = source.tally.since(mark)
    said: dict[str, Any] = {
        "format": FORMAT,
        "mirror": None,
        "others": [],
        "timestamp": None,
        "root_sha256": None,
        "warnings": [],
        "index_files": counts.index_files,
        "crates": counts.crates,
        "unproved": list(counts.unproved),
        "refused": [refusal.fields() for refusal in counts.refused],
    }
    try:
        standing = source.standing()
    except CratesealError as error:
        # There was no good look at all; what that meant for cargo stands among the refusals.
        return said | {"warnings": [str(error)]}
    return said | {
        "mirror": standing.mirror,
        "others": [list(other) for other in standing.others],
        "timestamp": standing.timestamp_version,
        "root_sha256": standing.root_sha256,
        "warnings": list(standing.warnings(clock())),
    }
