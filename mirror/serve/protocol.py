"""uvicorn's HTTP/1.1 protocol, quieter, and with head and body of an answer in one write.

uvicorn hands head and body to the transport one after the other, and uvloop writes each at once:
two system calls, two packets, and a client that wakes up twice. Collected until the turn of the
loop is over they are one, which gave a third more answers a second.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_MAX_BYTES = 65_536
HEADERS_MAX = 100
HEAD_SECONDS = 30.0
"""From the first byte of a request, or from the connection's begin, to the request's end."""


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


class _Quiet(logging.LoggerAdapter[logging.Logger]):
    """uvicorn's log, without a warning for each malformed request: anybody can send thousands."""

    def warning(self, msg: object, *args: object, **kwargs: Any) -> None:
        """Say it to those who debug."""
        self.debug(msg, *args, **kwargs)

    @property
    def level(self) -> int:
        """Of the log underneath; uvicorn looks at it."""
        return self.logger.level


_LOGGER = _Quiet(logging.getLogger("uvicorn.error"))


class Protocol(HttpToolsProtocol):
    """One connection.

    uvicorn and its parser collect a request's head for as long as it comes: here it has a size and
    a time. What comes beside the body counts as head, so that trailers have the same limit.
    """

    _head_bytes = 0
    _headers_count = 0
    _is_complete = False
    _too_slow: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Put `OneWrite` between uvicorn and the socket."""
        self.logger = cast("logging.Logger", _LOGGER)
        joined = OneWrite(cast("asyncio.Transport", transport), self.loop)
        super().connection_made(cast("asyncio.Transport", joined))
        self._too_slow = self.loop.call_later(HEAD_SECONDS, self._hang_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the time limit too."""
        self._set_time_limit(wanted=False)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; hang up where a head grows too large."""
        self._is_complete = False
        self._head_bytes += len(data)
        super().data_received(data)
        if self._is_complete:
            self._head_bytes = 0
        elif self._head_bytes > HEAD_MAX_BYTES:
            self.send_400_response("Request head too large.")
        # A request that came whole, as nearly all do, costs no timer.
        self._set_time_limit(wanted=not self._is_complete and not self.transport.is_closing())

    def on_message_begin(self) -> None:
        """Begin to count a new request's headers."""
        self._headers_count = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count; the parser turns the error into a 400."""
        self._headers_count += 1
        if self._headers_count > HEADERS_MAX:
            raise ValueError("too many headers")
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Bytes of a body are no head; the application limits them."""
        self._head_bytes -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the request is whole."""
        self._is_complete = True
        super().on_message_complete()

    def _set_time_limit(self, *, wanted: bool) -> None:
        if wanted and self._too_slow is None:
            self._too_slow = self.loop.call_later(HEAD_SECONDS, self._hang_up)
        elif not wanted and self._too_slow is not None:
            self._too_slow.cancel()
            self._too_slow = None

    def _hang_up(self) -> None:
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Stay silent: cargo offers `Upgrade: h2c` with every request and is glad of HTTP/1.1."""
