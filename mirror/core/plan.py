"""What to ask upstream for, given what is remembered of it: decisions only, no look is taken here.

Two askers differ. Somebody who *lacks* a file gets its bytes, whatever the cursor says: the cursor
may be older than a restored publication. Who merely *saw* a held file, or sweeps, may be answered
"unchanged".

What could not be had is asked for again by itself, after waits that grow; so is what upstream says
is gone, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from mirror.core.names import CrateName

UNREACHABLE_RETRY_SECONDS = 60.0
RETRY_FIRST_SECONDS = 30.0
RETRY_LONGEST_SECONDS = 3600.0
RETRY_FOR_SECONDS = 7 * 86400.0
"""What nobody follows, and somebody asked for once, is tried for so long."""
_NO_WAIT_IS_SO_LONG = 2 * 86400.0


class Known(StrEnum):
    """What the signer settled last about a name."""

    UNKNOWN = "unknown"
    PUBLISHED = "published"
    REFUSED = "refused"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Cursor:
    """What is remembered of one name upstream."""

    name: CrateName
    known: Known = Known.UNKNOWN
    sha256: str = ""
    """Digest of the last bytes that the signer settled."""
    etag: str = ""
    last_modified: str = ""
    looked_at: float = 0.0
    """Time of the last look that upstream answered; 0: never."""
    trouble: str = ""
    """Why it was refused, or why the last look failed."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """Ask upstream; `conditional`: with the cursor's validators."""

    conditional: bool


@dataclass(frozen=True, slots=True)
class Fresh:
    """No need to ask: looked at not long ago."""

    seconds: float
    """For how long this holds."""


@dataclass(frozen=True, slots=True)
class Outside:
    """Not in the names source: absent, and upstream is not asked."""


Step = Fetch | Fresh | Outside


def plan_lacking(
    cursor: Cursor | None, *, followed: bool, now: float, max_age: float, trusted_since: float
) -> Step:
    """Decide about a name whose index file somebody lacks.

    `trusted_since`: cursors older than this say what an earlier process saw published, which a
    restored backup may have undone; they do not stop a fetch.
    """
    if not followed:
        return Outside()
    if cursor is not None and cursor.looked_at >= trusted_since:
        left = seconds_left(cursor.looked_at, max_age, now=now)
        if left > 0 and cursor.known is not Known.UNKNOWN:
            return Fresh(left)
    return Fetch(conditional=False)


def plan_seen(cursor: Cursor | None, *, followed: bool, now: float, max_age: float) -> Step:
    """Decide about a held index file that somebody asked for."""
    if not followed:
        return Outside()
    left = 0.0 if cursor is None else seconds_left(cursor.looked_at, max_age, now=now)
    return Fresh(left) if left > 0 else plan_look(cursor)


def plan_look(cursor: Cursor | None) -> Fetch:
    """Decide how a sweep looks at a name.

    Bytes that were refused are offered again at each look: an operator may have accepted them.
    """
    return Fetch(conditional=cursor is not None and cursor.known is Known.PUBLISHED)


def is_news(cursor: Cursor | None, sha256: str) -> bool:
    """Whether bytes with this digest have to be offered to the signer."""
    return cursor is None or cursor.known is not Known.PUBLISHED or cursor.sha256 != sha256


def is_worth_reporting_gone(cursor: Cursor | None) -> bool:
    """Whether the signer has to hear that upstream has no such file."""
    return cursor is None or cursor.known is not Known.ABSENT


def seconds_left(since: float, seconds: float, *, now: float) -> float:
    """Return for how long something still holds that holds so many seconds from `since`.

    From a time that is yet to come nothing holds: the clock was set back, and it might never end.
    """
    return max(0.0, since + seconds - now) if since <= now else 0.0


def missing(names: Iterable[CrateName], looked_at: Iterable[CrateName]) -> Iterator[CrateName]:
    """Yield the names that were not looked at; both come in order, the second may hold others."""
    looked = iter(looked_at)
    at = next(looked, None)
    for name in names:
        while at is not None and at < name:
            at = next(looked, None)
        if at != name:
            yield name


def next_sweep(began: float, *, ended: float, every: float, unreachable: bool) -> float:
    """Return when the next sweep is due."""
    if unreachable:
        return ended + min(every, UNREACHABLE_RETRY_SECONDS)
    return max(began + every, ended)


class Trouble(StrEnum):
    """Why something is looked at again by itself."""

    FAILED = "failed"
    """Upstream gave no usable answer."""
    REFUSED = "refused"
    """The signer refused what upstream gave."""
    DOUBTED = "doubted"
    """Upstream says that it is gone; it stays published until a second look says so too."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Something that is looked at again by itself."""

    key: str
    """A name, or `name version` for a crate."""
    trouble: Trouble
    short: str
    """What it has in common with many others: `of 500`."""
    reason: str
    since: float
    tries: int
    due_at: float
    """Not before this, in seconds since 1970."""

    @property
    def is_missing(self) -> bool:
        """Whether something wanted is not there; what is doubted is."""
        return self.trouble is not Trouble.DOUBTED

    def is_due(self, now: float) -> bool:
        """Whether it is time; if the clock was set back, at once."""
        return self.due_at <= now or self.due_at > now + _NO_WAIT_IS_SO_LONG


def retry_wait(tries: int, first: float = RETRY_FIRST_SECONDS) -> float:
    """Return how long to wait after so many tries in vain: twice as long each time."""
    return min(first * 2.0 ** min(tries, 20), RETRY_LONGEST_SECONDS)
