"""Every target path, URL path and file name that is ours, made and taken apart in one place.

All paths are relative, with `/`, and built from checked names only, so none can leave its root.
"""

from __future__ import annotations

import json
import re

from mirror.core.names import CrateId, CrateName, index_path, parse_name
from mirror.errors import RejectedError

INDEX = "index"
WITHHELD = "withheld"
METADATA_DIR = "tuf/metadata"
TARGETS_DIR = "tuf/targets"
CRATES_DIR = "crates"
CONFIG_JSON = "index/config.json"
STATUS_JSON = "status.json"
STATE_FIELD = "x-crateseal"
"""What is ours in signed metadata: the mirror's state in the timestamp, `trial` in the root."""

# One pattern per depth: TUF's `*` does not cross a `/` (TUF specification 4.5, PATHPATTERN).
TARGET_PATTERNS = ("index/*/*", "index/*/*/*", "withheld/*/*", "withheld/*/*/*")
DELEGATION = "crates"
"""The role that delegates to the bins, and the bins' name prefix."""

_CRATE_URL = re.compile(r"([A-Za-z0-9_-]+)/([A-Za-z0-9_-]+)-([0-9][0-9A-Za-z.+-]*)\.crate\Z")


def target_path(name: CrateName) -> str:
    """`index/se/rd/serde`: the target path of a crate's index file, and its URL path."""
    return f"{INDEX}/{index_path(name)}"


def note_path(name: CrateName) -> str:
    """`withheld/se/rd/serde`: the target path of the note on what is withheld."""
    return f"{WITHHELD}/{index_path(name)}"


def name_of_target(path: str) -> CrateName:
    """Return the crate that a target path (index file or note) is about.

    Raises:
        RejectedError: it is neither, or not the canonical path of its name.
    """
    name = parse_name(path.rpartition("/")[2])
    if path not in (target_path(name), note_path(name)):
        raise RejectedError("target path", f"{target_path(name)} or {note_path(name)}", path)
    return name


def target_file(path: str, sha256: str) -> str:
    """Where the bytes of a target lie under the web root (TUF 7.3, consistent snapshots)."""
    folder, _, base = path.rpartition("/")
    return f"{TARGETS_DIR}/{folder}/{sha256}.{base}"


def crate_file(crate: CrateId) -> str:
    """`crates/serde/serde-1.0.200.crate`: URL path and file of a crate."""
    return f"{CRATES_DIR}/{crate.name}/{crate.name}-{crate.version}.crate"


def config_json(public_url: str) -> bytes:
    """`index/config.json` of a mirror at this URL: where cargo finds crates (`crate_file`)."""
    template = f"{public_url}/{CRATES_DIR}/{{crate}}/{{crate}}-{{version}}.crate"
    return json.dumps({"dl": template}).encode() + b"\n"


def parse_crate_path(path: str) -> CrateId:
    """Take `serde/serde-1.0.200.crate` (what follows `/crates/`) apart.

    Raises:
        RejectedError: it is not the one path of a crate.
    """
    found = _CRATE_URL.match(path)
    if not found or found[1] != found[2]:
        raise RejectedError("crate path", "NAME/NAME-VERSION.crate", repr(path))
    return CrateId(found[1], found[3])


def parse_index_path(path: str) -> CrateName:
    """Take `se/rd/serde` (what follows `/index/`) apart.

    Raises:
        RejectedError: it is not the one path of a name; the text names the right one.
    """
    name = parse_name(path.rpartition("/")[2])
    if path != index_path(name):
        raise RejectedError("index path", index_path(name), repr(path))
    return name
