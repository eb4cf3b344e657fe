"""The two small unsigned files of the web root: the signer's heartbeat, and cargo's config.json.

Rule: both are public; no path of this machine and no secret goes in.
"""

from __future__ import annotations

import hashlib
import json

from mirror.core.layout import METADATA_DIR, config_json
from mirror.core.times import rfc3339
from mirror.sign.signer import Parts
from mirror.sign.state import EXTRA
from mirror.store.ledger import Quarantined


def put_config(parts: Parts) -> None:
    """Write cargo's config.json, for static servers that serve the web root."""
    parts.www.put_config(config_json(parts.config.url))


def put_heartbeat(parts: Parts, *, trouble: str | None, now: float) -> None:
    """Write status.json."""
    publisher, config = parts.publisher, parts.config
    root = (config.www / METADATA_DIR / "1.root.json").read_bytes()
    state = publisher.extra.get(EXTRA, {})
    status = {
        "format": 1,
        "at": rfc3339(now),
        "timestamp": publisher.timestamp_version,
        "mode": config.mode,
        "upstream": config.upstream,
        "public_url": config.url,
        "trial": publisher.root_extra.get(EXTRA, {}).get("trial") is True,
        "root_sha256": hashlib.sha256(root).hexdigest(),
        "root_version": publisher.root_version,
        "complete_as_of": state.get("complete_as_of"),
        "upstream_confirmed": state.get("upstream_confirmed"),
        "held": {
            "index": state.get("held", {}).get("index", 0),
            "crates": parts.ledger.crate_count(),
        },
        "expires": {role: rfc3339(at) for role, at in sorted(publisher.expires.items())},
        "quarantined": [_shown(item) for item in parts.ledger.quarantined()],
        "denied": [],
        "trouble": trouble,
    }
    parts.www.put_status(json.dumps(status, indent=1).encode() + b"\n")


def _shown(item: Quarantined) -> dict[str, object]:
    return {
        "name": item.subject,
        "since": rfc3339(item.since),
        "rule": item.rule,
        "reason": item.reason,
        "first_sight": item.first_sight,
    }
