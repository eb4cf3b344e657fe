"""What `cargo sealed` does for the gate while cargo runs: it keeps the door, and starts the proxy.

Rule: the proxy, with its Python, is started at the first connection and not before; a build that
fetches nothing never pays for it. When a proxy dies, those it served start another one; a
connection is never left to whoever might take the port.

Light imports only: this is on the way of each build.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Any

from mirror.client.gate.gate import Gate, Wanted, acquire, greet
from mirror.errors import CratesealError

STARTS_MAX = 5
REPORT_SECONDS = 10.0
_REPORT_MAX_BYTES = 16_000_000
_REQUEST_SECONDS = 1.0

Start = Callable[[Gate, tuple[socket.socket, ...]], object]
"""Starts a proxy that holds this gate from now on, with these leases; raises OSError."""


class Keeper:
    """Keeps a gate until cargo ends.

    Attributes:
        gate: whose listening socket is held.
        is_serving: whether a proxy said that it serves us.
        lost: how many proxies ended while cargo ran.
        refusal: why connections are refused; "" while they are not.
    """

    def __init__(
        self, gate: Gate, wanted: Wanted, start: Start, hint: dict[str, str], log: str
    ) -> None:
        self.gate = gate
        self.is_serving = False
        self.lost = 0
        self.refusal = ""
        self._wanted = wanted
        self._start = start
        self._hint = hint
        self._see = f"see {log}"
        self._leases: list[socket.socket] = []
        self._starts = 0
        self._heard = bytearray()
        self._give_hint()

    def turn(self, wake: int, timeout_seconds: float | None = None) -> None:
        """Wait for something to happen, and see to it. `wake` is readable when cargo may end."""
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        for fd, events in self._watched():
            poll.register(fd, events)
        timeout = None if timeout_seconds is None else timeout_seconds * 1000
        for fd, _ in poll.poll(timeout):
            if fd == wake:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake, 512)
            else:
                self._see_to(fd)

    def report(self, clock: Callable[[], float] = time.monotonic) -> dict[str, Any] | None:
        """Ask the proxy what it served and refused; None: there is none to ask."""
        lease = self.gate.lease
        if lease is None or not self.is_serving:
            return None
        deadline = clock() + REPORT_SECONDS
        try:
            lease.sendall(b'{"report":true}\n')
            while (left := deadline - clock()) > 0 and len(self._heard) < _REPORT_MAX_BYTES:
                lease.settimeout(left)
                data = lease.recv(65_536)
                if not data:
                    return None
                self._heard += data
                for said in self._lines():
                    if "format" in said:
                        return said
        except OSError:
            pass
        return None

    def close(self) -> None:
        """Let go of everything; whoever still needs a proxy takes over."""
        for each in self._leases:
            each.close()
        self.gate.close()

    # ---- what happens

    def _watched(self) -> list[tuple[int, int]]:
        gate, watched = self.gate, []
        if self.refusal or gate.door is not None:
            watched.append((gate.listener.fileno(), select.POLLIN))
        if gate.door is not None:
            watched.append((gate.door.fileno(), select.POLLIN))
        # No event asked for: what they write is for the proxy. Their end is told all the same.
        watched += [(each.fileno(), 0) for each in self._leases]
        if gate.lease is not None:
            watched.append((gate.lease.fileno(), select.POLLIN))
        return watched

    def _see_to(self, fd: int) -> None:
        gate = self.gate
        if gate.lease is not None and fd == gate.lease.fileno():
            self._hear(gate.lease)
        elif fd == gate.listener.fileno():
            self._connection()
        elif gate.door is not None and fd == gate.door.fileno():
            lease = greet(gate.door, self._wanted.terms.hello(), gate.listener)
            if lease is not None:
                self._leases.append(lease)
        else:
            for each in [each for each in self._leases if each.fileno() == fd]:
                self._leases.remove(each)
                each.close()

    def _connection(self) -> None:
        """Somebody connects: start the proxy, which finds the connection waiting."""
        if self.refusal:
            refuse_one(self.gate.listener, self.refusal)
            return
        if self._starts == STARTS_MAX:
            self.refusal = (
                f"the proxy was started {STARTS_MAX} times and ended each time; {self._see}"
            )
            return
        self._starts += 1
        ours, theirs = socket.socketpair()
        try:
            self._start(self.gate, (theirs, *self._leases))
        except OSError as error:
            self.refusal = f"the proxy cannot be started: {error.strerror}; {self._see}"
            ours.close()
            return
        finally:
            theirs.close()
        # It has duplicates of all these.
        for each in (self.gate.door, *self._leases):
            if each is not None:
                each.close()
        self._leases = []
        self.gate = self.gate._replace(door=None, lease=ours)
        self._give_hint()

    def _hear(self, lease: socket.socket) -> None:
        try:
            data = lease.recv(65_536)
        except OSError:
            data = b""
        if not data:
            self._holder_ended(lease)
            return
        self._heard += data
        for said in self._lines():
            self.is_serving = self.is_serving or said.get("serving") is True

    def _holder_ended(self, lease: socket.socket) -> None:
        lease.close()
        self.lost += self.is_serving
        self.is_serving = False
        self._heard.clear()
        gate = self.gate._replace(lease=None)
        try:
            self.gate = acquire(self._wanted, held=(gate.port, gate.listener))
        except CratesealError as error:
            # The port is still ours; nobody answers there but us.
            self.gate, self.refusal = gate, str(error)
            return
        self._give_hint()

    def _give_hint(self) -> None:
        # A holder that is no proxy yet leaves it for the proxy that it starts.
        if self.gate.lease is not None and self._hint:
            with contextlib.suppress(OSError):
                self.gate.lease.sendall(json.dumps(self._hint).encode() + b"\n")

    def _lines(self) -> list[dict[str, Any]]:
        *lines, rest = self._heard.split(b"\n")
        self._heard = bytearray(rest)
        found = []
        for line in lines:
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                if isinstance(said, dict):
                    found.append(said)
        return found


def refuse_one(listener: socket.socket, reason: str) -> None:
    """Take one connection and answer that nothing is to be had: cargo prints the reason."""
    text = f"crateseal: {reason}\n".encode(errors="replace")
    head = "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    head += f"Content-Length: {len(text)}\r\n\r\n"
    with contextlib.suppress(OSError):
        listener.settimeout(_REQUEST_SECONDS)  # somebody else may have been quicker
        peer, _ = listener.accept()
        end = time.monotonic() + _REQUEST_SECONDS
        with peer:
            # Closing with the request unread would reset the connection, and lose the answer.
            peer.settimeout(_REQUEST_SECONDS)
            peer.recv(65_536)
            peer.sendall(head.encode() + text)
            peer.shutdown(socket.SHUT_WR)
            # A limit for all: we wait for nobody who sends a byte now and then.
            while (left := end - time.monotonic()) > 0:
                peer.settimeout(left)
                if not peer.recv(65_536):
                    break
