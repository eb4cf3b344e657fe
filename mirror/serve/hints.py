"""The text of a 404: where the thing that was probably meant is."""

from __future__ import annotations

import re

from mirror.core.layout import CONFIG_JSON, crate_file, target_path
from mirror.core.names import CrateId, parse_name
from mirror.errors import RejectedError

# As crates.io's own API has it: /api/v1/crates/serde/1.0.200/download
_DOWNLOAD = re.compile(r"/(?:api/v1/)?crates/([^/]+)/([^/]+?)(?:/download|\.crate)?/?\Z")
_METADATA = re.compile(r"/(?:.*/)?((?:[1-9][0-9]*\.)?[a-z0-9-]+\.json)\Z")


def did_you_mean(path: str) -> str:
    """Return one line about a path that leads nowhere."""
    better = _better(path)
    if better is None or better == path:
        return "nothing here; the front page / says what this mirror has"
    return f"nothing here; did you mean {better}?"


def _better(path: str) -> str | None:
    if path in {"/index", "/index/"} or path.endswith("/config.json"):
        return f"/{CONFIG_JSON}"
    if "/crates/" in path:
        return _better_crate(path)
    if path.startswith("/api/"):
        return None
    found = _METADATA.match(path)
    if found:
        return f"/tuf/metadata/{found[1]}"
    try:
        return f"/{target_path(parse_name(path.rstrip('/').rpartition('/')[2]))}"
    except RejectedError:
        return None


def _better_crate(path: str) -> str | None:
    found = _DOWNLOAD.match(path)
    if not found:
        return None
    name, version = found.groups()
    try:
        return f"/{crate_file(CrateId(name, version.removeprefix(f'{name}-')))}"
    except RejectedError:
        return None
