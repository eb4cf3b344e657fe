"""`crateseal verify`: prove locks, crates, vendored folders and cargo's cache, or say what fails.

Entry for the command line: `run_verify(VerifyOptions(...), settings, clock, out)` prints to `out`
and returns the exit code: 0 all proven, 1 a finding, 3 the mirror was not reached (and nothing
worse was found). What is wrong with the options themselves is raised as `UsageError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from mirror.client.commands.checked import Checked
from mirror.client.commands.report import Package, Report, Result, Teller, name_of, to_json
from mirror.client.home.settings import ClientSettings
from mirror.client.source.source import Source, open_source
from mirror.client.source.standing import Standing
from mirror.client.source.words import no_index_file
from mirror.client.trust.store import resolve_trust
from mirror.core.index import newest_entry
from mirror.core.layout import target_path
from mirror.core.lockfile import Lock, LockedCrate
from mirror.core.names import CrateId, CrateName, parse_subject
from mirror.errors import (
    AbsentError,
    MalformedIndexError,
    ProofError,
    RejectedError,
    UnreachableError,
    UsageError,
)
from mirror.store.lockfile import read_lock

DEFAULT_LOCK = Path("Cargo.lock")
_JOBS = 16
"""Packages that are proven side by side."""


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """What the user said."""

    lock: Path | None = None
    """Proven itself; with `vendor` and `cache`, what they should hold, too."""
    vendor: Path | None = None
    cache: bool = False
    crates: tuple[str, ...] = ()
    """`NAME` (its newest version that is not yanked) or `NAME@VERSION`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Where cargo's own cache is looked for."""
    json: bool = False

    @property
    def lock_to_prove(self) -> Path | None:
        """The lock that was named; where nothing at all was, the one that lies here."""
        said_other = self.vendor or self.cache or self.crates
        return self.lock if self.lock or said_other else DEFAULT_LOCK


class Verification:
    """One run: what is looked at, and who is told."""

    def __init__(
        self,
        options: VerifyOptions,
        settings: ClientSettings,
        clock: Callable[[], float],
        teller: Teller | None,
    ) -> None:
        self._options = options
        self._settings = settings
        self._clock = clock
        self._teller = teller
        self._trust = resolve_trust(settings)

    def run(self, lock: Lock | None, packages: Sequence[Package]) -> Report:
        """Verify; a finding about one package does not stop the others.

        Raises:
            ProofError, UnreachableError: the mirrors as a whole, and there is no package to tell
                it about.
        """
        # What was proven before says nothing about what the mirror holds now, so each file is
        # fetched; where files of this machine are in question, the cache is as good.
        with open_source(
            self._settings, self._clock, trust=self._trust, afresh=bool(packages)
        ) as source:
            try:
                source.refresh()
            except (ProofError, UnreachableError) as error:
                if not packages or self._options.vendor or self._options.cache:
                    raise
                # Nothing can be proven: this one finding is every package's.
                results = self._told(Result(package, error) for package in packages)
                return Report(lock, self._not_known(), results)
            results = self._told(prove_all(packages, source))
            checked = tuple(self._checked(lock, source))
            return Report(lock, source.standing(), results, checked)

    def _told(self, results: Iterable[Result]) -> tuple[Result, ...]:
        told = []
        for result in results:
            told.append(result)
            if self._teller is not None:
                self._teller.tell(result)
        return tuple(told)

    def _checked(self, lock: Lock | None, source: Source) -> Iterator[Checked]:
        for each in self._on_disk(lock, source):
            if self._teller is not None:
                self._teller.tell_checked(each)
            yield each

    def _on_disk(self, lock: Lock | None, source: Source) -> Iterator[Checked]:
        if self._options.vendor is not None:
            from mirror.client.commands.vendored import check_vendor  # noqa: PLC0415 - seldom wanted

            yield from check_vendor(self._options.vendor, lock, source)
        if self._options.cache:
            from mirror.client.commands.cargo_cache import (  # noqa: PLC0415 - seldom wanted
                cargo_homes,
                check_cache,
                our_registry_folders,
            )

            settings, trust = self._settings, self._trust
            homes = cargo_homes(self._options.environment, settings.cache_dir / trust.root_id)
            ports = () if settings.proxy_port is None else (settings.proxy_port,)
            registries = our_registry_folders(trust.root_id, trust.mirrors, ports)
            yield from check_cache(homes, registries, lock, source)

    def _not_known(self) -> Standing:
        trust = self._trust
        mirror = f"{trust.www}/" if trust.www else trust.mirrors[0]
        return Standing(mirror, root_sha256=trust.initial.sha256, how=str(trust.how))


def run_verify(
    options: VerifyOptions, settings: ClientSettings, clock: Callable[[], float], out: TextIO
) -> int:
    """Verify, tell it on `out`, return the exit code.

    Raises:
        UsageError: the options, the lock file or the root cannot be used.
        ProofError: the mirror's first root is not the one with the given fingerprint.
        UnreachableError: not even a root was to be had.
        MachineError: a folder of ours is not ours alone, or this machine's clock is wrong.
    """
    path = options.lock_to_prove
    lock = None if path is None else read_lock(path)
    packages: list[Package] = [*(lock.crates if lock else ()), *map(_named, options.crates)]
    teller = None if options.json else Teller(packages, out)
    report = Verification(options, settings, clock, teller).run(lock, packages)
    if teller is None:
        out.write(to_json(report, clock()) + "\n")
    else:
        teller.close(report, clock())
    return report.exit_code


def prove_all(packages: Sequence[Package], source: Source) -> Iterator[Result]:
    """Prove these side by side; yield what became of each, in their order."""
    source.prefetch({name_of(package) for package in packages})
    with ThreadPoolExecutor(_JOBS) as pool:
        yield from pool.map(lambda package: _result(package, source), packages)


def prove(package: LockedCrate | CrateId, source: Source) -> None:
    """Prove one package, from the root's keys down to the crate's bytes.

    1. Its index file is the one that signed metadata names.
    2. That has a line for the version; the last one counts, as in cargo.
    3. The line's `cksum` is the lock's `checksum`, if it comes from a lock.
    4. The mirror's operator does not deny it.
    5. The crate file has that sha256.

    Raises:
        NotHeldError: there is nothing to prove it with.
        ProofError: one of these does not hold.
        UnreachableError: the mirror gave no answer.
    """
    # 1. 2.
    entry = source.entry(package.crate if isinstance(package, LockedCrate) else package)
    # 3.
    if isinstance(package, LockedCrate) and package.checksum != entry.cksum:
        raise ProofError(
            str(package),
            source.standing().mirror + target_path(package.crate.canonical_name),
            f"the lock's checksum {package.checksum or '(it has none)'}",
            f"{entry.cksum} (signed)",
            "the lock was made from another source, or changed: see where it comes from",
        )
    # 4. 5.
    source.crate(entry.crate)


def _result(package: Package, source: Source) -> Result:
    try:
        if isinstance(package, str):
            package = _newest(package, source)
        prove(package, source)
    except (ProofError, UnreachableError) as error:
        return Result(package, error)
    return Result(package)


def _newest(name: CrateName, source: Source) -> CrateId:
    where = source.standing().mirror + target_path(name)
    try:
        entry = newest_entry(source.index_file(name).data, name)
    except MalformedIndexError as error:
        raise no_index_file(name, where, error) from error
    if entry is None or entry.yanked:
        expected, advice = "a version that is not yanked", f"name one: {name}@VERSION"
        raise AbsentError(name, where, expected, "none", advice, proved=False)
    return entry.crate


def _named(text: str) -> CrateId | CrateName:
    try:
        name, version = parse_subject(text)
        return name if version is None else CrateId(text.partition("@")[0], version)
    except RejectedError as error:
        raise UsageError(f"{error}; give NAME or NAME@VERSION") from error
