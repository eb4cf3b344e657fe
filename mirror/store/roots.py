"""Which root people pin. Standard library only: the parent of `up` reads it, too."""

from __future__ import annotations

import json
from pathlib import Path

from mirror.core.layout import METADATA_DIR, STATE_FIELD


def root_to_pin(www: Path) -> tuple[str, bytes]:
    """Return file name and bytes of the root whose fingerprint people compare.

    The oldest of the chain, so that it stays the same for years; but not one made for a first try
    where a ceremony has followed.

    Raises:
        OSError: there is none, or it cannot be read.
        ValueError: it is no JSON.
    """
    folder, version = www / METADATA_DIR, 1
    first = (folder / "1.root.json").read_bytes()
    data = first
    while is_trial(data):
        version += 1
        try:
            data = (folder / f"{version}.root.json").read_bytes()
        except FileNotFoundError:
            return "1.root.json", first
    return f"{version}.root.json", data


def is_trial(root: bytes) -> bool:
    """Whether a root says of itself that it was made for a first try.

    Raises:
        ValueError: it is no JSON.
    """
    fields = json.loads(root)
    signed = fields.get("signed") if isinstance(fields, dict) else None
    state = signed.get(STATE_FIELD) if isinstance(signed, dict) else None
    return isinstance(state, dict) and state.get("trial") is True
