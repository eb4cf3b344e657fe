"""The six real crates that the demo carries (mirror/demo/data/NOTICE says whose they are)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from mirror.core.layout import crate_file, parse_crate_path, target_path
from mirror.core.names import CrateId

DATA = Path(__file__).parent / "data"
PROJECT = DATA / "project"


@dataclass(frozen=True, slots=True)
class Sample:
    """One crate as crates.io serves it: its index file and its crate file."""

    crate: CrateId
    index: bytes
    data: bytes

    @property
    def index_path(self) -> str:
        """The path of the index file: URL path and target path are the same."""
        return target_path(self.crate.canonical_name)

    @property
    def crate_path(self) -> str:
        """The URL path of the crate file."""
        return crate_file(self.crate)


def load_samples() -> dict[str, Sample]:
    """Return the samples by name."""
    root = DATA / "upstream"
    samples = {}
    for file in sorted(root.glob("crates/*/*.crate")):
        crate = parse_crate_path(f"{file.parent.name}/{file.name}")
        index = (root / target_path(crate.canonical_name)).read_bytes()
        samples[crate.name] = Sample(crate, index, file.read_bytes())
    return samples


def digest(data: bytes) -> str:
    """Return the sha256 as TUF and cargo write it."""
    return hashlib.sha256(data).hexdigest()
