"""Who listens on a port, as far as this machine tells; to be named in an error."""

from __future__ import annotations

import os


def owner_of(port: int) -> int | None:
    """Return the user id of who listens on 127.0.0.1 or on all addresses; None: not known."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as file:
                lines = file.readlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            # Local address in hexadecimal, state 0A: listening.
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                return int(fields[7])
    return None


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
