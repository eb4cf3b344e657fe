"""What `cargo sealed` says when cargo has ended: lines for people, or one line of JSON.

Rule: what is wrong, or may be, is always said; that all went well only where something was fetched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from mirror.client.sealed.aftermath import Finding

FORMAT = 1
_NAMED_MAX = 5
_PREFIX = "sealed: "
_OTHER_VERSION = "the proxy is of another version of crateseal: what it served is not known here"


class Summary(NamedTuple):
    """All that is known of a run."""

    findings: Sequence[Finding]
    not_covered: Sequence[str]
    notes: Sequence[str]
    """About the proxy: that it died, or cannot be started."""
    report: Mapping[str, Any] | None
    """The proxy's own; None: it was not needed, or did not answer."""

    def exit_code(self, cargos: int | None, *, strict: bool) -> int:
        """Return what to end with, where cargo ended with `cargos`; None: it never ran."""
        is_wrong = self.findings or (strict and self.not_covered)
        return 1 if is_wrong and not cargos else cargos or 0

    def lines(self, *, quiet: bool) -> Iterator[str]:
        """Return the lines for people."""
        report = self._known()
        if self.report and not report:
            yield f"{_PREFIX}warning: {_OTHER_VERSION}"
        served = report.get("index_files", 0) + report.get("crates", 0)
        if served and not quiet:
            yield (
                f"{_PREFIX}{_count(report['index_files'], 'index file')} and"
                f" {_count(report['crates'], 'crate')} verified, mirror {report.get('mirror')},"
                f" timestamp {report.get('timestamp')}"
            )
        unproved = report.get("unproved", ())
        if served or unproved or report.get("refused"):
            others = (f"mirror {url}: {what}" for url, what in report.get("others", ()))
            # The proxy's warnings may name them already.
            each_once = dict.fromkeys((*report.get("warnings", ()), *others))
            yield from (f"{_PREFIX}warning: {each}" for each in each_once)
        if unproved:
            yield (
                f"{_PREFIX}warning: {_count(len(unproved), 'absence')} unproved, on the mirror's"
                f" word alone: {_first(unproved)}"
            )
        yield from (f"{_PREFIX}refused: {_refusal(each)}" for each in report.get("refused", ()))
        yield from (f"{_PREFIX}warning: {each}" for each in self.notes)
        if self.not_covered:
            yield (
                f"{_PREFIX}not covered: {_count(len(self.not_covered), 'package or source')}:"
                f" {_first(self.not_covered)}"
            )
        yield from (f"{_PREFIX}FINDING: {each}" for each in self.findings)

    def as_json(self, cargos: int | None, code: int) -> str:
        """Return one line for machines."""
        said: dict[str, Any] = {
            "mirror": None,
            "others": [],
            "timestamp": None,
            "root_sha256": None,
            "warnings": [],
            "index_files": 0,
            "crates": 0,
            "unproved": [],
            "refused": [],
        }
        said |= {**self._known(), "format": FORMAT, "cargo": cargos, "exit": code}
        strange = [_OTHER_VERSION] if self.report and not self._known() else []
        said["warnings"] = [*said["warnings"], *strange, *self.notes]
        said["not_covered"] = list(self.not_covered)
        said["findings"] = [each._asdict() for each in self.findings]
        return json.dumps(said)

    def _known(self) -> Mapping[str, Any]:
        """Return the report, if it is one that we can read."""
        is_known = self.report is not None and self.report.get("format") == FORMAT
        return self.report or {} if is_known else {}


def _refusal(fields: Mapping[str, Any]) -> str:
    subject = fields.get("subject", "?")
    if "expected" not in fields:
        return f"{subject}: {fields.get('reason', '')}"
    where, expected, got = fields.get("where"), fields["expected"], fields.get("got")
    return f"{subject}: {where}: expected {expected}, got {got}; {fields.get('advice', '')}"


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED_MAX} more (all with --json)"
    return ", ".join(names[:_NAMED_MAX]) + (more if len(names) > _NAMED_MAX else "")


def _count(number: int, what: str) -> str:
    if number == 1:
        return f"1 {what}"
    return f"{number} {what.replace(' or ', 's or ')}s"
