"""The same repository, made with nothing but stock python-tuf's Metadata API: the peer in benches.

Nothing it signs is checked. Bins are read when they change, the snapshot stays in memory; files are
synced and renamed where our engine does it.
"""

from datetime import UTC, datetime, timedelta

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from tuf_repo.disk import PosixDisk

COMPACT = JSONSerializer(compact=True)


class StockRepository:
    def __init__(self, folder, bits):
        folder.mkdir(parents=True)
        self.folder = folder
        self.disk = PosixDisk(folder)
        self.signer = CryptoSigner.generate_ed25519()
        self.bins = SuccinctRoles([self.signer.public_key.keyid], 1, bits, "crates")
        self.expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=60)
        self.snapshot = Metadata(Snapshot(expires=self.expires))
        self.timestamp = Metadata(Timestamp(expires=self.expires))

    def grouped(self, rows):
        """Rows are (path, length, sha256)."""
        groups = {}
        for path, length, sha256 in rows:
            role = self.bins.get_role_for_target(path)
            groups.setdefault(role, {})[path] = TargetFile(length, {"sha256": sha256}, path)
        return groups

    def build(self, rows):
        groups = self.grouped(rows)
        for role in self.bins.get_roles():
            signed = Targets(expires=self.expires, targets=groups.get(role, {}))
            self._write_bin(role, Metadata(signed))
        self._finish()

    def publish(self, rows):
        for role, changes in self.grouped(rows).items():
            version = self.snapshot.signed.meta[f"{role}.json"].version
            metadata = Metadata[Targets].from_file(str(self.folder / f"{version}.{role}.json"))
            metadata.signed.targets.update(changes)
            metadata.signed.version += 1
            self._write_bin(role, metadata)
        self._finish()

    def _write_bin(self, role, metadata):
        self._sign(role, metadata)
        self.snapshot.signed.meta[f"{role}.json"] = MetaFile(metadata.signed.version)

    def _finish(self):
        self.snapshot.signed.version += 1
        data = self._sign("snapshot", self.snapshot)
        stamp = self.timestamp.signed
        stamp.snapshot_meta = MetaFile.from_data(self.snapshot.signed.version, data, ["sha256"])
        stamp.version += 1
        self._sign("timestamp", self.timestamp)
        self.disk.sync()
        staged = self.folder / f"{stamp.version}.timestamp.json"
        self.disk.rename(staged, self.folder / "timestamp.json")
        self.disk.sync()

    def _sign(self, role, metadata):
        metadata.sign(self.signer)
        data = metadata.to_bytes(COMPACT)
        self.disk.write_new(self.folder / f"{metadata.signed.version}.{role}.json", data)
        return data
