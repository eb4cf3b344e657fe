"""The roles' names, how long each lives, and how large a file of each may be.

All durations are whole seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from tuf_repo.core.times import DAY, HOUR

ROOT = "root"
TARGETS = "targets"
SNAPSHOT = "snapshot"
TIMESTAMP = "timestamp"
BINS = "bins"
"""All bins together, where they are spoken of as one role."""

SPEC_VERSION = "1.0.31"

X_ROLE = "x-role"
"""Extra signed field of every targets-type file: the role it was signed for."""
X_SIGNED_AT = "x-signed-at"
"""Extra signed field of the timestamp: when it was signed. A new start counts on from there."""

# What python-tuf's `UpdaterConfig` reads at most where the referring metadata gives no length.
STOCK_MAX_BYTES = {ROOT: 512_000, TIMESTAMP: 16_384, TARGETS: 5_000_000}
FILE_MAX_BYTES = 16_000_000


@dataclass(frozen=True, slots=True)
class Policy:
    """How long signatures live and when they are renewed.

    The offline roles do not say when they were signed, so their windows are counted from the end.
    """

    root_seconds: int = 180 * DAY
    root_window_seconds: int = 90 * DAY
    """So long before its end a root is to be signed anew."""
    targets_seconds: int = 365 * DAY
    targets_window_seconds: int = 90 * DAY
    delegation_seconds: int = 365 * DAY
    delegation_window_seconds: int = 90 * DAY
    offline_late_seconds: int = 30 * DAY
    """An offline role with less than this is late: people have to meet for a ceremony."""
    bin_seconds: int = 60 * DAY
    bin_round_days: int = 30
    """Every bin is signed anew once in so many days, an equal share of them each day."""
    bin_min_age_seconds: int = DAY
    """A bin younger than this is not renewed when its day comes, but a round later."""
    snapshot_seconds: int = 7 * DAY
    snapshot_resign_seconds: int = 3 * DAY
    timestamp_seconds: int = DAY
    timestamp_resign_seconds: int = HOUR
    clock_patience_seconds: float = 60.0
    """So long we wait for a clock that stands before the last signature."""
    block: int = 1_000_000
    """So many numbers are reserved at a time."""
    bins_kept: int = 64
    """So many parsed bins stay in memory."""
