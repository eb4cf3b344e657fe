"""The messages on the sockets in `run/`: one JSON object a line, one question a connection.

`sync.sock`: Want -> WantAnswer, from `serve`; `sync` takes every field as hostile.
`sign.sock`: Offer -> Settled (core/batch.py), from `sync`; nothing else goes through there.
`admin.sock`: Order or Recover -> Done, from the operator; only the signer's user can open it.

An answer is a hint; what counts is what is published.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from mirror.core.batch import Settled
from mirror.core.names import CrateId, CrateName, parse_name
from mirror.errors import MalformedMessageError, RejectedError

MESSAGE_MAX_BYTES = 8_000_000
WANT_MAX_NAMES = 2_000
SYNC_SOCKET = "sync.sock"
SIGN_SOCKET = "sign.sock"
ADMIN_SOCKET = "admin.sock"
CLIENT_MAX_CHARS = 64
REASON_MAX_CHARS = 500


@dataclass(frozen=True, slots=True)
class Want:
    """Somebody asked for these.

    `names`: index files that are lacking; fetch them, in one publication.
    `seen`: index files that are held and were asked for; look again behind if they are old.
    `crates`: crate files that are lacking; their index files too, where those are lacking.
    """

    names: tuple[CrateName, ...] = ()
    seen: tuple[CrateName, ...] = ()
    crates: tuple[CrateId, ...] = ()
    client: str = ""
    """Whose budget pays for what is asked for the first time: an IP address; "": nobody's."""


@dataclass(frozen=True, slots=True)
class WantAnswer:
    """What became of a Want. A name in none of the maps is published now.

    Keys are canonical names, or `name version` for crates (`str(CrateId)`).
    """

    timestamp: int = 0
    """Version of the timestamp to look for."""
    absent: tuple[str, ...] = ()
    """Upstream has no such thing, or it is outside the names source."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """What audit or verification refused, with the reason."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """What could not be fetched now, with the reason; asking again later may help."""
    fresh_seconds: float = 0.0
    """For `seen`: for so long nobody need say again that these were asked for."""
    over_budget: tuple[str, ...] = ()
    """Not asked for: this client has asked for too many names for the first time."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Batch `number` lies in the spool."""

    batch: int


class Verb(StrEnum):
    """What an operator decides."""

    DENY = "deny"
    ALLOW = "allow"
    ACCEPT = "accept"


@dataclass(frozen=True, slots=True)
class Order:
    """An operator's decision about a crate, or one version of it."""

    verb: Verb
    name: CrateName
    version: str | None = None
    reason: str = ""
    """For DENY; public."""
    sha256: str = ""
    """For ACCEPT: how the digest of what was looked at begins; "": whatever is quarantined."""


@dataclass(frozen=True, slots=True)
class Recover:
    """The operator's word that no other signer is at work any more: go on, far beyond it."""

    recover: bool = True


@dataclass(frozen=True, slots=True)
class Done:
    """What became of an Order, or of a Recover."""

    text: str
    """For the operator: what was done, or why it was not."""
    exit_code: int = 0


def encode(message: Want | WantAnswer | Offer | Settled | Order | Recover | Done) -> bytes:
    """Return the message as one line of JSON."""
    return json.dumps(asdict(message), separators=(",", ":")).encode() + b"\n"


def parse_want(line: bytes) -> Want:
    """Read a Want; names are canonicalised, counts are limited.

    Raises:
        MalformedMessageError: it is not a Want.
    """
    fields = _object(line)
    names, seen, crates = (_list(fields, key) for key in ("names", "seen", "crates"))
    try:
        return Want(
            names=tuple(parse_name(str(name)) for name in names),
            seen=tuple(parse_name(str(name)) for name in seen),
            crates=tuple(CrateId(str(c["name"]), str(c["version"])) for c in crates),
            client=str(fields.get("client", ""))[:CLIENT_MAX_CHARS],
        )
    except (RejectedError, KeyError, TypeError) as error:
        raise MalformedMessageError("want", "names of crates", str(error)) from error


def parse_want_answer(line: bytes) -> WantAnswer:
    """Read a WantAnswer.

    Raises:
        MalformedMessageError: it is not one.
    """
    fields = _object(line)
    return WantAnswer(
        timestamp=int(fields.get("timestamp", 0)),
        absent=tuple(str(name) for name in _list(fields, "absent")),
        refused=_texts(fields, "refused"),
        failed=_texts(fields, "failed"),
        fresh_seconds=float(fields.get("fresh_seconds", 0.0)),
        over_budget=tuple(str(name) for name in _list(fields, "over_budget")),
    )


def parse_offer(line: bytes) -> Offer:
    """Read an Offer.

    Raises:
        MalformedMessageError: it is not one.
    """
    number = _object(line).get("batch")
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**53:
        raise MalformedMessageError("offer", "the number of a batch", repr(number))
    return Offer(number)


def parse_settled(line: bytes) -> Settled:
    """Read a Settled.

    Raises:
        MalformedMessageError: it is not one.
    """
    fields = _object(line)
    return Settled(
        batch=int(fields.get("batch", -1)),
        timestamp=int(fields.get("timestamp", 0)),
        refused=_texts(fields, "refused"),
        refused_whole=str(fields.get("refused_whole", "")),
        denied=tuple(str(name) for name in fields.get("denied", ())),
        doubted={name: float(at) for name, at in _map(fields, "doubted").items()},
        stopped=str(fields.get("stopped", "")),
        unexamined=tuple(str(name) for name in fields.get("unexamined", ())),
    )


def parse_order(line: bytes) -> Order | Recover:
    """Read an Order, or a Recover.

    Raises:
        MalformedMessageError: it is neither.
    """
    fields = _object(line)
    if fields.get("recover") is True:
        return Recover()
    version = fields.get("version")
    try:
        crate = CrateId(str(fields["name"]), "0.0.0" if version is None else str(version))
        return Order(
            Verb(fields["verb"]),
            crate.canonical_name,
            None if version is None else crate.version,
            str(fields.get("reason", "")),
            str(fields.get("sha256", "")),
        )
    except (RejectedError, KeyError, ValueError) as error:
        raise MalformedMessageError(
            "order", "deny, allow or accept NAME[@VERSION]", str(error)
        ) from error


def parse_done(line: bytes) -> Done:
    """Read a Done.

    Raises:
        MalformedMessageError: it is not one.
    """
    fields = _object(line)
    return Done(str(fields.get("text", "")), int(fields.get("exit_code", 1)))


async def ask(socket: Path, message: Want | Offer | Order | Recover) -> bytes:
    """Send one message, return the answer's line. The caller sets the time limit.

    Raises:
        OSError: nobody listens there, or the other side went away without an answer.
    """
    reader, writer = await asyncio.open_unix_connection(str(socket), limit=MESSAGE_MAX_BYTES)
    try:
        writer.write(encode(message))
        await writer.drain()
        line = await reader.readline()
    finally:
        writer.close()
    if not line.endswith(b"\n"):
        raise ConnectionResetError(f"{socket.name}: no answer")
    return line


def _object(line: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise MalformedMessageError("message", "one JSON object a line", repr(error)) from error
    if not isinstance(fields, dict):
        raise MalformedMessageError("message", "one JSON object a line", type(fields).__name__)
    return fields


def _list(fields: dict[str, Any], key: str) -> list[Any]:
    value = fields.get(key, [])
    if not isinstance(value, list) or len(value) > WANT_MAX_NAMES:
        raise MalformedMessageError("message", f"{key}: at most {WANT_MAX_NAMES}", repr(value)[:80])
    return value


def _texts(fields: dict[str, Any], key: str) -> dict[str, str]:
    return {str(name): str(reason) for name, reason in _map(fields, key).items()}


def _map(fields: dict[str, Any], key: str) -> dict[str, Any]:
    value = fields.get(key, {})
    if not isinstance(value, dict):
        raise MalformedMessageError("message", f"{key}: an object", repr(value)[:80])
    return value
