"""What cargo keeps and would use unasked, taken out of its reach where nobody looks on.

On a build machine the cache may come from a stranger's job, and offline nothing else is asked: so
before such a run, if no other one uses the overlay, what is unpacked is removed (cargo unpacks it
again from the `.crate` files), and of these the ones that the lock vouches for stay alone. Online
the others are removed, and cargo's copy of the index, too: it asks anew. Offline the others may be
wanted by other projects: they wait in `.crateseal/unnamed/` until cargo has ended.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mirror.client.home.folders import make_private
from mirror.client.home.overlay import OWN, Overlay
from mirror.client.sealed.light_lock import Package
from mirror.client.sealed.traces import names_in, our_folders
from mirror.errors import MachineError

_UNNAMED = "unnamed"
_NOT_ALONE = (
    "another run uses the same overlay: what cargo unpacked before, and crates that the lock does"
    " not name, were not looked at"
)


@contextmanager
def distrusting(
    overlay: Overlay, root_id: str, packages: Iterable[Package], *, is_offline: bool
) -> Iterator[list[str]]:
    """Have cargo use nothing of ours that is kept but what a lock of these packages vouches for.

    Yields:
        What there is to say of it.

    Raises:
        MachineError: something cannot be moved or removed.
    """
    if not overlay.is_alone():
        yield [_NOT_ALONE]
        return
    try:
        named = {f"{each.name}-{each.version}.crate" for each in packages if _is_vouched_for(each)}
        removed = _distrust(overlay, our_folders(overlay, root_id), named, is_offline=is_offline)
    finally:
        overlay.share()
    yield [_said(removed)] if is_offline and removed and not named else []
    if is_offline and overlay.is_alone():
        _put_back(overlay)
        overlay.share()


def _distrust(
    overlay: Overlay, folders: Iterable[str], named: Container[str], *, is_offline: bool
) -> int:
    registry, unnamed = overlay.folder / "registry", overlay.folder / OWN / _UNNAMED
    _put_back(overlay)  # what a run left that could not end
    removed = 0
    for folder in folders:
        _remove(registry / "src" / folder)
        for name in names_in(registry / "cache" / folder):
            if name not in named:
                removed += 1
                path = registry / "cache" / folder / name
                if is_offline:
                    _move(path, make_private(make_private(unnamed) / folder) / name)
                else:
                    _remove(path)
        if not is_offline:
            _remove(registry / "index" / folder / ".cache")
    return removed


def _put_back(overlay: Overlay) -> None:
    unnamed = overlay.folder / OWN / _UNNAMED
    for folder in names_in(unnamed):
        cache = overlay.folder / "registry" / "cache" / folder
        for name in names_in(unnamed / folder):
            if os.path.isdir(cache) and not os.path.lexists(cache / name):
                _move(unnamed / folder / name, cache / name)
    _remove(unnamed)


def _is_vouched_for(package: Package) -> bool:
    return package.is_of_crates_io and package.checksum is not None


def _said(removed: int) -> str:
    return (
        f"no lock says what is in the {removed} crates that cargo keeps; offline they are out of"
        " its reach"
    )


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise MachineError(f"{path}: cannot be removed: {error.strerror}") from error


def _move(path: Path, target: Path) -> None:
    try:
        os.rename(path, target)
    except OSError as error:
        raise MachineError(f"{path}: cannot be moved: {error.strerror}") from error
