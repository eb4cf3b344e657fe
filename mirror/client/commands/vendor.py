"""`crateseal vendor DIR`: a folder that plain cargo builds from, with no proxy, every file checked.

Entry for the command line: `run_vendor(VendorOptions(...), settings, clock, out)` prints to `out`
and returns the exit code: 0 all there; 1 a finding, the others are there; 3 the mirror was not
reached (and nothing worse was found). Only after exit 0 it prints the lines for cargo's config.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from rich.text import Text

from mirror.client.commands.bar import Step, counting
from mirror.client.commands.checked import shown
from mirror.client.commands.report import Result, Teller
from mirror.client.commands.vendor_folder import VendorFolder, folder_name
from mirror.client.home.settings import ClientSettings
from mirror.client.source.source import Source, open_source
from mirror.core.index import IndexEntry
from mirror.core.lockfile import Lock, LockedCrate
from mirror.errors import ArchiveError, CratesealError, ProofError, UnreachableError
from mirror.store.lockfile import read_lock
from mirror.terminal import Terminal

JOBS = 32
"""Packages that are fetched and unpacked side by side."""
SOURCE_NAME = "crateseal-vendored"


@dataclass(frozen=True, slots=True)
class VendorOptions:
    """What the user said."""

    folder: Path
    lock: Path = Path("Cargo.lock")
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one package of the lock."""

    package: LockedCrate
    error: CratesealError | None = None
    files: int | None = None
    """How many were written; None: nothing was, since all of it was there."""


@dataclass(frozen=True, slots=True)
class Vendored:
    """What became of a whole lock."""

    outcomes: tuple[Outcome, ...]
    removed: tuple[str, ...]
    """Packages that the lock no longer names."""

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """Those that are not there."""
        return tuple(each for each in self.outcomes if each.error is not None)

    @property
    def exit_code(self) -> int:
        """0 all there; 1 a finding; 3 nothing worse than a mirror that gave no answer."""
        errors = [each.error for each in self.failed]
        if any(not isinstance(error, UnreachableError) for error in errors):
            return ProofError.exit_code
        return UnreachableError.exit_code if errors else 0


def run_vendor(
    options: VendorOptions, settings: ClientSettings, clock: Callable[[], float], out: TextIO
) -> int:
    """Vendor a lock file, tell it on `out`, return the exit code.

    Raises:
        UsageError: the options, the lock file or the folder cannot be used.
        BusyError: another process writes that folder.
        ProofError, UnreachableError: the look at the mirrors as a whole.
    """
    lock = read_lock(options.lock)
    progress = None if options.quiet else sys.stderr
    with open_source(settings, clock) as source:
        standing = source.refresh()
        with counting("vendoring", len(lock.crates), progress, time.monotonic) as step:
            vendored = vendor(options.folder, lock, source, step)
        warnings = standing.warnings(clock())
    tell(vendored, options, lock, warnings, out)
    return vendored.exit_code


def vendor(folder: Path, lock: Lock, source: Source, step: Step = lambda: None) -> Vendored:
    """Bring a folder to hold the packages of a lock, verified; a finding stops no other package.

    Raises:
        UsageError: in the folder there is what is not ours.
        BusyError: another process writes it.
        ProofError, UnreachableError: the look at the mirrors as a whole.
    """
    packages = list({each.crate: each for each in lock.crates}.values())
    with VendorFolder.open(folder) as place:
        superseded = place.superseded(map(_folder, packages))
        place.mark_incomplete(map(str, packages))  # until it is known what is missing
        source.prefetch({each.crate.canonical_name for each in packages})
        outcomes = list(_outcomes(place, packages, source, step))
        failed = [str(each.package) for each in outcomes if each.error is not None]
        place.put_in_place(_folder(each.package) for each in outcomes if each.files is not None)
        place.mark_incomplete(failed)
        removed = () if failed else tuple(superseded)
        for name in removed:
            place.remove(name)
        if not failed:
            place.mark_complete()
    return Vendored(tuple(sorted(outcomes, key=lambda each: str(each.package))), removed)


def _folder(package: LockedCrate) -> str:
    return f"{package.crate.name}-{package.crate.version}"


def _outcomes(
    place: VendorFolder, packages: list[LockedCrate], source: Source, step: Step
) -> Iterator[Outcome]:
    pool = ThreadPoolExecutor(JOBS)
    try:
        futures = [pool.submit(_bring, place, each, source) for each in packages]
        for future in as_completed(futures):
            yield future.result()
            step()
    finally:
        pool.shutdown(cancel_futures=True)


def _bring(place: VendorFolder, package: LockedCrate, source: Source) -> Outcome:
    """Verify a package and unpack it, if it is not there.

    1. A signed index line names it, letter by letter, with the checksum that the lock says.
    2. Its bytes are the ones of that line.
    3. What is there already is exactly that, or may be replaced by it.
    """
    try:
        entry = source.entry(package.crate)
        _check_lock(package, entry)  # 1.
        data = source.crate(entry.crate)  # 2.
        if place.is_right(entry, data):  # 3.
            return Outcome(package)
        return Outcome(package, files=place.write(entry, data))
    except ArchiveError as error:
        where, advice = f"{folder_name(entry)}.crate", "see who published it"
        return Outcome(package, ProofError(str(package), where, error.expected, error.got, advice))
    except (ProofError, UnreachableError) as error:
        return Outcome(package, error)


def _check_lock(package: LockedCrate, entry: IndexEntry) -> None:
    wanted = package.crate, package.checksum
    if wanted != (entry.crate, entry.cksum):
        raise ProofError(
            str(package),
            "the lock file",
            f"its checksum {package.checksum or '(it has none)'} for {package.crate}",
            f"{entry.cksum} for {entry.crate} (signed)",
            "the lock was made from another source, or changed: see where it comes from",
        )


# ---- what people read


def tell(
    vendored: Vendored,
    options: VendorOptions,
    lock: Lock,
    warnings: tuple[str, ...],
    out: TextIO,
) -> None:
    """Tell what became of a lock; the lines for cargo's config last, if all went well."""
    console = Terminal(out)

    def say(text: str, style: str = "") -> None:
        console.print(Text(shown(text), style=style), soft_wrap=True)

    teller = Teller([each.package for each in vendored.failed], out)
    for outcome in vendored.failed:
        teller.tell(Result(outcome.package, outcome.error))
    for package in lock.not_covered:
        say(f"not covered {package}: it needs a source of its own")
    for warning in warnings:
        say(warning, "yellow")
    written = sum(each.files is not None for each in vendored.outcomes)
    kept = len(vendored.outcomes) - written - len(vendored.failed)
    counts = f"{written} packages written, {kept} kept, {len(vendored.removed)} removed"
    if vendored.failed:
        say(f"{options.folder}: INCOMPLETE: {counts}, {len(vendored.failed)} missing", "bold red")
    else:
        say(f"{options.folder}: {counts}", "bold green")
        say("\nTo build from it, put this into .cargo/config.toml:\n")
        out.write(config_lines(options.folder, options.lock))


def config_lines(folder: Path, lock: Path) -> str:
    """Return what makes cargo build from this folder, in a `.cargo/config.toml` beside the lock."""
    folder, project = folder.absolute(), lock.absolute().parent
    if folder.is_relative_to(project):
        folder = folder.relative_to(project)
    return (
        f'[source.crates-io]\nreplace-with = "{SOURCE_NAME}"\n\n'
        f"[source.{SOURCE_NAME}]\ndirectory = {_toml_string(str(folder))}\n"
    )


def _toml_string(text: str) -> str:
    from tomlkit import string  # noqa: PLC0415 - slow to load

    return string(text).as_string()
