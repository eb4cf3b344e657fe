"""Aliases of cargo's commands: a checkout may define some, which cargo puts in place by itself.

Rule: no `--config` of a checkout's stands behind ours on cargo's command line, where it would win;
nor does an alias lead to another checkout than the one that is looked at.

Loaded only where the command is none of cargo's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mirror.client.sealed.cargo_words import BUILT_IN
from mirror.client.sealed.checkout import configurations
from mirror.client.sealed.light_lock import printable
from mirror.client.sealed.manifests import table
from mirror.errors import UsageError

_VARIABLE = "CARGO_ALIAS_"
_ELSEWHERE = ("--config", "--manifest-path", "--lockfile-path", "-C")
Aliases = Mapping[str, Sequence[list[str]]]
"""What each name means, in each place that says so: cargo joins lists of several places."""


def check_aliases(command: str, folder: Path, home: Path, environment: Mapping[str, str]) -> None:
    """Make sure that this command is no alias that leads elsewhere, nor leads to one.

    Args:
        command: what cargo was told to do.
        folder: where cargo works.
        home: the user's own CARGO_HOME.
        environment: cargo's.

    Raises:
        UsageError: it is, or a configuration cannot be read that may say so.
    """
    aliases = _aliases(folder, home, environment)
    waiting, seen = [_key(command)], set[str]()
    while waiting:
        key = waiting.pop()
        if key in seen:
            continue
        seen.add(key)
        for words in aliases.get(key, ()):
            said = next((word for word in _for_cargo(words) if word.startswith(_ELSEWHERE)), None)
            if said is not None:
                option = next(each for each in _ELSEWHERE if said.startswith(each))
                raise UsageError(
                    f"alias {printable(command)}: stands for words with a {option}, which could"
                    " say where crates come from; run the command that it stands for"
                )
            waiting += (_key(word) for word in words if word not in BUILT_IN)


def _aliases(folder: Path, home: Path, environment: Mapping[str, str]) -> Aliases:
    found: dict[str, list[list[str]]] = {}
    for config in configurations(folder, home, b"alias"):
        if config.fields is None:
            raise UsageError(
                f"{printable(str(config.path))}: cannot be read here, and may define an alias with"
                " a --config; run the command that the alias stands for"
            )
        for key, words in _defined(table(config.fields, "alias") or {}):
            found.setdefault(key, []).append(words)
    for variable, text in environment.items():
        if variable.startswith(_VARIABLE):
            found.setdefault(variable.removeprefix(_VARIABLE), []).append(text.split())
    return found


def _defined(fields: Mapping[str, object], before: str = "") -> Iterator[tuple[str, list[str]]]:
    for name, said in fields.items():
        if isinstance(said, dict):
            yield from _defined(said, f"{before}{name}.")  # `cargo a.b` is the alias `a.b`
        else:
            words = [str(each) for each in said] if isinstance(said, list) else str(said).split()
            yield _key(before + name), words


def _key(name: str) -> str:
    """Return a name as in the name of an environment variable, where cargo looks, too."""
    return name.upper().replace("-", "_").replace(".", "_")


def _for_cargo(words: list[str]) -> list[str]:
    """Return what is not for a program that cargo runs; `--` before a command means little."""
    if "--" in words and not words[0].startswith("-"):
        return words[: words.index("--")]
    return words
