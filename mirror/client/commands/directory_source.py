"""cargo's directory source: a folder of unpacked packages, each with `.cargo-checksum.json`.

cargo reads each folder of it that has a `Cargo.toml` and does not begin with a dot, whatever it is
called. Source: cargo's sources/directory.rs and ops/vendor.rs, the history of the latter included.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

CHECKSUM_FILE = ".cargo-checksum.json"
CHECKSUM_MAX_BYTES = 64_000_000
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_COMMENT = (
    "Crateseal verified every file when it wrote this. cargo compares what is listed here and"
    " nothing else; `crateseal verify --vendor` compares everything with what was signed."
)


@dataclass(frozen=True, slots=True)
class ChecksumFile:
    """What a package's `.cargo-checksum.json` says."""

    package: str | None
    """sha256 of the crate file; None for packages that no registry has."""
    files: dict[str, str]
    """Path -> sha256."""


def checksum_file(package: str, files: dict[str, str]) -> bytes:
    """Return the bytes of a `.cargo-checksum.json`."""
    fields = {"$comment": _COMMENT, "files": dict(sorted(files.items())), "package": package}
    return json.dumps(fields, separators=(",", ":")).encode()


def parse_checksum_file(data: bytes) -> ChecksumFile:
    """Read the bytes of a `.cargo-checksum.json`.

    Raises:
        ValueError: it is none.
    """
    try:
        fields: Any = json.loads(data)
        files = {str(path): str(sha256) for path, sha256 in fields["files"].items()}
        package = fields.get("package")
    except (LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("no map of `files` in it") from error
    if package is not None and not _SHA256.match(str(package)):
        raise ValueError("`package` is no sha256")
    return ChecksumFile(package, files)


def is_left_out(path: str) -> bool:
    """Whether `cargo vendor` leaves out such a file of a crate, and so do we.

    Files of git would change what git does in whatever repository the folder is put.
    """
    *folders, name = path.split("/")
    return ".git" in folders or name in {".git", ".gitattributes", ".gitignore", CHECKSUM_FILE}


def may_be_left_out(path: str) -> bool:
    """Whether some `cargo vendor` left out such a file: before 1.89 it left out more."""
    parts = path.split("/")
    return (
        is_left_out(path)
        or path.endswith((".orig", ".rej"))
        or any(part.startswith(".") or part == "target" for part in parts[:-1])
    )
