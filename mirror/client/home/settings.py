"""Every setting of a client, once; read from the command line, the environment, `client.toml`.

Rule: nothing here is read from the working folder, which may be a stranger's checkout. A path in
`client.toml` is absolute for the same reason. Light imports only: `cargo sealed` pays for them
before each build.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mirror.client.home.folders import (
    CONFIG_HOME,
    cache_folder,
    config_folder,
    is_private,
    run_folder,
)
from mirror.errors import UsageError
from mirror.kinds import DURATION, FLAG, FOLDER, SIZE, Kind, parse_duration, whole

ENV_PREFIX = "CRATESEAL_"
FILE_NAME = "client.toml"
FIRST_PORT, LAST_PORT = 8471, 8499

GATE = ENV_PREFIX + "GATE"
"""What `cargo sealed` hands to the proxy that it starts."""

# What says where settings are, or who we are to our own processes: no settings.
_NO_SETTINGS = frozenset({CONFIG_HOME, GATE}) | {
    ENV_PREFIX + name for name in ("CONFIG", "PARENT_FD", "LISTEN_FD")
}
_PRINTABLE_ASCII = re.compile(r"[\x21-\x7e]+\Z")


def parse_mirror(text: str) -> str:
    """Return a mirror's URL with a slash at its end.

    Raises:
        ValueError: it is no http or https URL of a folder.
    """
    from urllib.parse import urlsplit  # noqa: PLC0415 - a cached build names no URL

    parts = urlsplit(text)
    usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    # A user and password in it would be shown wherever the mirror is named.
    if not usable or "@" in parts.netloc or "?" in text or "#" in text:
        raise ValueError(text)
    if not _PRINTABLE_ASCII.match(text):
        raise ValueError(text)
    return text.rstrip("/") + "/"


def _parse_mirrors(text: str) -> tuple[str, ...]:
    # Each once, in the order given.
    return tuple(dict.fromkeys(parse_mirror(part) for part in text.split()))


def _parse_sha256(text: str) -> str:
    # All of it: who has 64 bits of a fingerprint compared makes another root that shares them.
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ValueError(text)
    return text.lower()


def _parse_time(text: str) -> float:
    from datetime import UTC, datetime, timedelta  # noqa: PLC0415 - slow to load, seldom wanted

    if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        # Until a day means to its end.
        return (datetime.fromisoformat(text).replace(tzinfo=UTC) + timedelta(days=1)).timestamp()
    when = datetime.fromisoformat(text)
    if when.tzinfo is None:
        raise ValueError(text)
    return when.timestamp()


MIRRORS = Kind("URLs such as https://crates.example.org", _parse_mirrors, "URL", " ")
SHA256 = Kind("all 64 hex digits of a fingerprint", _parse_sha256, "HEX")
FILE = Kind("a file", FOLDER.parse, "FILE")
TIME = Kind("a date such as 2030-01-31, or an RFC 3339 time", _parse_time, "DATE")
TOLERANCE = Kind(DURATION.expects, parse_duration, DURATION.metavar)  # none, too
_PATHS = (FOLDER, FILE)


class ClientSettings(NamedTuple):
    """The settings one client runs with. Durations are seconds, `accept_stale_until` is Unix time.

    A tuple, not a dataclass: to import those costs each build 8 ms. `_replace` makes another.
    """

    config_dir: Path
    """Holds `client.toml` and `trust/` (mirror/client/home/folders.py); perhaps not made yet."""
    cache_dir: Path
    """What has verified is kept here; perhaps not made yet."""
    run_dir: Path
    """Sockets; perhaps not made yet."""
    mirror: tuple[str, ...] = ()
    data: Path | None = None
    root: Path | None = None
    root_sha256: str | None = None
    strict_absence: bool = False
    accept_stale_until: float | None = None
    strict: bool = False
    proxy_port: int | None = None
    """None: nobody said; the one remembered, or the first free one of 8471 to 8499."""
    max_upstream_age: float = 2 * 86400.0
    refresh_every: float = 60.0
    max_wait: float = 10.0
    clock_tolerance: float = 300.0
    cache_max_bytes: int = 10_000_000_000
    fetch_jobs: int = 64
    connect_timeout: float = 5.0
    stall_timeout: float = 20.0
    total_timeout: float = 300.0
    index_max_bytes: int = 64_000_000
    crate_max_bytes: int = 256_000_000

    def child_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return this environment so that a client started in it has exactly these settings."""
        variables = {ENV_PREFIX + name.upper(): name for name in ABOUT}
        kept = {name: text for name, text in environment.items() if name not in variables}
        said = {name: getattr(self, name) for name in ABOUT}
        return {
            **kept,
            CONFIG_HOME: str(self.config_dir),
            **{
                variable: _as_text(name, said[name])
                for variable, name in variables.items()
                if said[name] not in (None, ())
            },
        }


class About(NamedTuple):
    """What is known of a setting beside its default."""

    kind: Kind
    help: str
    option: str = ""
    """Its option's name, where that is not the key's."""
    only: tuple[str, ...] = ()
    """The commands of `crateseal` that have the option; none: all of the far side's."""


TRUST, VERIFY, PROXY, VENDOR, CARGO_CONFIG = "trust", "verify", "proxy", "vendor", "cargo-config"
_NOT_TRUST = (VERIFY, PROXY, VENDOR, CARGO_CONFIG)
_READERS = (VERIFY, PROXY, VENDOR)

ABOUT: dict[str, About] = {
    "mirror": About(
        MIRRORS, "the mirror to ask; several of one repository: given again", only=_NOT_TRUST
    ),
    "data": About(
        FOLDER,
        "a mirror's own folder: its root is trusted, its files are read from disk",
        only=_NOT_TRUST,
    ),
    "root": About(FILE, "a root of the mirror's (1.root.json), from somebody you trust"),
    "root_sha256": About(SHA256, "fingerprint of such a file, from somebody you trust"),
    "strict_absence": About(
        FLAG, "refuse a crate whose absence nobody signed (403, not 404)", only=(PROXY,)
    ),
    "accept_stale_until": About(
        TIME,
        "accept timestamp and snapshot that have expired, until then; said in every output",
        only=_READERS,
    ),
    "strict": About(
        FLAG,
        "cargo sealed: what no signature covers fails the run; a bypass over HTTP fails early",
        only=("sealed",),
    ),
    "proxy_port": About(
        whole(1, 65535),
        f"the proxy's port, no other (default: the first free one of {FIRST_PORT} to {LAST_PORT})",
        "port",
        (PROXY, CARGO_CONFIG),
    ),
    "max_upstream_age": About(DURATION, "warn when the mirror saw its upstream longer ago"),
    "refresh_every": About(DURATION, "a proxy looks for new metadata so often", only=(PROXY,)),
    "max_wait": About(
        DURATION, "how long the proxy lets cargo wait before it says 503", only=(PROXY,)
    ),
    "clock_tolerance": About(TOLERANCE, "so much may this machine's clock be behind the mirror's"),
    "cache_dir": About(FOLDER, "verified files are kept here (default: ~/.cache/crateseal)"),
    "cache_max_bytes": About(SIZE, "the cache is pruned to this"),
    "fetch_jobs": About(whole(1, 256), "requests in flight"),
    "connect_timeout": About(DURATION, "to reach a mirror"),
    "stall_timeout": About(DURATION, "without a byte from a mirror"),
    "total_timeout": About(DURATION, "for one whole answer"),
    "index_max_bytes": About(SIZE, "largest index file accepted"),
    "crate_max_bytes": About(SIZE, "largest crate accepted"),
}

_INSTEAD_OF = {
    "mirror": ("data",),
    "data": ("mirror", "root", "root_sha256"),
    "root": ("data", "root_sha256"),
    "root_sha256": ("data", "root"),
}


class _Found(NamedTuple):
    text: str
    where: str


def read_settings(arguments: Mapping[str, Any], environment: Mapping[str, str]) -> ClientSettings:
    """Put the settings together: command line before environment before `client.toml`.

    Args:
        arguments: key -> text, a list of texts where there may be several, or None: not said.
        environment: of the process; it says, too, where the user's folders are.

    Raises:
        UsageError: a key is unknown, a value is wrong, or the file cannot be read.
        MachineError: the config folder is not this user's alone, or there is no home.
    """
    config = config_folder(environment)
    found = dict(_from_file(config / FILE_NAME)) if is_private(config) else {}
    from_environment = dict(_from_environment(environment))
    from_arguments = dict(_from_arguments(arguments))
    for nearer in (from_environment, from_arguments):
        _forget_the_other_trust(found, nearer)
        found |= nearer
    values = {name: _parse(name, each) for name, each in found.items()}
    cache = cache_folder(environment, values.pop("cache_dir", None))
    return ClientSettings(config, cache, run_folder(environment, cache), **values)


def leading_options(argv: Sequence[str]) -> tuple[dict[str, str | list[str]], list[str]]:
    """Split a command line at its first word that is no option of ours; for `cargo sealed`.

    Returns:
        What `read_settings` takes as arguments, and the rest, `--` at its start left out.

    Raises:
        UsageError: one of ours lacks its value.
    """
    keys = {option_of(name): name for name in ABOUT}
    found: dict[str, str | list[str]] = {}
    rest = list(argv)
    while rest:
        option, equals, text = rest[0].partition("=")
        if option == "--":
            return found, rest[1:]
        if option not in keys:
            break
        name, kind = keys[option], ABOUT[keys[option]].kind
        del rest[0]
        if kind is FLAG:
            text = text if equals else "true"
        elif not equals:
            if not rest:
                raise UsageError(f"{option}: expected {kind.expects}, got nothing")
            text = rest.pop(0)
        found[name] = _with_another(found.get(name), text) if kind.separator else text
    return found, rest


def own_variables() -> frozenset[str]:
    """Return the variables that mean something to a client only, and nothing to a mirror."""
    variables = {ENV_PREFIX + name.upper() for name in ABOUT} | {CONFIG_HOME, GATE}
    return frozenset(variables) - {ENV_PREFIX + name.upper() for name in _keys_of_the_mirror()}


def option_of(name: str) -> str:
    """Return the option of a key: `--root-sha256`."""
    return "--" + (ABOUT[name].option or name.replace("_", "-"))


def _with_another(before: str | list[str] | None, text: str) -> list[str]:
    return [*(before or ()), text]


def _forget_the_other_trust(found: dict[str, _Found], nearer: Mapping[str, _Found]) -> None:
    # Who says --data on the command line does not mean the mirror of client.toml, nor its root.
    for name in [each for said in nearer for each in _INSTEAD_OF.get(said, ())]:
        found.pop(name, None)


def _from_file(path: Path) -> Iterator[tuple[str, _Found]]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    import tomllib  # noqa: PLC0415 - slow to load, and most have no such file

    try:
        table = tomllib.loads(data.decode())
    except ValueError as error:
        raise UsageError(f"{path}: not TOML: {error}") from error
    for key, value in table.items():
        if key not in ABOUT:
            raise UsageError(f"{path}: unknown key {key!r}; {_nearest(key, ABOUT)}")
        many = ABOUT[key].kind.separator and isinstance(value, list)
        if not many and not isinstance(value, str | int | float):
            raise UsageError(f"{path}: {key}: expected one value, got {type(value).__name__}")
        found = _Found(_said(key, value), f"{path}: {key}")
        if ABOUT[key].kind in _PATHS and not Path(found.text).is_absolute():
            # Relative to what? The working folder is a stranger's.
            raise UsageError(f"{found.where}: expected an absolute path, got {found.text!r}")
        yield key, found


def _from_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, _Found]]:
    for variable in sorted(environment):
        if not variable.startswith(ENV_PREFIX) or variable in _NO_SETTINGS:
            continue
        key = variable.removeprefix(ENV_PREFIX).lower()
        if key in ABOUT:
            yield key, _Found(environment[variable], f"environment variable {variable}")
        elif key not in _keys_of_the_mirror():
            hint = _nearest(variable, [ENV_PREFIX + name.upper() for name in ABOUT])
            raise UsageError(f"environment: unknown variable {variable}; {hint}")


def _from_arguments(arguments: Mapping[str, Any]) -> Iterator[tuple[str, _Found]]:
    for name in ABOUT:
        if arguments.get(name) is not None:
            yield name, _Found(_said(name, arguments[name]), option_of(name))


def _parse(name: str, found: _Found) -> Any:
    kind = ABOUT[name].kind
    try:
        return kind.parse(found.text)
    except ValueError as error:
        raise UsageError(f"{found.where}: expected {kind.expects}, got {found.text!r}") from error


def _said(name: str, value: object) -> str:
    """Return what somebody said as text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ABOUT[name].kind.separator.join(map(str, value))
    return str(value)


def _as_text(name: str, value: object) -> str:
    """Return a value as text that its kind reads again, in whatever folder."""
    if ABOUT[name].kind is TIME and isinstance(value, float):
        from datetime import UTC, datetime  # noqa: PLC0415 - slow to load, seldom wanted

        return datetime.fromtimestamp(value, UTC).isoformat()
    return str(value.absolute()) if isinstance(value, Path) else _said(name, value)


def _keys_of_the_mirror() -> frozenset[str]:
    """The mirror's own settings: its `up` hands them to all that it starts."""
    from mirror.config import Config  # noqa: PLC0415 - slow to load, seldom wanted

    return frozenset(Config.__dataclass_fields__)


def _nearest(word: str, known: Sequence[str] | Mapping[str, object]) -> str:
    from mirror.options import nearest  # noqa: PLC0415 - slow to load, wanted for errors only

    return nearest(word, known)
