"""Whether a data folder is ours to use, asked before anything in it is touched. Stdlib only."""

from __future__ import annotations

import os
from pathlib import Path

from mirror.core.layout import METADATA_DIR
from mirror.errors import MachineError, UsageError

SOCKET_PATH_MAX_BYTES = 107  # sun_path of unix(7), less its NUL
_LONGEST_SOCKET = "run/admin.sock"

_OURS = ("www", "spool", "staging", "ceremony", "run", "keys", "offline-keys")
_OURS_BEGIN = ("ledger.sqlite3", "cursors.sqlite3", ".", "lost+found")


def require_ours(data: Path) -> None:
    """Make sure that the data folder is new, empty, or a mirror's.

    Raises:
        UsageError: it holds what is not ours, or its path is too long for a socket.
        MachineError: it cannot be read.
    """
    longest = os.fsencode(data / _LONGEST_SOCKET)
    if len(longest) > SOCKET_PATH_MAX_BYTES:
        raise UsageError(
            f"{data}: this path is too long for the sockets in it; use a --data at most"
            f" {SOCKET_PATH_MAX_BYTES - len(longest) + len(os.fsencode(data))} bytes long"
        )
    try:
        entries = sorted(os.listdir(data))
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise UsageError(f"{data}: not a folder; name another with --data") from error
    except OSError as error:
        raise MachineError(f"{data}: cannot be read: {error.strerror}") from error
    foreign = [each for each in entries if each not in _OURS and not each.startswith(_OURS_BEGIN)]
    if foreign and not (data / "www" / METADATA_DIR).is_dir():
        raise UsageError(
            f"{data}: holds {foreign[0]!r} and no mirror; name a new or empty folder with --data"
        )


def require_writable(data: Path) -> None:
    """Make sure that the data folder is ours, and that this user may write there.

    Raises:
        UsageError: as `require_ours`.
        MachineError: it cannot be read or written.
    """
    require_ours(data)
    if data.exists() and not os.access(data, os.W_OK | os.X_OK):
        raise MachineError(f"{data}: this user may not write there; see its owner and mode")


def has_keys_of_a_ceremony(data: Path) -> bool:
    """Whether online keys lie there that no set-up of a trial was making."""
    unfinished = data / "staging" / "setup-unfinished"
    return (data / "keys" / "timestamp.pem").exists() and not unfinished.exists()


def missing_root(data: Path) -> str:
    """Return what is missing where there is no repository yet, and what to do about it."""
    missing = f"{data}: there is no repository yet"
    if (data / "ceremony" / "1.root.json").exists():
        return f"{missing}: signed files wait in ceremony/; `crateseal up` begins with them"
    if has_keys_of_a_ceremony(data):
        return (
            f"{missing}: the online keys wait for the signed root; `tuf-repo finish DRAFT --data"
            f" {data}` brings it (deploy/ceremony.md), `crateseal init --trial` makes one for a try"
        )
    return (
        f"{missing}; `crateseal init --trial` makes one for a first try, `crateseal up` does so by"
        " itself; for a root quorum see deploy/ceremony.md"
    )
