"""How this mirror is: core/status.py over what lies in the web root, and whether it is ready.

The heartbeat is taken as it is: no shape of it keeps the server from answering.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mirror.core.layout import STATUS_JSON
from mirror.core.names import CrateName
from mirror.core.status import merge
from mirror.core.times import rfc3339
from mirror.errors import PublicationError
from mirror.serve.notes import Entry, parse_entry
from mirror.serve.site import Site
from mirror.store.publication import Publication, root_fingerprint

_ONLINE = ("snapshot", "timestamp")


def status_of(site: Site, public_url: str, now: float) -> dict[str, Any]:
    """Return the fields of `www/status.json`, brought up to date, and `ready`.

    Raises:
        PublicationError: nothing is published, or it cannot be read.
    """
    publication = site.current()
    fields = merge(publication, root_fingerprint(site.www), _heartbeat(site), now)
    reason = why_not_ready(publication, now)
    return {
        **fields,
        "public_url": public_url,
        "quarantined": _entries(fields["quarantined"], kind="quarantine", first_sight=False),
        "denied": _entries(fields["denied"], version=None),
        "ready": reason is None,
        "not_ready": reason,
    }


def findings_on(site: Site, name: CrateName) -> list[Entry]:
    """Return what the heartbeat says is quarantined or held of a whole crate."""
    items = _entries(_heartbeat(site).get("quarantined"), kind="quarantine")
    return [parse_entry(item) for item in items if item["name"] == name]


def why_not_ready(publication: Publication, now: float) -> str | None:
    """Return why clients would refuse this publication, or None: they would not.

    What is near its end is a warning (core/expiry.py), and no reason to take a server out.
    """
    for role, expires in publication.expires.items():
        if expires <= now:
            todo = "is the signer running?" if role in _ONLINE else "it must be signed anew"
            return f"the {role} metadata expired at {rfc3339(expires)}; {todo}"
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
        fields = json.loads(site.files.read(STATUS_JSON) or b"{}")
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _entries(value: object, **expected: object) -> list[Mapping[str, Any]]:
    """Return what is withheld, each with at least a name, a rule, a reason and a time."""
    expected |= {"name": "?", "rule": "?", "reason": "no reason given", "since": None}
    items = value if isinstance(value, list) else []
    return [{**expected, **item} for item in items if isinstance(item, dict)]
