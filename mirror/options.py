"""From command line, environment and `mirror.toml` to a `Config`: in this order of precedence.

Nothing is ignored: an unknown key, variable or value is an error that names where it came from and
what would have been right.
"""

from __future__ import annotations

import argparse
import difflib
import json
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any

from mirror.config import ENV_PREFIX, Config, as_text
from mirror.core.layout import STATE_FIELD
from mirror.errors import UsageError
from mirror.kinds import FLAG, Kind

DEFAULT_FILE = "mirror.toml"
CONFIG_VARIABLE = ENV_PREFIX + "CONFIG"
PARENT_FD_VARIABLE = ENV_PREFIX + "PARENT_FD"
LISTEN_FD_VARIABLE = ENV_PREFIX + "LISTEN_FD"

_NO_SETTINGS = frozenset({CONFIG_VARIABLE, PARENT_FD_VARIABLE, LISTEN_FD_VARIABLE})


@dataclass(frozen=True, slots=True)
class _Found:
    """The text of a setting, and where it stood."""

    text: str
    where: str


def add_options(parser: argparse.ArgumentParser, command: str) -> None:
    """Give a command's parser the options of all settings that are of use to it."""
    group = parser.add_argument_group("settings (also in mirror.toml, or as CRATESEAL_… variables)")
    for setting in fields(Config):
        if command not in setting.metadata["commands"]:
            continue
        kind: Kind = setting.metadata["kind"]
        text = setting.metadata["help"].replace("%", "%%") + _default_note(setting)
        option = "--" + setting.name.replace("_", "-")
        if kind is FLAG:
            group.add_argument(option, action="store_const", const="true", help=text)
        elif kind.separator:
            group.add_argument(option, action="append", metavar=kind.metavar, help=text)
        else:
            group.add_argument(option, metavar=kind.metavar, help=text)


def load_config(
    arguments: Mapping[str, Any],
    environment: Mapping[str, str],
    *,
    folder: Path,
    foreign: Collection[str] = (),
) -> Config:
    """Put the settings together.

    Args:
        arguments: from the command line.
        environment: of the process.
        folder: where `mirror.toml` is looked for.
        foreign: variables that begin as ours do, and mean nothing here (those of a client).

    Raises:
        UsageError: a key is unknown, a value is wrong, or the file cannot be read.
    """
    known = [setting.name for setting in fields(Config)]
    found = dict(_from_file(_config_file(arguments, environment, folder), known))
    ours = {name: text for name, text in environment.items() if name not in foreign}
    found |= dict(_from_environment(ours, known))
    found |= dict(_from_arguments(arguments, known))
    values = {name: _parse(name, text) for name, text in found.items()}
    data = values.get("data", Config.__dataclass_fields__["data"].default)
    for name, (text, where) in _signed_settings(Path(data)).items():
        if name not in values:
            values[name] = _parse(name, _Found(text, where))
    return Config(**values)


def settings_table() -> str:
    """Return the list of all settings as a Markdown table, for the README."""
    lines = ["| key | default | what it is |", "| --- | --- | --- |"]
    for setting in fields(Config):
        default = f"`{_show(setting)}`" if setting.default not in (None, ()) else ""
        text = setting.metadata["help"].replace("|", "\\|")
        lines.append(f"| `{setting.name}` | {default} | {text} |")
    return "\n".join(lines) + "\n"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `did you mean …?` with the known word nearest to this one, or all there are."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"


def _config_file(
    arguments: Mapping[str, Any], environment: Mapping[str, str], folder: Path
) -> Path | None:
    named = arguments.get("config") or environment.get(CONFIG_VARIABLE)
    if named:
        return folder / named
    default = folder / DEFAULT_FILE
    return default if default.exists() else None


def _from_file(path: Path | None, known: list[str]) -> Iterator[tuple[str, _Found]]:
    if path is None:
        return
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"{path}: cannot be read as configuration: {reason}") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not TOML: {error}") from error
    for key, value in table.items():
        if key not in known:
            raise UsageError(f"{path}: unknown key {key!r}; {nearest(key, known)}")
        setting = Config.__dataclass_fields__[key]
        many = setting.metadata["kind"].separator and isinstance(value, list)
        if not many and not isinstance(value, str | int | float):
            raise UsageError(f"{path}: {key}: expected one value, got {type(value).__name__}")
        yield key, _Found(as_text(value, setting), str(path))


def _from_environment(
    environment: Mapping[str, str], known: list[str]
) -> Iterator[tuple[str, _Found]]:
    for variable in sorted(environment):
        if not variable.startswith(ENV_PREFIX) or variable in _NO_SETTINGS:
            continue
        key = variable.removeprefix(ENV_PREFIX).lower()
        if key not in known:
            variables = [ENV_PREFIX + name.upper() for name in known]
            hint = nearest(variable, variables)
            raise UsageError(f"environment: unknown variable {variable}; {hint}")
        yield key, _Found(environment[variable], f"environment variable {variable}")


def _from_arguments(arguments: Mapping[str, Any], known: list[str]) -> Iterator[tuple[str, _Found]]:
    for key in known:
        if arguments.get(key) is not None:
            text = as_text(arguments[key], Config.__dataclass_fields__[key])
            yield key, _Found(text, "--" + key.replace("_", "-"))


def _parse(name: str, found: _Found) -> Any:
    kind: Kind = Config.__dataclass_fields__[name].metadata["kind"]
    try:
        return kind.parse(found.text)
    except ValueError as error:
        own_words = str(error) if str(error).endswith("not built yet") else f"got {found.text!r}"
        key = "" if found.where.startswith(("--", "environment ")) else f" {name}:"
        raise UsageError(f"{found.where}:{key} expected {kind.expects}, {own_words}") from error


def _signed_settings(data: Path) -> dict[str, tuple[str, str]]:
    """Mode and upstream of a live mirror, as its last timestamp says; empty where there is none."""
    path = data / "www" / "tuf" / "metadata" / "timestamp.json"
    try:
        state = json.loads(path.read_bytes())["signed"][STATE_FIELD]
        return {name: (str(state[name]), str(path)) for name in ("mode", "upstream")}
    except (OSError, ValueError, LookupError, TypeError):
        return {}  # A broken timestamp is for `check` and the signer to name.


def _default_note(setting: Field[Any]) -> str:
    if setting.default is None or setting.default is False or setting.default == ():
        return ""
    return f" (default: {_show(setting)})"


def _show(setting: Field[Any]) -> str:
    return show_value(setting.default, setting.metadata["kind"])


def show_value(value: Any, kind: Kind) -> str:
    """Return a value of this kind the way settings are written."""
    if isinstance(value, bool):
        return str(value).lower()
    if kind.metavar == "TIME":
        return show_duration(value)
    if kind.metavar == "SIZE" and value % 10**9 == 0:
        return f"{value // 10**9}GB"
    if kind.metavar == "SIZE" and value % 10**6 == 0:
        return f"{value // 10**6}MB"
    return str(value)


def show_duration(seconds: float) -> str:
    """Return a duration the way settings are written: the largest unit that leaves no rest."""
    whole = int(seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if whole >= size and whole % size == 0:
            return f"{whole // size}{unit}"
    return f"{whole}s"
