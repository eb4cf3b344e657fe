"""The write side of the web root: the few verbs with which `sign` changes what the world sees.

Rules. Targets and crates are immutable and lie under names that their bytes decide. What is
written here is visible to nobody until the publication that names it is committed; only the links
under `index/` and three small files are ever replaced. Paths are relative to the web root.
"""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mirror.core.layout import (
    CONFIG_JSON,
    CRATES_DIR,
    STATUS_JSON,
    TARGETS_DIR,
    crate_file,
    target_file,
)
from mirror.core.names import CrateId
from mirror.core.verify import VerifiedCrate
from tuf_repo.disk import Disk

GZIP_HEADER = bytes.fromhex("1f8b0800000000000003")
"""No name, no time, Unix: what zlib writes. The same bytes always give the same `.gz`."""


_STAGED = re.compile(r"([0-9a-f]{64})\.([A-Za-z0-9_-]+)\.([0-9].*)\.crate")


def compress(data: bytes) -> bytes:
    """Return one gzip member with our header."""
    deflate = zlib.compressobj(6, zlib.DEFLATED, 31)
    return deflate.compress(data) + deflate.flush()


@dataclass(frozen=True, slots=True)
class StagedCrate:
    """A verified crate whose bytes lie in staging. Made by `Www` only."""

    crate: CrateId
    sha256: str
    length: int


class Www:
    """One web root, over a `Disk`; `staging` must lie on the same file system."""

    def __init__(self, root: Path, staging: Path, disk: Disk) -> None:
        self._root = root
        self._staging = staging
        self._disk = disk
        self._fresh: set[str] = set()
        """Files written since the last `settle_fresh`: no publication names them yet."""

    def settle_fresh(self, named: Iterable[str]) -> None:
        """Of the files written since the last call keep those that are named, remove the rest."""
        for path in self._fresh.difference(named):
            self.remove(path)
        self._fresh.clear()

    # Targets

    def put_target(self, path: str, data: bytes, *, at: float) -> str:
        """Write a target and its `.gz`; return its sha256.

        The modification time is a whole second later, at least, than that of the index file it will
        replace: nginx makes its ETag of time and size.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        name = target_file(path, sha256)
        before = self._mtime(path)
        mtime = None if before is None else max(int(at), before + 1)
        self._put(name, data, mtime)
        self._put(f"{name}.gz", compress(data), mtime)
        return sha256

    def restore_target(self, path: str, data: bytes, *, at: float) -> None:
        """Write again what is published, and was lost or damaged on the disk."""
        sha256 = self.put_target(path, data, at=at)
        name = target_file(path, sha256)
        self._fresh -= {name, f"{name}.gz"}

    def _put(self, name: str, data: bytes, mtime: int | None) -> None:
        file = self._root / name
        try:
            self._disk.write_new(file, data)
            self._fresh.add(name)
        except FileExistsError:
            # A kept publication's file, or an orphan of a crash that may be torn.
            if file.is_symlink() or not file.is_file() or file.read_bytes() != data:
                self._disk.replace(file, data)
        if mtime is not None:
            self._disk.set_mtime(file, mtime)

    def _mtime(self, path: str) -> int | None:
        try:
            return int(os.lstat(self._root / path).st_mtime)
        except FileNotFoundError:
            return None

    def read_target(self, path: str, sha256: str) -> bytes | None:
        """Return a target's bytes, from its `.gz` where the file itself is damaged or gone.

        None: neither has the bytes that were signed.
        """
        file = self._root / target_file(path, sha256)
        return _if_whole(file, sha256) or _if_packed_whole(_gz(file), sha256)

    def is_whole(self, path: str, sha256: str) -> bool:
        """Whether a target and its `.gz` both have the bytes that were signed."""
        file = self._root / target_file(path, sha256)
        return bool(_if_whole(file, sha256) and _if_packed_whole(_gz(file), sha256))

    def crate_files(self, names: Iterable[str]) -> list[str]:
        """Return the crate files that lie in the folders of these names, spelled like this."""
        found = []
        for name in names:
            with suppress(FileNotFoundError):
                files = os.listdir(self._root / CRATES_DIR / name)
                found += [f"{CRATES_DIR}/{name}/{file}" for file in files]
        return found

    def target_files(self, path: str, *, but: str) -> list[str]:
        """Return every file that some publication called a target of this path, save one digest."""
        folder, _, base = f"{TARGETS_DIR}/{path}".rpartition("/")
        with suppress(FileNotFoundError):
            return [
                f"{folder}/{file}"
                for file in os.listdir(self._root / folder)
                if file[64:].removesuffix(".gz") == f".{base}" and file[:64] != but
            ]
        return []

    def link_index(self, path: str, sha256: str) -> None:
        """Point `index/…` (and its `.gz`) at the target that is published now."""
        target, link = self._root / target_file(path, sha256), self._root / path
        self._disk.link_over(target, link)
        self._disk.link_over(_gz(target), _gz(link))

    def unlink_index(self, path: str) -> None:
        """Take away `index/…` and its `.gz`."""
        self._disk.remove(self._root / path)
        self._disk.remove(_gz(self._root / path))

    def is_linked(self, path: str, sha256: str) -> bool:
        """Whether `link_index` has nothing to do."""
        target = self._root / target_file(path, sha256)
        pairs = ((target, self._root / path), (_gz(target), _gz(self._root / path)))
        try:
            return all(os.path.samestat(os.lstat(a), os.lstat(b)) for a, b in pairs)
        except FileNotFoundError:
            return False

    # Crates

    def stage_crate(self, crate: VerifiedCrate) -> StagedCrate:
        """Write a crate's bytes beside the web root; takes nothing but a verified one."""
        self._disk.replace(self._staged(crate.crate, crate.sha256), crate.data)
        return StagedCrate(crate.crate, crate.sha256, len(crate.data))

    def promote_crate(self, crate: StagedCrate) -> str:
        """Move a staged crate, synced by now, to its final name; return that."""
        path = crate_file(crate.crate)
        self._disk.rename(self._staged(crate.crate, crate.sha256), self._root / path)
        return path

    def staged_crates(self) -> list[StagedCrate]:
        """Return the crates that a crash left in staging; torn ones are removed."""
        whole = []
        for found in map(_STAGED.fullmatch, os.listdir(self._staging)):
            if found:
                data = (self._staging / found[0]).read_bytes()
                staged = StagedCrate(CrateId(found[2], found[3]), found[1], len(data))
                if hashlib.sha256(data).hexdigest() == staged.sha256:
                    whole.append(staged)
                else:
                    self._disk.remove(self._staging / found[0])
        return whole

    def _staged(self, crate: CrateId, sha256: str) -> Path:
        return self._staging / f"{sha256}.{crate.name}.{crate.version}.crate"

    # The small files that are replaced

    def put_config(self, data: bytes) -> None:
        """Write cargo's `config.json` for static servers."""
        self._disk.replace(self._root / CONFIG_JSON, data)

    def put_status(self, data: bytes) -> None:
        """Write the signer's heartbeat."""
        self._disk.replace(self._root / STATUS_JSON, data)

    # Everything

    def remove(self, path: str) -> None:
        """Remove one file; one that is gone already is no error."""
        self._disk.remove(self._root / path)

    def files(self) -> Iterator[str]:
        """Yield everything under the web root that is not a folder, in any order."""
        for folder, _, names in os.walk(self._root):
            prefix = os.path.relpath(folder, self._root)
            for name in names:
                yield name if prefix == "." else f"{prefix}/{name}"
            # A link to a folder is walked past by os.walk and reported as a folder: report it.
            yield from _linked_folders(folder, prefix)


def _linked_folders(folder: str, prefix: str) -> Iterator[str]:
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink() and entry.is_dir():
                yield entry.name if prefix == "." else f"{prefix}/{entry.name}"


def _if_whole(file: Path, sha256: str) -> bytes | None:
    with suppress(FileNotFoundError):
        data = file.read_bytes()
        if hashlib.sha256(data).hexdigest() == sha256:
            return data
    return None


def _if_packed_whole(file: Path, sha256: str) -> bytes | None:
    with suppress(FileNotFoundError, zlib.error):
        data = zlib.decompress(file.read_bytes(), 31)
        if hashlib.sha256(data).hexdigest() == sha256:
            return data
    return None


def _gz(path: Path) -> Path:
    return path.with_name(f"{path.name}.gz")
