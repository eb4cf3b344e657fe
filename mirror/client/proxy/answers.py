"""What the proxy answers: values, and the one table from errors to answers.

Cargo prints the body of a 403, with its status; of a 503 too, once it has given up trying. So the
text of every refusal is written for the person who reads cargo's output.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mirror.client.fetch.fetcher import one_line
from mirror.errors import (
    AbsentError,
    CratesealError,
    NotHeldError,
    ProofError,
    UnreachableError,
    WithheldError,
)

Headers = tuple[tuple[bytes, bytes], ...]

RETRY_AFTER_SECONDS = 5
"""Cargo honours up to 10 s, and tries four times."""
UNPROVED_HEADER = b"x-crateseal-absence"
_LINE_MAX_CHARS = 600
_TAG = re.compile(rb'"([^"]*)"')


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; its length is that of the body."""

    status: int
    body: bytes = b""
    headers: Headers = ()

    @property
    def line(self) -> str:
        """The text of the body, on one line, for a log."""
        return one_line(self.body.decode()).removeprefix("crateseal: ")

    def all_headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers with the body's length."""
        if self.status == 304:
            return list(self.headers)
        return [(b"content-length", b"%d" % len(self.body)), *self.headers]


def text(status: int, *lines: str, extra: Headers = ()) -> Answer:
    """Return lines of text, all but the first indented, as an answer that no cache keeps."""
    # Names and reasons come from outside, and cargo prints them as they are.
    body = "\n  ".join(one_line(line)[:_LINE_MAX_CHARS] for line in lines) + "\n"
    headers = (
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *extra,
    )
    return Answer(status, body.encode(errors="replace"), headers)


def try_later(line: str) -> Answer:
    """Return a 503 that says when to ask again."""
    return text(503, line, extra=((b"retry-after", b"%d" % RETRY_AFTER_SECONDS),))


def tag_of(sha256: str) -> bytes:
    """Return the ETag of an index file."""
    return b'"%s"' % sha256.encode()


def matches(condition: bytes, tag: bytes) -> bool:
    """Whether an `If-None-Match` names this ETag (RFC 9110, 13.1.2: by weak comparison)."""
    return condition.strip() == b"*" or tag.strip(b'"') in _TAG.findall(condition)


def index_file(sha256: str, data: bytes) -> Answer:
    """Return an index file; cargo asks again with its tag each time."""
    return Answer(200, data, ((b"content-type", b"text/plain"), *_of_index(sha256)))


def unchanged(sha256: str) -> Answer:
    """Return the answer that an index file is still the one with this tag."""
    return Answer(304, headers=_of_index(sha256))


def _of_index(sha256: str) -> Headers:
    return ((b"etag", tag_of(sha256)), (b"cache-control", b"no-cache"))


def crate_file(data: bytes) -> Answer:
    """Return a crate; it never changes, but what is withheld may."""
    headers = ((b"content-type", b"application/gzip"), (b"cache-control", b"no-cache"))
    return Answer(200, data, headers)


def refusal(error: CratesealError, *, strict_absence: bool) -> Answer:
    """Return what an error says to cargo: the one table."""
    match error:
        case WithheldError():
            answer = text(403, f"crateseal: {error.subject} is withheld: {error.reason}")
        case AbsentError(proved=True):
            answer = text(404, f"crateseal: {error.subject}: proved absent: {error.got}")
        case AbsentError():
            answer = _unproved(error, strict_absence=strict_absence)
        case ProofError():
            answer = text(403, *_finding(error))
        case UnreachableError():
            answer = try_later(f"crateseal: {error}")
        case _:  # this machine, or whatever else stands between: nothing is handed on
            answer = text(403, f"crateseal: {error}")
    return answer


def _finding(error: ProofError) -> tuple[str, ...]:
    what = "is not to be had" if isinstance(error, NotHeldError) else "does not verify"
    return (
        f"crateseal: {error.subject} {what}",
        f"where:      {error.where}",
        f"expected:   {error.expected}",
        f"got:        {error.got}",
        f"what to do: {error.advice}",
    )


def _unproved(error: AbsentError, *, strict_absence: bool) -> Answer:
    line = f"crateseal: {error.subject}: unproved: the mirror shows no proof that there is none"
    where = f"where: {error.where}"
    if strict_absence:
        return text(403, line, where, "refused because of --strict-absence")
    return text(404, line, where, extra=((UNPROVED_HEADER, b"unproved"),))
