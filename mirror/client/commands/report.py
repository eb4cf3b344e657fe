"""What verification found, and how it is told: a line per package for people, JSON for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TextIO, TypeAlias

from rich.text import Text

from mirror.client.commands.checked import Checked
from mirror.client.fetch.fetcher import one_line
from mirror.client.source.standing import Standing, parts_of
from mirror.core.lockfile import Lock, LockedCrate
from mirror.core.names import CrateId, CrateName
from mirror.core.times import rfc3339
from mirror.errors import CratesealError, NotHeldError, ProofError, UnreachableError
from mirror.terminal import Terminal

JSON_FORMAT = 1


class Status(StrEnum):
    """What became of one package."""

    PROVEN = "proven"
    FINDING = "finding"
    NOT_HELD = "not held"
    UNREACHABLE = "unreachable"
    NOT_COVERED = "not covered"


_STYLES = {
    Status.PROVEN: "green",
    Status.FINDING: "bold red",
    Status.NOT_HELD: "yellow",
    Status.UNREACHABLE: "yellow",
    Status.NOT_COVERED: "dim",
}


Package: TypeAlias = LockedCrate | CrateId | CrateName
"""Of a lock, named by the user, or named without a version."""


@dataclass(frozen=True, slots=True)
class Result:
    """One package, and why it is not proven where it is not."""

    package: Package
    error: CratesealError | None = None

    @property
    def status(self) -> Status:
        """What became of it."""
        match self.error:
            case None:
                return Status.PROVEN
            case NotHeldError():
                return Status.NOT_HELD
            case UnreachableError():
                return Status.UNREACHABLE
            case _:
                return Status.FINDING


@dataclass(frozen=True, slots=True)
class Report:
    """Everything about one verification."""

    lock: Lock | None
    against: Standing
    """What was verified against; without a timestamp's version: nothing could be."""
    results: tuple[Result, ...]
    checked: tuple[Checked, ...] = ()
    """Packages in folders of this machine."""

    @property
    def exit_code(self) -> int:
        """0 all proven; 1 a finding; 3 nothing worse than a mirror that gave no answer."""
        found = {result.status for result in self.results}
        codes = {each.exit_code for each in self.checked}
        if found & {Status.FINDING, Status.NOT_HELD} or ProofError.exit_code in codes:
            return ProofError.exit_code
        if Status.UNREACHABLE in found:
            codes.add(UnreachableError.exit_code)
        return max(codes, default=0)

    def count(self, status: Status) -> int:
        """Count the packages of which this became."""
        return Counter(result.status for result in self.results)[status]


class Teller:
    """Tells a verification while it goes on. Colour on a terminal only."""

    def __init__(self, packages: Sequence[Package], out: TextIO) -> None:
        self._console = Terminal(out)
        self._width = max((len(str(package)) for package in packages), default=0)
        self._told: set[int] = set()

    def tell(self, result: Result) -> None:
        """Print the line of one package, and below it what is wrong, once for all it concerns."""
        status = result.status
        line = Text(f"{status:<11} ", style=_STYLES[status])
        line.append(str(result.package), style="default not bold")
        error = result.error
        if error is not None and id(error) in self._told:
            line.pad_right(self._width - len(str(result.package)))
            line.append("  as above", style="dim not bold")
        self._print(line)
        if error is not None and id(error) not in self._told:
            self._told.add(id(error))
            self._explain(error, str(result.package))

    def tell_checked(self, checked: Checked) -> None:
        """Print the line of a package on this machine, and below it all that is wrong."""
        status = status_of(checked)
        line = Text(f"{status:<11} ", style=_STYLES[status])
        line.append(f"{one_line(checked.package)} in {one_line(checked.where)}", "default not bold")
        extra = checked.not_covered or checked.note
        self._print(line.append(f"  {one_line(extra)}" if extra else "", "dim not bold"))
        for error in checked.errors:
            self._explain(error, checked.package)

    def _explain(self, error: CratesealError, package: str) -> None:
        for what, text in parts_of(error).items():
            if text == package:
                continue
            self._print(
                Text(f"            {what:<9}", style="dim").append(one_line(text), "default")
            )

    def close(self, report: Report, now: float) -> None:
        """Print what was not looked at, the summary, and what else the user has to know."""
        for each in report.lock.not_covered if report.lock else ():
            self._print(Text("not covered ", style="dim").append(one_line(each)))
        local = report.lock.local if report.lock else 0
        if local:
            packages = "package" if local == 1 else "packages"
            self._print(Text(f"{local} local {packages}: not looked at", style="dim"))
        style = "bold green" if report.exit_code == 0 else "bold red"
        proven, total = report.count(Status.PROVEN), len(report.results)
        if total or not report.checked:
            self._print(Text(f"{proven} of {total} packages of crates.io proven", style=style))
        if report.checked:
            proven = sum(each.is_proven for each in report.checked)
            total = len(report.checked)
            self._print(Text(f"{proven} of {total} packages on this machine proven", style=style))
        against = report.against
        version = against.timestamp_version
        self._print(
            Text(f"against {against.mirror}", style="dim")
            .append(f", timestamp {version}" if version else "")
            .append(f", root sha256 {against.root_sha256}")
        )
        for warning in against.warnings(now):
            self._print(Text(one_line(warning), style="yellow"))

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)


def name_of(package: Package) -> CrateName:
    """Return the name of the index file that is about a package."""
    if isinstance(package, str):
        return package
    crate = package.crate if isinstance(package, LockedCrate) else package
    return crate.canonical_name


def status_of(checked: Checked) -> Status:
    """Return what became of a package on this machine."""
    if checked.is_proven:
        return Status.PROVEN
    if not checked.errors:
        return Status.NOT_COVERED
    is_away = checked.exit_code == UnreachableError.exit_code
    return Status.UNREACHABLE if is_away else Status.FINDING


def to_json(report: Report, now: float) -> str:
    """Return the report as JSON, for programs."""
    lock, against = report.lock, report.against
    return json.dumps(
        {
            "format": JSON_FORMAT,
            "exit_code": report.exit_code,
            "lock": lock.where if lock else None,
            "mirror": against.mirror,
            "others": [list(each) for each in against.others],
            "timestamp": against.timestamp_version or None,
            "root_sha256": against.root_sha256,
            "trusted": against.how,
            "trial": against.is_trial,
            "pins_trial": against.pins_trial,
            "away": against.away,
            "stale_until": _time(against.stale_until),
            "upstream_confirmed": _time(against.upstream_confirmed),
            "warnings": list(against.warnings(now)),
            "proven": report.count(Status.PROVEN),
            "packages": [_package(result) for result in report.results],
            "on_disk": [_on_disk(each) for each in report.checked],
            "not_covered": list(lock.not_covered) if lock else [],
            "local": lock.local if lock else 0,
        },
        indent=2,
    )


def _package(result: Result) -> dict[str, Any]:
    package = result.package
    crate = package.crate if isinstance(package, LockedCrate) else package
    if isinstance(crate, CrateId):
        fields: dict[str, Any] = {"name": crate.name, "version": crate.version}
    else:
        fields = {"name": crate, "version": None}
    fields["status"] = result.status.value
    return fields | ({"finding": parts_of(result.error)} if result.error is not None else {})


def _on_disk(checked: Checked) -> dict[str, Any]:
    return {
        "package": checked.package,
        "where": checked.where,
        "status": status_of(checked).value,
        "files": checked.files,
        "findings": [parts_of(error) for error in checked.errors],
        "note": checked.not_covered or checked.note,
    }


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else rfc3339(seconds)
