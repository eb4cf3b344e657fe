"""Whether cargo was told, in any of its ways, to fetch nothing.

Light imports only: this is on the way of each build.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from mirror.client.sealed.cargo_words import Words, is_offline

_GLANCE_BYTES = 1_000_000


def is_told_offline(words: Words, environment: Mapping[str, str], folder: Path, home: Path) -> bool:
    """Whether command line, environment or configuration says so; `home` is the user's own."""
    if is_offline(words, environment):
        return True
    said = tuple(_configured(words))
    places = (*(each / ".cargo" for each in (folder, *folder.parents)), home)
    if not said and not any(map(_may_say_so, places)):
        return False
    from mirror.client.sealed.checkout import configurations  # noqa: PLC0415 - seldom wanted

    found = [each.fields for each in configurations(folder, home, b"offline")]
    found += [_parsed(each, folder) for each in said]
    return any(map(_says_so, found))


def _configured(words: Words) -> Iterator[str]:
    options = words.before_dashes()
    for at, word in enumerate(options):
        if word == "--config":
            yield from options[at + 1 : at + 2]
        elif word.startswith("--config="):
            yield word.partition("=")[2]


def _may_say_so(place: Path) -> bool:
    for name in ("config", "config.toml"):
        if os.path.isfile(place / name):
            with open(place / name, "rb") as file:
                data = file.read(_GLANCE_BYTES)
            is_long = len(data) == _GLANCE_BYTES
            return is_long or any(word in data for word in (b"offline", b"include", b"\\"))
    return False


def _parsed(said: str, folder: Path) -> dict[str, object] | None:
    import tomllib  # noqa: PLC0415 - slow to load, seldom wanted

    path = folder / said
    try:
        return tomllib.loads(path.read_text(encoding="utf-8") if path.is_file() else said)
    except (OSError, ValueError, RecursionError):
        return None


def _says_so(fields: Mapping[str, object] | None) -> bool:
    if fields is None:
        return True  # It cannot be read here, and cargo may read it.
    net = fields.get("net")
    return isinstance(net, dict) and net.get("offline") is True
