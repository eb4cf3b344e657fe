"""`crateseal verify --cache`: is what cargo keeps on this machine still what was signed?

cargo compares a `.crate` with its checksum when it fetches it, and never again; what it has
unpacked it compiles as it stands. A file changed in `registry/cache` or `registry/src` compiles
silently, even offline. Here each is compared with the signed index line, so that a lock file that
was changed with it does not help.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mirror.client.commands.checked import Checked, as_error, shown
from mirror.client.commands.compare import differences
from mirror.client.commands.files import read_file
from mirror.client.commands.index_cache import check_index, kept_index
from mirror.client.commands.unpack import (
    CARGO_OK,
    CRATE_MAX_BYTES,
    archive_files,
    limits_of_clients,
)
from mirror.client.home.overlay import overlays, users_home
from mirror.client.home.settings import FIRST_PORT, LAST_PORT
from mirror.client.source.source import Source
from mirror.core.cargo_folders import registry_folders
from mirror.core.index import IndexEntry
from mirror.core.lockfile import Lock, LockedCrate
from mirror.core.names import CrateId
from mirror.errors import (
    ArchiveError,
    CratesealError,
    MachineError,
    ProofError,
    RejectedError,
    UnreachableError,
)

JOBS = 16
_CRATES_IO = (
    "sparse+https://index.crates.io/",
    "registry+https://github.com/rust-lang/crates.io-index",
)
_AFRESH = "do not build with it; delete it, and cargo fetches and unpacks it afresh"
# A name has no dot, so the version begins with the digits before the first one.
_NAME_VERSION = re.compile(r"([A-Za-z0-9_-]+)-(\d+\..+)\Z")


@dataclass(frozen=True, slots=True)
class Cached:
    """What cargo keeps of one crate of one registry: the file, what was unpacked of it, or both."""

    crate: CrateId
    file: Path
    unpacked: Path

    def __str__(self) -> str:
        return str(self.crate)


def our_registry_folders(
    root_id: str, mirrors: Iterable[str] = (), ports: Iterable[int] = ()
) -> frozenset[str]:
    """Return what cargo calls the folders of crates.io, by whichever way its crates came.

    Those of crates.io itself; of our proxy on any port it takes by itself, or on these `ports`;
    and of these `mirrors` (base URLs) where cargo asks them directly.
    """
    every_port = {*range(FIRST_PORT, LAST_PORT + 1), *ports}
    ours = (f"sparse+http://127.0.0.1:{port}/{root_id}/index/" for port in every_port)
    direct = (f"sparse+{mirror}index/" for mirror in mirrors)
    return frozenset().union(*map(registry_folders, (*_CRATES_IO, *ours, *direct)))


def cargo_homes(environment: Mapping[str, str], folder: Path) -> tuple[Path, ...]:
    """Return the homes of cargo that there are: those of `cargo sealed`, and the user's own.

    `folder` is the trust's in the cache: the overlays lie there.
    """
    homes = (*overlays(folder), users_home(environment, Path.cwd()))
    return tuple(home for home in dict.fromkeys(homes) if (home / "registry").is_dir())


def check_cache(
    homes: Iterable[Path], registries: frozenset[str], lock: Lock | None, source: Source
) -> Iterator[Checked]:
    """Yield what became of each crate that cargo keeps; with a lock, of those that it names.

    Of cargo's copies of index files those are yielded that are not right. `registries` are folder
    names (`our_registry_folders`); others are not looked into, nor is crates.io's own index, which
    may know more than the mirror does.

    Raises:
        MachineError: a folder cannot be read.
        ProofError, UnreachableError: the look at the mirrors as a whole.
    """
    homes = tuple(homes)
    locked = {each.crate: each for each in lock.crates} if lock else {}
    found = [
        each
        for home in homes
        for each in _cached(home, registries)
        if lock is None or each.crate in locked
    ]
    names = {each.canonical_name for each in locked}
    ours = registries.difference(*map(registry_folders, _CRATES_IO))
    index = [
        each
        for home in homes
        for each in kept_index(home, ours)
        if lock is None or each.name in names
    ]
    source.refresh()
    source.prefetch({each.crate.canonical_name for each in found} | {each.name for each in index})
    with ThreadPoolExecutor(JOBS) as pool:
        yield from pool.map(lambda each: _check(each, locked.get(each.crate), source), found)
    yield from check_index(index, source, JOBS)


def parse_stem(text: str) -> CrateId | None:
    """Take `NAME-VERSION`, as cargo calls files and folders, apart; None: it is none."""
    found = _NAME_VERSION.match(text)
    try:
        return CrateId(found[1], found[2]) if found else None
    except RejectedError:
        return None


def _cached(home: Path, registries: frozenset[str]) -> Iterator[Cached]:
    for folder in sorted(registries):
        cache, src = (home / "registry" / each / folder for each in ("cache", "src"))
        stems = {name.removesuffix(".crate") for name in _names(cache) if name.endswith(".crate")}
        for stem in sorted(stems.union(_names(src))):
            crate = parse_stem(stem)
            if crate is not None:
                yield Cached(crate, cache / f"{stem}.crate", src / stem)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise MachineError(f"{folder}: cannot be read: {error.strerror}") from error


def _check(cached: Cached, locked: LockedCrate | None, source: Source) -> Checked:
    """Prove what cargo keeps of one crate.

    1. A signed index line names it, with the checksum that the lock says.
    2. The `.crate` has that sha256.
    3. Every unpacked file is what the crate holds, and there is no other.
    """
    errors: list[CratesealError] = []
    files = 0
    try:
        # 1.
        entry = source.entry(cached.crate)
        if locked is not None and not locked.admits(entry.cksum):
            errors.append(_lock_differs(locked, entry))
        # 2.
        data = _crate_file(cached, entry, errors)
        # 3.
        if os.path.lexists(cached.unpacked):
            files = _check_unpacked(cached, data or source.crate(entry.crate), entry, errors)
    except ArchiveError as error:
        errors.append(_as_finding(cached, error))
    except (ProofError, UnreachableError) as error:
        errors.append(error)
    return Checked(str(cached), shown(str(cached.file)), tuple(errors), files)


def _crate_file(cached: Cached, entry: IndexEntry, errors: list[CratesealError]) -> bytes | None:
    """Return the bytes of cargo's `.crate` if they are the ones that were signed."""
    where, expected = shown(str(cached.file)), f"sha256 {entry.cksum} (signed)"
    try:
        data = read_file(cached.file, CRATE_MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        got = f"what cannot be read as a file: {error.strerror}"
        errors.append(ProofError(str(cached), where, expected, got, _AFRESH))
        return None
    got = hashlib.sha256(data).hexdigest()
    if got == entry.cksum:
        return data
    if data:  # An empty one is cargo's download cut short; it takes that for none.
        errors.append(ProofError(str(cached), where, expected, got, _AFRESH))
    return None


def _check_unpacked(
    cached: Cached, data: bytes, entry: IndexEntry, errors: list[CratesealError]
) -> int:
    contents = archive_files(entry.crate, data, limits_of_clients())
    # Without its mark cargo unpacks again, over what is there: what is missing then comes.
    is_done = os.path.lexists(cached.unpacked / CARGO_OK)
    found = differences(cached.unpacked, contents, may_lack=lambda _path: not is_done, own=CARGO_OK)
    errors.extend(as_error(str(cached), cached.unpacked, each, _AFRESH) for each in found)
    return len(contents.files)


def _lock_differs(locked: LockedCrate, entry: IndexEntry) -> ProofError:
    return ProofError(
        str(locked),
        "the lock file",
        f"its checksum {locked.checksum}",
        f"{entry.cksum} (signed)",
        "the lock was made from another source, or changed: see where it comes from",
    )


def _as_finding(cached: Cached, error: ArchiveError) -> ProofError:
    advice = "what was unpacked cannot be compared; see who published it"
    return ProofError(error.subject, shown(str(cached.unpacked)), error.expected, error.got, advice)
