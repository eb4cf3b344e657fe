"""What `sync` hands to `sign` in one go: the values, and their JSON.

A batch is a folder `spool/N/` with `batch.json` (this), `data` (the index files' bytes, one after
another) and one file per crate. `sign` believes *when* something was looked at, gone or complete;
the bytes it audits itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from mirror.core.names import CrateId, CrateName, parse_name
from mirror.errors import MalformedMessageError, RejectedError

BATCH_JSON_MAX_BYTES = 64_000_000
SEEN_MAX_CHARS = 16_384
"""As long as a timestamp may be for python-tuf."""
_TIME_MAX = 2.0**33


class Outcome(StrEnum):
    """What a look at one name in the upstream index brought."""

    BYTES = "bytes"
    UNCHANGED = "unchanged"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Look:
    """One look at one name upstream. Times are seconds since 1970, UTC."""

    name: CrateName
    at: float
    outcome: Outcome
    offset: int = 0
    length: int = 0
    """Where the bytes lie in `data`; both 0 unless the outcome is BYTES."""
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class FetchedCrate:
    """One crate file that was fetched because somebody asked for it."""

    crate: CrateId
    file: str
    """Its name in the batch's folder: digits and `.crate`."""
    length: int


@dataclass(frozen=True, slots=True)
class Sweep:
    """One look at every followed name, ended with this batch."""

    began: float
    names_as_of: float
    """The age of the names source, where the names came from one; else `began`."""
    names: int
    missing: int
    """Names upstream gave no usable answer for; with any, nothing is complete."""
    whole_source: bool
    """Whether the names were a whole names source (mode index), so that absence means something."""


@dataclass(frozen=True, slots=True)
class Sweeping:
    """The sweep that a batch's looks are part of, while it goes on."""

    began: float
    names: int
    """How many names it looks at."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything `sync` says in one batch."""

    number: int
    source: str
    """Where the bytes come from, e.g. `sparse+https://index.crates.io/`."""
    looks: tuple[Look, ...] = ()
    crates: tuple[FetchedCrate, ...] = ()
    sweep: Sweep | None = None
    confirmed: float | None = None
    """The oldest successful look among the followed names."""
    sweeping: Sweeping | None = None
    """None: these looks were asked for by somebody."""
    seen: str = ""
    """A `timestamp.json` that is served at the public URL and is not the one that lies here."""

    def to_json(self) -> bytes:
        """Return the bytes of `batch.json`."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Settled:
    """The signer's answer to one batch: everything in it is dealt with.

    `refused` names what was quarantined, with the reason; the rest is published (or was already).
    """

    batch: int
    timestamp: int
    """Version of the timestamp that was current when the batch was settled."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Canonical name, or `name version` of a crate file -> reason."""
    refused_whole: str = ""
    """Why nothing of the batch was looked at; everything in it must be fetched again."""
    denied: tuple[str, ...] = ()
    """Of what was refused, what the operator denies: nothing that a later try could mend."""
    doubted: Mapping[str, float] = field(default_factory=dict)
    """Names upstream says are gone that stay published until a second look says so too -> the time
    from which on that look counts, seconds since 1970."""
    stopped: str = ""
    """Why the sweep is to end: too much of it turned into findings."""
    unexamined: tuple[str, ...] = ()
    """With `stopped`: names of the batch that were not looked at; as if they were not offered."""


def parse_batch(number: int, data: bytes) -> Batch:
    """Read `batch.json`; nothing in it is believed to be well-formed.

    Raises:
        MalformedMessageError: it is not a batch, or not the one with this number.
    """
    try:
        fields = json.loads(data)
        if fields["number"] != number:
            raise MalformedMessageError("batch", f"number {number}", repr(fields["number"]))
        sweep, sweeping = fields["sweep"], fields.get("sweeping")
        return Batch(
            number=number,
            source=str(fields["source"]),
            looks=tuple(_look(item) for item in fields["looks"]),
            crates=tuple(_fetched(item) for item in fields["crates"]),
            sweep=None if sweep is None else _sweep(sweep),
            confirmed=None if fields["confirmed"] is None else _time(fields["confirmed"]),
            sweeping=None if sweeping is None else _sweeping(sweeping),
            seen=_seen(fields.get("seen", "")),
        )
    except (
        ValueError, KeyError, TypeError, AttributeError, RecursionError, RejectedError
    ) as error:  # fmt: skip
        raise MalformedMessageError("batch", "a batch.json", repr(error)) from error


def _look(item: dict[str, Any]) -> Look:
    return Look(
        name=_canonical(item["name"]),
        at=_time(item["at"]),
        outcome=Outcome(item["outcome"]),
        offset=_count(item["offset"]),
        length=_count(item["length"]),
        sha256=str(item["sha256"]),
    )


def _fetched(item: dict[str, Any]) -> FetchedCrate:
    file = str(item["file"])
    if not file.removesuffix(".crate").isdecimal():
        raise MalformedMessageError("batch", "a crate's file name of digits", repr(file))
    crate = CrateId(str(item["crate"]["name"]), str(item["crate"]["version"]))
    return FetchedCrate(crate, file, _count(item["length"]))


def _seen(value: object) -> str:
    if not isinstance(value, str) or len(value) > SEEN_MAX_CHARS:
        raise MalformedMessageError("batch", f"a text of at most {SEEN_MAX_CHARS}", "another")
    value.encode()  # a ValueError for half a character
    return value


def _sweep(item: dict[str, Any]) -> Sweep:
    return Sweep(
        began=_time(item["began"]),
        names_as_of=_time(item["names_as_of"]),
        names=_count(item["names"]),
        missing=_count(item["missing"]),
        whole_source=item["whole_source"] is True,
    )


def _sweeping(item: dict[str, Any]) -> Sweeping:
    return Sweeping(_time(item["began"]), _count(item["names"]))


def _canonical(text: object) -> CrateName:
    name = parse_name(str(text))
    if name != text:
        raise RejectedError("batch", "a name in lower case", repr(text))
    return name


def _time(value: object) -> float:
    # json reads NaN and Infinity; no time is one.
    if not isinstance(value, int | float) or not 0 <= value < _TIME_MAX:
        raise MalformedMessageError("batch", "seconds since 1970", repr(value))
    return float(value)


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise MalformedMessageError("batch", "a whole number from 0", repr(value))
    return value
