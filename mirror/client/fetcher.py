"""A mirror's bytes, over HTTP or from its folder: what python-tuf and we fetch with.

Rule: nothing fetched here is believed. Every answer has a limit in bytes and in time, no answer
leads to another address, and what cannot be fetched is a `DownloadError`, as python-tuf demands.
"""

from __future__ import annotations

import json
import os
import ssl
import stat
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    SlowRetrievalError,
)
from tuf.ngclient import FetcherInterface

from mirror.core.addresses import is_loopback
from mirror.errors import UsageError

_CHUNK_BYTES = 65_536
_REASON_MAX_BYTES = 400
_SAID_MAX_BYTES = 8_000_000


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


class MirrorAwayError(DownloadError):
    """The mirror could not be reached, or cannot answer now: this says nothing about its bytes."""


class MirrorFetcher(FetcherInterface):
    """Fetches the files of one mirror, named by their paths under its root.

    Attributes:
        base: where the mirror's root is, a URL or a folder; ends with a slash.
        asked: what was fetched last: python-tuf's errors do not say which file was wrong.
    """

    base: str
    asked: str

    def read(self, path: str, max_bytes: int) -> bytes:
        """Return one file's bytes; `path` is one that `core/layout.py` makes.

        Raises:
            DownloadError: not to be had, or longer than that.
        """
        return self.download_bytes(self.base + path, max_bytes)


class HttpFetcher(MirrorFetcher):
    """Fetches over HTTP. Proxies as the environment says, for loopback never."""

    def __init__(
        self,
        base: str,
        limits: FetchLimits,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.base = checked_url(base)
        self.asked = self.base
        self._limits = limits
        self._clock = clock
        self._sleep = sleep
        self._client = httpx.Client(
            timeout=httpx.Timeout(limits.stall_seconds, connect=limits.connect_seconds),
            follow_redirects=False,
            trust_env=not is_loopback(urlsplit(self.base).hostname or ""),
            verify=_certificates(),
            # Compressed answers would put the limits in bytes into the sender's hand.
            headers={"User-Agent": "crateseal", "Accept-Encoding": "identity"},
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def post(self, path: str, body: Any) -> Any:
        """Ask for something; return the answer's JSON, or None: it is no 200, or cannot be read.

        Asked once; whoever asks has to do without an answer.
        """
        url = self.base + path
        deadline = self._clock() + self._limits.total_seconds
        try:
            request = self._client.build_request("POST", url, json=body)
            response = self._client.send(request, stream=True)
            with closing(self._chunks(url, response, deadline)) as chunks:
                said = _joined(chunks, _SAID_MAX_BYTES)
            return json.loads(said) if response.status_code == 200 else None
        except (httpx.HTTPError, DownloadError, ValueError, RecursionError):
            return None

    def pause(self, seconds: float) -> None:
        """Leave the mirror alone for so long."""
        self._sleep(seconds)

    def _fetch(self, url: str) -> Iterator[bytes]:
        self.asked = url
        deadline = self._clock() + self._limits.total_seconds
        response = self._answer(url, deadline)
        if response.status_code == 200:
            return self._chunks(url, response, deadline)
        try:
            raise _refusal(url, response, self._chunks(url, response, deadline))
        finally:
            response.close()

    def _answer(self, url: str, deadline: float) -> httpx.Response:
        """Ask, and ask again while the mirror says that it is still fetching."""
        for tries_left in reversed(range(self._limits.tries)):
            try:
                response = self._client.send(self._client.build_request("GET", url), stream=True)
            except httpx.HTTPError as error:
                raise MirrorAwayError(f"{url}: {_in_words(error)}") from error
            pause = _retry_after(response, self._limits.retry_max_seconds)
            if pause is None or not tries_left or self._clock() + pause > deadline:
                break
            response.close()
            self._sleep(pause)
        return response

    def _chunks(
        self, url: str, response: httpx.Response, deadline: float
    ) -> Generator[bytes, None, None]:
        try:
            # No size here: httpx would wait for a chunk of it, and not look up for a trickle.
            for chunk in response.iter_raw():
                if self._clock() > deadline:
                    seconds = self._limits.total_seconds
                    raise SlowRetrievalError(f"{url}: not there after {seconds:.0f} s")
                yield chunk
        except httpx.HTTPError as error:
            raise MirrorAwayError(f"{url}: {_in_words(error)}") from error
        finally:
            response.close()


class DiskFetcher(MirrorFetcher):
    """Reads the files of a mirror's `www/` folder."""

    def __init__(self, www: Path) -> None:
        self.base = f"{www}/"
        self.asked = self.base

    def _fetch(self, url: str) -> Iterator[bytes]:
        self.asked = url
        if ".." in url.removeprefix(self.base).split("/"):
            raise DownloadError(f"{url}: not a path of a mirror")
        try:
            # O_NONBLOCK: opening a fifo must not hang us.
            fd = os.open(url, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DownloadHTTPError(f"{url}: not there", 404) from error
        except OSError as error:
            raise MirrorAwayError(f"{url}: {error.strerror}") from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise DownloadHTTPError(f"{url}: not a file", 404)
        return _chunks_of(fd)


def _chunks_of(fd: int) -> Iterator[bytes]:
    with os.fdopen(fd, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def checked_url(text: str) -> str:
    """Return a mirror's URL with a slash at its end.

    Raises:
        UsageError: it is no http or https URL.
    """
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except (ValueError, TypeError, AttributeError):
        usable = False
    if not usable or parts.query or parts.fragment or not text.isprintable() or " " in text:
        raise UsageError(f"mirror {text!r}: expected a URL such as https://crates.example.org")
    return text.rstrip("/") + "/"


def one_line(text: str) -> str:
    """Return text from outside so that it can be shown: one line, nothing a terminal obeys."""
    return "".join(char if char.isprintable() else " " for char in " ".join(text.split()))


def _joined(chunks: Iterable[bytes], max_bytes: int) -> bytes:
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) > max_bytes:
            raise DownloadLengthMismatchError(f"more than {max_bytes} bytes")
    return bytes(data)


def _certificates() -> ssl.SSLContext:
    """Return what the system trusts; SSL_CERT_FILE and SSL_CERT_DIR count (OpenSSL reads them)."""
    return ssl.create_default_context()


def _retry_after(response: httpx.Response, max_seconds: float) -> float | None:
    text = response.headers.get("Retry-After", "")
    if response.status_code != 503 or not text.isdecimal():
        return None
    return min(float(text), max_seconds)


def _refusal(url: str, response: httpx.Response, chunks: Iterable[bytes]) -> DownloadError:
    status = response.status_code
    if response.is_redirect:
        target = one_line(response.headers.get("Location", ""))[:200]
        return MirrorAwayError(f"{url}: leads to {target!r}; redirects are not followed")
    text = b""
    with suppress(DownloadError):
        for chunk in chunks:
            text += chunk
            if len(text) >= _REASON_MAX_BYTES:
                break
    reason = one_line(text[:_REASON_MAX_BYTES].decode(errors="replace"))
    words = f"{url}: answered {status}" + (f": {reason}" if reason else "")
    if status >= 500 or status == 429:
        return MirrorAwayError(words)
    return DownloadHTTPError(words, status)


def _in_words(error: httpx.HTTPError) -> str:
    match error:
        case httpx.ConnectTimeout():
            return "no connection in time"
        case httpx.TimeoutException():
            return "no answer in time"
        case httpx.ConnectError():
            return f"no connection ({one_line(str(error))})"
        case _:
            return f"the answer broke off ({one_line(str(error))})"
