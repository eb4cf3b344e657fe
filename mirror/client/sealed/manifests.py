"""The manifests of a checkout: which workspace cargo takes, and which packages lie outside of it.

A glance at the text is enough for most. Where it is not sure, TOML's own parser is asked; and where
that cannot read what a newer cargo may, this is said, since nothing is then known.

Source of the rules: cargo's `workspace.rs` (`find_root`, `is_excluded`, `get_ws_root`).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from mirror.client.sealed.light_lock import Package, printable

_FILE_MAX_BYTES = 64_000_000
_LOOKS_MAX = 10_000
# Compiled where they are wanted: that takes a millisecond each.
_PATH = rb"""["']?\bpath["']?\s*=\s*(?:"([^"\n]*)"|'([^'\n]*)')"""
_MEMBERS = rb"""["']?\bmembers["']?\s*=\s*\[([^\]]*)\]"""
_TEXT = rb""""([^"\n]*)"|'([^'\n]*)'"""
# With these a line need not mean what it seems to.
_ESCAPES = (b"\\", b'"""', b"'''")
_ROOT_HEADERS = (b"[workspace]", b"[workspace.")
Toml = dict[str, Any]


class Root(NamedTuple):
    """What was found for a folder that cargo works in."""

    folder: Path | None
    """The workspace's, or the lone package's; None: there is none."""
    unread: tuple[Path, ...]
    """Manifests on the way that only cargo can read."""


class _Says(NamedTuple):
    """What a manifest says of workspaces."""

    is_root: bool
    pointer: str | None = None
    """`package.workspace`."""


class _Budget:
    """How many folders and manifests may still be looked at."""

    def __init__(self) -> None:
        self._left = _LOOKS_MAX
        self.is_spent = False

    def take(self) -> bool:
        """Whether there is one more."""
        self._left -= 1
        self.is_spent = self._left < 0
        return not self.is_spent


def find_root(start: Path) -> Root:
    """Return the folder whose lock cargo takes if it starts to look in this one."""
    package, unread = None, list[Path]()
    for each in (start, *start.parents):
        if package is not None and each.parts[-2:] == ("target", "package"):
            break  # cargo's own rule
        manifest = each / "Cargo.toml"
        data = read_file(manifest)
        if data is None:
            if os.path.lexists(manifest):
                unread.append(manifest)
            continue
        package = package or each
        try:
            says = _says(data)
            is_root = says.is_root and not _excludes(each, data, package)
        except ValueError:
            unread.append(manifest)
            says, is_root = _Says(_seems_root(data)), _seems_root(data)
        if says.pointer is not None:
            return Root(Path(os.path.abspath(each / says.pointer)), tuple(unread))
        if is_root:
            return Root(each, tuple(unread))
    return Root(package, tuple(unread))


def outside(root: Path, packages: Iterable[Package]) -> list[str]:
    """Return the packages without a source that do not lie in the workspace, as lines."""
    own = {(each.name, each.version) for each in packages if each.source is None}
    if not own or (len(own) == 1 and _is_the_only(root, *own)):
        return []
    found = _Found(root, own)
    found.look(is_exact=False)
    if found.missing() and not found.budget.is_spent:
        # Before anything is said: patterns and comments can deceive a glance.
        found = _Found(root, own)
        found.look(is_exact=True)
    return found.lines()


class _Found:
    """What the manifests that are reached from a workspace's root say of its packages."""

    def __init__(self, root: Path, own: set[tuple[str, str]]) -> None:
        self._root = root
        self._own = own
        self.budget = _Budget()
        self._seen: set[tuple[str, str | None]] = set()
        self._lines: set[str] = set()

    def look(self, *, is_exact: bool) -> None:
        """Go through all manifests that paths lead to."""
        # A link out of the checkout leads out of the checkout.
        real_root = Path(os.path.realpath(self._root))
        names = {name for name, _ in self._own}
        for folder, data in self._reached(is_exact=is_exact):
            try:
                name, version = package_of(data, is_exact=is_exact)
            except ValueError:
                continue  # told already
            if name not in names:
                continue
            self._seen.add((name, version))
            if not is_below(Path(os.path.realpath(folder)), real_root):
                self._lines.add(f"{printable(name)} ({printable(str(folder))})")

    def missing(self) -> list[tuple[str, str]]:
        """Return the packages of the lock that no manifest is of."""
        return sorted(each for each in self._own if not {each, (each[0], None)} & self._seen)

    def lines(self) -> list[str]:
        """Return what is not covered."""
        where = printable(str(self._root))
        lost = [f"{printable(' '.join(each))} (not found below {where})" for each in self.missing()]
        if self.budget.is_spent:
            lost.append(f"whatever else is reached from {where}, which is too much")
        return [*sorted(self._lines), *lost]

    def _reached(self, *, is_exact: bool) -> Iterator[tuple[Path, bytes]]:
        waiting, seen = [self._root], set[Path]()
        while waiting and self.budget.take():
            folder = Path(os.path.abspath(waiting.pop()))
            data = None if folder in seen else read_file(folder / "Cargo.toml")
            seen.add(folder)
            if data is None:
                continue
            yield folder, data
            try:
                paths, members = _leads_to(data, is_exact=is_exact)
            except ValueError:
                self._lines.add(cannot_be_read(folder / "Cargo.toml"))
                paths, members = _seems_to_lead_to(data)
            waiting += [folder / each for each in paths]
            for pattern in members if folder == self._root else ():
                waiting += _matching(folder, pattern, self.budget)


def package_of(data: bytes, *, is_exact: bool = False) -> tuple[str | None, str | None]:
    """Return a package's name and version; no name: it is none; no version: it is inherited.

    Raises:
        ValueError: only cargo can read it.
    """
    glance = None if is_exact or _has_escapes(data) else _glance_at_package(data)
    if glance is not None:
        return glance
    fields = parse(data)
    package = table(fields, "package") or table(fields, "project") or {}
    name, version = package.get("name"), package.get("version", "0.0.0")
    return (
        name if isinstance(name, str) else None,
        version if isinstance(version, str) else None,
    )


def cannot_be_read(path: Path) -> str:
    """Return the line for a file that only cargo can read: it proves nothing."""
    return f"{printable(str(path))}: cannot be read here"


def read_file(path: Path) -> bytes | None:
    """Return all of a regular file; None: it is none, or too large."""
    try:
        # O_NONBLOCK: opening a fifo or a terminal must not hang us.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return None
            data = file.read(_FILE_MAX_BYTES + 1)
    except (OSError, ValueError):  # or a NUL in the path
        return None
    return data if len(data) <= _FILE_MAX_BYTES else None  # never a part of it


def parse(data: bytes) -> Toml:
    """Return what is in a file of TOML.

    Raises:
        ValueError: it is none, or newer than Python's.
    """
    import tomllib  # noqa: PLC0415 - slow to load, seldom wanted

    try:
        return tomllib.loads(data.decode().removeprefix("\ufeff"))
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def table(fields: object, key: str) -> Toml | None:
    """Return the table of this name, if there is one."""
    value = fields.get(key) if isinstance(fields, dict) else None
    return value if isinstance(value, dict) else None


def array(fields: Toml, key: str) -> list[object]:
    """Return the array of this name, or an empty one."""
    value = fields.get(key)
    return value if isinstance(value, list) else []


def is_below(folder: Path, root: Path) -> bool:
    """Whether it is that folder, or in it."""
    return folder == root or root in folder.parents


# ---- which workspace


def _says(data: bytes) -> _Says:
    if b"workspace" not in data and b"\\" not in data:
        return _Says(is_root=False)
    if not _has_escapes(data):
        left = [each.strip() for each in data.split(b"\n") if not _is_harmless(each)]
        if not left or all(each.startswith(_ROOT_HEADERS) for each in left):
            return _Says(bool(left))
    fields = parse(data)
    package = table(fields, "package") or table(fields, "project") or {}
    pointer = package.get("workspace")
    return _Says("workspace" in fields, pointer if isinstance(pointer, str) else None)


def _is_harmless(line: bytes) -> bool:
    """Whether a line says nothing of a root: a comment, or that something is inherited."""
    if line.lstrip().startswith(b"#"):
        return True
    for inherits in (b"workspace = true", b"workspace=true"):
        line = line.replace(inherits, b"")
    return b"workspace" not in line


def _seems_root(data: bytes) -> bool:
    return any(each.lstrip().startswith(_ROOT_HEADERS) for each in data.split(b"\n"))


def _excludes(folder: Path, data: bytes, package: Path) -> bool:
    """Whether a root does not want a package below it; a member that it names beats `exclude`."""
    if b"exclude" not in data and b"\\" not in data:
        return False
    workspace = table(parse(data), "workspace") or {}
    manifest = package / "Cargo.toml"

    def names(key: str) -> bool:
        # As cargo: patterns are not followed here, nor `..`.
        paths = (_joined(folder, str(each)) for each in array(workspace, key))
        return any(is_below(manifest, each) for each in paths)

    return names("exclude") and not names("members")


def _joined(folder: Path, path: str) -> Path:
    return folder / (f"/{path.lstrip('/')}" if path.startswith("/") else path)


# ---- which packages


def _is_the_only(root: Path, package: tuple[str, str]) -> bool:
    """Whether the root's own package is this one; then no path leads to another."""
    data = read_file(root / "Cargo.toml")
    try:
        name, version = (None, None) if data is None else package_of(data)
    except ValueError:
        return False
    return name == package[0] and version in {package[1], None}


def _glance_at_package(data: bytes) -> tuple[str | None, str | None] | None:
    """Return name and version as cargo's own `cargo new` writes them; None: only a parser can."""
    if b"package" not in data and b"project" not in data:
        return None, None
    _, header, body = b"\n".join((b"", *data.splitlines(), b"")).partition(b"\n[package]\n")
    if not header:
        return None
    body = body.partition(b"\n[")[0]
    if b"{" in body:  # it may go on over lines, with a `name` in it
        return None
    lines = [each.partition(b" = ") for each in body.split(b"\n")]
    names = [_plain(value) for key, _, value in lines if key == b"name"]
    versions = [_plain(value) for key, _, value in lines if key == b"version"]
    inherits = [None for key, _, _ in lines if key == b"version.workspace"]
    if len(names) != 1 or names[0] is None or len(versions) + len(inherits) != 1:
        return None
    if versions and versions[0] is None:
        return None
    return names[0], (versions or inherits)[0]


def _plain(value: bytes) -> str | None:
    """Return a text between quotes; None: there is more to it."""
    is_plain = len(value) > 1 and value[:1] == value[-1:] == b'"' and b'"' not in value[1:-1]
    return value[1:-1].decode(errors="replace") if is_plain else None


def _leads_to(data: bytes, *, is_exact: bool) -> tuple[list[str], list[str]]:
    """Return all paths in a manifest, and the patterns of its members."""
    if not is_exact and not _has_escapes(data):
        return _seems_to_lead_to(data)
    fields = parse(data)
    paths, waiting = list[str](), list[object]([fields])
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            # Not only of dependencies: what is none leads to no manifest.
            paths += [each["path"]] if isinstance(each.get("path"), str) else []
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
    members = array(table(fields, "workspace") or {}, "members")
    return paths, [str(each) for each in members]


def _seems_to_lead_to(data: bytes) -> tuple[list[str], list[str]]:
    lists = re.findall(_MEMBERS, data) if b"members" in data else []
    return [*_texts(_PATH, data)], [each for members in lists for each in _texts(_TEXT, members)]


def _texts(pattern: bytes, data: bytes) -> Iterator[str]:
    for double, single in re.findall(pattern, data):
        yield (double or single).decode(errors="replace")


def _matching(folder: Path, pattern: str, budget: _Budget) -> Iterator[Path]:
    """Return what a pattern of members stands for; never a walk over the whole disk."""
    found: Iterator[Path] = iter([folder])
    for part in pattern.split("/"):
        found = _step(found, part, budget)
    return found


def _step(folders: Iterator[Path], part: str, budget: _Budget) -> Iterator[Path]:
    for folder in folders:
        if part == "**":
            yield from _all_below(folder, budget)
        elif set(part) & set("*?["):
            yield from (each for each in _listed(folder, budget) if fnmatchcase(each.name, part))
        else:
            yield folder / part


def _all_below(folder: Path, budget: _Budget) -> Iterator[Path]:
    waiting = [folder]
    while waiting:
        each = waiting.pop()
        yield each
        waiting += (below for below in _listed(each, budget) if not below.is_symlink())


def _listed(folder: Path, budget: _Budget) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not budget.take():
                    return
                yield folder / entry.name
    except OSError:
        return


def _has_escapes(data: bytes) -> bool:
    return any(each in data for each in _ESCAPES)
