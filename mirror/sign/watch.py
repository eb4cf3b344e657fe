"""Limits on what upstream may make us do at once: findings of a sweep, deletions of an hour.

Beyond them upstream is more likely broken, or taken, than right. What was published stays.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field

from mirror.core.batch import Sweeping
from mirror.core.names import CrateName

log = logging.getLogger(__name__)

_AT_LEAST = 10
"""So many never count as too many."""
_HOUR = 3600.0


@dataclass(slots=True)
class Watch:
    """What the sweep under way, and the last hour, came to."""

    percent: float
    stopped: str = ""
    """Why the sweep was stopped."""
    slowed: str = ""
    """Why deletions are not recorded as fast as upstream says so."""
    _began: float = 0.0
    _findings: set[CrateName] = field(default_factory=set)
    _deletions: deque[float] = field(default_factory=deque)

    def look_at(self, sweeping: Sweeping) -> None:
        """Take note of the sweep that a batch is part of."""
        if sweeping.began != self._began:
            self._began, self.stopped, self._findings = sweeping.began, "", set()

    def is_stopped(self, began: float) -> bool:
        """Whether this sweep was stopped."""
        return bool(self.stopped) and began == self._began

    def note_finding(self, name: CrateName, sweeping: Sweeping) -> None:
        """Count a file that turned into a finding; one too many stops the sweep."""
        self._findings.add(name)
        found = len(self._findings)
        if found > self._most(sweeping.names) and not self.stopped:
            some = ", ".join(sorted(self._findings)[:3])
            self.stopped = (
                f"sweep stopped: {found} of {sweeping.names:,} index files were refused"
                f" ({some}, …); if upstream is right, accept them or raise findings_percent"
            )
            log.error("%s", self.stopped)

    def may_delete(self, published: int, *, now: float) -> bool:
        """Count a deletion, unless too many of those published were recorded within the hour."""
        while self._deletions and not 0 <= now - self._deletions[0] < _HOUR:
            self._deletions.popleft()
        if len(self._deletions) < self._most(published):
            self._deletions.append(now)
            self.slowed = ""
            return True
        if not self.slowed:
            self.slowed = (
                f"upstream says that more than {len(self._deletions)} of {published:,} crates are"
                " gone: no more than that are withdrawn within an hour; look whether it is well"
            )
            log.error("%s", self.slowed)
        return False

    def _most(self, of: int) -> float:
        return max(_AT_LEAST, of * self.percent / 100)
