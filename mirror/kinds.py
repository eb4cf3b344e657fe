"""The kinds of settings: how a text becomes a value, and what to say where it does not.

Light imports only: `cargo sealed` reads its settings before each build.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import ipaddress

    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"": 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10}
_BYTES |= {"MiB": 2**20, "GiB": 2**30}
_MODES_TO_COME = ("full",)


class Kind(NamedTuple):
    """How the text of a setting becomes its value."""

    expects: str
    """Completes the sentence "expected …"."""
    parse: Callable[[str], Any]
    """Raises ValueError where the text is not of this kind."""
    metavar: str
    separator: str = ""
    """Between several values in one text; in TOML they are an array, and the option is repeated."""


def _number(text: str, low: int, high: int | None) -> int:
    value = int(text)
    if value < low or (high is not None and value > high):
        raise ValueError(text)
    return value


def whole(low: int, high: int | None = None) -> Kind:
    """Return the kind of whole numbers within these limits."""
    limits = f"from {low} to {high}" if high is not None else f"of {low} or more"
    return Kind(f"a whole number {limits}", lambda text: _number(text, low, high), "N")


def parse_duration(text: str) -> float:
    """Read `90s`, `10m`, `25h`, `2d` or a plain number of seconds.

    Raises:
        ValueError: it is none of these.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([smhd]?)", text)
    if not found:
        raise ValueError(text)
    return float(found[1]) * _SECONDS[found[2] or "s"]


def parse_size(text: str) -> int:
    """Read `10MB`, `64MiB` or a plain number of bytes.

    Raises:
        ValueError: it is none of these.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", text)
    if not found or found[2] not in _BYTES:
        raise ValueError(text)
    return int(float(found[1]) * _BYTES[found[2]])


def _more_than_zero(text: str) -> float:
    if parse_duration(text) <= 0:
        raise ValueError(text)
    return parse_duration(text)


def _parse_flag(text: str) -> bool:
    if text.lower() not in {"true", "false", "yes", "no", "1", "0"}:
        raise ValueError(text)
    return text.lower() in {"true", "yes", "1"}


def _parse_mode(text: str) -> str:
    if text in _MODES_TO_COME:
        raise ValueError(f"mode {text} is not built yet")
    if text not in {"cache", "index", "list"}:
        raise ValueError(text)
    return text


def _parse_upstream(text: str) -> str:
    if not re.fullmatch(r"sparse\+https?://[^/\s@]+(/[^\s?#]*)?", text):
        raise ValueError(text)
    return text if text.endswith("/") else text + "/"


def _parse_paths(text: str) -> tuple[Path, ...]:
    return tuple(Path(_parse_text(path)) for path in text.split(os.pathsep))


def _parse_networks(text: str) -> tuple[Network, ...]:
    import ipaddress  # noqa: PLC0415 - slow to load, seldom wanted

    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(","))


def _parse_percent(text: str) -> float:
    value = float(text)
    if not 0 < value <= 100:
        raise ValueError(text)
    return value


def _parse_public_url(text: str) -> str:
    if not re.fullmatch(r"https?://[^/\s][^\s?#]*", text):
        raise ValueError(text)
    return text.rstrip("/")


def _parse_text(text: str) -> str:
    if not text.strip() or any(ord(char) < 32 for char in text):
        raise ValueError(text)
    return text


def _parse_contact(text: str) -> str:
    # It stands in brackets in the User-Agent header (a comment, RFC 9110, 5.6.5).
    if not re.fullmatch(r"[!-'*-\[\]-~](?:[ -'*-\[\]-~]{0,198}[!-'*-\[\]-~])?", text):
        raise ValueError(text)
    return text


FLAG = Kind("true or false", _parse_flag, "BOOL")
DURATION = Kind("a duration such as 90s, 10m, 25h or 2d", _more_than_zero, "TIME")
SIZE = Kind("a size such as 10MB", parse_size, "SIZE")
TEXT = Kind("one line of text", _parse_text, "TEXT")
CONTACT = Kind(
    "an address or URL: at most 200 plain characters, without brackets or backslashes",
    _parse_contact,
    "TEXT",
)
FOLDER = Kind("a folder", lambda text: Path(_parse_text(text)), "DIR")
SOURCE = Kind("a file or URL of crate names, one a line", _parse_text, "SOURCE")
LOCKS = Kind("lock files", _parse_paths, "FILE", os.pathsep)
NETWORKS = Kind("addresses or networks such as 10.0.0.0/8", _parse_networks, "NET", ",")
PERCENT = Kind("a number above 0, at most 100", _parse_percent, "N")
MODE = Kind("cache, index or list", _parse_mode, "cache|index|list")
UPSTREAM = Kind(
    "a sparse index such as sparse+https://index.crates.io/, without a login in it",
    _parse_upstream,
    "URL",
)
PUBLIC_URL = Kind("an http or https URL", _parse_public_url, "URL")
