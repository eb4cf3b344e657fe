"""How a mirror is, as one map: what the publication says, signed, and what the heartbeat adds.

Where both say something, the publication counts. The heartbeat, `www/status.json`, is not signed
and may be missing, so a field of it may be anything; each caller looks at those that it uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from mirror.core.expiry import expiries, warnings
from mirror.core.times import rfc3339

STATUS_FORMAT = 1
_SIGNED = ("mode", "upstream", "signed_at", "complete_as_of", "upstream_confirmed")


class Published(Protocol):
    """What counts here of a publication (store/publication.py)."""

    @property
    def timestamp_version(self) -> int:
        """Its number."""

    @property
    def root_version(self) -> int:
        """Of the newest root."""

    @property
    def trial(self) -> bool:
        """Whether the root says that it was made for a first try."""

    @property
    def state(self) -> Mapping[str, Any]:
        """The mirror's signed state."""

    @property
    def expires(self) -> Mapping[str, float]:
        """When each role's metadata expires, in seconds since 1970."""


def merge(
    published: Published, pin: tuple[str, str], heartbeat: Mapping[str, Any], now: float
) -> dict[str, Any]:
    """Return the fields that `www/status.json` has, brought up to date.

    `pin` is file and fingerprint of the root to pin, `heartbeat` empty where there is none. The
    warnings are made anew: a signer that fell silent warns of nothing.
    """
    signed = published.state
    held = {**_map(heartbeat.get("held")), **_map(signed.get("held"))}
    expires = {
        **_map(heartbeat.get("expires")),
        **{role: rfc3339(at) for role, at in published.expires.items()},
    }
    found = expiries(expires, _windows(heartbeat, expires), now)
    return {
        "format": STATUS_FORMAT,
        "at": heartbeat.get("at"),
        "timestamp": published.timestamp_version,
        **{key: signed.get(key) for key in _SIGNED},
        "public_url": heartbeat.get("public_url"),
        "trial": published.trial,
        "root_sha256": pin[1],
        "root_file": pin[0],
        "root_version": published.root_version,
        "held": {"index": held.get("index"), "crates": held.get("crates")},
        "expires": expires,
        "renew_from": {each.role: rfc3339(each.renew_from) for each in found},
        "warnings": warnings(found, now, trial=published.trial),
        "quarantined": heartbeat.get("quarantined", []),
        "denied": heartbeat.get("denied", []),
        "deleted": heartbeat.get("deleted", 0),
        "listed": heartbeat.get("listed"),
        "trouble": heartbeat.get("trouble"),
    }


def _windows(heartbeat: Mapping[str, Any], expires: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the signer's word on when to sign anew, for the roles it knew in their present state.

    A root that came after its last heartbeat has a window of its own.
    """
    known = _map(heartbeat.get("expires"))
    windows = _map(heartbeat.get("renew_from"))
    return {role: at for role, at in windows.items() if known.get(role) == expires.get(role)}


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
