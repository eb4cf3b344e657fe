"""What lies in an overlay beside what is ours: looked at before cargo runs, and after.

Light imports only: this is on the way of each build.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mirror.client.gate.gate import FIRST_PORT, HOST, LAST_PORT
from mirror.client.home.folders import make_private
from mirror.client.home.overlay import OWN, Overlay
from mirror.core.cargo_folders import registry_folders
from mirror.errors import MachineError

AREAS = ("index", "cache", "src")
OTHERS = "others"
_PORTS = "ports"
_ENTRIES_MAX = 100_000


class Entry(NamedTuple):
    """One thing in a registry's folder in the overlay."""

    area: str
    folder: str
    name: str


class Seen(NamedTuple):
    """What lay in an overlay, beside what is ours, at one moment."""

    entries: frozenset[Entry]
    git: frozenset[str]
    others: Mapping[str, int]
    """Registries that some run named, and when one last said so (nanoseconds)."""

    @property
    def folders(self) -> frozenset[str]:
        """The names of the registries' folders."""
        return frozenset(each.folder for each in self.entries)


def index_url(root_id: str, port: int) -> str:
    """Return what cargo is told as the address of our registry."""
    return f"sparse+http://{HOST}:{port}/{root_id}/index/"


def look(overlay: Overlay, root_id: str) -> Seen:
    """Return what lies in the overlay now, without our own folders."""
    registry = overlay.folder / "registry"
    now = registry_folders(index_url(root_id, overlay.purpose.port))
    there = {(area, folder) for area in AREAS for folder in names_in(registry / area)}
    foreign = {(area, folder) for area, folder in there if folder not in now}
    if any(folder.startswith(f"{HOST}-") for _, folder in foreign):
        # 30 addresses are 6 ms of hashing: only where one of them may be there.
        ours = our_folders(overlay, root_id)
        foreign = {(area, folder) for area, folder in foreign if folder not in ours}
    entries = {
        Entry(area, folder, name)
        for area, folder in foreign
        for name in _entries(registry / area / folder, area)
    }
    git = frozenset(names_in(overlay.folder / "git" / "db"))
    others = overlay.folder / OWN / OTHERS
    said = {name: os.stat(others / name).st_mtime_ns for name in names_in(others)}
    return Seen(frozenset(entries), git, said)


def remember_port(overlay: Overlay) -> None:
    """Keep in mind that this port was ours, too: its folders stay."""
    touch(overlay.folder / OWN / _PORTS, str(overlay.purpose.port))


def our_folders(overlay: Overlay, root_id: str) -> frozenset[str]:
    """Return what cargo calls our registry's folders, at any port that it ever had."""
    ports = {*range(FIRST_PORT, LAST_PORT + 1), overlay.purpose.port}
    ports |= {int(each) for each in names_in(overlay.folder / OWN / _PORTS) if each.isdecimal()}
    return frozenset().union(*(registry_folders(index_url(root_id, each)) for each in ports))


def _entries(folder: Path, area: str) -> list[str]:
    if area != "index":
        return names_in(folder) or [""]
    found = []
    for _, _, files in os.walk(folder / ".cache"):
        found += files
        if len(found) > _ENTRIES_MAX:
            break
    return found or [""]


def names_in(folder: Path) -> list[str]:
    """Return what is in a folder; nothing if it is not there."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def touch(folder: Path, name: str) -> Path:
    """Make an empty file in a private folder, unless it is there; return it."""
    path = folder / name
    make_private(folder)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise MachineError(f"{path}: cannot be made: {error.strerror}") from error
    return path
