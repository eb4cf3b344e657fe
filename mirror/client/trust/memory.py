"""What a client remembers of a repository between two runs: the newest that verified.

It protects against rollback, so it only ever goes forward. It lies beside the trust in the config
folder, never in the cache.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Protocol

from mirror.client.home.folders import is_private
from mirror.client.home.remembered import read_private
from mirror.errors import MachineError, UsageError

METADATA_MAX_BYTES = 64_000_000
ANEW = "delete that folder and trust the mirror again (`crateseal trust`)"
_ROOT, _TIMESTAMP, _SNAPSHOT = "root.json", "timestamp.json", "snapshot.json"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Remembered:
    """The newest that verified, as it was served; it is verified again when it is used."""

    root: bytes
    timestamp: bytes | None = None
    snapshot: bytes | None = None


class Memory(Protocol):
    """Where the newest that verified is kept."""

    def load(self) -> Remembered:
        """Return what was saved last, at first the initial root."""
        ...

    def save(self, remembered: Remembered) -> None:
        """Keep this unless it is older than what is kept.

        Older: a lower version of the root, or under the same root a lower one of the timestamp.
        """
        ...


class EphemeralMemory:
    """Remembers for the length of one command; a client of `--root` or `--data` has no past."""

    def __init__(self, root: bytes) -> None:
        self._remembered = Remembered(root)
        self._lock = Lock()

    def load(self) -> Remembered:
        """Return what was saved last."""
        return self._remembered

    def save(self, remembered: Remembered) -> None:
        """Keep this unless it is older."""
        with self._lock:
            if is_no_older(remembered, self._remembered):
                self._remembered = remembered


class FileMemory:
    """Remembers in a folder of the trust store; several processes may."""

    def __init__(self, folder: Path, initial: bytes) -> None:
        self._folder = folder
        self._initial = initial

    def load(self) -> Remembered:
        """Return what was saved last.

        Raises:
            MachineError, UsageError: the folder is not as it was written.
        """
        with locked(self._folder, fcntl.LOCK_SH):
            return self._load()

    def save(self, remembered: Remembered) -> None:
        """Keep this unless it is older; durable.

        Raises:
            MachineError, UsageError: the folder is not as it was written, or the disk is full.
        """
        with locked(self._folder, fcntl.LOCK_EX):
            old = self._load()
            if remembered != old and is_no_older(remembered, old):
                self._write(remembered, old)

    def _load(self) -> Remembered:
        return Remembered(
            read_file(self._folder / _ROOT) or self._initial,
            read_file(self._folder / _TIMESTAMP),
            read_file(self._folder / _SNAPSHOT),
        )

    def _write(self, new: Remembered, old: Remembered) -> None:
        # A crash in between must not leave a new root beside a timestamp that the next save may
        # not go below, so one that has to make room does so first. A timestamp whose snapshot is
        # another counts as nothing but a lower limit.
        if not is_no_older(replace(new, root=old.root), old):
            (self._folder / _TIMESTAMP).unlink(missing_ok=True)
        for name, data, before in (
            (_ROOT, new.root, old.root),
            (_SNAPSHOT, new.snapshot, old.snapshot),
            (_TIMESTAMP, new.timestamp, old.timestamp),
        ):
            if data is None:
                (self._folder / name).unlink(missing_ok=True)
            elif data != before:
                write_file(self._folder / name, data)


def is_no_older(new: Remembered, old: Remembered) -> bool:
    """Whether this may take the other's place.

    A higher root may bring a lower timestamp: it replaced the key of a thief who had signed a high
    one (TUF specification 5.3.11).
    """
    roots = version_of(new.root), version_of(old.root)
    if roots[0] != roots[1]:
        return roots[0] > roots[1]
    if new.timestamp is None or old.timestamp is None:
        return old.timestamp is None
    return version_of(new.timestamp) >= version_of(old.timestamp)


def version_of(metadata: bytes) -> int:
    """Return the version that metadata says it has; nothing is verified.

    Raises:
        UsageError: it is no metadata.
    """
    try:
        version = json.loads(metadata)["signed"]["version"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UsageError(f"what was remembered is no TUF metadata; {ANEW}") from error
    if type(version) is not int:
        raise UsageError(f"what was remembered is no TUF metadata; {ANEW}")
    return version


@contextmanager
def locked(folder: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold the folder itself (flock): no file is needed for it, and none is left.

    Raises:
        UsageError: it is not there.
        MachineError: it is not this user's alone.
    """
    is_private(folder)
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise UsageError(f"{folder}: this trust was forgotten meanwhile") from error
    try:
        fcntl.flock(fd, how)
        yield
    finally:
        # A process forked meanwhile holds a copy of the descriptor, so to close ours is not enough.
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)


def read_file(path: Path) -> bytes | None:
    """Return a file of a trust, or None: it is not there.

    Raises:
        UsageError: it is no file of ours.
    """
    try:
        return read_private(path, METADATA_MAX_BYTES)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read ({error}); {ANEW}") from error


def write_file(path: Path, data: bytes) -> None:
    """Put these bytes there by one rename, durable, for this user only.

    Raises:
        MachineError: the disk; what was there is there still.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with os.fdopen(os.open(temporary, _NEW, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise MachineError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            os.unlink(temporary)


def sync_folder(folder: Path) -> None:
    """Return when the names in a folder are on the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
