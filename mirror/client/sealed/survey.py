"""What a run of `cargo sealed` learns of the checkout while cargo works, and claims for it.

Light imports only: with everything cached, cargo is done before this is.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from mirror.client.home.overlay import OWN, Overlay, users_config
from mirror.client.sealed import checkout, manifests
from mirror.client.sealed.cargo_words import Words
from mirror.client.sealed.light_lock import Package, printable
from mirror.client.sealed.traces import OTHERS, touch
from mirror.core.cargo_folders import registry_folders

_CLAIMS_MAX = 64


class Run(NamedTuple):
    """What cargo was asked, and where."""

    words: Words
    folder: Path
    """Where cargo works."""
    environment: Mapping[str, str]
    overlay: Overlay


class Survey(NamedTuple):
    """What the checkout names."""

    lock: checkout.Lock | None
    """None: there is none that can be read."""
    folders: frozenset[str]
    """What cargo calls registries that lock, command line or the user's own configuration name."""
    not_covered: tuple[str, ...]
    claims: tuple[int, ...]
    is_unread: bool = False
    """Whether there is a lock that only cargo can read."""

    @property
    def packages(self) -> tuple[Package, ...]:
        """Those of the lock."""
        return () if self.lock is None else self.lock.packages

    def close(self) -> None:
        """Say that the run has ended: its time is what others see."""
        for each in self.claims:
            os.utime(each)
            os.close(each)


def survey(run: Run, before: Survey | None = None) -> Survey:
    """Return what the checkout names; what was seen `before` is kept if the lock is the same."""
    path = checkout.lock_file(run.words, run.folder)
    lock = None
    if path is not None:
        lock = checkout.read_lock(path, None if before is None else before.lock)
    is_unread = lock is None and path is not None and os.path.lexists(path)
    if before is not None and (lock, is_unread) == (before.lock, before.is_unread):
        return before
    home = Path(run.overlay.purpose.home)
    registries = checkout.other_registries(lock, run.words, run.environment)
    registries |= checkout.registries_of(users_config(home))
    folders = frozenset[str]().union(*map(registry_folders, registries))
    not_covered = [
        f"{each} ({printable(each.source)})"
        for each in (() if lock is None else lock.packages)
        if each.source is not None and not each.is_of_crates_io
    ]
    if is_unread:
        # Cargo reads newer TOML than Python does: what we cannot read is no proof of anything.
        not_covered.append(f"{printable(str(path))}: a lock that cannot be read here")
    if lock is not None and path is not None:
        not_covered += manifests.outside(path.parent, lock.packages)
    not_covered += checkout.unread_manifests(run.words, run.folder)
    not_covered += checkout.redirections(run.folder, home)
    if len(folders) > _CLAIMS_MAX:
        # Each takes a descriptor while cargo runs, and a stranger's lock may name thousands.
        not_covered.append(f"{len(registries)} registries, too many to tell from other runs' own")
    claims = tuple(_claim(run.overlay, sorted(folders)[:_CLAIMS_MAX]))
    if before is not None:
        before.close()
    return Survey(lock, folders, tuple(not_covered), claims, is_unread)


def _claim(overlay: Overlay, folders: Iterable[str]) -> Iterable[int]:
    """Keep in mind that these are of registries that a run named, and that it goes on."""
    for each in folders:
        path = touch(overlay.folder / OWN / OTHERS, each)
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        fcntl.flock(fd, fcntl.LOCK_SH)
        yield fd
