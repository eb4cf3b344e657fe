"""Cargo.lock, read for what it names. It may come from a stranger's checkout.

Source of the format: cargo's `core/resolver/encode.rs`; all versions of it, 1 to 4.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import Any

from mirror.core.names import CrateId
from mirror.errors import RejectedError, UsageError

_CRATES_IO = (
    "registry+https://github.com/rust-lang/crates.io-index",
    "sparse+https://index.crates.io/",
)


@dataclass(frozen=True, slots=True)
class LockedCrate:
    """One package of crates.io that the lock names."""

    crate: CrateId
    checksum: str | None
    """sha256 as the lock has it; very old or hand-made locks have none."""

    def __str__(self) -> str:
        return str(self.crate)

    def admits(self, cksum: str) -> bool:
        """Whether an index line's `cksum` agrees; a lock that names none agrees with any."""
        return self.checksum in (None, cksum)


@dataclass(frozen=True, slots=True)
class Lock:
    """What a lock file names."""

    where: str
    """Its path, for people."""
    crates: tuple[LockedCrate, ...]
    not_covered: tuple[str, ...]
    """Packages of other registries and of git, as `name version (source)`."""
    local: int
    """Packages without a source: the checkout's own."""


def parse_lock(where: str, data: bytes) -> Lock:
    """Read the bytes of a lock file; `where` they come from, for errors.

    Raises:
        UsageError: it is no lock file.
    """
    try:
        return _parse(where, tomllib.loads(data.decode()))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not a lock file: {error}") from error
    except (TypeError, AttributeError, KeyError) as error:
        raise UsageError(f"{where}: not a lock file: a package lacks name or version") from error
    except RejectedError as error:
        raise UsageError(f"{where}: not a lock file: {error}") from error


def _parse(where: str, fields: dict[str, Any]) -> Lock:
    crates: list[LockedCrate] = []
    others: list[str] = []
    packages = fields.get("package", [])
    for package in packages:
        crate = CrateId(package["name"], package["version"])
        source = package.get("source")
        if source in _CRATES_IO:
            crates.append(LockedCrate(crate, _checksum(package, fields, crate)))
        elif source is not None:
            others.append(f"{crate} ({_printable(str(source))})")
    local = len(packages) - len(crates) - len(others)
    return Lock(where, tuple(crates), tuple(others), local)


def _checksum(package: dict[str, Any], fields: dict[str, Any], crate: CrateId) -> str | None:
    """Return the package's checksum; locks of version 1 keep them all in one table of their own."""
    key = f"checksum {crate} ({package['source']})"
    checksum = package.get("checksum") or fields.get("metadata", {}).get(key)
    return checksum if isinstance(checksum, str) else None


def _printable(text: str) -> str:
    # It may come from a stranger's checkout, and goes to a terminal or a log.
    return "".join(char if char.isprintable() else "?" for char in text[:300])
