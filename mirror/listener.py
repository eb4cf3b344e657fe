"""The one listening socket: bound before anything else happens, then shared by all servers."""

from __future__ import annotations

import errno
import logging
import socket
import time

from mirror.errors import BusyError, MachineError, UsageError
from mirror.waiting import WAIT_SECONDS, Pause, try_for

LOG = logging.getLogger("crateseal")

BACKLOG = 2048
_STEP_SECONDS = 0.2


def listen(
    host: str,
    port: int,
    *,
    wait_seconds: float = WAIT_SECONDS,
    pause: Pause = time.sleep,
) -> socket.socket:
    """Bind and listen; wait for an address that somebody else still holds.

    Raises:
        BusyError: the address is still in use after `wait_seconds`.
        UsageError: it is no address of this machine.
        MachineError: this user may not listen there.
    """
    sock = _free(host, port)
    if sock is None:
        LOG.info("%s is in use; waiting up to %.0f s", _show(host, port), wait_seconds)
        sock = try_for(lambda: _free(host, port), wait_seconds, _STEP_SECONDS, pause)
    if sock is None:
        raise BusyError(
            f"{_show(host, port)}: another program listens there; stop it, or choose another --port"
        )
    return sock


def _free(host: str, port: int) -> socket.socket | None:
    """Return the listening socket, or None: somebody else has the address."""
    try:
        return _listen(host, port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise _refusal(host, port, error) from error
        return None


def _listen(host: str, port: int) -> socket.socket:
    flags = socket.AI_PASSIVE
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        # A port whose last connections have not timed out yet is free for all that.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _refusal(host: str, port: int, error: OSError) -> Exception:
    where = _show(host, port)
    if error.errno in {errno.EACCES, errno.EPERM}:
        return MachineError(f"{where}: this user may not listen there; choose a --port above 1023")
    reason = error.strerror or str(error)
    return UsageError(f"{where}: cannot listen there ({reason}); choose another --host")


def _show(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
