"""How this mirror is: what the publication says, signed, and what the signer's heartbeat adds.

`www/status.json` is taken as it is; where both say something, the publication counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from mirror.core.layout import STATUS_JSON
from mirror.errors import PublicationError
from mirror.serve.site import Site
from mirror.store.publication import Publication, root_fingerprint

_EMPTY: Mapping[str, Any] = {
    "format": 1,
    "at": None,
    "trouble": None,
}
_SIGNED = ("mode", "upstream", "signed_at", "complete_as_of", "upstream_confirmed")


def status_of(site: Site, public_url: str, now: float) -> dict[str, Any]:
    """Return the fields of `www/status.json`, brought up to date, and `ready`.

    Raises:
        PublicationError: nothing is published, or it cannot be read.
    """
    publication = site.current()
    beat = _heartbeat(site)
    signed = publication.state
    held = {**_map(signed.get("held")), **_map(beat.get("held"))}
    reason = why_not_ready(publication, now)
    return {
        **_EMPTY,
        **beat,
        **{key: signed.get(key) for key in _SIGNED},
        "timestamp": publication.timestamp_version,
        "public_url": public_url,
        "trial": publication.trial,
        "root_sha256": root_fingerprint(site.www),
        "root_version": publication.root_version,
        "quarantined": _entries(beat.get("quarantined")),
        "denied": _entries(beat.get("denied")),
        "held": {"index": held.get("index"), "crates": held.get("crates")},
        "expires": {**_map(beat.get("expires")), **_expiries(publication)},
        "ready": reason is None,
        "not_ready": reason,
    }


def why_not_ready(publication: Publication, now: float) -> str | None:
    """Return why clients would refuse this publication, or None: they would not."""
    for role, expires in publication.expires.items():
        if expires.timestamp() <= now:
            return f"the {role} metadata expired at {_text(expires)}; is the signer running?"
    return None


def readiness(site: Site, now: float) -> str | None:
    """Return why this server cannot serve fresh metadata, or None: it can."""
    try:
        return why_not_ready(site.current(), now)
    except PublicationError as error:
        # The path of a file on this machine is nobody's business.
        return f"no publication can be read: expected {error.expected}"


def _heartbeat(site: Site) -> Mapping[str, Any]:
    try:
        return _map(json.loads(site.files.read(STATUS_JSON) or b"{}"))
    except (ValueError, RecursionError):
        return {}


def _entries(value: object) -> list[Mapping[str, Any]]:
    """Return what is refused, each with at least a name, a rule, a reason and a time."""
    expected = {"name": "?", "rule": "?", "reason": "no reason given", "since": None}
    items = value if isinstance(value, list) else []
    return [{**expected, "first_sight": False, **item} for item in items if isinstance(item, dict)]


def _expiries(publication: Publication) -> dict[str, str]:
    return {role: _text(at) for role, at in publication.expires.items()}


def _text(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
