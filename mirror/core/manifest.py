"""Whose manifest a `Cargo.toml` is, as far as we can tell; where we cannot, cargo says it.

Cargo itself builds nothing whose manifest names another crate ("failed to find demo v1.0.0 in path
source"). We say it earlier and more clearly, and so may be lenient wherever our TOML reader is not
cargo's: what we let through here, cargo still refuses.
"""

from __future__ import annotations

import tomllib
from typing import Any

MANIFEST_MAX_BYTES = 1_000_000
"""Larger ones are not even read, but left to cargo."""
_LINE_MAX_DOTS = 200
"""tomllib's time goes by the square of a dotted key's parts; what has more is left to cargo."""


def manifest_owner(data: bytes) -> tuple[str, str] | None:
    """Return the name and version that a manifest gives, or None where cargo has to say it.

    What is missing is an empty text. The name is compared letter by letter by cargo, case and all,
    the version with its build metadata; space around the version does not count.
    """
    fields = _parse(data)
    if fields is None:
        return None
    # `[project]` is what 2014 called it; cargo reads it where there is no `[package]`.
    package = fields.get("package", fields.get("project"))
    if not isinstance(package, dict):
        return "", ""
    return _text(package, "name"), _text(package, "version").strip()


def _parse(data: bytes) -> dict[str, Any] | None:
    if any(line.count(b".") > _LINE_MAX_DOTS for line in data.split(b"\n")):
        return None
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError):
        return None


def _text(fields: dict[str, Any], key: str) -> str:
    value = fields.get(key)
    return value if isinstance(value, str) else ""
