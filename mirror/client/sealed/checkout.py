"""What a checkout names that no signature of ours covers; believed in nothing.

It is read while cargo runs, and a build with everything cached takes a few milliseconds: so TOML is
parsed only where a glance at the text says that there is something to find. Whatever cannot be read
is left out: cargo itself says what is wrong with it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mirror.client.sealed.cargo_words import Words
from mirror.client.sealed.light_lock import Package, printable, read_packages

_FILE_MAX_BYTES = 64_000_000
_MANIFESTS_MAX = 2000
_INCLUDES_MAX = 50
# Compiled where they are wanted: that takes a millisecond each.
_WORKSPACE = rb"(?m)^\s*(?:\[\s*workspace\s*[\].]|workspace\s*[.=])"
_PATH = rb"""["']?\bpath["']?\s*=\s*(?:"([^"\n]*)"|'([^'\n]*)')"""
_MEMBERS = rb"""["']?\bmembers["']?\s*=\s*\[([^\]]*)\]"""
_TEXT = rb""""([^"\n]*)"|'([^'\n]*)'"""
Toml = dict[str, Any]


class Lock(NamedTuple):
    """A lock as it was at one moment."""

    stamp: tuple[int, int, int]
    packages: tuple[Package, ...]


def workspace_root(words: Words, folder: Path) -> Path | None:
    """Return the folder of the workspace that cargo would work on; None: there is none."""
    said = words.value("--manifest-path")
    start = Path(os.path.abspath(folder / said)).parent if said else folder
    package = None
    for each in (start, *start.parents):
        data = _data(each / "Cargo.toml")
        if data is None:
            continue
        package = package or each
        if _is_workspace(data) and not _excludes(each, data, package):
            return each
    return package


def lock_file(words: Words, folder: Path) -> Path | None:
    """Return the lock that cargo would use, there or not; None: it uses none of a checkout."""
    if words.command == "install" and words.value("--path") is None:
        return None
    root = workspace_root(words, folder)
    return None if root is None else root / "Cargo.lock"


def read_lock(path: Path, before: Lock | None = None) -> Lock | None:
    """Return the lock, read again only if its file changed; None: there is none to be read."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    stamp = state.st_mtime_ns, state.st_size, state.st_ino
    if before is not None and before.stamp == stamp:
        return before
    data = _data(path)
    packages = None if data is None else read_packages(data)
    return None if packages is None else Lock(stamp, packages)


def outside(root: Path, lock: Lock) -> list[str]:
    """Return the packages that the lock takes from outside the workspace, with their folders."""
    own = {each.name for each in lock.packages if each.source is None}
    if len(own) < 2:
        return []
    found = set()
    for folder in _reached(root):
        if not _is_below(folder, root):
            name = (_table(_toml(_data(folder / "Cargo.toml")), "package") or {}).get("name")
            if name in own:
                found.add(f"{printable(str(name))} ({printable(str(folder))})")
    return sorted(found)


def other_registries(lock: Lock | None, words: Words, environment: Mapping[str, str]) -> set[str]:
    """Return the registries, beside crates.io, that lock, command line and environment name."""
    packages = () if lock is None else lock.packages
    found = {each.source for each in packages if not each.is_of_crates_io}
    sources = {each for each in found if each is not None and not each.startswith("git+")}
    said = words.value("--index")
    if said:
        sources.add(said)
    for variable, text in environment.items():
        if variable.startswith("CARGO_REGISTRIES_") and variable.endswith("_INDEX"):
            sources.add(text)
    return sources


def registries_of(config: Path | None) -> set[str]:
    """Return the registries that a configuration of the user's own names."""
    found = set()
    for fields in _with_includes(config, b"regist"):
        for table, key in (("registries", "index"), ("source", "registry")):
            for each in (_table(fields, table) or {}).values():
                said = each.get(key) if isinstance(each, dict) else None
                if isinstance(said, str):
                    found.add(said)
    return found


def redirections(folder: Path, home: Path) -> list[str]:
    """Return what configuration takes from folders instead of registries, as lines for people.

    Cargo itself is told otherwise on its command line, but a cargo that it starts is not; and what
    comes from a folder leaves no trace in the overlay.
    """
    configs = [_config_in(each / ".cargo") for each in (folder, *folder.parents)]
    found = []
    for config in dict.fromkeys((*configs, _config_in(home))):
        for fields in _with_includes(config, b"source", b"paths"):
            found += [f"{what} ({printable(str(config))})" for what in _taken_from_folders(fields)]
    return found


def _taken_from_folders(fields: Toml) -> Iterator[str]:
    for name, source in (_table(fields, "source") or {}).items():
        if isinstance(source, dict) and ("directory" in source or "local-registry" in source):
            yield f"source {printable(str(name))}, a folder, for a cargo that cargo starts"
    for path in _list(fields, "paths"):
        yield f"`paths`: {printable(str(path))} instead of a registry's crate"


def _config_in(folder: Path) -> Path | None:
    for name in ("config", "config.toml"):
        if os.path.isfile(folder / name):
            return folder / name
    return None


def _with_includes(config: Path | None, *words: bytes) -> Iterator[Toml]:
    """Return a configuration and what it includes, as far as one of these words is in it."""
    waiting = [] if config is None else [config]
    seen: set[Path] = set()
    while waiting and len(seen) < _INCLUDES_MAX:
        path = waiting.pop()
        data = None if path in seen else _data(path)
        seen.add(path)
        if data is None or not any(word in data for word in (*words, b"include", b"\\")):
            continue
        fields = _toml(data)
        yield fields
        said = fields.get("include")
        for each in said if isinstance(said, list) else [said]:
            name = each.get("path") if isinstance(each, dict) else each
            if isinstance(name, str):
                waiting.append(path.parent / name)


def _reached(root: Path) -> Iterator[Path]:
    """Return the packages' folders that are reached from the workspace's root by paths."""
    waiting, seen = [root], set[Path]()
    while waiting and len(seen) < _MANIFESTS_MAX:
        folder = Path(os.path.abspath(waiting.pop()))
        data = None if folder in seen else _data(folder / "Cargo.toml")
        seen.add(folder)
        if data is None:
            continue
        yield folder
        # Not only of dependencies: what is none leads to no manifest.
        waiting += [folder / path for path in _texts(_PATH, data)]
        for members in re.findall(_MEMBERS, data) if folder == root else ():
            for pattern in _texts(_TEXT, members):
                waiting += _matching(folder, pattern)


def _is_workspace(data: bytes) -> bool:
    return b"workspace" in data and bool(re.search(_WORKSPACE, data))


def _texts(pattern: bytes, data: bytes) -> Iterator[str]:
    for double, single in re.findall(pattern, data):
        yield (double or single).decode(errors="replace")


def _matching(folder: Path, pattern: str) -> list[Path]:
    if not set(pattern) & set("*?["):
        return [folder / pattern]
    try:
        return list(folder.glob(pattern))
    except (ValueError, NotImplementedError, OSError):
        return []


def _excludes(folder: Path, data: bytes, package: Path) -> bool:
    if package == folder or b"exclude" not in data:
        return False
    workspace = _table(_toml(data), "workspace") or {}
    paths = (os.path.abspath(folder / str(each)) for each in _list(workspace, "exclude"))
    return any(_is_below(package, Path(each)) for each in paths)


def _data(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(_FILE_MAX_BYTES)
    except OSError:
        return None


def _toml(data: bytes | None) -> Toml:
    import tomllib  # noqa: PLC0415 - slow to load, seldom wanted

    try:
        return tomllib.loads((data or b"").decode())
    except (ValueError, RecursionError):
        return {}


def _table(fields: object, key: str) -> Toml | None:
    value = fields.get(key) if isinstance(fields, dict) else None
    return value if isinstance(value, dict) else None


def _list(fields: Toml, key: str) -> list[object]:
    value = fields.get(key)
    return value if isinstance(value, list) else []


def _is_below(folder: Path, root: Path) -> bool:
    return folder == root or root in folder.parents
