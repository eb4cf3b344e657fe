"""`run/sign.sock`: `sync` says that a batch lies in the spool; once it is settled, it is told.

Rule: nothing else goes through here. A line that is no Offer gets no answer.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from mirror.core.batch import Settled
from mirror.errors import MalformedMessageError
from mirror.seam import Offer, encode, parse_offer

log = logging.getLogger(__name__)

_LINE_MAX_BYTES = 200
_LINE_SECONDS = 2.0
_ANSWER_SECONDS = 10.0
_PAUSE_SECONDS = 0.2


class Pending:
    """One offer that waits for its answer."""

    def __init__(self, offer: Offer, connection: socket.socket) -> None:
        self.batch = offer.batch
        self._connection = connection

    def answer(self, settled: Settled) -> None:
        """Send the answer; `sync` may have gone away, and will offer again."""
        with suppress(OSError), self._connection as connection:
            connection.settimeout(_ANSWER_SECONDS)
            connection.sendall(encode(settled))

    def drop(self) -> None:
        """Close without an answer."""
        self._connection.close()


class Inbox:
    """Listens in a thread of its own; `take` hands out what has come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._closed = threading.Event()
        self._queue: queue.Queue[Pending] = queue.Queue()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._thread = threading.Thread(target=self._listen, name="sign-inbox", daemon=True)

    def __enter__(self) -> Self:
        with suppress(FileNotFoundError):
            self._path.unlink()  # left by a crash; the lock says that nobody else listens here
        self._socket.bind(str(self._path))
        os.chmod(self._path, 0o660)
        self._socket.listen(64)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with suppress(FileNotFoundError):
            self._path.unlink()

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

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError as error:
                if self._closed.is_set():
                    return
                log.warning("sign.sock: %s", error)  # no descriptor left, say: it will pass
                self._closed.wait(_PAUSE_SECONDS)
                continue
            try:
                connection.settimeout(_LINE_SECONDS)
                self._queue.put(Pending(parse_offer(_read_line(connection)), connection))
            except (MalformedMessageError, OSError) as error:
                log.warning("sign.sock: %s", error)
                connection.close()


def _read_line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        data = connection.recv(_LINE_MAX_BYTES)
        line += data
        if not data or len(line) > _LINE_MAX_BYTES:
            raise MalformedMessageError("offer", "one short line", repr(line[:40]))
    return line
