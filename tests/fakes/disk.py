"""A disk that stops at one change: a `Disk` over a real folder, for crash sweeps.

    disk = CrashingDisk(folder)                    # counts: run once, then `disk.changes`
    disk = CrashingDisk(folder, stop_at=3, mode=Mode.TORN)
    with pytest.raises(Crash): ...                 # stops at the fourth change

What a process leaves that is killed: LOST (the change was not made), TORN (half made), DONE (made,
but never reported). What a power cut leaves of all changes since the last `sync`: POWER_LOST (none
of them), POWER_TORN (all names, but each file written is cut to half), POWER_MIXED (the first ones
of them, and each file whole, cut or empty: by the seed).

After the stop every further change stops too: a dead process cannot tidy up.
"""

import hashlib
import os
import random
import shutil
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from tuf_repo.disk import PosixDisk


class Crash(BaseException):
    """The process died here. No handler for `Exception` may catch it."""


class Mode(StrEnum):
    LOST = "lost"
    TORN = "torn"
    DONE = "done"
    POWER_LOST = "power lost"
    POWER_TORN = "power torn"
    POWER_MIXED = "power mixed"


_POWER = (Mode.POWER_LOST, Mode.POWER_TORN, Mode.POWER_MIXED)


def crash_points(changes, modes=tuple(Mode)):
    """Every (stop_at, mode) of a run that makes so many changes."""
    return [(stop_at, mode) for stop_at in range(changes) for mode in modes]


class CrashingDisk:
    def __init__(self, root, *, stop_at=None, mode=Mode.LOST, seed=0):
        self._disk = PosixDisk(root)
        self._stop_at = stop_at
        self._mode = mode
        self._random = random.Random(seed)
        self._before = root.parent / f".{root.name}.before"
        self._undo = []  # one list of (path, what was there before) a change since the last sync
        self._fresh = {}  # path -> inode of the files written since the last sync
        self.changes = 0
        self.dead = False
        self.log = []
        """What was asked for, in words, e.g. `write_new 7.snapshot.json`."""
        self.written = []
        """(path, sha256) of every file that was begun."""
        if mode in _POWER:
            shutil.rmtree(self._before, ignore_errors=True)
            self._before.mkdir()

    def write_new(self, path, data, *, mode=0o644):
        def torn():
            self._disk.write_new(path, data[: len(data) // 2], mode=mode)

        self._note(path, data)
        self._change(
            f"write_new {path.name}",
            lambda: self._disk.write_new(path, data, mode=mode),
            torn,
            touched=[path],
        )
        self._fresh[path] = path.stat().st_ino

    def replace(self, path, data, *, mode=0o644):
        def torn():
            temporary = path.with_name(f".{path.name}.tmp")
            self._disk.remove(temporary)
            self._disk.write_new(temporary, data[: len(data) // 2], mode=mode)

        self._note(path, data)
        self._change(
            f"replace {path.name}",
            lambda: self._disk.replace(path, data, mode=mode),
            torn,
            touched=[path],
        )
        self._fresh[path] = path.stat().st_ino

    def rename(self, source, path):
        self._change(
            f"rename {source.name} to {path.name}",
            lambda: self._disk.rename(source, path),
            touched=[source, path],
        )
        if source in self._fresh:
            self._fresh[path] = self._fresh.pop(source)

    def link_over(self, source, path):
        def torn():
            temporary = path.with_name(f".{path.name}.tmp")
            self._disk.remove(temporary)
            if path.parent.is_dir():
                os.link(source, temporary)

        self._change(
            f"link_over {source.name} to {path.name}",
            lambda: self._disk.link_over(source, path),
            torn,
            touched=[path],
        )

    def set_mtime(self, path, seconds):
        # The old time comes back only with the old file: nothing may depend on more.
        self._change(f"set_mtime {path.name}", lambda: self._disk.set_mtime(path, seconds))

    def remove(self, path):
        self._change(f"remove {path.name}", lambda: self._disk.remove(path), touched=[path])

    def sync(self):
        # A power cut while it runs has settled nothing: so `_change` first, then forget.
        # Nothing is synced in truth: what a power cut takes is played, and sweeps stay fast.
        self._change("sync", lambda: None)
        self._undo.clear()
        self._fresh.clear()

    def _note(self, path, data):
        if not self.dead:
            self.written.append((path, hashlib.sha256(data).hexdigest()))

    def _change(self, words, do, torn=None, touched=()):
        if self.dead:
            raise Crash(f"already dead: {words}")
        number, self.changes = self.changes, self.changes + 1
        self.log.append(words)
        if number != self._stop_at:
            self._remember(touched)
            do()
            return
        self.dead = True
        if self._mode is Mode.TORN and torn:
            torn()
        elif self._mode is Mode.DONE:
            do()
        elif self._mode in _POWER:
            self._cut_power()
        raise Crash(f"{self._mode} at change {number}: {words}")

    def _remember(self, touched):
        if self._mode in _POWER and touched:
            self._undo.append([(path, self._keep(path)) for path in touched])

    def _keep(self, path):
        # A second name for the same file: what comes back is the file itself, links and all.
        kept = self._before / str(self.changes) / str(len(path.parts)) / path.name
        kept.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            os.link(path, kept, follow_symlinks=False)
            return kept
        return None

    def _cut_power(self):
        survive = {
            Mode.POWER_LOST: 0,
            Mode.POWER_TORN: len(self._undo),
            Mode.POWER_MIXED: self._random.randint(0, len(self._undo)),
        }[self._mode]
        for change in reversed(self._undo[survive:]):
            for path, kept in change:
                self._put_back(path, kept)
        for path, inode in self._fresh.items():
            share = self._random.choice([0, 0.5, 1]) if self._mode is Mode.POWER_MIXED else 0.5
            with suppress(FileNotFoundError):
                found = path.stat()
                if found.st_ino == inode:  # else an older file came back under that name
                    os.truncate(path, int(found.st_size * share))
        shutil.rmtree(self._before)

    def _put_back(self, path, kept):
        with suppress(FileNotFoundError):
            path.unlink()
        if kept:
            os.link(kept, path, follow_symlinks=False)


def is_leftover(path: Path) -> bool:
    """Whether a file is a temporary one that a torn `replace` or `link_over` leaves."""
    return path.name.startswith(".") and path.name.endswith(".tmp")
