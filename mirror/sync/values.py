"""The small values that the parts of `sync` hand to each other and to the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mirror.config import Config


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


ABSENT = Result(Kind.ABSENT)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a sweep has come."""

    looked: int
    names: int
    changed: int
    failed: int


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a whole look at upstream brought."""

    looked: int = 0
    """Names that upstream answered for."""
    changed: int = 0
    """Names whose bytes went to the signer."""
    absent: int = 0
    missing: Mapping[str, int] = field(default_factory=dict)
    """Reason -> how many names upstream gave no usable answer for."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Name -> why the signer refused it."""
    unreachable: bool = False
    """Upstream could not be contacted at the end."""

    @property
    def missing_count(self) -> int:
        """How many names are missing."""
        return sum(self.missing.values())

    def __str__(self) -> str:
        text = f"{self.looked:,} looked at, {self.changed:,} changed"
        if self.absent:
            text += f", {self.absent:,} absent upstream"
        if self.missing:
            reasons = sorted(self.missing.items(), key=lambda item: -item[1])
            listed = ", ".join(f"{count:,} {reason}" for reason, count in reasons[:5])
            text += f", {self.missing_count:,} missing ({listed}); they are tried again"
        if self.refused:
            text += f", {len(self.refused):,} refused"
        return text


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient `sync` is; tests make it less so. All in seconds."""

    down: float = 5.0
    """For so long nobody tries after a failed contact."""
    sweep_retries: tuple[float, ...] = (0.5, 2.0, 5.0)
    """Waits before the names that failed in a sweep are tried again."""
    signer_retry: float = 1.0
    offer: float = 120.0
    """A signer that is busy with a large publication is given so long to answer."""
    gather: float = 5.0
    """What one want asked for is published together if it arrives within this."""
    dependencies: float = 1.0
    """For so long a wanted name waits for its dependencies."""
    bulk_age: float = 30.0
    """What a sweep found is offered no later than this."""
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
