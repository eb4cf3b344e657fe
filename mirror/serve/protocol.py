"""uvicorn's HTTP/1.1 protocol, quieter, and with head and body of an answer in one write.

uvicorn hands head and body to the transport one after the other, and uvloop writes each at once:
two system calls, two packets, and a client that wakes up twice. Collected until the turn of the
loop is over they are one, which gave a third more answers a second.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class OneWrite:
    """A transport that sends what is written in one turn of the loop in one system call."""

    __slots__ = ("_call_soon", "_pieces", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._call_soon = loop.call_soon
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send these bytes soon."""
        if not self._pieces:
            self._call_soon(self._flush)
        self._pieces.append(data)

    def close(self) -> None:
        """Send what is left, then close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        pieces, self._pieces = self._pieces, []
        # The client may have gone since.
        if pieces and not self._transport.is_closing():
            self._transport.writelines(pieces)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Protocol(HttpToolsProtocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Put `OneWrite` between uvicorn and the socket."""
        joined = OneWrite(cast("asyncio.Transport", transport), self.loop)
        super().connection_made(cast("asyncio.Transport", joined))

    def _unsupported_upgrade_warning(self) -> None:
        """Stay silent: cargo offers `Upgrade: h2c` with every request and is glad of HTTP/1.1."""
