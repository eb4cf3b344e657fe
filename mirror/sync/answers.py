"""Upstream's answers, taken apart with limits: nothing that comes in is believed.

Each function raises `UpstreamError` with a text that begins with its subject.
"""

from __future__ import annotations

import zlib
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


def refuse_status(response: httpx.Response, subject: str) -> UpstreamAnswerError:
    """Return the error for an answer that is neither the bytes nor their absence."""
    status = response.status_code
    text = f"{subject}: upstream answered {status}"
    wait = response.headers.get("retry-after")
    if status == 429 or (status == 503 and wait is not None):
        seconds = _retry_after(wait)
        return UpstreamBusyError(f"{text} and asks to wait {seconds:.0f} s", seconds)
    return UpstreamAnswerError(text)


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
        raise UpstreamAnswerError(f"{subject}: expected the bytes as they are, got {encoding}")
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
        raise UpstreamAnswerError(f"{subject}: upstream sent an empty body")
    return length


def decode_body(raw: bytes, encoding: str, subject: str, max_bytes: int) -> bytes:
    """Undo the content encoding: none, or gzip as exactly one member."""
    if encoding in ("", "identity"):
        return raw
    if encoding not in ("gzip", "x-gzip"):
        raise UpstreamAnswerError(f"{subject}: expected gzip, got content encoding {encoding!r}")
    inflater = zlib.decompressobj(_GZIP_WBITS)
    try:
        data = inflater.decompress(raw, max_bytes + 1)
    except zlib.error as error:
        raise UpstreamAnswerError(f"{subject}: broken gzip: {error}") from error
    if len(data) > max_bytes:
        raise _too_long(subject, max_bytes)
    if not inflater.eof:
        raise UpstreamAnswerError(f"{subject}: the gzip data ends too early")
    if inflater.unused_data:
        raise UpstreamAnswerError(
            f"{subject}: {len(inflater.unused_data)} bytes follow the gzip data"
        )
    return data


def refuse_no_index(response: httpx.Response, data: bytes, subject: str) -> None:
    """Raise where the body is no index file at all: a login page must not be signed about."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        raise UpstreamAnswerError(f"{subject}: expected an index file, got a page of HTML")
    start = data[:80].lstrip()
    if not data.strip():
        raise UpstreamAnswerError(f"{subject}: upstream sent an empty body")
    # White space may fill the first bytes; what counts is what follows it.
    if not (start or data.lstrip()[:80]).startswith(b"{"):
        excerpt = (start or data.lstrip())[:40].decode(errors="replace")
        raise UpstreamAnswerError(f"{subject}: expected lines of JSON, got {excerpt!r}")


def refuse_length(response: httpx.Response, subject: str, max_bytes: int) -> None:
    """Raise where the answer says itself that it is too long."""
    length = _declared_length(response)
    if length is not None and length > max_bytes:
        raise _too_long(subject, max_bytes, f"{length}")


def _refuse_truncated(response: httpx.Response, subject: str, got: int) -> None:
    length = _declared_length(response)
    if length is not None and length != got:
        raise UpstreamAnswerError(f"{subject}: expected {length} bytes, got {got}: cut off")


def _refuse_no_gzip(chunk: bytes, subject: str) -> None:
    if not chunk.startswith(_GZIP_MAGIC[: len(chunk)]):
        excerpt = chunk[:40].decode(errors="replace")
        raise UpstreamAnswerError(f"{subject}: expected a crate, got {excerpt!r}")


def _declared_length(response: httpx.Response) -> int | None:
    text = response.headers.get("content-length", "")
    return int(text) if text.isdecimal() and len(text) < 20 else None


def _too_long(subject: str, max_bytes: int, got: str = "more") -> UpstreamAnswerError:
    return UpstreamAnswerError(f"{subject}: expected at most {max_bytes} bytes, got {got}")


def _retry_after(value: str | None) -> float:
    # The other form, a date, is rare; it would need this machine's clock to be right.
    if value is None or not value.isdecimal() or len(value) > 9:
        return RETRY_AFTER_DEFAULT
    return min(float(value), RETRY_AFTER_MAX)
