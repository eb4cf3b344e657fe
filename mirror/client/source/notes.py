"""Signed notes on what an operator withholds; open maps: nothing of their shape is believed."""

from __future__ import annotations

import json

from mirror.client.fetch.fetcher import one_line


def reason_of(note: bytes, version: str | None = None) -> str | None:
    """Return why a crate, or one version of it, is withheld; None: the note is about others."""
    try:
        entries = json.loads(note)["entries"]
        about = [each for each in entries if version is None or version in (each["versions"] or ())]
        return "; ".join(one_line(f"{each['kind']}: {each['reason']}") for each in about) or None
    except (ValueError, LookupError, TypeError, RecursionError):
        return "no reason that can be read"
