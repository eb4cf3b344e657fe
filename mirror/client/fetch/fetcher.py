"""A mirror's bytes, over HTTP or from its folder.

Rule: nothing fetched here is believed. Every answer has a limit in bytes and in time, no answer
leads to another address, and what cannot be fetched is a `DownloadError`, as in python-tuf.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import stat
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    SlowRetrievalError,
)

from mirror.client.fetch.transport import (
    Ask,
    ConnectTimeoutError,
    DeadlineError,
    Pool,
    TooMuchError,
    Waits,
)
from mirror.client.home.settings import parse_mirror
from mirror.errors import UsageError

_REASON_MAX_BYTES = 400
_SAID_MAX_BYTES = 8_000_000
_HEADERS_MAX_BYTES = 65_536
_GZIP = 31  # zlib: gzip only, window of any size
_REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """How long one answer may take, in seconds, and how often we ask again."""

    connect_seconds: float = 5.0
    stall_seconds: float = 20.0
    """Without a byte; longer than a mirror holds a request while it fetches (10 s)."""
    total_seconds: float = 300.0
    tries: int = 4
    """A mirror that is still fetching says 503 and when to come back."""
    retry_max_seconds: float = 10.0
    connections: int = 32
    """At most so many requests are under way."""


class MirrorAwayError(DownloadError):
    """The mirror could not be reached, or cannot answer now: this says nothing about its bytes."""


class BadAnswerError(DownloadError):
    """An answer of a form that nobody asked for: in part, in another coding, broken.

    Attributes:
        expected: what was asked for.
        got: what came.
    """

    def __init__(self, url: str, expected: str, got: str) -> None:
        self.expected = expected
        self.got = got
        super().__init__(f"{url}: expected {expected}, got {got}")


class MirrorFetcher(ABC):
    """Fetches the files of one mirror, named by their paths under its root. Thread-safe.

    Attributes:
        base: where the mirror's root is, a URL or a folder; ends with a slash.
    """

    base: str

    @abstractmethod
    def read(
        self,
        path: str,
        max_bytes: int,
        *,
        compressed: bool = False,
        seconds: float | None = None,
    ) -> bytes:
        """Return one file's bytes; `path` is one that `core/layout.py` makes.

        Args:
            path: below the mirror's root.
            max_bytes: no more than these, when unpacked.
            compressed: let it come gzip-compressed; what is returned never is.
            seconds: for all of it, where that is less than what any answer may take.

        Raises:
            DownloadError: not to be had, or longer than that.
        """

    def where(self, path: str) -> str:
        """Return the whole address of a file, for people."""
        return self.base + path

    def close(self) -> None:  # noqa: B027 - most have nothing open
        """Let go of what is open."""


class HttpFetcher(MirrorFetcher):
    """Fetches over HTTP. Proxies as the environment says, for loopback never."""

    def __init__(
        self,
        base: str,
        limits: FetchLimits,
        *,
        as_it_is: bool = False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Fetch from this mirror.

        Args:
            base: its URL.
            limits: on each answer.
            as_it_is: nothing is asked for compressed, though what comes compressed is taken. A
                mirror keeps compressed files beside the others; who is to look at those must not
                be shown these.
            sleep: waits so many seconds.
        """
        self.base = checked_url(base)
        self._as_it_is = as_it_is
        self._path = urlsplit(self.base).path
        self._limits = limits
        self._sleep = sleep
        waits = Waits(limits.connect_seconds, limits.stall_seconds)
        self._pool = Pool(self.base, waits, limits.connections)

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def read(
        self,
        path: str,
        max_bytes: int,
        *,
        compressed: bool = False,
        seconds: float | None = None,
    ) -> bytes:
        """Return one file's bytes; asks again while the mirror says that it is still fetching."""
        url = self.base + path
        total_seconds = min(self._limits.total_seconds, math.inf if seconds is None else seconds)
        deadline = time.monotonic() + total_seconds
        headers = {
            "User-Agent": "crateseal",
            "Accept-Encoding": "gzip" if compressed and not self._as_it_is else "identity",
        }
        # gzip makes what cannot be compressed longer by a little.
        most = max_bytes + max_bytes // 1000 + _HEADERS_MAX_BYTES
        ask = Ask("GET", self._path + path, headers, deadline, most)
        for tries_left in reversed(range(self._limits.tries)):
            with _InWords(url, total_seconds), self._pool.answer(ask) as response:
                if response.status == 200:
                    return _body(url, response, max_bytes, compressed=compressed)
                pause = _retry_after(response, self._limits.retry_max_seconds)
                refusal = _refusal(url, response)
            if pause is None or not tries_left or time.monotonic() + pause > deadline:
                break
            self._sleep(pause)
        raise refusal

    def post(self, path: str, body: Any) -> Any:
        """Ask for something; return the answer's JSON, or None: it is no 200, or cannot be read.

        Asked once; whoever asks has to do without an answer.
        """
        url = self.base + path
        total_seconds = self._limits.total_seconds
        deadline = time.monotonic() + total_seconds
        headers = {"User-Agent": "crateseal", "Content-Type": "application/json"}
        most = _SAID_MAX_BYTES + _HEADERS_MAX_BYTES
        data = json.dumps(body).encode()
        ask = Ask("POST", self._path + path, headers, deadline, most, data)
        try:
            with _InWords(url, total_seconds), self._pool.answer(ask) as response:
                if response.status != 200:
                    return None
                return json.loads(_body(url, response, _SAID_MAX_BYTES, compressed=False))
        except (DownloadError, ValueError, RecursionError):
            return None

    def pause(self, seconds: float) -> None:
        """Leave the mirror alone for so long."""
        self._sleep(seconds)


class DiskFetcher(MirrorFetcher):
    """Reads the files of a mirror's `www/` folder."""

    def __init__(self, www: Path) -> None:
        self.base = f"{www}/"

    def read(
        self,
        path: str,
        max_bytes: int,
        *,
        compressed: bool = False,  # noqa: ARG002
        seconds: float | None = None,  # noqa: ARG002
    ) -> bytes:
        """Return one file's bytes."""
        file = self.base + path
        if ".." in path.split("/"):
            raise DownloadError(f"{file}: not a path of a mirror")
        try:
            # O_NONBLOCK: opening a fifo must not hang us.
            fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DownloadHTTPError(f"{file}: not there", 404) from error
        except OSError as error:
            raise MirrorAwayError(f"{file}: {error.strerror}") from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise DownloadHTTPError(f"{file}: not a file", 404)
        with os.fdopen(fd, "rb") as opened:
            data = opened.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise DownloadLengthMismatchError(f"{file}: more than {max_bytes} bytes")
        return data


def checked_url(text: str) -> str:
    """Return a mirror's URL with a slash at its end.

    Raises:
        UsageError: it is no http or https URL.
    """
    try:
        return parse_mirror(text)
    except (ValueError, TypeError, AttributeError):
        raise UsageError(
            f"mirror {text!r}: expected a URL such as https://crates.example.org"
        ) from None


def one_line(text: str) -> str:
    """Return text from outside so that it can be shown: one line, nothing a terminal obeys."""
    return "".join(char if char.isprintable() else " " for char in " ".join(text.split()))


def unpacked(url: str, data: bytes, max_bytes: int) -> bytes:
    """Return what one gzip member holds, if it is all there is and no longer than that.

    Raises:
        DownloadLengthMismatchError: it is longer; no more than that was unpacked.
        BadAnswerError: it is no gzip, cut short, or something follows it.
    """
    packed = zlib.decompressobj(_GZIP)
    try:
        whole = packed.decompress(data, max_bytes + 1)
    except zlib.error as error:
        raise BadAnswerError(url, "gzip", f"bytes that are none ({error})") from error
    if len(whole) > max_bytes:
        raise DownloadLengthMismatchError(f"{url}: more than {max_bytes} bytes when unpacked")
    if not packed.eof:
        raise BadAnswerError(url, "gzip, whole", "gzip that is cut short")
    if packed.unused_data:
        raise BadAnswerError(url, "one gzip member", f"{len(packed.unused_data)} bytes behind it")
    return whole


def _body(
    url: str, response: http.client.HTTPResponse, max_bytes: int, *, compressed: bool
) -> bytes:
    coding = (response.getheader("Content-Encoding") or "identity").strip().lower()
    if coding not in ({"identity", "gzip"} if compressed else {"identity"}):
        raise BadAnswerError(
            url,
            "gzip or nothing" if compressed else "no compression",
            f"coding {one_line(coding)!r}",
        )
    most = max_bytes if coding == "identity" else max_bytes + max_bytes // 1000 + 1000
    data = _bytes_of(url, response, most)
    return data if coding == "identity" else unpacked(url, data, max_bytes)


def _bytes_of(url: str, response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    if (response.length or 0) > max_bytes:
        raise DownloadLengthMismatchError(f"{url}: more than {max_bytes} bytes")
    data = response.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise DownloadLengthMismatchError(f"{url}: more than {max_bytes} bytes")
    if response.length:
        raise MirrorAwayError(f"{url}: the answer broke off, {response.length} bytes are missing")
    return data


def _retry_after(response: http.client.HTTPResponse, max_seconds: float) -> float | None:
    text = response.getheader("Retry-After") or ""
    if response.status != 503 or not (text.isascii() and text.isdecimal()):
        return None
    return min(float(text), max_seconds)


def _refusal(url: str, response: http.client.HTTPResponse) -> DownloadError:
    status = response.status
    if status in _REDIRECTS:
        target = one_line(response.getheader("Location") or "")[:200]
        return MirrorAwayError(f"{url}: leads to {target!r}; redirects are not followed")
    if status < 400:
        return BadAnswerError(url, "the whole file (200)", f"an answer {status}")
    text = b""
    with suppress(OSError, http.client.HTTPException):
        text = response.read(_REASON_MAX_BYTES)
    reason = one_line(text.decode(errors="replace"))
    words = f"{url}: answered {status}" + (f": {reason}" if reason else "")
    if status >= 500 or status == 429:
        return MirrorAwayError(words)
    return DownloadHTTPError(words, status)


class _InWords:
    """Turns what the standard library raises into a `DownloadError` that says which file."""

    def __init__(self, url: str, total_seconds: float) -> None:
        self._url = url
        self._total_seconds = total_seconds

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        url = self._url
        match error:
            case DeadlineError():
                raise SlowRetrievalError(
                    f"{url}: not there after {self._total_seconds:.0f} s"
                ) from error
            case TooMuchError():
                raise DownloadLengthMismatchError(f"{url}: more bytes than asked for") from error
            case ConnectTimeoutError():
                raise MirrorAwayError(f"{url}: no connection in time") from error
            case TimeoutError():
                raise MirrorAwayError(f"{url}: no answer in time") from error
            case http.client.HTTPException() | OSError():
                words = one_line(str(error)) or type(error).__name__
                raise MirrorAwayError(f"{url}: {_step(error)} ({words})") from error


def _step(error: BaseException) -> str:
    before = isinstance(error, ConnectionRefusedError) or not isinstance(
        error, ConnectionError | http.client.HTTPException
    )
    return "no connection" if before else "the answer broke off"
