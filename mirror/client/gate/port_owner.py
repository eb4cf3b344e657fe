"""Whose a port is, or a connection to it, as far as this machine tells."""

from __future__ import annotations

import os
from collections.abc import Iterator

_LISTENING = "0A"


def owner_of(port: int) -> int | None:
    """Return the user id of who listens on 127.0.0.1 or on all addresses; None: not known."""
    for fields in _sockets():
        if fields[3] == _LISTENING and _port(fields[1]) == port:
            return int(fields[7])
    return None


def user_of(peer_port: int, port: int) -> int | None:
    """Return the user id of who connected from `peer_port` of this machine to `port`, if known."""
    for fields in _sockets():
        ends = _port(fields[1]), _port(fields[2])
        if ends == (peer_port, port) and fields[3] != _LISTENING:
            return int(fields[7])
    return None


def _sockets() -> Iterator[list[str]]:
    """Yield the kernel's lines: 1 local address, 2 the other one, 3 state, 7 user id."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as file:
                lines = file.readlines()[1:]
        except OSError:
            continue
        yield from map(str.split, lines)


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


def who(uid: int | None) -> str:
    """Return a user id as words of an error."""
    if uid is None:
        return "another program"
    if uid == os.geteuid():
        return f"another program of {me()}"
    return f"a program of {_user(uid)}"


def me() -> str:
    """Return this user as words of an error."""
    return _user(os.geteuid())


def _user(uid: int) -> str:
    import pwd  # noqa: PLC0415 - wanted for errors only

    try:
        return f"user {pwd.getpwuid(uid).pw_name} ({uid})"
    except KeyError:
        return f"user {uid}"
