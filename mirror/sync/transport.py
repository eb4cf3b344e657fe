"""Which HTTP client fetches: chosen here and nowhere else.

What the rest of `sync` uses is httpx's transport interface (`handle_async_request`), not its
client: the client's own layers cost half of the time of a small fetch (3,000 against 7,000 a
second), and we want neither its redirects nor its decoding.

Facts about pyreqwest that this file deals with:
- httpx writes `Host` and `Connection` into a request; over HTTP/2 nginx answers those with 400.
- Every failure before the answer's head reads as a failed connection; the causes tell the truth.
- It reads 64 kB of the body before it gives the head, unless told not to: a file that comes slowly
  would be one that never begins.
- A cancellation that comes with the answer is swallowed: time limits and the end of the process
  would be, too.
- Of time limits it knows one for connecting and one for each read, the head's included. So the
  first byte and the bytes that follow are timed here, and its own limit is longer than both.
- Certificates come from the environment (`SSL_CERT_FILE`, `SSL_CERT_DIR`, else the system's).
- Proxies would too, but `proxies.py` decides, so that `hops.py` knows who is asked for an address.
- A proxy that refuses a tunnel fails the connection; its answer to plain http reads as upstream's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import httpx
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import BuilderError, PyreqwestError
from pyreqwest.proxy import ProxyBuilder
from pyreqwest.request import StreamRequest
from pyreqwest.response import Response

from mirror.sync.proxies import Proxies, environment_proxies, shown

_LOGIN_WANTED = 407
_UNKNOWN_AUTHORITY = "UnknownIssuer"


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """All in seconds. Of the whole answer somebody else takes care."""

    connect: float
    first_byte: float
    """From the request to the head of the answer, connecting included."""
    stall: float
    """Between two pieces of the body."""


class PyreqwestTransport(httpx.AsyncBaseTransport):
    """Raw answers: nothing decoded, no redirect followed; HTTP/2 where TLS agrees on it."""

    def __init__(self, limits: TimeLimits, proxies: Proxies | None = None) -> None:
        self._limits = limits
        self._proxies = proxies or environment_proxies()
        self._by_proxy: dict[str | None, Client] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; the answer's body is still to be read."""
        proxy = self._proxies.of(request.url)
        try:
            response = await self._send(request, proxy)
            if proxy is not None and response.status_code == _LOGIN_WANTED:
                assert isinstance(response.stream, httpx.AsyncByteStream)
                await response.stream.aclose()
                raise httpx.ProxyError("it wants a login (407 Proxy Authentication Required)")
        except httpx.RequestError as error:
            if proxy is not None:
                error.add_note(f"through the proxy {shown(proxy)}")
            raise
        return response

    async def _send(self, request: httpx.Request, proxy: str | None) -> httpx.Response:
        # The client underneath writes its own, as the protocol in use wants them.
        for header in ("host", "connection"):
            request.headers.pop(header, None)
        sent = (
            self._client(proxy)
            .request(request.method, str(request.url))
            .headers(request.headers.multi_items())
            .streamed_read_buffer_limit(0)
            .build_streamed()
        )
        before = _cancellations()
        try:
            async with asyncio.timeout(self._limits.first_byte):
                answer = await sent.__aenter__()
                if _cancellations() > before:
                    await sent.__aexit__(None, None, None)
                    raise asyncio.CancelledError
        except TimeoutError as error:
            if isinstance(error, PyreqwestError):
                raise _as_httpx(error) from error
            text = f"no answer within {self._limits.first_byte:g} s"
            raise httpx.ReadTimeout(text) from error
        except PyreqwestError as error:
            raise _as_httpx(error) from error
        headers = list(answer.headers.items())
        body = _Body(sent, answer, self._limits.stall)
        return httpx.Response(answer.status, headers=headers, stream=body)

    async def aclose(self) -> None:
        """Close every connection."""
        for client in self._by_proxy.values():
            await client.close()

    def _client(self, proxy: str | None) -> Client:
        # Made when first needed: reading the system's certificates takes a while.
        if proxy not in self._by_proxy:
            builder = self._builder().no_proxy()
            if proxy is not None:
                builder = builder.proxy(ProxyBuilder.all(proxy))
            try:
                self._by_proxy[proxy] = builder.build()
            except BuilderError:
                # Without its cause: `describe` would take that for what the other side did.
                raise httpx.ConnectError(
                    "no certificate authority can be read; see SSL_CERT_FILE and SSL_CERT_DIR"
                ) from None
        return self._by_proxy[proxy]

    def _builder(self) -> ClientBuilder:
        limits = self._limits
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
            .connect_timeout(timedelta(seconds=limits.connect))
            .read_timeout(timedelta(seconds=max(limits.first_byte, limits.stall) + 5.0))
        )


class _Body(httpx.AsyncByteStream):
    """A body with a time limit for each piece, whose failures are httpx's errors."""

    def __init__(self, sent: StreamRequest, answer: Response, stall: float) -> None:
        self._sent = sent
        self._reader = answer.body_reader
        self._stall = stall

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (chunk := await self._next()) is not None:
            yield chunk

    async def _next(self) -> bytes | None:
        before = _cancellations()
        try:
            async with asyncio.timeout(self._stall):
                chunk = await self._reader.read_chunk()
                if _cancellations() > before:
                    raise asyncio.CancelledError
        except TimeoutError as error:
            if isinstance(error, PyreqwestError):
                raise _as_httpx(error) from error
            raise httpx.ReadTimeout(f"no more bytes for {self._stall:g} s") from error
        except PyreqwestError as error:
            raise _as_httpx(error) from error
        return None if chunk is None else bytes(chunk)

    async def aclose(self) -> None:
        before = _cancellations()
        await self._sent.__aexit__(None, None, None)
        if _cancellations() > before:
            raise asyncio.CancelledError


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def _as_httpx(error: PyreqwestError) -> httpx.RequestError:
    kind = httpx.ReadTimeout if isinstance(error, TimeoutError) else httpx.ReadError
    return kind(error.message)


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
    """Return the innermost cause in words, and the proxy that was between."""
    causes = _causes(error)
    text = causes[-1] if causes else str(error) or type(error).__name__
    if _UNKNOWN_AUTHORITY in text:
        text = (
            "its certificate is signed by an authority that this machine does not know;"
            " is it your company's? name the authority's file in SSL_CERT_FILE"
        )
    return ", ".join([text, *getattr(error, "__notes__", ())])


def _causes(error: httpx.RequestError) -> list[str]:
    details = getattr(error.__cause__, "details", None) or {}
    return [str(cause["message"]) for cause in details.get("causes") or ()]
