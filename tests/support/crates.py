"""Small crates made to measure: index lines and `.crate` archives, good ones and bad ones."""

import gzip
import hashlib
import io
import json
import tarfile

from mirror.core.names import CrateName
from tests.support.tar import Entry


def crate_bytes(name: str, version: str, *, entries: list[Entry] | None = None) -> bytes:
    """Return a `.crate`; by default a tiny library that builds."""
    top = f"{name}-{version}"
    if entries is None:
        manifest = f'[package]\nname = "{name}"\nversion = "{version}"\nedition = "2021"\n'
        entries = [
            Entry(f"{top}/Cargo.toml", manifest.encode()),
            Entry(f"{top}/src/lib.rs", b"pub fn answer() -> u8 { 42 }\n"),
        ]
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for entry in entries:
            archive.addfile(entry.info(), io.BytesIO(entry.data))
    return gzip.compress(raw.getvalue(), mtime=0)


def index_line(
    name: str, version: str, cksum: str = "", *, deps: tuple[str, ...] = (), **extra: object
) -> bytes:
    """Return one index line as crates.io writes it: compact, no newline."""
    fields = {
        "name": name,
        "vers": version,
        "deps": [_dep(dep) for dep in deps],
        "cksum": cksum or hashlib.sha256(f"{name} {version}".encode()).hexdigest(),
        "features": {},
        "yanked": False,
        **extra,
    }
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()


def _dep(name: str) -> dict[str, object]:
    return {
        "name": name,
        "req": "^1",
        "features": [],
        "optional": False,
        "default_features": True,
        "target": None,
        "kind": "normal",
    }


def index_file(name: str, *versions: str, deps: tuple[str, ...] = ()) -> bytes:
    """Return an index file of these versions, whose crates are `crate_bytes`."""
    lines = [
        index_line(name, version, hashlib.sha256(crate_bytes(name, version)).hexdigest(), deps=deps)
        for version in versions
    ]
    return b"\n".join(lines) + b"\n"


def name(text: str) -> CrateName:
    """Return a canonical name without ceremony."""
    return CrateName(text)
