"""The two small unsigned files of the web root: the signer's heartbeat, and cargo's config.json.

Rule: both are public; no path of this machine and no secret goes in.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

from mirror.core.expiry import warnings
from mirror.core.layout import STATUS_JSON, config_json
from mirror.core.names import CrateName
from mirror.core.policy import Withheld
from mirror.core.times import parse_rfc3339, rfc3339
from mirror.sign.expiry_watch import expiries_of, is_trial
from mirror.sign.parts import Parts
from mirror.sign.rules import Rules
from mirror.sign.state import EXTRA
from mirror.store.ledger import Quarantined
from mirror.store.roots import root_to_pin

_FOLDERS = re.compile(r"(?<![:/\w])(?:/[^\s/:'\"]+)+/")
"""What leads to a file on this machine, without the file's name."""


@dataclass(frozen=True, slots=True)
class Beat:
    """When a signer was last at work, and what it was told of this mirror's address."""

    at: float
    public_url: str


def last_beat(parts: Parts) -> Beat:
    """Return what the last signer wrote; where that cannot be read, the time of its signature."""
    try:
        fields = json.loads((parts.config.www / STATUS_JSON).read_bytes())
        return Beat(parse_rfc3339(fields["at"]), str(fields["public_url"]))
    except (OSError, ValueError, LookupError, TypeError):
        signed_at = parts.publisher.extra.get(EXTRA, {}).get("signed_at", rfc3339(0))
        return Beat(parse_rfc3339(signed_at), parts.config.url)


def put_config(parts: Parts) -> None:
    """Write cargo's config.json, for static servers that serve the web root."""
    parts.www.put_config(config_json(parts.config.url))


def put_heartbeat(parts: Parts, rules: Rules, *, trouble: str | None, beat: Beat) -> None:
    """Write status.json."""
    publisher, config = parts.publisher, parts.config
    _, root = root_to_pin(config.www)
    state = publisher.extra.get(EXTRA, {})
    status = {
        "format": 1,
        "at": rfc3339(beat.at),
        "timestamp": publisher.timestamp_version,
        "mode": config.mode,
        "upstream": config.upstream,
        "public_url": beat.public_url,
        "trial": is_trial(parts),
        "root_sha256": hashlib.sha256(root).hexdigest(),
        "root_version": publisher.root_version,
        "complete_as_of": state.get("complete_as_of"),
        "upstream_confirmed": state.get("upstream_confirmed"),
        "held": {
            "index": state.get("held", {}).get("index", 0),
            "crates": parts.ledger.crate_count(),
        },
        **_expiry_fields(parts, beat.at),
        "listed": None if rules.listed is None else sum(map(len, rules.listed.values())),
        "quarantined": [_shown(item) for item in parts.ledger.quarantined()],
        "denied": [
            _denied(name, denial) for name, each in sorted(rules.denials.items()) for denial in each
        ],
        "deleted": parts.ledger.memory.deletion_count(),
        "trouble": None if trouble is None else _FOLDERS.sub("", trouble),
    }
    parts.www.put_status(json.dumps(status, indent=1).encode() + b"\n")


def _expiry_fields(parts: Parts, at: float) -> dict[str, object]:
    found = expiries_of(parts, at)
    return {
        "expires": {each.role: rfc3339(each.expires) for each in found},
        "renew_from": {each.role: rfc3339(each.renew_from) for each in found},
        "warnings": warnings(found, at, trial=is_trial(parts)),
    }


def _shown(item: Quarantined) -> dict[str, object]:
    return {
        "name": item.subject,
        "since": rfc3339(item.since),
        "rule": item.rule,
        "reason": item.reason,
        "first_sight": item.first_sight,
        "kind": item.kind,
        "sha256": item.sha256,
    }


def _denied(name: CrateName, denial: Withheld) -> dict[str, object]:
    return {
        "name": name,
        "version": denial.version,
        "since": rfc3339(denial.since),
        "rule": denial.rule,
        "reason": denial.reason,
    }
