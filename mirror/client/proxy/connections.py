"""The proxy's connections: hypercorn on a listener that was bound elsewhere.

Any user of this machine can connect, so there is a limit on everything: how many connections, how
long one may be idle or take for its headers, how long those may be.

Of hypercorn this uses `TCPServer`, one connection, and not its own accepting loop, which knows no
limit on their number.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.utils import wrap_app

from mirror.client.gate.port_owner import user_of

if TYPE_CHECKING:
    from mirror.client.proxy.app import Proxy, Receive, Scope, Send

LOG = logging.getLogger("crateseal.proxy")

BACKLOG = 1024
_FULL = b"503 Service Unavailable", b"crateseal: too many connections\n"
_NOT_YOURS = b"403 Forbidden", b"crateseal: this is another user's proxy; start one of your own\n"


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one client, and all of them, may take."""

    connections: int = 512
    """More are let in only for idle ones, the longest idle first."""
    idle_seconds: float = 120.0
    """Also for a whole request's headers. curl uses a connection again within 118 s: if we closed
    earlier, a request might meet the end of its connection."""
    header_max_bytes: int = 16_384
    streams: int = 1_000
    """Requests at a time on one HTTP/2 connection; cargo has 200 on two."""


class _Connection:
    """One client's connection, as far as choosing between them goes."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.requests = 0


class _Together:
    """A stream's writer that sends once a turn of the loop what was written in it.

    hypercorn writes the head of an answer, its pieces and its end one by one, and those of a
    hundred answers in one turn: one packet of all of them costs a tenth of the time.
    """

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._pieces: list[bytes] = []
        self.get_extra_info = writer.get_extra_info
        self.drain = writer.drain
        self.wait_closed = writer.wait_closed

    def write(self, data: bytes) -> None:
        if not self._pieces:
            asyncio.get_running_loop().call_soon(self._send)
        self._pieces.append(data)

    def write_eof(self) -> None:
        self._send()
        self._writer.write_eof()

    def close(self) -> None:
        self._send()
        self._writer.close()

    def _send(self) -> None:
        if self._pieces:
            data, self._pieces = b"".join(self._pieces), []
            self._writer.write(data)


class Connections:
    """Accepts and serves connections until it is closed."""

    def __init__(self, proxy: Proxy, limits: ConnectionLimits) -> None:
        self._proxy = proxy
        self._limits = limits
        self._config = _config(limits)
        answer: Any = self._answer  # hypercorn's types know each message by name
        self._app = wrap_app(answer, 0, "asgi")
        self._context = WorkerContext(None)
        # Those used last stand last.
        self._open: dict[Any, _Connection] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, listener: socket.socket) -> None:
        """Accept from now on; the listener becomes ours to close."""
        self._server = await asyncio.start_server(self._serve, sock=listener, backlog=BACKLOG)

    async def close(self, patience_seconds: float) -> None:
        """Accept no more, let open requests come to their end, then close every connection.

        Who connects meanwhile waits in the listener's queue for another process that holds it.
        """
        if self._server is not None:
            self._server.close()
        await self._context.terminated.set()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=patience_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        if len(self._open) >= self._limits.connections and not self._end_an_idle_one():
            LOG.warning("%d connections, none of them idle: no more", len(self._open))
            await _turn_away(reader, writer, *_FULL)
            return
        if _is_strangers(writer):
            # What they ask for would cost our time at the mirror, and stand in our reports.
            await _turn_away(reader, writer, *_NOT_YOURS)
            return
        # asyncio does it for sockets that know their protocol; else each small answer takes 40 ms.
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open[peer] = _Connection(writer)
        try:
            loop = asyncio.get_running_loop()
            out: Any = _Together(writer)
            await TCPServer(self._app, loop, self._config, self._context, {}, reader, out)
        except* Exception as group:  # noqa: BLE001 - bytes of a stranger's must not end us
            LOG.info("a connection broke off: %r", group.exceptions[0])
        finally:
            self._tasks.discard(task)
            self._open.pop(peer, None)

    def _end_an_idle_one(self) -> bool:
        for peer, connection in self._open.items():
            if not connection.requests:
                connection.writer.transport.abort()
                del self._open[peer]
                return True
        return False

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        peer = scope["client"]
        connection = self._open.pop(peer, None)
        if connection is None:
            await self._proxy(scope, receive, send)
            return
        self._open[peer] = connection
        connection.requests += 1
        try:
            await self._proxy(scope, receive, send)
        finally:
            connection.requests -= 1


def _is_strangers(writer: asyncio.StreamWriter) -> bool:
    """Whether another user of this machine has connected, other than root."""
    peer, here = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
    return user_of(peer[1], here[1]) not in {None, 0, os.geteuid()}


async def _turn_away(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: bytes, words: bytes
) -> None:
    # Closed with its request unread, a connection may lose our answer.
    with suppress(TimeoutError, OSError):
        async with asyncio.timeout(1.0):
            await reader.read(65_536)
    writer.write(
        b"HTTP/1.1 %s\r\nRetry-After: 5\r\nConnection: close\r\n"
        b"Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (status, len(words), words)
    )
    writer.close()


def _config(limits: ConnectionLimits) -> Config:
    config = Config()
    config.accesslog = config.errorlog = None
    config.include_server_header = config.include_date_header = False
    config.keep_alive_timeout = limits.idle_seconds
    # hypercorn does not count a connection as idle that said it was HTTP/2, and then nothing.
    config.read_timeout = math.ceil(limits.idle_seconds * 1.25)
    # Past this number hypercorn ends an HTTP/2 connection with requests on it, unanswered.
    config.keep_alive_max_requests = 2**62
    config.h11_max_incomplete_size = limits.header_max_bytes
    config.h2_max_header_list_size = limits.header_max_bytes
    config.h2_max_concurrent_streams = limits.streams
    return config
