"""Stock python-tuf clients with folders that last, and a thief's host that they are sent to.

client = Client(folder, first_root)
client.look(mirror.data.path, PATH)           # the sha256 that this client believes
host = Host(folder, mirror)                   # a copy of all that is published now
host.publish(keys, {"bins"}, PATH)            # forged, and correctly signed with these keys
client.look(host.base, PATH, now=…)
"""

import hashlib
import shutil
import time
from datetime import UTC, datetime

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, TargetFile
from tuf.ngclient import Updater

from tests.fakes.tuf import METADATA, TARGETS, FolderHost, set_clock
from tests.support.forging import committed
from tests.support.operators import version_of
from tuf_repo.core.update import file_name
from tuf_repo.signing import sign

EVIL = "66" * 32
NEVER = datetime(2100, 1, 1, tzinfo=UTC)
"""What a thief signs never expires."""


class Client:
    """A stock client; each question is put by a process of its own, as it were."""

    def __init__(self, cache, root):
        self.cache = cache
        self._root = root
        cache.mkdir(exist_ok=True)

    def look(self, base, path, now=None):
        """Ask the host over this folder; return the sha256 it proves, or None for absent."""
        updater = Updater(
            str(self.cache),
            METADATA,
            target_base_url=TARGETS,
            fetcher=FolderHost(base),
            bootstrap=self._root,
        )
        set_clock(updater, time.time() if now is None else now)
        found = updater.get_targetinfo(path)
        return found and found.hashes["sha256"]

    def twin(self):
        """Return another client that saw what this one saw."""
        number = len(list(self.cache.parent.glob(f"{self.cache.name}~*")))
        cache = self.cache.with_name(f"{self.cache.name}~{number}")
        shutil.copytree(self.cache, cache, symlinks=True)
        return Client(cache, self._root)


class Host:
    """A copy of what a mirror published; whoever holds keys may change it."""

    def __init__(self, base, mirror):
        self.base = base
        self.metadata = base / "www" / "tuf" / "metadata"
        shutil.copytree(mirror.metadata, self.metadata)

    def expires(self, role):
        """When what this host says of a role ends; of a bin, by its name."""
        if role == "root":
            file = max(self.metadata.glob("*.root.json"), key=version_of).name
        else:
            file = {"timestamp": "timestamp.json", **committed(self)}[role]
        return self._read(file).expires.timestamp()

    def version(self):
        return self._read("timestamp.json").version

    def bin_of(self, path):
        crates = self._read(committed(self)["crates"])
        return crates.delegations.succinct_roles.get_role_for_target(path)

    def put_bin(self, keys, path):
        """Another bin, under the number of the one that is published."""
        name = self.bin_of(path)
        file = committed(self)[name]
        self._write(file, self._evil_bin(name, path), keys["bins"])

    def publish(self, keys, roles, path=None, version=None):
        """Sign these roles anew, and what describes them: all above what clients have seen.

        Snapshot and timestamp are signed in any case; with `bins`, the bin of a path lies.
        """
        files = committed(self)
        stamp, snapshot = self._read("timestamp.json"), self._read(files["snapshot"])
        above = version or stamp.version + 10
        for role in roles & {"targets", "crates"}:
            signed = self._read(files[role])
            signed.version = above
            data = self._write_as(role, signed, keys[role])
            _describe(snapshot.meta[f"{role}.json"], above, data)
        if "bins" in roles:
            name = self.bin_of(path)
            signed = self._evil_bin(name, path)
            signed.version = above
            self._write_as(name, signed, keys["bins"])
            snapshot.meta[f"{name}.json"].version = above
        snapshot.version = above
        data = self._write_as("snapshot", snapshot, keys["snapshot"])
        _describe(stamp.snapshot_meta, above, data)
        self.stamp(keys, above, stamp)

    def stamp(self, keys, version, stamp=None):
        """Sign a timestamp: that of what is published, or this one."""
        stamp = stamp or self._read("timestamp.json")
        stamp.version = version
        self._write("timestamp.json", stamp, keys["timestamp"])

    def take_over(self, keys):
        """Sign a next root that gives snapshot and timestamp to the thief; return all keys."""
        newest = max(self.metadata.glob("*.root.json"), key=version_of).name
        root = self._read(newest)
        root.version += 1
        mine = CryptoSigner.generate_ed25519()
        for role in ("snapshot", "timestamp"):
            for keyid in list(root.roles[role].keyids):
                root.revoke_key(keyid, role)
            root.add_key(mine.public_key, role)
        self._write_as("root", root, keys["root"])
        return {**keys, "snapshot": [mine], "timestamp": [mine]}

    def _evil_bin(self, name, path):
        signed = self._read(committed(self)[name])
        signed.targets[path] = TargetFile(666, {"sha256": EVIL}, path)
        return signed

    def _read(self, file):
        return Metadata.from_bytes((self.metadata / file).read_bytes()).signed

    def _write_as(self, role, signed, signers):
        return self._write(file_name(role, signed.version), signed, signers)

    def _write(self, file, signed, signers):
        signed.expires = NEVER
        data = sign(signed.to_dict(), {each.public_key.keyid: each for each in signers})
        (self.metadata / file).write_bytes(data)
        return data


def _describe(meta, version, data):
    meta.version, meta.length = version, len(data)
    meta.hashes = {"sha256": hashlib.sha256(data).hexdigest()}
