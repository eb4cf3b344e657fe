"""What a ceremony left in `ceremony/`, taken into a running mirror.

The order: verified as a client would; published; then the online keys that nothing names any more
are removed, and a trial's offline keys; last, what lay in `ceremony/`. A crash in between is made
good at the next start, which finds it there still.

Rule: whatever lies there, signing goes on; what is refused is said, and tried again now and then,
as a key that was missing may be there meanwhile.
"""

from __future__ import annotations

import logging
import math
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from mirror.sign.expiry_watch import is_trial
from mirror.sign.parts import Parts
from mirror.sign.signer import Signer
from tuf_repo.core.roles import STOCK_MAX_BYTES
from tuf_repo.core.words import printable
from tuf_repo.errors import CeremonyError, RepositoryError
from tuf_repo.folder import FINISHING
from tuf_repo.online import remove_replaced

log = logging.getLogger(__name__)

_FILES_MAX = 64
_FILE_MAX_BYTES = max(STOCK_MAX_BYTES.values())
_AGAIN_SECONDS = 30.0
_TROUBLE_MAX_CHARS = 500
_FINISHING_SECONDS = 10.0

_Stamp = tuple[tuple[str, int, int, int], ...]
"""Name, inode, time and size of what lies there."""


class CeremonyDesk:
    """Takes what a ceremony left, once it is whole."""

    def __init__(self, parts: Parts, signer: Signer) -> None:
        self._parts = parts
        self._signer = signer
        self._folder = parts.config.ceremony
        self._looked_at: _Stamp | None = None
        self._again_at = 0.0
        self.trouble = ""
        """Why what lies there is not taken; empty where nothing is amiss."""

    def take(self, *, now: float) -> bool:
        """Publish what lies there; return whether anything was.

        The first call looks also where nothing lies there: a crash may have cut between a new root
        and what goes with it.

        Raises:
            OSError: the disk; the same may be done again.
        """
        stamp = _stamp(self._folder)
        if stamp == self._looked_at and now < self._again_at:
            return False
        try:
            if _is_being_written(stamp, now):
                return False
            files = read_files(self._folder)
            if _stamp(self._folder) != stamp:
                return False  # Somebody is at work there: what was read may be half of it.
            taken = self._take(files, now)
        except RepositoryError as error:
            self._refuse(error, stamp, now)
            return False
        self.trouble, self._looked_at, self._again_at = "", _stamp(self._folder), math.inf
        return taken

    def _take(self, files: dict[str, bytes], now: float) -> bool:
        succession = self._parts.publisher.succession(files, now=now)
        if succession is not None:
            self._signer.succeed(succession, now=now)
            log.info("a ceremony's result is published: %s", _listed(succession.roots, files))
        elif files:
            log.info("ceremony/ is emptied: %s are in force", _listed(files))
        self._tidy(files)
        return succession is not None

    def _refuse(self, error: RepositoryError, stamp: _Stamp, now: float) -> None:
        # A file's name, say, may hold anything.
        trouble = printable(f"ceremony not taken: {error}", _TROUBLE_MAX_CHARS)
        if trouble != self.trouble:
            log.error("%s", trouble)
        self.trouble, self._looked_at, self._again_at = trouble, stamp, now + _AGAIN_SECONDS

    def _tidy(self, files: Iterable[str]) -> None:
        config, publisher, disk = self._parts.config, self._parts.publisher, self._parts.disk
        removed = remove_replaced(
            config.keys, publisher.past_keys(), publisher.trust, remove=disk.remove
        )
        for name in removed:
            log.info("removed the online key %s: nothing names it any more", name)
        trial_keys = [] if is_trial(self._parts) else sorted(config.offline_keys.glob("*.pem"))
        for path in trial_keys:
            disk.remove(path)
        if trial_keys:
            log.info("removed the trial's offline keys")
        for name in files:
            disk.remove(self._folder / name)
        if removed or trial_keys or files:
            disk.sync()


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the files that a ceremony left, by name; none where there is no such folder.

    Raises:
        CeremonyError: something else lies there, or too much of it, or it cannot be read.
    """
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
        if len(names) > _FILES_MAX:
            raise CeremonyError(folder.name, f"at most {_FILES_MAX} files", str(len(names)))
        return {name: _read(folder, name) for name in names}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise CeremonyError(folder.name, "a folder of files", error.strerror or "none") from error


def _read(folder: Path, name: str) -> bytes:
    fd = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise CeremonyError(name, "a regular file", "something else")
        with os.fdopen(fd, "rb", closefd=False) as file:
            data = file.read(_FILE_MAX_BYTES + 1)
    finally:
        os.close(fd)
    if len(data) > _FILE_MAX_BYTES:
        raise CeremonyError(name, f"at most {_FILE_MAX_BYTES} bytes", "more")
    return data


def _stamp(folder: Path) -> _Stamp:
    try:
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
    except OSError:  # no folder, or one that reading will say more about
        return ()
    return tuple(sorted((name, at.st_ino, at.st_mtime_ns, at.st_size) for name, at in found))


def _is_being_written(stamp: _Stamp, now: float) -> bool:
    """Whether `tuf-repo finish` is at work there.

    Raises:
        CeremonyError: it was, and was cut off.
    """
    for name, _, mtime, _ in stamp:
        if name == FINISHING:
            if abs(now - mtime / 1e9) > _FINISHING_SECONDS:
                raise CeremonyError(name, "`tuf-repo finish` to end", "one cut off; run it again")
            return True
    return False


def _listed(*names: Iterable[str]) -> str:
    return ", ".join(sorted({name for each in names for name in each}))
