"""JSON from strangers, read so that no two readers can read two things in it."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from tuf_repo.core.numbers import LIMIT

_LONG_NUMBER_DIGITS = 17


def load(data: bytes) -> Any:
    """Read JSON in UTF-8: each name once, whole numbers below 2**53, no half characters.

    Raises:
        ValueError: it is none; the text says what is in the way, and quotes names and numbers only.
    """
    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=_once,
            parse_int=_exact,
            parse_float=lambda text: _refuse(f"the fraction {text[:24]}"),
            parse_constant=_refuse,
        )
        # A half of a character, spelled \ud800, is text for json but can be written by nobody.
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeError, json.JSONDecodeError, RecursionError):
        # What the parser says may quote the file: not chained either.
        value = _BROKEN
    if value is _BROKEN:
        _refuse("something else")
    return value


_BROKEN = object()


def _refuse(what: str) -> NoReturn:
    raise ValueError(what)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for name, value in pairs:
        if name in seen:
            _refuse(f"{name!r} twice")
        seen[name] = value
    return seen


def _exact(text: str) -> int:
    if len(text) > _LONG_NUMBER_DIGITS or abs(int(text)) >= LIMIT:
        _refuse(f"the number {text[:24]}, which is not below {LIMIT}")
    return int(text)
