"""A cargo command line taken apart as far as `cargo sealed` must know it, and put together again.

Rule: what the user wrote reaches cargo unchanged and in its order; ours is added, never mixed in.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mirror.errors import UsageError

UNSEALED = frozenset({"publish", "owner", "yank", "login", "logout"})
"""They talk to a registry that takes something: ours does not."""
BUILT_IN = frozenset(
    {"bench", "build", "check", "clean", "doc", "fetch", "fix", "generate-lockfile"}
    | {"help", "init", "install", "locate-project", "metadata", "new", "package", "pkgid"}
    | {"read-manifest", "run", "rustc", "rustdoc", "search", "test", "tree", "uninstall"}
    | {"update", "vendor", "verify-project", "version"}
)
"""Commands that no alias can take the place of, in any cargo that is still in use."""
_WITH_VALUE = frozenset({"--config", "-Z", "-C", "--color", "--explain"})
_ALONE = frozenset(
    {"-V", "--version", "--list", "-v", "-vv", "-vvv", "--verbose", "-q", "--quiet"}
    | {"--locked", "--offline", "--frozen"}
)
_NO = ("", "0", "false")


class Words(NamedTuple):
    """A command line of cargo's."""

    toolchain: str | None
    """`+nightly`, for rustup: it stays first."""
    options: tuple[str, ...]
    """Cargo's own, before the command."""
    command: str | None
    rest: tuple[str, ...]
    """All behind the command."""

    @property
    def is_unsealed(self) -> bool:
        """Whether it is one of those that our registry cannot answer."""
        return self.command in UNSEALED

    @property
    def is_quiet(self) -> bool:
        """Whether cargo was told to be quiet."""
        return self.says("-q", "--quiet")

    def says(self, *options: str) -> bool:
        """Whether one of these options stands in front of a `--`."""
        return any(word in options for word in self.before_dashes())

    def value(self, option: str) -> str | None:
        """Return the value of an option, `--option VALUE` or `--option=VALUE`; the last one."""
        found = None
        words = self.before_dashes()
        for at, word in enumerate(words):
            if word == option and at + 1 < len(words):
                found = words[at + 1]
            elif word.startswith(f"{option}="):
                found = word.partition("=")[2]
        return found

    def before_dashes(self) -> Sequence[str]:
        """Return all words that are for cargo itself."""
        words = (*self.options, *self.rest)
        return words[: words.index("--")] if "--" in words else words


def working_folder(words: Words, folder: Path) -> Path:
    """Return where cargo will work: `folder`, or where `-C` leads from there."""
    found = folder
    for at, word in enumerate(words.options):
        if word == "-C":
            found = folder / "".join(words.options[at + 1 : at + 2])
        elif word.startswith("-C"):
            found = folder / word[2:].removeprefix("=")
    # Cargo asks the system where it is, which knows no links.
    return folder if found is folder else Path(os.path.realpath(found))


def take_option(words: Sequence[str]) -> int:
    """Return how many words an option of cargo's takes that stands first here; 0: it is none."""
    word = words[0]
    if word in _WITH_VALUE:
        return min(2, len(words))
    is_joined = word.partition("=")[0] in _WITH_VALUE or word[:2] in {"-Z", "-C"}
    return 1 if is_joined or word in _ALONE else 0


def is_offline(words: Words, environment: Mapping[str, str]) -> bool:
    """Whether cargo was told to fetch nothing."""
    said = environment.get("CARGO_NET_OFFLINE", "").lower()
    return words.says("--offline", "--frozen") or said not in _NO


def is_ci(environment: Mapping[str, str]) -> bool:
    """Whether this is a build machine, as they all say."""
    return environment.get("CI", "").lower() not in _NO


def sealed(words: Words, name: str, index: str, folder: Path) -> list[str]:
    """Return cargo's arguments with which crates.io is the registry `name` at `index`.

    A project's own configuration beats CARGO_HOME's; the command line beats both. Never
    `registry.default`, which rewrites Cargo.toml.

    Raises:
        UsageError: the user's own words redirect a source, too.
    """
    _refuse_redirection(words, folder)
    ours = ["--config", f'source.crates-io.replace-with="{name}"']
    ours += ["--config", f'registries.{name}.index="{index}"']
    first = [] if words.toolchain is None else [words.toolchain]
    command = [] if words.command is None else [words.command]
    return [*first, *ours, *words.options, *command, *_for_command(words, name), *words.rest]


def unsealed(words: Words) -> list[str]:
    """Return cargo's arguments as the user wrote them."""
    first = [] if words.toolchain is None else [words.toolchain]
    command = [] if words.command is None else [words.command]
    return [*first, *words.options, *command, *words.rest]


def _for_command(words: Words, name: str) -> list[str]:
    if words.command == "vendor" and not words.says("--respect-source-config"):
        # Without it, vendor asks crates.io itself.
        return ["--respect-source-config"]
    if words.command in {"search", "info"}:
        names_one = words.value("--registry") or words.value("--index")
        # They follow no replacement of crates.io.
        return [] if names_one else ["--registry", name]
    return []


def _refuse_redirection(words: Words, folder: Path) -> None:
    options = words.before_dashes()
    for at, word in enumerate(options):
        said = options[at + 1] if word == "--config" and at + 1 < len(options) else ""
        if word.startswith("--config="):
            said = word.partition("=")[2]
        if said and _may_redirect(said, folder):
            raise UsageError(
                f"--config {said}: `cargo sealed` says itself where crates come from; leave it out,"
                " or run cargo without `sealed`"
            )


def _may_redirect(said: str, folder: Path) -> bool:
    """Whether cargo finds a source in this `--config`, which is a file's name or TOML."""
    import tomllib  # noqa: PLC0415 - slow to load, seldom wanted

    path = folder / said
    try:
        if path.exists() and not path.is_file():
            return True  # a pipe gives what it has once, and that is for cargo
        text = path.read_text(encoding="utf-8") if path.exists() else said
        return bool(tomllib.loads(text).keys() & {"source", "include"})
    except (OSError, ValueError, RecursionError):
        return True
