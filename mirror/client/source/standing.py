"""What the far side stands on: which mirror, how old, and what its user has to know about it."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

from mirror.core.names import CrateName
from mirror.core.times import parse_rfc3339, rfc3339
from mirror.errors import CratesealError, ProofError

_DAY_SECONDS = 86_400.0
_FIRST_USE = "first use"
"""`store.How.FIRST_USE`."""
_REMEMBERED_MAX = 10_000


@dataclass(frozen=True, slots=True)
class State:
    """What the signer says of itself in a timestamp (`x-crateseal`), an open map."""

    signed_at: float | None = None
    complete_as_of: float | None = None
    upstream_confirmed: float | None = None
    upstream: str | None = None
    mode: str | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """One look at a repository, as people and programs are told of it. Times are unix seconds."""

    mirror: str
    """The URL or folder whose metadata verified."""
    others: tuple[tuple[str, str], ...] = ()
    """The other mirrors that did not serve, with what was wrong (`behind: …`: nothing but age)."""
    root_sha256: str = ""
    """Of the root that the user trusts."""
    how: str = ""
    """How that trust began, as `store.How` has it."""
    root_version: int = 0
    timestamp_version: int = 0
    expires: float = 0.0
    """When the first of what every answer rests on expires."""
    signed_at: float | None = None
    complete_as_of: float | None = None
    """Set: what is not named is not there. None: it only was not asked for yet."""
    upstream_confirmed: float | None = None
    upstream: str | None = None
    mode: str | None = None
    is_trial: bool = False
    pins_trial: bool = False
    """Whether the trusted root was made for a first try, and a real one has followed."""
    away: str | None = None
    """Why this is what was remembered and not what a mirror says now; None: a mirror said it."""
    stale_until: float | None = None
    """Set: timestamp and snapshot HAVE expired, and the user accepts that until then."""
    max_upstream_age: float = 2 * _DAY_SECONDS

    def warnings(self, now: float) -> tuple[str, ...]:
        """Return what belongs into every output, a sentence each."""
        return tuple(
            filter(
                None,
                (
                    _first_use(self),
                    _trial(self),
                    _stale(self),
                    _away(self),
                    _upstream(self, now),
                    *(f"mirror {url}: {what}" for url, what in self.others),
                ),
            )
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that was asked for and not handed on."""

    subject: str
    error: CratesealError

    def fields(self) -> dict[str, str]:
        """Return it for JSON: the parts of a finding, or subject and reason."""
        return {"subject": self.subject} | parts_of(self.error)


def parts_of(error: CratesealError) -> dict[str, str]:
    """Return an error for JSON: the five parts of a finding, or a reason alone."""
    if isinstance(error, ProofError):
        return {
            "subject": error.subject,
            "where": error.where,
            "expected": error.expected,
            "got": error.got,
            "advice": error.advice,
        }
    return {"reason": str(error)}


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment in a `Tally`."""

    index_files: int = 0
    crates: int = 0
    events: int = 0


@dataclass(frozen=True, slots=True)
class Counts:
    """What was handed on and what was not, since some moment."""

    index_files: int = 0
    crates: int = 0
    unproved: tuple[CrateName, ...] = ()
    """Names told absent without proof."""
    refused: tuple[Refusal, ...] = ()


class Tally:
    """Counts what leaves a `Source`. Thread-safe; it remembers the last 10,000 of each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._index_files = 0
        self._crates = 0
        self._unproved: deque[tuple[int, CrateName]] = deque(maxlen=_REMEMBERED_MAX)
        self._refused: deque[tuple[int, Refusal]] = deque(maxlen=_REMEMBERED_MAX)
        self._events = 0

    def mark(self) -> Mark:
        """Return a moment to count from."""
        with self._lock:
            return Mark(self._index_files, self._crates, self._events)

    def since(self, mark: Mark | None = None) -> Counts:
        """Return what happened since that moment, or since the beginning; each name once."""
        mark = mark or Mark()
        with self._lock:
            unproved = dict.fromkeys(name for at, name in self._unproved if at > mark.events)
            refused = {
                (each.subject, str(each.error)): each
                for at, each in self._refused
                if at > mark.events
            }
            return Counts(
                self._index_files - mark.index_files,
                self._crates - mark.crates,
                tuple(unproved),
                tuple(refused.values()),
            )

    def index_file(self) -> None:
        """Count an index file that was handed on."""
        with self._lock:
            self._index_files += 1

    def crate(self) -> None:
        """Count a crate that was handed on."""
        with self._lock:
            self._crates += 1

    def unproved(self, name: CrateName) -> None:
        """Count a name that was told absent without proof."""
        with self._lock:
            self._events += 1
            self._unproved.append((self._events, name))

    def refused(self, subject: str, error: CratesealError) -> None:
        """Count something that was not handed on."""
        with self._lock:
            self._events += 1
            self._refused.append((self._events, Refusal(subject, error)))


def state_of(fields: object) -> State:
    """Read `x-crateseal` of a timestamp; what is not as we know it counts as not said."""
    said = fields if isinstance(fields, dict) else {}
    return State(
        _time(said.get("signed_at")),
        _time(said.get("complete_as_of")),
        _time(said.get("upstream_confirmed")),
        _text(said.get("upstream")),
        _text(said.get("mode")),
    )


def _time(value: Any) -> float | None:
    try:
        return parse_rfc3339(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _text(value: Any) -> str | None:
    return value[:200] if isinstance(value, str) and value.isprintable() else None


def _first_use(standing: Standing) -> str | None:
    if standing.how != _FIRST_USE:
        return None
    return (
        f"the root (sha256 {standing.root_sha256}) was trusted on first use: compare that with what"
        " the mirror's operator tells you, then `crateseal trust URL --root-sha256 HEX --replace`"
    )


def _trial(standing: Standing) -> str | None:
    if standing.is_trial:
        return (
            "This is a TRIAL root: all its keys lie on the mirror itself; `tuf-repo adopt` there"
            " ends that."
        )
    if standing.pins_trial:
        return (
            "The root you gave was made for a first try, and a real one has followed: ask the"
            " mirror's operator for its fingerprint, and give that from now on."
        )
    return None


def _away(standing: Standing) -> str | None:
    if standing.away is None:
        return None
    return (
        f"no mirror says what is newest ({standing.away}): what was remembered is used, until"
        f" {rfc3339(standing.expires)} at the latest"
    )


def _stale(standing: Standing) -> str | None:
    if standing.stale_until is None:
        return None
    return (
        "what the mirror says is newest has expired, and is accepted until"
        f" {rfc3339(standing.stale_until)} because you said --accept-stale-until"
    )


def _upstream(standing: Standing, now: float) -> str | None:
    confirmed = standing.upstream_confirmed
    if confirmed is None or now - confirmed <= standing.max_upstream_age:
        return None
    return (
        f"the mirror last heard from {standing.upstream or 'its upstream'} at"
        f" {rfc3339(confirmed)}: what is newer there is not here"
    )
