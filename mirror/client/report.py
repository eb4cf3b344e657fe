"""What verification found, and how it is told: a line per package for people, JSON for programs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TextIO

from rich.text import Text

from mirror.client.fetcher import one_line
from mirror.core.lockfile import Lock, LockedCrate
from mirror.errors import CratesealError, NotHeldError, ProofError, UnreachableError
from mirror.terminal import Terminal

JSON_FORMAT = 1


class Status(StrEnum):
    """What became of one package."""

    PROVEN = "proven"
    FINDING = "finding"
    NOT_HELD = "not held"
    UNREACHABLE = "unreachable"


_STYLES = {
    Status.PROVEN: "green",
    Status.FINDING: "bold red",
    Status.NOT_HELD: "yellow",
    Status.UNREACHABLE: "yellow",
}


@dataclass(frozen=True, slots=True)
class Result:
    """One package of the lock, and why it is not proven where it is not."""

    package: LockedCrate
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
class Against:
    """What a lock was verified against."""

    mirror: str
    root_sha256: str
    timestamp_version: int | None = None
    is_trial: bool = False
    pins_trial: bool = False
    """Whether the root that was given was made for a first try, and a real one has followed."""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything about one verification."""

    lock: Lock
    against: Against
    results: tuple[Result, ...]

    @property
    def exit_code(self) -> int:
        """0 all proven; 1 a finding; 3 nothing worse than a mirror that gave no answer."""
        found = {result.status for result in self.results}
        if found & {Status.FINDING, Status.NOT_HELD}:
            return ProofError.exit_code
        return UnreachableError.exit_code if Status.UNREACHABLE in found else 0

    def count(self, status: Status) -> int:
        """Count the packages of which this became."""
        return Counter(result.status for result in self.results)[status]


class Teller:
    """Tells a verification while it goes on. Colour on a terminal only."""

    def __init__(self, lock: Lock, out: TextIO) -> None:
        self._console = Terminal(out)
        self._width = max((len(str(package)) for package in lock.crates), default=0)
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

    def _explain(self, error: CratesealError, package: str) -> None:
        for what, text in _parts(error).items():
            if text == package:
                continue
            self._print(
                Text(f"            {what:<9}", style="dim").append(one_line(text), "default")
            )

    def close(self, report: Report) -> None:
        """Print what was not looked at, and the summary."""
        for each in report.lock.not_covered:
            self._print(Text("not covered ", style="dim").append(one_line(each)))
        proven, total = report.count(Status.PROVEN), len(report.results)
        style = "bold green" if report.exit_code == 0 else "bold red"
        self._print(Text(f"{proven} of {total} packages of crates.io proven", style=style))
        against = report.against
        version = against.timestamp_version
        self._print(
            Text(f"against {against.mirror}", style="dim")
            .append(f", timestamp {version}" if version is not None else "")
            .append(f", root sha256 {against.root_sha256}")
        )
        if against.is_trial:
            self._print(
                Text("This is a TRIAL root: all its keys lie on the mirror itself.", style="yellow")
            )
        if against.pins_trial:
            self._print(
                Text(
                    "The root you gave was made for a first try, and a real one has followed: ask"
                    " the mirror's operator for its fingerprint, and give that from now on.",
                    style="yellow",
                )
            )

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)


def to_json(report: Report) -> str:
    """Return the report as JSON, for programs."""
    return json.dumps(
        {
            "format": JSON_FORMAT,
            "exit_code": report.exit_code,
            "lock": report.lock.where,
            "mirror": report.against.mirror,
            "timestamp": report.against.timestamp_version,
            "root_sha256": report.against.root_sha256,
            "trial": report.against.is_trial,
            "pins_trial": report.against.pins_trial,
            "proven": report.count(Status.PROVEN),
            "packages": [_package(result) for result in report.results],
            "not_covered": list(report.lock.not_covered),
            "local": report.lock.local,
        },
        indent=2,
    )


def _package(result: Result) -> dict[str, Any]:
    crate = result.package.crate
    fields: dict[str, Any] = {
        "name": crate.name,
        "version": crate.version,
        "status": result.status.value,
    }
    return fields | ({"finding": _parts(result.error)} if result.error is not None else {})


def _parts(error: CratesealError) -> dict[str, str]:
    if isinstance(error, ProofError):
        return {
            "subject": error.subject,
            "where": error.where,
            "expected": error.expected,
            "got": error.got,
            "advice": error.advice,
        }
    return {"reason": str(error)}
