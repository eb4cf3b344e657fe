"""What is trusted, told to people and to programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TextIO

from mirror.client.trust.memory import version_of
from mirror.client.trust.store import How, Trust
from mirror.store.roots import is_trial

_WHY = {
    How.FILE: "a file that you gave",
    How.FINGERPRINT: "a fingerprint that you gave",
    How.FIRST_USE: "first use: nobody vouched for it; compare the fingerprint with its operator",
}


def tell_trusts(
    trusts: Sequence[Trust], out: TextIO, *, as_json: bool, warnings: Sequence[str] = ()
) -> None:
    """Print each trust: mirrors, fingerprint, why it is believed, newest root and its expiry."""
    told = [_fields(trust) for trust in trusts]
    if as_json:
        fields = {"format": 1, "trusted": told, "warnings": list(warnings)}
        out.write(json.dumps(fields, indent=2) + "\n")
        return
    if not told:
        out.write("no mirror is trusted yet; `crateseal trust --help` says how to begin\n")
    for trust, fields in zip(trusts, told, strict=True):
        out.write("\n".join(trust.mirrors) + "\n")
        out.write(f"  fingerprint  {fields['fingerprint']}\n")
        out.write(f"  trusted by   {_WHY[trust.how]}\n")
        newest = f"version {fields['root_version']}, expires {fields['root_expires']}"
        trial = ", made for a first try" if fields["is_trial"] else ""
        out.write(f"  newest root  {newest}{trial}\n")
    out.writelines(f"warning: {warning}\n" for warning in warnings)


def _fields(trust: Trust) -> dict[str, Any]:
    root = trust.memory.load().root
    return {
        "root_id": trust.root_id,
        "fingerprint": trust.initial.sha256,
        "how": str(trust.how),
        "mirrors": list(trust.mirrors),
        "root_version": version_of(root),
        "root_expires": _expires(root),
        "is_trial": is_trial(root),
    }


def _expires(root: bytes) -> str:
    return str(json.loads(root)["signed"].get("expires"))
