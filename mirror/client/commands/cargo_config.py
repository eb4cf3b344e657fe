"""`crateseal cargo-config`: what sends every cargo of a user to `crateseal proxy`, e.g. an IDE's.

Rule: of the user's configuration nothing but ours is ever changed. What we add stands between two
marks at the end, so that it can be taken out to the letter; only where a table of ours is there
already, its keys are set in place. The result is read again before it is written.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import tomllib
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeVar

import tomlkit
from tomlkit.exceptions import TOMLKitError

from mirror.client.gate.gate import FIRST_PORT, remembered_port
from mirror.client.home.overlay import users_config, users_home
from mirror.client.home.remembered import light_trust
from mirror.client.home.settings import ClientSettings
from mirror.errors import UsageError

NAME = "crateseal"
"""What the registry is called in cargo's configuration; what cargo keeps is named by its URL."""
_BEGIN = "# >>> written by `crateseal cargo-config --write`; `--remove` takes it out"
_END = "# <<< crateseal"
_BLOCK = re.compile(rf"\n?{re.escape(_BEGIN)}\n.*?{re.escape(_END)}\n", re.DOTALL)
_INDEX = re.compile(r"sparse\+http://127\.0\.0\.1:\d+/[0-9a-f]{16}/index/\Z")
_PROXIES = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "CARGO_HTTP_PROXY")


@dataclass(frozen=True, slots=True)
class CargoConfigOptions:
    """What the user said."""

    write: bool = False
    remove: bool = False
    replace: bool = False
    """Whether another `replace-with` may be overwritten."""


_Table = TypeVar("_Table", bound=MutableMapping[str, Any])


def run_cargo_config(
    options: CargoConfigOptions,
    settings: ClientSettings,
    environment: Mapping[str, str],
    out: TextIO,
) -> int:
    """Show, write or take out the lasting configuration; return the exit code.

    Raises:
        UsageError: the options contradict each other, no mirror is trusted, or the file holds what
            must not be overwritten.
        OSError: it cannot be read or written.
    """
    if options.write and options.remove:
        raise UsageError("--write and --remove: say one of them")
    home = users_home(environment, Path.cwd())
    path = users_config(home) or home / "config.toml"
    if options.remove:
        is_changed = change_file(path, without_ours(path))
        out.write(f"{path}: {'ours is taken out' if is_changed else 'nothing of ours in it'}\n")
        return 0
    root_id = light_trust(settings).root_id
    remembered = remembered_port(settings.cache_dir / root_id / "port")
    port = settings.proxy_port or remembered or FIRST_PORT
    index = f"sparse+http://127.0.0.1:{port}/{root_id}/index/"
    if options.write:
        is_changed = change_file(path, with_ours(path, index, replace=options.replace))
        out.write(f"{path}: {'written' if is_changed else 'it is there already'}\n")
    else:
        out.write(f"# For {path}; `crateseal cargo-config --write` puts it there.\n{_lines(index)}")
    out.write("".join(f"# {line}\n" for line in _advice(port, environment)))
    return 0


def with_ours(path: Path, index: str, *, replace: bool) -> str:
    """Return the file's text with our source in it.

    Raises:
        UsageError: crates.io is replaced by another source already, and not `replace`.
    """
    text = _BLOCK.sub("", _read(path))
    fields = _parsed(path, text)
    other = _at(fields, "source", "crates-io").get("replace-with", NAME)
    if other != NAME and not replace:
        raise UsageError(
            f"{path}: source.crates-io.replace-with is {other!r} already;"
            " --replace overwrites that, --remove does not bring it back"
        )
    registry = _at(fields, "registries", NAME).get("index", index)
    if not _INDEX.match(str(registry)) and not replace:
        raise UsageError(
            f"{path}: registries.{NAME}.index is {registry!r} already; --replace overwrites that"
        )
    if _at(fields, "source", "crates-io") or _at(fields, "registries", NAME):
        new = _set_in_place(path, text, index)
    else:
        newline = "" if not text or text.endswith("\n") else "\n"
        blank = "\n" if text else ""
        new = f"{text}{newline}{blank}{_BEGIN}\n{_lines(index)}{_END}\n"
    return _if_it_reads(path, new, _with(path, fields, index))


def without_ours(path: Path) -> str:
    """Return the file's text without our source.

    Raises:
        UsageError: it is not to be read as TOML.
    """
    text = _BLOCK.sub("", _read(path))
    fields = _parsed(path, text)
    if not _take_out(fields):
        return text
    document = tomlkit.parse(text)
    _take_out(document)
    return _if_it_reads(path, tomlkit.dumps(document), fields)


def change_file(path: Path, text: str) -> bool:
    """Give a file this text, all at once; return whether it had another.

    Its mode and owner stay. Where it is a link, as in a folder of dotfiles, its target is changed.
    """
    target = Path(os.path.realpath(path))
    data = text.encode()
    try:
        before = os.stat(target)
        if target.read_bytes() == data:
            return False
    except FileNotFoundError:
        if not data:
            return False
        before = None
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        _write(new, data, before)
        os.rename(new, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(new)
        raise
    return True


def _write(path: Path, data: bytes, before: os.stat_result | None) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600 if before else 0o644), "wb") as file:
        if before is not None:
            if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), before.st_uid, before.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _lines(index: str) -> str:
    return (
        f'[source.crates-io]\nreplace-with = "{NAME}"\n\n[registries.{NAME}]\nindex = "{index}"\n'
    )


def _advice(port: int, environment: Mapping[str, str]) -> tuple[str, ...]:
    lines = (
        f"cargo then builds only while `crateseal proxy --port {port}` runs.",
        "A project's own .cargo/config.toml can undo this; `cargo sealed` cannot be undone so.",
    )
    no_proxy = environment.get("no_proxy", environment.get("NO_PROXY", ""))
    if any(environment.get(name) for name in _PROXIES) and "127.0.0.1" not in no_proxy:
        return (*lines, "An HTTP proxy is set here: put 127.0.0.1 into no_proxy and NO_PROXY.")
    return lines


def _set_in_place(path: Path, text: str, index: str) -> str:
    return tomlkit.dumps(_with(path, tomlkit.parse(text), index))


def _with(path: Path, fields: _Table, index: str) -> _Table:
    """Set our keys, and return the same."""
    try:
        fields.setdefault("source", {}).setdefault("crates-io", {})["replace-with"] = NAME
        fields.setdefault("registries", {}).setdefault(NAME, {})["index"] = index
    except (TOMLKitError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{path}: cannot be extended ({error}); change it by hand") from error
    return fields


def _take_out(fields: MutableMapping[str, Any]) -> bool:
    """Take our keys out; return whether there were any. A table may have comments, so it stays."""
    is_found = False
    if _at(fields, "source", "crates-io").get("replace-with") == NAME:
        is_found = True
        del fields["source"]["crates-io"]["replace-with"]
    if _INDEX.match(str(_at(fields, "registries", NAME).get("index"))):
        is_found = True
        del fields["registries"][NAME]["index"]
    return is_found


def _at(fields: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    for key in keys:
        found = fields.get(key, {})
        fields = found if isinstance(found, Mapping) else {}
    return fields


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8, so cargo cannot read it either") from error


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not TOML: {error}") from error


def _if_it_reads(path: Path, text: str, fields: dict[str, Any]) -> str:
    """Return the new text if it says what it should, and nothing else changed."""
    try:
        if tomllib.loads(text) == fields:
            return text
    except ValueError:
        pass
    raise UsageError(f"{path}: too unusual to be changed safely; change it by hand")
