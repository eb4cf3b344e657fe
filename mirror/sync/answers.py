"""Upstream's answers, taken apart with limits: nothing that comes in is believed.

Each function raises `UpstreamError` with a text that begins with its subject.
"""

from __future__ import annotations

import zlib
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx

from mirror.errors import UpstreamAnswerError, UpstreamBusyError

GONE_STATUSES = frozenset({404, 410, 451})
REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
VALIDATOR_MAX_CHARS = 300
RETRY_AFTER_DEFAULT = 5.0
RETRY_AFTER_MAX = 3600.0
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WBITS = 31
_BAD_GZIP = "in broken gzip"


def refuse_status(response: httpx.Response, subject: str, *, now: float) -> UpstreamAnswerError:
    """Return the error for an answer that is neither the bytes nor their absence."""
    status = response.status_code
    text = f"{subject}: upstream answered {status}"
    short = f"of {status}"
    if status == 429 or (status == 503 and "retry-after" in response.headers):
        seconds = retry_after(response.headers, now=now)
        return UpstreamBusyError(f"{text} and asks to wait {seconds:.0f} s", seconds, short)
    return UpstreamAnswerError(text, short)


def validator(response: httpx.Response, header: str) -> str:
    """Return a header to send back later, or nothing where it cannot be sent back."""
    value: str = response.headers.get(header, "")
    usable = len(value) <= VALIDATOR_MAX_CHARS and value.isascii() and value.isprintable()
    return value if usable else ""


async def read_body(response: httpx.Response, subject: str, max_bytes: int) -> bytes:
    """Return the whole body, inflated where it came as gzip; at most `max_bytes` either way."""
    refuse_length(response, subject, max_bytes)
    assert isinstance(response.stream, httpx.AsyncByteStream)
    raw = bytearray()
    async for chunk in response.stream:
        raw += chunk
        if len(raw) > max_bytes:
            raise _too_long(subject, max_bytes)
    _refuse_truncated(response, subject, len(raw))
    return decode_body(bytes(raw), response.headers.get("content-encoding", ""), subject, max_bytes)


async def save_body(response: httpx.Response, subject: str, max_bytes: int, file: Path) -> int:
    """Write a crate's bytes to a new file as they come; return how many they are."""
    refuse_length(response, subject, max_bytes)
    encoding = response.headers.get("content-encoding", "identity")
    if encoding != "identity":
        text = f"{subject}: expected the bytes as they are, got {encoding}"
        raise UpstreamAnswerError(text, "in an encoding nobody asked for")
    assert isinstance(response.stream, httpx.AsyncByteStream)
    length = 0
    with file.open("xb") as out:
        async for chunk in response.stream:
            if not length and chunk:
                _refuse_no_gzip(chunk, subject)
            length += len(chunk)
            if length > max_bytes:
                raise _too_long(subject, max_bytes)
            out.write(chunk)
    _refuse_truncated(response, subject, length)
    if not length:
        raise UpstreamAnswerError(f"{subject}: upstream sent an empty body", "empty")
    return length


def decode_body(raw: bytes, encoding: str, subject: str, max_bytes: int) -> bytes:
    """Undo the content encoding: none, or gzip as exactly one member."""
    if encoding in ("", "identity"):
        return raw
    if encoding not in ("gzip", "x-gzip"):
        text = f"{subject}: expected gzip, got content encoding {encoding!r}"
        raise UpstreamAnswerError(text, "in an encoding nobody asked for")
    inflater = zlib.decompressobj(_GZIP_WBITS)
    try:
        data = inflater.decompress(raw, max_bytes + 1)
    except zlib.error as error:
        raise UpstreamAnswerError(f"{subject}: broken gzip: {error}", _BAD_GZIP) from error
    if len(data) > max_bytes:
        raise _too_long(subject, max_bytes)
    if not inflater.eof:
        raise UpstreamAnswerError(f"{subject}: the gzip data ends too early", "cut off")
    if inflater.unused_data:
        raise UpstreamAnswerError(
            f"{subject}: {len(inflater.unused_data)} bytes follow the gzip data", _BAD_GZIP
        )
    return data


def refuse_no_index(response: httpx.Response, data: bytes, subject: str) -> None:
    """Raise where the body is no index file at all: a login page must not be signed about."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        text = f"{subject}: expected an index file, got a page of HTML"
        raise UpstreamAnswerError(text, "HTML instead of an index file")
    start = data[:80].lstrip()
    if not data.strip():
        raise UpstreamAnswerError(f"{subject}: upstream sent an empty body", "empty")
    # White space may fill the first bytes; what counts is what follows it.
    if not (start or data.lstrip()[:80]).startswith(b"{"):
        excerpt = (start or data.lstrip())[:40].decode(errors="replace")
        text = f"{subject}: expected lines of JSON, got {excerpt!r}"
        raise UpstreamAnswerError(text, "something else than an index file")


def refuse_length(response: httpx.Response, subject: str, max_bytes: int) -> None:
    """Raise where the answer says itself that it is too long."""
    length = _declared_length(response)
    if length is not None and length > max_bytes:
        raise _too_long(subject, max_bytes, f"{length}")


def _refuse_truncated(response: httpx.Response, subject: str, got: int) -> None:
    length = _declared_length(response)
    if length is not None and length != got:
        text = f"{subject}: expected {length} bytes, got {got}: cut off"
        raise UpstreamAnswerError(text, "cut off")


def _refuse_no_gzip(chunk: bytes, subject: str) -> None:
    if not chunk.startswith(_GZIP_MAGIC[: len(chunk)]):
        excerpt = chunk[:40].decode(errors="replace")
        text = f"{subject}: expected a crate, got {excerpt!r}"
        raise UpstreamAnswerError(text, "something else than a crate")


def _declared_length(response: httpx.Response) -> int | None:
    text = response.headers.get("content-length", "")
    return int(text) if text.isdecimal() and len(text) < 20 else None


def _too_long(subject: str, max_bytes: int, got: str = "more") -> UpstreamAnswerError:
    text = f"{subject}: expected at most {max_bytes} bytes, got {got}"
    return UpstreamAnswerError(text, "too long")


def retry_after(headers: httpx.Headers, *, now: float) -> float:
    """Return for how many seconds an answer asks to be left alone (RFC 9110, 10.2.3)."""
    value = headers.get("retry-after", "")
    if value.isascii() and value.isdecimal() and len(value) <= 9:
        return min(float(value), RETRY_AFTER_MAX)
    until = _http_date(value)
    if until is None:
        return RETRY_AFTER_DEFAULT
    # The answer's own date, where it has one: this machine's clock may be another.
    since = _http_date(headers.get("date", ""))
    return min(max(until - (now if since is None else since), 0.0), RETRY_AFTER_MAX)


def _http_date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
