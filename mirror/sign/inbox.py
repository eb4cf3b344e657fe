"""The signer's sockets: `sign.sock` takes offers from `sync`, `admin.sock` an operator's orders.

Rule: one kind of message each, and a line that is none gets no answer. A socket's mode says who may
open it.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from mirror.core.batch import Settled
from mirror.errors import MalformedMessageError
from mirror.seam import (
    ADMIN_SOCKET,
    SIGN_SOCKET,
    Done,
    Offer,
    Order,
    Recover,
    encode,
    parse_offer,
    parse_order,
)

log = logging.getLogger(__name__)

_LINE_MAX_BYTES = 16_000
_LINE_SECONDS = 2.0
_ANSWER_SECONDS = 10.0
_PAUSE_SECONDS = 0.2


Message = Offer | Order | Recover


class Pending:
    """One message that waits for its answer."""

    def __init__(self, message: Message, connection: socket.socket) -> None:
        self.message = message
        self._connection = connection

    def answer(self, answer: Settled | Done) -> None:
        """Send the answer; who asked may have gone away."""
        with suppress(OSError), self._connection as connection:
            connection.settimeout(_ANSWER_SECONDS)
            connection.sendall(encode(answer))

    def drop(self) -> None:
        """Close without an answer."""
        self._connection.close()


class Inbox:
    """Listens on both sockets, a thread each; `take` hands out what has come."""

    def __init__(self, run: Path) -> None:
        self._queue: queue.Queue[Pending] = queue.Queue()
        # Offers: whoever shares our group. Orders: our own user, and root.
        self._doors = (
            _Door(run / SIGN_SOCKET, 0o660, parse_offer, self._queue),
            _Door(run / ADMIN_SOCKET, 0o600, parse_order, self._queue),
        )

    def __enter__(self) -> Self:
        for door in self._doors:
            door.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for door in self._doors:
            door.close()

    def take(self, timeout: float) -> list[Pending]:
        """Return everything that has come, waiting up to `timeout` seconds for the first."""
        try:
            taken = [self._queue.get(timeout=timeout)]
        except queue.Empty:
            return []
        while True:
            try:
                taken.append(self._queue.get_nowait())
            except queue.Empty:
                return taken


class _Door:
    """One listening socket."""

    def __init__(
        self,
        path: Path,
        mode: int,
        parse: Callable[[bytes], Message],
        taken: queue.Queue[Pending],
    ) -> None:
        self._path = path
        self._mode = mode
        self._parse = parse
        self._taken = taken
        self._closed = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def open(self) -> None:
        """Listen from now on."""
        with suppress(FileNotFoundError):
            self._path.unlink()  # left by a crash; the lock says that nobody else listens here
        before = os.umask(0o777 & ~self._mode)  # not even for a moment is it open to others
        try:
            self._socket.bind(str(self._path))
        finally:
            os.umask(before)
        self._socket.listen(64)
        threading.Thread(target=self._listen, name=self._path.name, daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        self._closed.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with suppress(FileNotFoundError):
            self._path.unlink()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError as error:
                if self._closed.is_set():
                    return
                log.warning(
                    "%s: %s", self._path.name, error
                )  # no descriptor left, say: it will pass
                self._closed.wait(_PAUSE_SECONDS)
                continue
            try:
                self._taken.put(Pending(self._parse(_read_line(connection)), connection))
            except (MalformedMessageError, OSError) as error:
                log.warning("%s: %s", self._path.name, error)
                connection.close()


def _read_line(connection: socket.socket) -> bytes:
    line, deadline = b"", time.monotonic() + _LINE_SECONDS
    while not line.endswith(b"\n"):
        # For the whole line: who drips it must not keep the others out.
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        data = connection.recv(_LINE_MAX_BYTES)
        line += data
        if not data or len(line) > _LINE_MAX_BYTES:
            raise MalformedMessageError("message", "one short line", repr(line[:40]))
    return line
