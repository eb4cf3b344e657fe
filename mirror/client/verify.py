"""`crateseal verify`: prove every package of a lock file, or say which fails, where and why.

Entry for the command line: `run_verify(VerifyOptions(...), out)` prints to `out` and returns the
exit code: 0 all proven, 1 a finding, 3 the mirror was not reached (and nothing worse was found).
What is wrong with the options themselves is raised as `UsageError`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from mirror.client.download import Repository, crate_bytes
from mirror.client.fetcher import (
    DiskFetcher,
    FetchLimits,
    HttpFetcher,
    MirrorFetcher,
    checked_url,
)
from mirror.client.report import Against, Report, Result, Teller, to_json
from mirror.client.trust import (
    HOW,
    TrustedRoot,
    root_by_fingerprint,
    root_from_file,
    root_of_own_folder,
)
from mirror.client.want import bring
from mirror.core.index import IndexEntry, find_entry
from mirror.core.layout import STATUS_JSON, target_path
from mirror.core.lockfile import Lock, LockedCrate
from mirror.core.names import CrateName
from mirror.errors import (
    MalformedIndexError,
    NotHeldError,
    ProofError,
    UnreachableError,
    UsageError,
)
from mirror.store.lockfile import read_lock


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """What the user said. Either `mirror` with one of the two roots, or `data`."""

    lock: Path = Path("Cargo.lock")
    mirror: str | None = None
    data: Path | None = None
    root: Path | None = None
    root_sha256: str | None = None
    json: bool = False


@dataclass(frozen=True, slots=True)
class Places:
    """Where a mirror's files are looked for."""

    signed: MirrorFetcher
    """Metadata and index files."""
    server: HttpFetcher | None
    """Where the mirror answers, if that is known: it can be asked for what it lacks."""

    @property
    def crates(self) -> tuple[MirrorFetcher, ...]:
        """Crate files are looked for in all of these, in this order."""
        if self.server is None or self.server is self.signed:
            return (self.signed,)
        return (self.signed, self.server)


def run_verify(options: VerifyOptions, out: TextIO) -> int:
    """Verify a lock file, tell it on `out`, return the exit code.

    Raises:
        UsageError: the options, the lock file or the root cannot be used.
        ProofError: the mirror's first root is not the one with the given fingerprint.
        UnreachableError: not even a root was to be had.
    """
    _check(options)
    lock = read_lock(options.lock)
    teller = None if options.json else Teller(lock, out)
    with _places(options) as places:
        root = _root(options, places.signed)
        report = verify_lock(lock, places, root, teller.tell if teller else lambda _result: None)
    if teller is None:
        out.write(to_json(report) + "\n")
    else:
        teller.close(report)
    return report.exit_code


def verify_lock(
    lock: Lock, places: Places, root: TrustedRoot, on_result: Callable[[Result], None]
) -> Report:
    """Prove each package in turn; a finding about one does not stop the others.

    Raises:
        ProofError, UnreachableError: the mirror as a whole, and the lock names nothing to tell it
            about.
    """
    against = Against(places.signed.base, root.sha256)
    results = []
    with tempfile.TemporaryDirectory(prefix="crateseal-") as folder:
        try:
            repository, pending = _look(lock, places, root, Path(folder))
        except (ProofError, UnreachableError) as error:
            if not lock.crates:
                raise
            # Nothing can be proven: this one finding is every package's.
            results = [Result(package, error) for package in lock.crates]
            for result in results:
                on_result(result)
            return Report(lock, against, tuple(results))
        against = replace(
            against,
            timestamp_version=repository.timestamp_version,
            is_trial=repository.is_trial,
            pins_trial=root.is_trial and not repository.is_trial,
        )
        for package in lock.crates:
            results.append(_result(package, repository, places, pending))
            on_result(results[-1])
    return Report(lock, against, tuple(results))


def _result(
    package: LockedCrate, repository: Repository, places: Places, pending: AbstractSet[CrateName]
) -> Result:
    try:
        prove(package, repository, places.crates)
    except NotHeldError as error:
        if package.crate.canonical_name in pending:
            reason = "the mirror is still fetching its index file; verify again in a while"
            return Result(package, UnreachableError(f"{error.where}: {reason}"))
        return Result(package, error)
    except (ProofError, UnreachableError) as error:
        return Result(package, error)
    return Result(package)


def prove(
    package: LockedCrate, repository: Repository, fetchers: tuple[MirrorFetcher, ...]
) -> None:
    """Prove one package of a lock, from the root's keys down to the crate's bytes.

    1. Its index file is the one that signed metadata names.
    2. That has a line for the version; the last one counts, as in cargo.
    3. The line's `cksum` is the lock's `checksum`.
    4. The mirror's operator does not deny it.
    5. The crate file has that sha256.

    Raises:
        NotHeldError: there is nothing to prove it with.
        ProofError: one of these does not hold.
        UnreachableError: the mirror gave no answer.
    """
    name = package.crate.canonical_name
    # 1.
    file = repository.index_file(name)
    # 2.
    where = repository.base + target_path(name)
    entry = _entry(package, file, where)
    # 3.
    if package.checksum != entry.cksum:
        raise ProofError(
            str(package),
            where,
            f"the lock's checksum {package.checksum or '(it has none)'}",
            f"{entry.cksum} (signed)",
            "the lock was made from another source, or changed: see where it comes from",
        )
    # 4.
    repository.refuse_withheld(entry)
    # 5.
    crate_bytes(entry, fetchers)


def _entry(package: LockedCrate, file: bytes, where: str) -> IndexEntry:
    try:
        entry = find_entry(file, package.crate.canonical_name, package.crate.version)
    except MalformedIndexError as error:
        raise ProofError(
            str(package),
            where,
            error.expected,
            error.got,
            "the mirror signed a file that is none: tell its operator",
        ) from error
    if entry is None:
        raise NotHeldError(
            str(package),
            where,
            f"a line for version {package.crate.version}",
            "a signed index file without it",
            "the mirror may be behind its source: let cargo ask for it, then verify again",
        )
    return entry


def _look(
    lock: Lock, places: Places, root: TrustedRoot, folder: Path
) -> tuple[Repository, AbstractSet[CrateName]]:
    """Verify the metadata; where index files are lacking, ask the mirror for them, look again.

    Return also the names that it is still fetching.
    """
    repository = Repository.open(places.signed, root, folder / "first")
    if places.server is None:
        return repository, frozenset()
    names = sorted({package.crate.canonical_name for package in lock.crates})
    missing = [name for name in names if not _is_held(repository, name)]
    if not missing:
        return repository, frozenset()
    pending = bring(places.server, missing)
    repository = Repository.open(places.signed, root, folder / "second")
    return repository, {name for name in pending if not _is_held(repository, name)}


def _is_held(repository: Repository, name: CrateName) -> bool:
    try:
        return repository.holds(name)
    except (ProofError, UnreachableError):
        return True  # It is told when the package's turn comes.


# ---- from options to places and root


def _check(options: VerifyOptions) -> None:
    if (options.mirror is None) == (options.data is None):
        raise UsageError("verify against what? say one of --mirror URL and --data DIR")
    if options.root is not None and options.root_sha256 is not None:
        raise UsageError("--root and --root-sha256: say one of them")
    if options.data is None and options.root is None and options.root_sha256 is None:
        raise UsageError(f"--mirror alone proves nothing; {HOW}")


@contextmanager
def _places(options: VerifyOptions) -> Iterator[Places]:
    if options.data is None:
        assert options.mirror is not None
        with closing(HttpFetcher(options.mirror, FetchLimits())) as server:
            yield Places(server, server)
        return
    www = options.data / "www"
    url = _public_url(www)
    if url is None:
        yield Places(DiskFetcher(www), None)
        return
    with closing(HttpFetcher(url, FetchLimits())) as server:
        yield Places(DiskFetcher(www), server)


def _public_url(www: Path) -> str | None:
    """Return where the mirror of a folder answers, as its signer wrote it down."""
    try:
        url = json.loads((www / STATUS_JSON).read_bytes())["public_url"]
        return checked_url(url)
    except (OSError, ValueError, LookupError, TypeError, UsageError):
        return None


def _root(options: VerifyOptions, fetcher: MirrorFetcher) -> TrustedRoot:
    if options.root is not None:
        return root_from_file(options.root)
    if options.root_sha256 is not None:
        return root_by_fingerprint(fetcher, options.root_sha256)
    return root_of_own_folder(fetcher)
