"""What somebody can make who holds some of a repository's keys: anything, correctly signed.

with_keys(repository).sign("targets", signed)          one file, by the role's key
publish_again(repository, change)                      all that is committed, after `change`
"""

import hashlib
import json

from tuf.api.metadata import Metadata, Root, Snapshot

from tuf_repo.core import update
from tuf_repo.core.update import FileFacts
from tuf_repo.keys import create_key, key_file, load_online_signers, load_signer
from tuf_repo.signing import sign


class Keys:
    """Every private key of a trial repository, by role; a bin's name stands for the bins."""

    def __init__(self, repository):
        self.online = load_online_signers(repository.base / "keys")
        offline = repository.base / "offline"
        self._signers = {
            "root": load_signer(key_file(offline, "root")),
            "targets": load_signer(key_file(offline, "targets")),
            "crates": load_signer(key_file(offline, "delegation")),
            "snapshot": self.online.snapshot,
            "timestamp": self.online.timestamp,
        }

    def signer(self, role):
        return self._signers.get(role, self.online.bins)

    def sign(self, role, signed):
        return sign(signed, self.signer(role))


def committed(repository):
    """Role -> file of what the committed timestamp names, the snapshot last."""
    folder = repository.metadata
    stamp = Metadata.from_bytes((folder / "timestamp.json").read_bytes()).signed
    snapshot = f"{stamp.snapshot_meta.version}.snapshot.json"
    listed = Metadata[Snapshot].from_bytes((folder / snapshot).read_bytes()).signed.meta
    files = {name.removesuffix(".json"): f"{meta.version}.{name}" for name, meta in listed.items()}
    return {**files, "snapshot": snapshot}


def publish_again(repository, change, roles=None):
    """Sign what is committed once more, after `change(role, signed)` had its way with each file.

    Versions stay; what describes a file that changed is made to fit. Below the snapshot only the
    files of `roles` are signed, where they are given.
    """
    keys, folder = Keys(repository), repository.metadata
    stamp = Metadata.from_bytes((folder / "timestamp.json").read_bytes()).signed
    snapshot_file = folder / f"{stamp.snapshot_meta.version}.snapshot.json"
    snapshot = Metadata[Snapshot].from_bytes(snapshot_file.read_bytes()).signed
    for name, meta in snapshot.meta.items():
        role = name.removesuffix(".json")
        if roles is not None and role not in roles:
            continue
        file = folder / f"{meta.version}.{name}"
        signed = signed_part(file)
        change(role, signed)
        file.write_bytes(keys.sign(role, signed))
        if meta.length is not None:
            _describe(meta, file)
    fields = snapshot.to_dict()
    change("snapshot", fields)
    snapshot_file.write_bytes(keys.sign("snapshot", fields))
    _describe(stamp.snapshot_meta, snapshot_file)
    fields = stamp.to_dict()
    change("timestamp", fields)
    (folder / "timestamp.json").write_bytes(keys.sign("timestamp", fields))


def next_root(repository, change=None, *, replace=(), also=(), by=None, write=True):
    """Make the root after the newest one; return its bytes.

    Args:
        change: has its way with the `Root` before it is signed.
        replace: online roles that get a new key, here and in the folder of keys.
        also: signers beside the repository's root key.
        by: signers instead of them all.
        write: put it where clients look for it.
    """
    newest = max(repository.metadata.glob("*.root.json"), key=lambda p: int(p.name[:-10]))
    root = Metadata[Root].from_bytes(newest.read_bytes()).signed
    root.version += 1
    file = repository.metadata / f"{root.version}.root.json"
    for role in replace:
        path = key_file(repository.base / "keys", role)
        root.revoke_key(load_signer(path).public_key.keyid, role)
        path.unlink()
        create_key(path)
        root.add_key(load_signer(path).public_key, role)
    if change:
        change(root)
    signers = by or [Keys(repository).signer("root"), *also]
    data = sign(root.to_dict(), {signer.public_key.keyid: signer for signer in signers})
    if write:
        file.write_bytes(data)
    return data


def only(role, change):
    """A change for `publish_again` that leaves the other roles as they are."""
    return lambda name, signed: change(signed) if name == role else None


def signed_part(path):
    return json.loads(path.read_bytes())["signed"]


def described(path, version):
    data = path.read_bytes()
    return FileFacts(version, len(data), hashlib.sha256(data).hexdigest())


def publish_with_numbers_per_bin(repository, version=10**9):
    """Sign the committed state again as is common elsewhere: each bin counts for itself.

    Here that means that all of them have one number; so have snapshot and timestamp.
    """
    keys, folder, now, policy = (
        Keys(repository),
        repository.metadata,
        repository.now,
        repository.policy,
    )
    files = committed(repository)
    bins = {}
    for name in (role for role in files if role.startswith("crates-")):
        targets = signed_part(folder / files[name])["targets"]
        data = keys.sign(name, update.next_bin(name, version, targets, now, policy))
        (folder / update.file_name(name, version)).write_bytes(data)
        bins[name] = update.BinFacts(version, 0, b"", ())
    fixed = {
        role: described(folder / files[role], int(files[role].split(".")[0]))
        for role in ("targets", "crates")
    }
    snapshot = folder / update.file_name("snapshot", version)
    fields = update.next_snapshot(version, fixed, bins, now, policy)
    snapshot.write_bytes(keys.sign("snapshot", fields))
    stamp = update.next_timestamp(version, described(snapshot, version), {}, now, policy)
    (folder / "timestamp.json").write_bytes(keys.sign("timestamp", stamp))


def _describe(meta, file):
    data = file.read_bytes()
    meta.length, meta.hashes = len(data), {"sha256": hashlib.sha256(data).hexdigest()}
