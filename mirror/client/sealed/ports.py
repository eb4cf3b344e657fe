"""An overlay that gets another port: whose are the registry folders that are there?

Cargo names a registry's folder after its address, port and all. At a port that we do not hold a
stranger may listen, and a checkout may lead a cargo there: so a folder is ours only while its port
is. When the port changes, the folders of the old one wait in `.crateseal/ports/held-PORT/`, where
no cargo looks, until it is ours again; and what has the name of the new one, but was not put away
there by us, came from a stranger. `.crateseal/ports/now` says whose the folders are.

Light imports only.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mirror.client.home.folders import make_private
from mirror.client.home.overlay import OWN, Overlay
from mirror.client.sealed.traces import AREAS, NOW, PORTS, has_port, index_url, last_port, touch
from mirror.core.cargo_folders import registry_folders
from mirror.errors import MachineError

if TYPE_CHECKING:
    from mirror.client.sealed.aftermath import Finding


def take_port(overlay: Overlay, root_id: str) -> list[Finding]:
    """Make the folders in an overlay those of its port, before any cargo runs at it.

    All runs in an overlay have the same port, so nobody uses what is moved here.

    Raises:
        MachineError: the folders cannot be moved.
    """
    own = make_private(overlay.folder / OWN / PORTS)
    lock = os.open(touch(own, "lock"), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run of the same port may be at it
        return [] if has_port(overlay) else _take(overlay, root_id, own)
    except OSError as error:
        raise MachineError(f"{error.filename or own}: {error.strerror}") from error
    finally:
        os.close(lock)


def _take(overlay: Overlay, root_id: str, own: Path) -> list[Finding]:
    registry = overlay.folder / "registry"
    before, port = last_port(overlay), overlay.purpose.port
    if before is not None:
        old = registry_folders(index_url(root_id, before))
        _move(registry, make_private(own / f"held-{before}"), old)
    folders = registry_folders(index_url(root_id, port))
    told = _foreign(overlay, folders)
    _move(own / f"held-{port}", registry, folders)
    new = touch(own, f"{NOW}.new")
    new.write_text(str(port), encoding="ascii")
    os.replace(new, own / NOW)
    return told


def _foreign(overlay: Overlay, folders: Iterable[str]) -> list[Finding]:
    registry = overlay.folder / "registry"
    there = sorted(
        folder
        for folder in folders
        if any(os.path.lexists(registry / area / folder) for area in AREAS)
    )
    if not there:
        return []
    from mirror.client.sealed.aftermath import set_aside  # noqa: PLC0415 - seldom wanted

    return set_aside(overlay, there, "somebody who had this port before us")


def _move(source: Path, target: Path, folders: Iterable[str]) -> None:
    for area in AREAS:
        for folder in folders:
            if os.path.lexists(source / area / folder):
                os.makedirs(target / area, exist_ok=True)
                if os.path.lexists(target / area / folder):
                    # Left by a run that ended amid this; it is older.
                    shutil.rmtree(target / area / folder)
                os.rename(source / area / folder, target / area / folder)
