"""What expires when, from when it is to be signed anew, and by whom.

The online roles renew themselves; an offline one needs a ceremony, and so a warning that comes
early. Times are seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tuf_repo.core.roles import BINS, ROOT, SNAPSHOT, TARGETS, TIMESTAMP, Policy
from tuf_repo.core.times import DAY


class By(StrEnum):
    """Who signs a role anew."""

    SIGNER = "signer"
    """The running signer, by itself."""
    CEREMONY = "ceremony"
    """People, with keys of their own."""


class Urgency(StrEnum):
    """How near to its end a role is."""

    FINE = "fine"
    DUE = "due"
    """Its window is open: it is to be signed anew."""
    LATE = "late"
    """It should have been, and there is little time left."""
    EXPIRED = "expired"
    """Clients refuse it."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """How long one role will do."""

    role: str
    expires: int
    renew_from: int
    """From then on it is to be signed anew; for the bins: by then it should have been."""
    by: By
    urgency: Urgency
    days_left: int
    """Whole days; 0 on the last one and after it."""

    @property
    def is_warning(self) -> bool:
        """Whether somebody should know: due is an ordinary state where the signer renews it."""
        if self.by is By.CEREMONY:
            return self.urgency is not Urgency.FINE
        return self.urgency in {Urgency.LATE, Urgency.EXPIRED}


def outlook(expires: Mapping[str, int], now: float, policy: Policy) -> tuple[Outlook, ...]:
    """Say of each role how long it will do; the first to expire comes first.

    `expires` is what `Publisher.expires` gives: the five roles, and `bins` for the first of them.
    """
    ordered = sorted(expires.items(), key=lambda item: (item[1], item[0]))
    return tuple(_outlook(role, end, now, policy) for role, end in ordered)


def _outlook(role: str, expires: int, now: float, policy: Policy) -> Outlook:
    ahead = _seconds_ahead(role, policy)
    if role in {TIMESTAMP, SNAPSHOT, BINS}:
        # A renewal that is missed for half of the time there is will not come by itself.
        by, late = By.SIGNER, ahead // 2
    else:
        by, late = By.CEREMONY, policy.offline_late_seconds
    return Outlook(
        role=role,
        expires=expires,
        renew_from=expires - ahead,
        by=by,
        urgency=_urgency(expires - now, ahead, late),
        days_left=max(0, int((expires - now) // DAY)),
    )


def _seconds_ahead(role: str, policy: Policy) -> int:
    """How long before its end a role is to be signed anew."""
    online = {
        TIMESTAMP: policy.timestamp_seconds - policy.timestamp_resign_seconds,
        SNAPSHOT: policy.snapshot_seconds - policy.snapshot_resign_seconds,
        # Each bin has its day of the round, none grows older than a round and a day.
        BINS: policy.bin_seconds - (policy.bin_round_days + 1) * DAY,
    }
    offline = {ROOT: policy.root_window_seconds, TARGETS: policy.targets_window_seconds}
    return {**online, **offline}.get(role, policy.delegation_window_seconds)


def _urgency(left: float, ahead: int, late: int) -> Urgency:
    if left <= 0:
        return Urgency.EXPIRED
    if left < late:
        return Urgency.LATE
    return Urgency.DUE if left <= ahead else Urgency.FINE
