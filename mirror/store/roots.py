"""Which root people pin. Standard library only: the parent of `up` reads it, too."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from mirror.core.layout import METADATA_DIR, STATE_FIELD


def root_to_pin(www: Path) -> tuple[str, bytes]:
    """Return file name and bytes of the root whose fingerprint people compare.

    Raises:
        OSError: there is none, or it cannot be read.
        ValueError: it is no JSON.
    """
    version, data = to_pin(_roots(www / METADATA_DIR))
    return f"{version}.root.json", data


def to_pin(chain: Iterable[bytes]) -> tuple[int, bytes]:
    """Return version and bytes of the one to pin of a chain of roots, which begins with version 1.

    The oldest of the chain, so that it stays the same for years; but not one made for a first try
    where a ceremony has followed. No more of the chain is read than that takes.

    Raises:
        ValueError: one is no JSON, or there is none.
    """
    first: bytes | None = None
    for version, data in enumerate(chain, 1):
        if not is_trial(data):
            return version, data
        first = first or data
    if first is None:
        raise ValueError("no root")
    return 1, first


def is_trial(root: bytes) -> bool:
    """Whether a root says of itself that it was made for a first try.

    Raises:
        ValueError: it is no JSON.
    """
    fields = json.loads(root)
    signed = fields.get("signed") if isinstance(fields, dict) else None
    state = signed.get(STATE_FIELD) if isinstance(signed, dict) else None
    return isinstance(state, dict) and state.get("trial") is True


def _roots(folder: Path) -> Iterator[bytes]:
    yield (folder / "1.root.json").read_bytes()
    version = 2
    while True:
        try:
            yield (folder / f"{version}.root.json").read_bytes()
        except FileNotFoundError:
            return
        version += 1
