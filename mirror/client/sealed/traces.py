"""What lies in an overlay beside what is ours: looked at before cargo runs, and after.

Light imports only: this is on the way of each build.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from mirror.client.gate.gate import HOST
from mirror.client.home.folders import make_private
from mirror.client.home.overlay import OWN, Overlay
from mirror.core.cargo_folders import registry_folders
from mirror.errors import MachineError

AREAS = ("index", "cache", "src")
OTHERS = "others"
PORTS = "ports"
NOW = "now"
_PORT_MAX_DIGITS = 5
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
    """Return what lies in the overlay now, without the folders of the port that we hold."""
    registry = overlay.folder / "registry"
    there = {folder for area in AREAS for folder in names_in(registry / area)}
    entries = entries_of(overlay, there - our_folders(overlay, root_id))
    git = frozenset(names_in(overlay.folder / "git" / "db"))
    others = overlay.folder / OWN / OTHERS
    said = {name: os.stat(others / name).st_mtime_ns for name in names_in(others)}
    return Seen(entries, git, said)


def entries_of(overlay: Overlay, folders: Iterable[str]) -> frozenset[Entry]:
    """Return what lies in these registries' folders."""
    registry = overlay.folder / "registry"
    return frozenset(
        Entry(area, folder, name)
        for area in AREAS
        for folder in folders
        if os.path.lexists(registry / area / folder)
        for name in _entries(registry / area / folder, area)
    )


def has_port(overlay: Overlay) -> bool:
    """Whether the folders in this overlay are those of its port: see `ports.py` where not."""
    return last_port(overlay) == overlay.purpose.port


def last_port(overlay: Overlay) -> int | None:
    """Return the port whose folders this overlay has; None: it never had one."""
    try:
        with open(overlay.folder / OWN / PORTS / NOW, "rb") as file:
            said = file.read(_PORT_MAX_DIGITS + 1)
    except OSError:
        return None
    return int(said) if said.isdigit() and len(said) <= _PORT_MAX_DIGITS else None


def our_folders(overlay: Overlay, root_id: str) -> frozenset[str]:
    """Return what cargo calls our registry's folders, at the port that we hold.

    At no other: whoever listens there may use our path, too.
    """
    return registry_folders(index_url(root_id, overlay.purpose.port))


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
