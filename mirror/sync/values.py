"""The small values that the parts of `sync` hand to each other and to the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mirror.config import Config
from mirror.core.names import CrateId

ABSENT_UPSTREAM = "absent upstream"
LACK_SECONDS = 15.0
"""For so long a crate that upstream should have, and has not, is not asked for again."""
GROUPS_MAX = 6
"""So many kinds of trouble fit in one line."""


class Kind(StrEnum):
    """How the fetch of one name or crate ended."""

    PUBLISHED = "published"
    UNCHANGED = "unchanged"
    ABSENT = "absent"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Result:
    """The end of one fetch, as its waiters hear it."""

    kind: Kind
    reason: str = ""
    """For REFUSED and FAILED."""
    timestamp: int = 0
    """Version of the timestamp that was current when the signer settled it."""
    short: str = ""
    """For FAILED: what it has in common with many others, as in `UpstreamError`."""
    unreachable: bool = False
    """Upstream as a whole was away: it says nothing about this one."""
    denied: bool = False
    """For REFUSED: the operator denies it, so it is not missing."""
    holds_seconds: float = 0.0
    """For FAILED: for so long it is answered without asking again."""


ABSENT = Result(Kind.ABSENT)
LISTED_ABSENT = Result(
    Kind.FAILED, ABSENT_UPSTREAM, short=ABSENT_UPSTREAM, holds_seconds=LACK_SECONDS
)
INDEX_NAMES_IT = Result(
    Kind.FAILED,
    "upstream lacks the crate that its index names",
    short=ABSENT_UPSTREAM,
    holds_seconds=LACK_SECONDS,
)
NOT_READ = Result(Kind.FAILED, "the names source is not read yet", short="before the first names")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a sweep has come."""

    looked: int
    names: int
    changed: int
    failed: int
    stored: int = 0
    crates: int = 0
    """How many crates are to be fetched."""


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a whole look at upstream brought."""

    looked: int = 0
    """Names that upstream answered for."""
    changed: int = 0
    """Names whose bytes went to the signer."""
    absent: int = 0
    stored: int = 0
    """Crates: in mode list those of the lists that are held now, else those fetched at last."""
    missing: Mapping[str, int] = field(default_factory=dict)
    """What they have in common -> how many names and crates are wanted and not there."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Name, or `name version` -> why it is missing."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Name, or `name version` -> why the signer refused it."""
    unreachable: bool = False
    """Upstream could not be contacted at the end."""
    stopped: str = ""
    """Why the signer ended the sweep before its end."""
    is_list: bool = False

    @property
    def missing_count(self) -> int:
        """How many names and crates are missing."""
        return sum(self.missing.values())

    def __str__(self) -> str:
        if self.is_list:
            text = f"{self.stored:,} stored"
        else:
            text = f"{self.looked:,} looked at, {self.changed:,} changed"
            if self.absent:
                text += f", {self.absent:,} absent upstream"
            if self.stored:
                text += f", {self.stored:,} stored"
        # What is missing is counted there: a crate and its index file are one.
        told = {_name_of(key) for key in self.reasons}
        refused = sum(" " not in key and key not in told for key in self.refused)
        if refused:
            text += f", {refused:,} refused"
        if self.missing:
            text += f", {in_groups(self.missing)}; will retry"
        if self.stopped:
            text += f"; stopped: {self.stopped}"
        return text


def without_subject(key: str, reason: str) -> str:
    """Return a reason that stands behind its subject, without naming that once more."""
    prefixes = [
        f"{kind}{subject}: "
        for subject in {key, _name_of(key)}
        for kind in ("", "crate ", "crate file of ", "index file ")
    ]
    while prefix := next((prefix for prefix in prefixes if reason.startswith(prefix)), ""):
        reason = reason.removeprefix(prefix)
    return reason


def _name_of(key: str) -> str:
    name, _, version = key.partition(" ")
    return CrateId(name, version).canonical_name if version else name


def in_groups(missing: Mapping[str, int]) -> str:
    """Say how much is missing, and why: `15 missing: 7 of 500, 8 wrong sha256`."""
    largest = sorted(missing.items(), key=lambda item: -item[1])[:GROUPS_MAX]
    groups = [f"{count:,} {short}" for short, count in sorted(largest)]
    rest = sum(missing.values()) - sum(count for _, count in largest)
    if rest:
        groups.append(f"{rest:,} for other reasons")
    return f"{sum(missing.values()):,} missing: {', '.join(groups)}"


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient `sync` is; tests make it less so. All in seconds."""

    down: float = 5.0
    """For so long nobody tries after a failed contact."""
    sweep_retries: tuple[float, ...] = (0.5, 2.0, 5.0)
    """Waits before what failed in a sweep is tried again."""
    lost_retries: tuple[float, ...] = (0.5, 1.0)
    """The same where upstream could not be reached at all: somebody waits for the word."""
    retry_first: float = 30.0
    """After so long what is wanted and missing is tried again, then after twice as long."""
    tick: float = 10.0
    """So often it is looked whether something is due."""
    watch: float = 1.0
    """So often it is looked whether the operator's lists or decisions changed."""
    lookout: float = 60.0
    """So often it is looked whether what our public URL serves is ours."""
    signer_retry: float = 1.0
    signer_grace: float = 3.0
    """A signer that does not answer for so long is worth a line: it may just be starting."""
    offer: float = 120.0
    """A signer that is busy with a large publication is given so long to answer."""
    gather: float = 5.0
    """What one want asked for is published together if it arrives within this."""
    dependencies: float = 1.0
    """For so long a wanted name waits for its dependencies."""
    bulk_age: float = 30.0
    """What a sweep found is offered no later than this."""
    bulk_quiet: float = 0.05
    """And where nothing more was found for so long, and what is left hangs."""
    published_crate: float = 10.0
    """Who asks late for a crate that was just published is not sent upstream again."""
    confirm_every: float = 3600.0
    """An empty batch says so often that upstream was looked at."""
    names_retry: float = 60.0
    """Until the names source is read again after a failure."""
    report_every: float = 0.3


@dataclass(frozen=True, slots=True)
class Life:
    """What every part of one process is handed."""

    config: Config
    clock: Callable[[], float]
    pace: Pace
