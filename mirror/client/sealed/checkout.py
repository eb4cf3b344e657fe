"""What a checkout names that no signature of ours covers; believed in nothing.

It is read while cargo runs, and a build with everything cached takes a few milliseconds: so TOML is
parsed only where a glance at the text says that there is something to find.

Rule: what cannot be read here is said to be not covered. Cargo may read it all the same: it knows
newer TOML than Python does, and larger files than we take.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from mirror.client.sealed.cargo_words import Words
from mirror.client.sealed.light_lock import Package, printable, read_packages
from mirror.client.sealed.manifests import (
    Root,
    Toml,
    array,
    cannot_be_read,
    find_root,
    parse,
    read_file,
    table,
)

_INCLUDES_MAX = 50
_LEADS_ELSEWHERE = (b"source", b"paths", b"regist", b"patch", b"lockfile")


class Lock(NamedTuple):
    """A lock as it was at one moment."""

    stamp: tuple[int, int, int]
    packages: tuple[Package, ...]


class Config(NamedTuple):
    """A configuration of cargo's."""

    path: Path
    fields: Toml | None
    """None: it cannot be read here."""


def workspace_root(words: Words, folder: Path) -> Path | None:
    """Return the folder of the workspace that cargo would work on; None: there is none."""
    return _root(words, folder).folder


def unread_manifests(words: Words, folder: Path) -> list[str]:
    """Return the manifests of which only cargo knows whether they lead to another lock."""
    unread = () if _is_far(words) else _root(words, folder).unread
    return [cannot_be_read(each) for each in unread]


def _is_far(words: Words) -> bool:
    return words.command == "install" and words.value("--path") is None


def _root(words: Words, folder: Path) -> Root:
    said = words.value("--manifest-path")
    if said:
        return find_root(Path(os.path.abspath(folder / said)).parent)
    path = words.value("--path") if words.command == "install" else None
    return find_root(Path(os.path.abspath(folder / path)) if path else folder)


def lock_file(words: Words, folder: Path) -> Path | None:
    """Return the lock that cargo would use, there or not; None: it uses none of a checkout."""
    root = None if _is_far(words) else workspace_root(words, folder)
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
    data = read_file(path)
    packages = None if data is None else read_packages(data)
    return None if packages is None else Lock(stamp, packages)


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
    for _, fields in _with_includes(config, b"regist"):
        for name, key in (("registries", "index"), ("source", "registry")):
            for each in (table(fields, name) or {}).values():
                said = each.get(key) if isinstance(each, dict) else None
                if isinstance(said, str):
                    found.add(said)
    return found


def redirections(folder: Path, home: Path) -> list[str]:
    """Return what configuration takes from folders instead of registries, as lines for people.

    Cargo itself is told otherwise on its command line, but a cargo that it starts is not; and what
    comes from a folder leaves no trace in the overlay.
    """
    found = []
    for path, fields in configurations(folder, home, *_LEADS_ELSEWHERE):
        if fields is None:
            found.append(f"{printable(str(path))}: a configuration that cannot be read here")
        else:
            found += [f"{what} ({printable(str(path))})" for what in _taken_from_folders(fields)]
    return found


def configurations(folder: Path, home: Path, *words: bytes) -> Iterator[Config]:
    """Return the configurations that cargo reads, as far as one of these words may be in them."""
    found = [_config_in(each / ".cargo") for each in (folder, *folder.parents)]
    for config in dict.fromkeys((*found, _config_in(home))):
        yield from _with_includes(config, *words)


def _taken_from_folders(fields: Toml) -> Iterator[str]:
    for name, source in (table(fields, "source") or {}).items():
        if isinstance(source, dict) and ("directory" in source or "local-registry" in source):
            yield f"source {printable(str(name))}, a folder, for a cargo that cargo starts"
    for path in array(fields, "paths"):
        yield f"`paths`: {printable(str(path))} instead of a registry's crate"
    for patches in (table(fields, "patch") or {}).values():
        for name, patch in patches.items() if isinstance(patches, dict) else ():
            if isinstance(patch, dict) and "path" in patch:
                path = printable(str(patch["path"]))
                yield f"`patch`: {path} for the crate {printable(str(name))}"
    if "lockfile-path" in (table(fields, "resolver") or {}):
        yield "`resolver.lockfile-path`: a lock that is not looked at"


def _config_in(folder: Path) -> Path | None:
    for name in ("config", "config.toml"):
        if os.path.exists(folder / name):
            return folder / name
    return None


def _with_includes(config: Path | None, *words: bytes) -> Iterator[Config]:
    """Return a configuration and what it includes, as far as one of these words is in it."""
    waiting = [] if config is None else [config]
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in seen or not os.path.lexists(path):
            continue
        seen.add(path)
        data = read_file(path)
        if data is None or len(seen) > _INCLUDES_MAX:
            yield Config(path, None)
            return
        if not any(word in data for word in (*words, b"include", b"\\")):
            continue
        fields = _parsed(data)
        yield Config(path, fields)
        said = (fields or {}).get("include")
        for each in said if isinstance(said, list) else [said]:
            name = each.get("path") if isinstance(each, dict) else each
            if isinstance(name, str):
                waiting.append(path.parent / name)


def _parsed(data: bytes) -> Toml | None:
    try:
        return parse(data)
    except ValueError:
        return None
