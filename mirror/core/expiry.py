"""What expires when, from when it is to be signed anew, and how to say so in time.

The signer knows its own windows (tuf_repo/core/expiry.py). Who may not import it, or has no
heartbeat to read, knows them from here; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mirror.core.layout import DELEGATION
from mirror.core.times import parse_rfc3339, rfc3339

DAY = 86_400
HOUR = 3_600

SIGNER, CEREMONY = "signer", "ceremony"
FINE, DUE, LATE, EXPIRED = "fine", "due", "late", "expired"

RUNBOOK = "deploy/keys.md"


@dataclass(frozen=True, slots=True)
class _Window:
    """Both in seconds before the end."""

    ahead: int
    """From then on it is to be signed anew."""
    late: int
    """From then on there is little time left."""
    by: str = CEREMONY


_WINDOWS = {
    "root": _Window(90 * DAY, 30 * DAY),
    "targets": _Window(90 * DAY, 30 * DAY),
    DELEGATION: _Window(90 * DAY, 30 * DAY),
    "bins": _Window(29 * DAY, 29 * DAY // 2, SIGNER),
    "snapshot": _Window(4 * DAY, 2 * DAY, SIGNER),
    "timestamp": _Window(23 * HOUR, 23 * HOUR // 2, SIGNER),
}


@dataclass(frozen=True, slots=True)
class Expiry:
    """How long one role will do, seen at one moment. Times are seconds since 1970."""

    role: str
    expires: float
    renew_from: float
    by: str
    """`signer`: renewed by itself; `ceremony`: by people."""
    state: str
    """`fine`, `due`, `late` or `expired`."""

    @property
    def is_warning(self) -> bool:
        """Whether somebody should know. An online role that is due is about to be renewed."""
        return self.state in ({LATE, EXPIRED} if self.by == SIGNER else {DUE, LATE, EXPIRED})

    @property
    def is_finding(self) -> bool:
        """Whether somebody has to act: `crateseal status` ends with 1."""
        return self.state == EXPIRED or (self.state == LATE and self.by == CEREMONY)


def expiries(expires: Mapping[str, Any], renew_from: Mapping[str, Any], now: float) -> list[Expiry]:
    """Say of each known role how long it will do; the first to expire comes first.

    Args:
        expires: role -> time as text; what is no role of ours, or no time, is left out.
        renew_from: the signer's own word, likewise; where it gives none, or none that can be, our
            own windows count.
        now: seconds since 1970.
    """
    ends = {role: _seconds(expires.get(role)) for role in _WINDOWS}
    return sorted(
        (
            _expiry(role, end, _seconds(renew_from.get(role)), now)
            for role, end in ends.items()
            if end is not None
        ),
        key=lambda each: each.expires,
    )


def _expiry(role: str, expires: float, renew_from: float | None, now: float) -> Expiry:
    window = _WINDOWS[role]
    if renew_from is None or renew_from >= expires:
        renew_from = expires - window.ahead
    if now >= expires:
        state = EXPIRED
    elif expires - now < window.late:  # whatever the heartbeat says: it cannot silence this
        state = LATE
    else:
        state = DUE if now >= renew_from else FINE
    return Expiry(role, expires, renew_from, window.by, state)


def _seconds(text: object) -> float | None:
    try:
        return parse_rfc3339(text) if isinstance(text, str) else None
    except ValueError:
        return None


def warnings(found: Iterable[Expiry], now: float, *, trial: bool) -> list[dict[str, Any]]:
    """Return what somebody should know, as `status --json` and the API have it. Public."""
    return [
        {
            "role": each.role,
            "by": each.by,
            "state": each.state,
            "days_left": max(0, int((each.expires - now) // DAY)),
            "text": warning_text(each, now),
            "advice": advice([each.role], trial=trial) if each.by == CEREMONY else [],
        }
        for each in found
        if each.is_warning
    ]


def warning_text(each: Expiry, now: float) -> str:
    """Return one line: what expires in how many days, and what is to be done."""
    is_offline = each.by == CEREMONY
    what = "a bin" if each.role == "bins" else each.role
    date = f" ({rfc3339(each.expires)[:10]})" if is_offline else ""
    if each.state == EXPIRED:
        told = f"{what} expired {in_words(now - each.expires)} ago{date}"
        todo = "sign it anew" if is_offline else "is a signer running?"
        return f"{told}, clients stop{' there' if each.role == 'bins' else ''}: {todo}"
    told = f"{what} expires in {in_words(each.expires - now)}{date}"
    if is_offline:
        return f"{told}: sign it anew{' now' if each.state == LATE else ''}"
    return f"{told}, not renewed: is a signer running?"


def advice(roles: Sequence[str], *, trial: bool, data: str = "DIR") -> list[str]:
    """Return what signs these offline roles anew, line by line; `data` is the mirror's folder."""
    resign = f"tuf-repo resign {' '.join(roles)} --data {data} --out DRAFT"
    how = f"step by step: {RUNBOOK}"
    if not trial:
        return [f"begin with: {resign}", how]
    # Nobody renews a trial: who has come to rely on it should have keys worth that.
    return [
        f"make this trial real: tuf-repo adopt --data {data} …",
        f"or prolong it: {resign}",
        how,
    ]


def in_words(seconds: float) -> str:
    """Return a duration in days; in hours or minutes where it is short."""
    for size, unit in ((DAY, "day"), (HOUR, "hour")):
        count = int(seconds // size)
        # The last two days are counted in hours: "1 day" may be 47 of them.
        if count > (1 if size == DAY else 0):
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return f"{max(0, int(seconds // 60))} min"
