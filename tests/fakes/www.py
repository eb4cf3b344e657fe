"""A web root with unsigned metadata: for code that looks things up and verifies nothing.

`FakeWww(root).publish()` writes a whole publication of what was put in before.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from pathlib import Path

from mirror.core.layout import crate_file, note_path, target_file, target_path
from mirror.core.names import CrateId, parse_name

LATER = "2099-01-01T00:00:00Z"
CACHE = {
    "mode": "cache",
    "upstream": "sparse+https://index.crates.io/",
    "signed_at": "2026-11-21T10:00:00Z",
    "complete_as_of": None,
    "upstream_confirmed": "2026-11-21T09:59:00Z",
}
COMPLETE = {**CACHE, "mode": "index", "complete_as_of": "2026-11-21T09:00:00Z"}
LISTED = {**COMPLETE, "mode": "list"}


def index_line(name, version, crate=b"", **more):
    """One line of an index file, for a crate with these bytes."""
    cksum = hashlib.sha256(crate).hexdigest()
    fields = {"name": name, "vers": version, "deps": [], "cksum": cksum, "features": {}}
    return json.dumps({**fields, "yanked": False, **more}, separators=(",", ":")).encode() + b"\n"


class FakeWww:
    def __init__(self, root: Path, *, bits: int = 5, state=CACHE, expires=LATER, trial=False):
        self.root = root
        self.bits = bits
        self.state = state
        self.expires = expires
        self.trial = trial
        self.targets: dict[str, bytes] = {}
        self.version = 0

    def put_index(self, name, *lines, gz=True):
        self._put_target(target_path(parse_name(name)), b"".join(lines), gz=gz)

    def put_note(self, name, *, kind="quarantine", rule="malformed-index", reason="a bad line",
                 versions=None):  # fmt: skip
        """A note with one entry, about the whole crate or some versions."""
        since = "2026-11-21T08:00:00Z"
        entry = {"kind": kind, "rule": rule, "reason": reason, "since": since, "until": None}
        entry |= {"versions": versions, "upstream_yanked": []}
        self.put_raw_note(name, json.dumps({"name": name, "entries": [entry]}).encode())

    def put_raw_note(self, name, data):
        self._put_target(note_path(parse_name(name)), data, gz=True)

    def _put_target(self, path, data, *, gz):
        self.targets[path] = data
        sha256 = hashlib.sha256(data).hexdigest()
        self.write(target_file(path, sha256), data)
        if gz:
            self.write(f"{target_file(path, sha256)}.gz", gzip.compress(data, mtime=0))

    def put_crate(self, name, version, data):
        self.write(crate_file(CrateId(name, version)), data)

    def put_status(self, **fields):
        self.write("status.json", json.dumps(fields).encode())

    def drop(self, path):
        """Take a target's line out of its bin, from the next publication on; its file stays."""
        del self.targets[path]

    def publish(self):
        """Commit; return the timestamp's version."""
        if not (self.root / "tuf/metadata/1.root.json").exists():
            extra = {"x-crateseal": {"trial": True}} if self.trial else {}
            self._metadata("1.root.json", "root", version=1, **extra)
        self.version += 1
        width = (self.bits + 3) // 4
        bins = [{} for _ in range(1 << self.bits)]
        for path, data in self.targets.items():
            number = int.from_bytes(hashlib.sha256(path.encode()).digest()[:4], "big")
            hashes = {"sha256": hashlib.sha256(data).hexdigest()}
            bins[number >> (32 - self.bits)][path] = {"length": len(data), "hashes": hashes}
        meta = {}
        for number, targets in enumerate(bins):
            meta |= self._metadata(f"crates-{number:0{width}x}.json", "targets", targets=targets)
        succinct = {"bit_length": self.bits, "name_prefix": "crates"}
        delegations = {"keys": {}, "succinct_roles": {"keyids": [], "threshold": 1, **succinct}}
        meta |= self._metadata("targets.json", "targets", targets={})
        meta |= self._metadata("crates.json", "targets", targets={}, delegations=delegations)
        snapshot = self._metadata("snapshot.json", "snapshot", meta=meta)
        held = {kind: self._count(kind) for kind in ("index", "withheld")}
        extra = {"x-crateseal": {**self.state, "held": held}}
        self._metadata("timestamp.json", "timestamp", meta=snapshot, **extra)
        return self.version

    def _count(self, kind):
        return sum(path.startswith(f"{kind}/") for path in self.targets)

    def _metadata(self, name, kind, *, version=None, **fields):
        version = version or self.version
        signed = {"_type": kind, "version": version, "expires": self.expires, **fields}
        data = json.dumps({"signatures": [], "signed": signed}).encode()
        file = name if name in {"timestamp.json", "1.root.json"} else f"{version}.{name}"
        self.write(f"tuf/metadata/{file}", data)
        return {name: {"version": version}}

    def write(self, path, data):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.tmp")
        temporary.write_bytes(data)
        os.rename(temporary, file)

    def link_index(self):
        """Lay the links under `index/`, and config.json, as static servers want them."""
        self.write("index/config.json", b'{"dl": "http://example.invalid/crates"}\n')
        for path, data in self.targets.items():
            if path.startswith("index/"):
                source = self.root / target_file(path, hashlib.sha256(data).hexdigest())
                link = self.root / path
                link.parent.mkdir(parents=True, exist_ok=True)
                for end in ("", ".gz"):
                    link.with_name(link.name + end).unlink(missing_ok=True)
                    os.link(f"{source}{end}", f"{link}{end}")
