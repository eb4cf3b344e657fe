"""What a ceremony left in `ceremony/`, taken into a running mirror.

The order: verified as a client would; published; then the online keys that nothing names any more
are removed, and a trial's offline keys; last, what lay in `ceremony/`. A crash in between is made
good at the next start, which finds it there still.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from mirror.sign.parts import Parts
from mirror.sign.signer import Signer
from mirror.sign.state import EXTRA
from tuf_repo.core.roles import STOCK_MAX_BYTES
from tuf_repo.errors import CeremonyError, RepositoryError
from tuf_repo.online import remove_replaced

log = logging.getLogger(__name__)

_FILES_MAX = 64
_FILE_MAX_BYTES = max(STOCK_MAX_BYTES.values())


class CeremonyDesk:
    """Takes what a ceremony left, once it is whole."""

    def __init__(self, parts: Parts, signer: Signer) -> None:
        self._parts = parts
        self._signer = signer
        self._folder = parts.config.ceremony
        self._refused: Mapping[str, bytes] = {}
        self.trouble = ""
        """Why what lies there is not taken; empty where nothing is amiss."""

    def take(self, *, now: float, starting: bool = False) -> bool:
        """Publish what lies there; return whether anything was.

        `starting`: look also where nothing lies there, as a crash may have cut between a new root
        and what goes with it.

        Raises:
            OSError: the disk; the same may be done again.
        """
        try:
            files = read_files(self._folder)
            if not files and not starting:
                self.trouble, self._refused = "", {}
            if files == self._refused:
                return False
            succession = self._parts.publisher.succession(files, now=now)
        except RepositoryError as error:
            self._refuse(files if not isinstance(error, _UnreadableError) else {}, error)
            return False
        self.trouble, self._refused = "", {}
        if succession is not None:
            self._signer.succeed(succession, now=now)
            log.info("the ceremony's result is published: %s", ", ".join(sorted(files)))
        if files:
            self._tidy(files)
        return succession is not None

    def _refuse(self, files: Mapping[str, bytes], error: RepositoryError) -> None:
        trouble = f"ceremony not taken: {error}"
        if trouble != self.trouble:
            log.error("%s", trouble)
        self.trouble, self._refused = trouble, files

    def _tidy(self, files: Mapping[str, bytes]) -> None:
        config, publisher = self._parts.config, self._parts.publisher
        for name in remove_replaced(config.keys, publisher.past_keys(), publisher.trust):
            log.info("removed the online key %s: nothing names it any more", name)
        if publisher.root_extra.get(EXTRA, {}).get("trial") is not True:
            self._remove_offline_keys(config.offline_keys)
        for name in files:
            self._parts.disk.remove(self._folder / name)
        self._parts.disk.sync()

    def _remove_offline_keys(self, folder: Path) -> None:
        files = sorted(folder.glob("*.pem"))
        for file in files:
            self._parts.disk.remove(file)
        if files:
            log.info("removed the trial's offline keys")


class _UnreadableError(CeremonyError):
    """What lies there cannot be read as files."""


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the files that a ceremony left, by name; none where there is no such folder.

    Raises:
        CeremonyError: something else lies there, or too much of it.
        OSError: the disk.
    """
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except FileNotFoundError:
        return {}
    if len(names) > _FILES_MAX:
        raise _UnreadableError(folder.name, f"at most {_FILES_MAX} files", str(len(names)))
    return {name: _read(folder, name) for name in names}


def _read(folder: Path, name: str) -> bytes:
    try:
        fd = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _UnreadableError(name, "a regular file", error.strerror or "nothing") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise _UnreadableError(name, "a regular file", "something else")
        with os.fdopen(fd, "rb", closefd=False) as file:
            data = file.read(_FILE_MAX_BYTES + 1)
    finally:
        os.close(fd)
    if len(data) > _FILE_MAX_BYTES:
        raise _UnreadableError(name, f"at most {_FILE_MAX_BYTES} bytes", "more")
    return data
