"""An unpacked crate on the disk against what its verified archive holds.

Rule: nothing on the disk is believed. No link is followed, nothing but regular files is opened, and
what the archive does not hold is a difference, too: cargo compiles files that nobody lists, such as
a `build.rs` or a file in `src/bin/`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mirror.client.commands.files import sha256_of_file
from mirror.client.commands.unpack import Contents

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Difference:
    """One path that is not as it should be."""

    path: str
    """Below the crate's folder; empty for that folder itself."""
    expected: str
    got: str


def differences(
    folder: Path,
    contents: Contents,
    *,
    may_lack: Callable[[str], bool] = lambda _path: False,
    own: str | None = None,
) -> list[Difference]:
    """Return what differs between a folder and a crate's contents, in the order of the paths.

    Files that `may_lack` names need not be there. `own` is a file beside the crate's, of whoever
    unpacked it: its contents do not matter here, but it must be a plain file.
    """
    found: list[Difference] = []
    seen: set[str] = set()
    unread: list[str] = []
    for path, entry in _walk(folder):
        seen.add(path)
        if isinstance(entry, OSError):
            unread.append(f"{path}/" if path else "")
            found.append(Difference(path, "a folder that can be read", str(entry.strerror)))
        elif difference := _difference(folder, path, entry, contents, own):
            found.append(difference)
    found += [
        Difference(path, _expected(path, contents), "none")
        for path in (contents.files.keys() | contents.links.keys()) - seen
        if not may_lack(path) and not path.startswith(tuple(unread))
    ]
    return sorted(found, key=lambda each: each.path)


def _difference(
    folder: Path, path: str, entry: os.DirEntry[str], contents: Contents, own: str | None
) -> Difference | None:
    expected = _expected(path, contents)
    if entry.is_symlink():
        target = os.readlink(folder / path)
        is_right = path in contents.links and target == contents.links[path]
        return None if is_right else Difference(path, expected, f"a link to {target!r}")
    if not entry.is_file(follow_symlinks=False):
        return Difference(path, expected, "neither a file nor a folder")
    if path == own:
        return None
    if path not in contents.files:
        return Difference(path, expected, "a file that the crate does not hold")
    try:
        got = sha256_of_file(folder / path)
    except OSError as error:
        return Difference(path, expected, f"a file that cannot be read: {error.strerror}")
    return None if got == contents.files[path] else Difference(path, expected, got)


def _expected(path: str, contents: Contents) -> str:
    if path in contents.files:
        return f"sha256 {contents.files[path]}"
    return f"a link to {contents.links[path]!r}" if path in contents.links else "no such file"


def _walk(folder: Path) -> Iterator[tuple[str, os.DirEntry[str] | OSError]]:
    """Yield everything below a folder but folders, and what could not be looked into.

    Whoever can put a link in a folder's place while we look could also do so after us.
    """
    waiting = [""]
    while waiting:
        below = waiting.pop()
        try:
            fd = os.open(folder / below, _OPEN_FOLDER)
        except OSError as error:
            yield below, error
            continue
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    path = f"{below}/{entry.name}" if below else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(path)
                    else:
                        yield path, entry
        finally:
            os.close(fd)
