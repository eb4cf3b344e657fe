"""Where the entries of one archive lie, and whether a link among them leads anything astray.

Rule: what stands here must hold on every file system that unpacks a crate, also on those that take
`Link` and `link` for one name.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator

from mirror.core.tar import FILE, FOLDER, HARD_LINK, SYMLINK, TarEntry


class Places:
    """What an archive puts where; filled entry by entry, asked at the end."""

    def __init__(self, top: str) -> None:
        self._top = top
        self._files: set[str] = set()
        self._folders: set[str] = set()
        """Also what must be a folder for an entry to lie in it."""
        self._links: list[str] = []
        self._ways: set[str] = set()
        """What is passed on the way to a link's target."""
        self.chars = 0
        """How much all these paths come to: what this takes of the memory."""

    def add(self, path: str, entry: TarEntry) -> bool:
        """Take an entry in; return False for a link that leaves the top folder.

        `path` has its parts joined by `/`, without `.` and `..`, the top folder first.
        """
        self.chars += len(path)
        self._add_folders(path if entry.kind == FOLDER else path.rpartition("/")[0])
        if entry.kind == FILE:
            self._files.add(path)
        if entry.kind in (HARD_LINK, SYMLINK):
            self._links.append(path)
            return self._follow(path, entry)
        return True

    def _add_folders(self, path: str) -> None:
        while path and path not in self._folders:
            self._folders.add(path)
            self.chars += len(path)
            path = path.rpartition("/")[0]

    def _follow(self, path: str, entry: TarEntry) -> bool:
        """Note each place on the way to a link's target; return whether it stays inside."""
        # A hard link names its target from the archive's root, a symlink from its own folder.
        place = path.split("/")[:-1] if entry.kind == SYMLINK else []
        steps = [step for step in entry.link.split("/") if step not in ("", ".")]
        for step in steps:
            if place:
                way = "/".join(place)
                self._ways.add(way)
                self.chars += len(way)
            if step == "..":
                del place[-1:]
            else:
                place.append(step)
            if place[:1] != [self._top]:
                return False
        is_absolute = entry.link.startswith("/") or entry.link[1:2] == ":" or "\0" in entry.link
        return bool(steps) and not is_absolute and place[:1] == [self._top]

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Yield (what should be, the path that is not so) for places that are two things."""
        for path in sorted(self._files & self._folders):
            yield "no file that is a folder too", path
        if not self._links:
            return
        links = Counter(map(_folded, self._links))
        others = {_folded(path) for path in self._files | self._folders | self._ways}
        for path, count in sorted(links.items()):
            if count > 1 or path in others:
                yield "no way through a link, and nothing in a link's place", path


def _folded(path: str) -> str:
    """Return what is the same for all spellings that some file system takes for one."""
    return unicodedata.normalize("NFKC", path.casefold())
