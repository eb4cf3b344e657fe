"""HTTP/1.1 connections that end in time: the standard library's, kept open, each with a deadline.

Why not httpx, as elsewhere: a request costs it 0.9 ms of processor time in 32 threads, this 0.15,
and a lock of 400 packages takes 1,200 requests. And its time limit is one for each read, so that a
host which sends a byte now and then holds it for ever, in the headers too.
"""

from __future__ import annotations

import base64
import http.client
import io
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from mirror.core.addresses import is_loopback
from mirror.errors import UsageError


@dataclass(frozen=True, slots=True)
class Waits:
    """How long a peer may take, in seconds."""

    connect_seconds: float
    stall_seconds: float
    """Without a byte."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, and what its answer may cost."""

    method: str
    target: str
    """What follows the host: path, as it stands in the URL."""
    headers: Mapping[str, str]
    deadline: float
    """Of the monotonic clock, for all of it."""
    max_bytes: int
    """On the wire, headers, trailers and all."""
    body: bytes | None = None


class _Timed(io.RawIOBase):
    """A socket's bytes, within the time and the number of bytes that its connection allows."""

    def __init__(self, sock: socket.socket, connection: _Connection) -> None:
        super().__init__()
        self._sock = sock
        # It keeps the socket open when http.client closes the connection before the answer is read.
        self._raw = sock.makefile("rb", buffering=0)
        self._connection = connection

    def close(self) -> None:
        self._raw.close()
        super().close()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._sock.settimeout(self._connection.seconds_left())
        try:
            count = self._raw.readinto(buffer) or 0
        except TimeoutError:
            self._connection.seconds_left()  # raises, if it was the deadline
            raise
        self._connection.count(count)
        return count


class _TimedSocket:
    """What http.client uses of a socket; the connection's deadline holds for all of it."""

    def __init__(self, sock: socket.socket, connection: _Connection) -> None:
        self._sock = sock
        self._connection = connection

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Timed(self._sock, self._connection))

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._connection.seconds_left())
        self._sock.sendall(data)

    def close(self) -> None:
        self._sock.close()

    def abort(self) -> None:
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)


class _Connection(http.client.HTTPConnection):
    """One connection; what it may cost is set anew for each request."""

    def __init__(self, host: str, port: int, waits: Waits, tls: ssl.SSLContext | None) -> None:
        super().__init__(host, port)
        self.is_used = False
        self._open: _TimedSocket | None = None
        self._deadline = 0.0
        self._bytes_left = 0
        self._waits = waits
        self._tls = tls
        self._tunnel_to: str | None = None

    def through(self, host: str, port: int, headers: Mapping[str, str]) -> None:
        """Reach this host by asking the one we connect to, which is a proxy."""
        self.set_tunnel(host, port, headers)
        self._tunnel_to = host

    def begin(self, ask: Ask) -> None:
        """From now on the limits of this request hold."""
        self._deadline, self._bytes_left = ask.deadline, ask.max_bytes

    def abort(self) -> None:
        """End what another thread waits for on this connection."""
        # Not `self.sock`: http.client forgets that one before the last answer on it is read.
        if self._open is not None:
            self._open.abort()

    def count(self, count: int) -> None:
        """Count what came.

        Raises:
            TooMuchError: more than one answer may have.
        """
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise TooMuchError

    def seconds_left(self) -> float:
        """Return how long the next step may take.

        Raises:
            DeadlineError: no time is left.
        """
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise DeadlineError
        return min(left, self._waits.stall_seconds)

    def connect(self) -> None:
        seconds = min(self._waits.connect_seconds, self.seconds_left())
        try:
            sock = socket.create_connection((self.host, self.port), seconds)
        except TimeoutError as error:
            raise ConnectTimeoutError from error
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tunnel_to is not None:
                self.sock = _TimedSocket(sock, self)
                self._tunnel()  # type: ignore[attr-defined]
            if self._tls is not None:
                sock.settimeout(self.seconds_left())
                sock = self._tls.wrap_socket(sock, server_hostname=self._tunnel_to or self.host)
            self.sock = self._open = _TimedSocket(sock, self)
        except BaseException:
            sock.close()
            raise


class DeadlineError(TimeoutError):
    """The whole answer took too long."""


class TooMuchError(OSError):
    """More bytes than an answer may have, its headers counted."""


class ConnectTimeoutError(TimeoutError):
    """No connection came about in time."""


class Pool:
    """Connections to one host, kept open between requests. Thread-safe."""

    def __init__(self, base: str, waits: Waits, max_connections: int) -> None:
        parts = urlsplit(base)
        self._host = parts.hostname or ""
        self._is_tls = parts.scheme == "https"
        self._port = parts.port or (443 if self._is_tls else 80)
        self._waits = waits
        self._tls = ssl.create_default_context() if self._is_tls else None
        self._proxy = proxy_for(parts.scheme, self._host)
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self._is_closed = False
        self._lock = threading.Lock()
        self._free = threading.BoundedSemaphore(max_connections)
        host = f"[{self._host}]" if ":" in self._host else self._host
        default = 443 if self._is_tls else 80
        self._authority = host if self._port == default else f"{host}:{self._port}"

    @contextmanager
    def answer(self, ask: Ask) -> Iterator[http.client.HTTPResponse]:
        """Ask; yield the answer when its headers are there. Its body must be read inside.

        Raises:
            OSError, http.client.HTTPException: no usable answer, or none in time.
        """
        if not self._free.acquire(timeout=max(0.0, ask.deadline - time.monotonic())):
            raise DeadlineError
        try:
            connection, response = self._asked(ask)
            is_whole = False
            try:
                yield response
                is_whole = response.isclosed() and not response.will_close
            finally:
                if not is_whole:
                    response.close()
                self._let_go(connection, keep=is_whole)
        finally:
            self._free.release()

    def close(self) -> None:
        """Close all connections; who waits for an answer gets an error now."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
            busy = list(self._busy)
        for connection in idle:
            connection.close()
        for connection in busy:
            connection.abort()

    def _asked(self, ask: Ask) -> tuple[_Connection, http.client.HTTPResponse]:
        while True:
            connection = self._connection()
            connection.begin(ask)
            try:
                self._send(connection, ask)
                response = connection.getresponse()
            except BaseException as error:
                self._let_go(connection, keep=False)
                # The other side may close a connection that was idle; that says nothing yet.
                if connection.is_used and isinstance(error, ConnectionError):
                    continue
                raise
            connection.is_used = True
            return connection, response

    def _send(self, connection: _Connection, ask: Ask) -> None:
        target, headers = ask.target, {"Host": self._authority, **ask.headers}
        if self._proxy is not None and not self._is_tls:
            target = f"http://{self._authority}{target}"
            headers |= self._proxy.headers
        connection.putrequest(ask.method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        if ask.body is not None:
            connection.putheader("Content-Length", str(len(ask.body)))
        connection.endheaders(ask.body)

    def _connection(self) -> _Connection:
        with self._lock:
            if self._is_closed:
                raise ConnectionAbortedError("closed")
            connection = self._idle.pop() if self._idle else self._new_connection()
            self._busy.add(connection)
            return connection

    def _new_connection(self) -> _Connection:
        if self._proxy is None:
            return _Connection(self._host, self._port, self._waits, self._tls)
        connection = _Connection(self._proxy.host, self._proxy.port, self._waits, self._tls)
        if self._is_tls:
            connection.through(self._host, self._port, self._proxy.headers)
        return connection

    def _let_go(self, connection: _Connection, *, keep: bool) -> None:
        with self._lock:
            self._busy.discard(connection)
            if keep and not self._is_closed:
                self._idle.append(connection)
                return
        connection.close()


@dataclass(frozen=True, slots=True)
class Proxy:
    """Whom the environment says to ask instead."""

    host: str
    port: int
    headers: Mapping[str, str]


def proxy_for(scheme: str, host: str) -> Proxy | None:
    """Return the proxy that HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY say; loopback: none.

    Raises:
        UsageError: it is of a kind that we cannot use.
    """
    if is_loopback(host) or urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    text = proxies.get(scheme) or proxies.get("all")
    if not text:
        return None
    parts = urlsplit(text if "://" in text else f"http://{text}")
    if parts.scheme != "http" or not parts.hostname:
        raise UsageError(
            f"proxy {parts.scheme}://{parts.hostname}: only proxies of http:// can be used;"
            f" set {scheme.upper()}_PROXY to one, or name the mirror's host in NO_PROXY"
        )
    headers = {}
    if parts.username is not None:
        words = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Proxy-Authorization"] = "Basic " + base64.b64encode(words.encode()).decode()
    return Proxy(parts.hostname, parts.port or 80, headers)
