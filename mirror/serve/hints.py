"""The text of a 404: where the thing that was probably meant is."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from mirror.core.layout import CONFIG_JSON, METADATA_DIR, crate_file, target_path
from mirror.core.names import CrateId, parse_name
from mirror.errors import RejectedError

_NOTHING = "nothing here"
# As crates.io's own API has it: /api/v1/crates/serde/1.0.200/download
_DOWNLOAD = re.compile(r"/(?:api/v1/)?crates/([^/]+)/([^/]+?)(?:/download|\.crate)?/?\Z")
_METADATA = re.compile(
    r"/(?:.*/)?(timestamp\.json|[1-9][0-9]*\.(?:root|snapshot|targets|crates[a-f0-9-]*)\.json)\Z"
)
_INDEX = re.compile(r"/(?:index/(?:.*/)?|(?:1|2|3/[^/]|[^/]{2}/[^/]{2})/)([^/]+)/?\Z")


class Advice:
    """What to say of a path that leads nowhere, on a mirror of this URL.

    Behind a reverse proxy with a sub-path, clients see other paths than this server does.
    """

    def __init__(self, public_url: str) -> None:
        self._above = urlsplit(public_url).path.rstrip("/")

    def address(self, path: str) -> str:
        """Return the path that clients see for one of ours, which has no `/` in front."""
        return f"{self._above}/{path}"

    def on(self, path: str) -> str:
        """Return one line about a path that leads nowhere."""
        if self._above and path.startswith(f"{self._above}/"):
            return f"{_NOTHING}; the reverse proxy in front must strip {self._above} from the path"
        better = _better(path)
        if better is None or f"/{better}" == path:
            return f"{_NOTHING}; the front page {self.address('')} says what this mirror has"
        return f"{_NOTHING}; did you mean {self.address(better)}?"


def _better(path: str) -> str | None:
    if path in {"/index", "/index/"} or path.endswith("/config.json"):
        return CONFIG_JSON
    if "/crates/" in path:
        return _better_crate(path)
    metadata = _METADATA.match(path)
    if metadata:
        return f"{METADATA_DIR}/{metadata[1]}"
    index = _INDEX.match(path)
    try:
        return target_path(parse_name(index[1])) if index else None
    except RejectedError:
        return None


def _better_crate(path: str) -> str | None:
    found = _DOWNLOAD.match(path)
    if not found:
        return None
    name, version = found.groups()
    try:
        return crate_file(CrateId(name, version.removeprefix(f"{name}-")))
    except RejectedError:
        return None
