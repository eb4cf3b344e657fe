"""Answers as ASGI messages, made ahead where they can be, and the rules of conditional requests.

No message is ever changed once it is made: the same ones are sent many times.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

RETRY_AFTER_SECONDS = 5
TEXT_MAX_CHARS = 2_000

_TAG = re.compile(rb'"([^"]*)"')
_GZIP_REFUSED = re.compile(rb"(?:x-)?gzip\s*;\s*q=0(?:\.0*)?\s*(?:,|\Z)")


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole short answer."""

    start: Message
    body: Message

    @property
    def status(self) -> int:
        """The status code."""
        return int(self.start["status"])

    @property
    def line(self) -> str:
        """The text without its newline."""
        return bytes(self.body["body"]).decode().rstrip("\n")


def start_of(status: int, headers: Headers) -> Message:
    """Return the message that begins an answer."""
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body_of(data: bytes, *, more: bool = False) -> Message:
    """Return a message with a piece of the body."""
    return {"type": "http.response.body", "body": data, "more_body": more}


NO_BODY = body_of(b"")


def plain(text: str) -> str:
    """Return text that is safe on a terminal: cargo prints the body of a 403 as it comes."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text[:TEXT_MAX_CHARS])


def text(status: int, line: str, *extra: tuple[bytes, bytes]) -> Answer:
    """Return a line of text as an answer that no cache keeps."""
    data = plain(line).encode(errors="replace") + b"\n"
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(data)).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *extra,
    ]
    return Answer(start_of(status, headers), body_of(data))


def try_later(line: str, status: int = 503) -> Answer:
    """Return 503 or 429: cargo waits as `Retry-After` says (10 s at most) and tries four times."""
    return text(status, line, (b"retry-after", str(RETRY_AFTER_SECONDS).encode()))


@lru_cache(maxsize=64)
def accepts_gzip(value: bytes) -> bool:
    """Whether an `Accept-Encoding` names gzip and does not refuse it (RFC 9110, 12.5.3)."""
    return b"gzip" in value and not _GZIP_REFUSED.search(value)


def matches(condition: bytes, tag: bytes) -> bool:
    """Whether an `If-None-Match` names this ETag, by weak comparison (RFC 9110, 8.8.3.2).

    The tag of a compressed file is that of the plain one and `-gzip`: the content is the same.
    """
    if condition == tag or condition.strip() == b"*":
        return True
    wanted = tag.strip(b'"').removesuffix(b"-gzip")
    return any(found.removesuffix(b"-gzip") == wanted for found in _TAG.findall(condition))
