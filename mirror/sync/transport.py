"""Which HTTP client fetches: chosen here and nowhere else.

What the rest of `sync` uses is httpx's transport interface (`handle_async_request`), not its
client: the client's own layers cost half of the time of a small fetch (3,000 against 7,000 a
second), and we want neither its redirects nor its decoding.

Facts about pyreqwest's transport that this file deals with:
- httpx writes `Host` and `Connection` into a request; over HTTP/2 nginx answers those with 400.
- Every failure before the answer's head reads as a failed connection; the causes tell the truth.
- A failure in a body past the first 64 kB comes through as an error that httpx does not know.
- A cancellation that comes with the answer is swallowed: time limits and the end of the process
  would be, too.
- The sum of httpx's four time limits becomes one for the whole, so limits are set on the client.
- Proxies and certificates come from the environment, but loopback addresses are not left out.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
from pyreqwest.client import ClientBuilder
from pyreqwest.compatibility.httpx import HttpxTransport
from pyreqwest.exceptions import PyreqwestError


class PyreqwestTransport(httpx.AsyncBaseTransport):
    """Raw answers: nothing decoded, no redirect followed; HTTP/2 where TLS agrees on it."""

    def __init__(self, connect_timeout: float, stall_timeout: float) -> None:
        self._connect = timedelta(seconds=connect_timeout)
        self._stall = timedelta(seconds=stall_timeout)
        self._by_locality: dict[bool, HttpxTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; the answer's body is still to be read."""
        # The client underneath writes its own, as the protocol in use wants them.
        for header in ("host", "connection"):
            request.headers.pop(header, None)
        transport = self._transport(local=is_loopback(request.url.host))
        before = _cancellations()
        try:
            response = await transport.handle_async_request(request)
        except PyreqwestError as error:
            raise _as_httpx(error) from error
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Body(response.stream)
        if _cancellations() > before:
            await response.stream.aclose()
            raise asyncio.CancelledError
        return response

    async def aclose(self) -> None:
        """Close every connection."""
        for transport in self._by_locality.values():
            await transport.aclose()

    def _transport(self, *, local: bool) -> HttpxTransport:
        # Made when first needed: reading the system's certificates takes a while.
        if local not in self._by_locality:
            builder = self._builder()
            if local:
                builder = builder.no_proxy()
            self._by_locality[local] = HttpxTransport(builder.build())
        return self._by_locality[local]

    def _builder(self) -> ClientBuilder:
        return (
            ClientBuilder()
            .gzip(False)
            .brotli(False)
            .zstd(False)
            .deflate(False)
            .follow_redirects(False)
            .referer(False)
            .http2(True)
            .http2_adaptive_window(True)
            .connect_timeout(self._connect)
            .read_timeout(self._stall)
        )


class _Body(httpx.AsyncByteStream):
    """A body whose failures are httpx's errors."""

    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        before = _cancellations()
        try:
            async for chunk in self._stream:
                if _cancellations() > before:
                    break
                yield chunk
        except PyreqwestError as error:
            raise _as_httpx(error) from error
        if _cancellations() > before:
            raise asyncio.CancelledError

    async def aclose(self) -> None:
        before = _cancellations()
        await self._stream.aclose()
        if _cancellations() > before:
            raise asyncio.CancelledError


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def _as_httpx(error: PyreqwestError) -> httpx.RequestError:
    kind = httpx.ReadTimeout if isinstance(error, TimeoutError) else httpx.ReadError
    return kind(error.message)


def is_loopback(host: str) -> bool:
    """Whether this host is this machine, as far as its name tells."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def failed_to_connect(error: httpx.RequestError) -> bool:
    """Whether no connection came about: name, address, TLS, proxy."""
    causes = _causes(error)
    if causes:
        return any("(Connect)" in cause for cause in causes)
    return isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError)


def closed_without_answer(error: httpx.RequestError) -> bool:
    """Whether the other side closed the connection where an answer was due."""
    if failed_to_connect(error) or timed_out(error):
        return False
    causes = _causes(error)
    if causes:
        return any("(SendRequest)" in cause for cause in causes)
    return isinstance(error, httpx.RemoteProtocolError | httpx.ReadError)


def timed_out(error: httpx.RequestError) -> bool:
    """Whether a time limit ended it."""
    return isinstance(error, httpx.TimeoutException)


def describe(error: httpx.RequestError) -> str:
    """Return the innermost cause in words."""
    causes = _causes(error)
    return causes[-1] if causes else str(error) or type(error).__name__


def _causes(error: httpx.RequestError) -> list[str]:
    details = getattr(error.__cause__, "details", None) or {}
    return [str(cause["message"]) for cause in details.get("causes") or ()]
