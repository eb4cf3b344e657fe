"""One line of an index file, read as cargo reads it.

Rule: a line counts as absent only if every cargo that speaks the sparse protocol (1.68 and later)
leaves it unused; else upstream could show builds a line that the audit does not see. So fields that
only newer cargos know, and defaults that only newer ones fill in, never make a line absent. Source:
cargo's `IndexPackage` (crates/cargo-util-schemas/src/index.rs; `RegistryPackage` in 1.68), read by
serde_json, which checks of an unknown field no more than its brackets and quotes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NoReturn

import orjson


class UnusedLineError(ValueError):
    """No cargo uses this line: it counts as absent. The text says why."""


class NotJsonError(UnusedLineError):
    """It is no JSON text at all; the last line of a file cut short is such a one."""


class DoubtfulLineError(ValueError):
    """Cargo may read this line otherwise than we would: nothing in its file can be believed."""


class _Object(dict[str, Any]):
    """A JSON object that remembers the fields it was given twice."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs

    def repeated(self) -> set[str]:
        if len(self.pairs) == len(self):
            return set()
        return {key for key, times in Counter(key for key, _ in self.pairs).items() if times > 1}


_NONE = type(None)
_MAP = (dict, _Object)
_Types = dict[str, tuple[type, ...]]
_TYPES: _Types = {
    "name": (str,),
    "vers": (str,),
    "deps": (list,),
    "cksum": (str,),
    "features": _MAP,
    "features2": (*_MAP, _NONE),
    "yanked": (bool, _NONE),
    "links": (str, _NONE),
    "v": (int, _NONE),
}
_DEP_TYPES: _Types = {
    "name": (str,),
    "req": (str,),
    "features": (list,),
    "optional": (bool,),
    "default_features": (bool,),
    "target": (str, _NONE),
    "kind": (str, _NONE),
    "registry": (str, _NONE),
    "package": (str, _NONE),
    "public": (bool, _NONE),
}
_REQUIRED = ("name", "vers", "deps", "cksum")
_DEP_REQUIRED = ("name", "req")
_FAMILIAR = frozenset((*_TYPES, *_DEP_TYPES, "pubtime", "rust_version"))
_U32 = range(2**32)
_INT_MAX_DIGITS = 20
_DEPTH_MAX = 254  # orjson writes no deeper ones

_spaced = json.JSONEncoder(ensure_ascii=False).encode


def read_fields(line: bytes) -> dict[str, Any]:
    """Return a line's fields, the unknown ones too; those that cargo knows have the right types.

    Raises:
        UnusedLineError: no cargo uses the line.
        DoubtfulLineError: cargo may read it otherwise.
    """
    fields = _read_plain(line)
    if fields is None:
        fields = _read_as_serde(line)
        _check_repeats(fields)
        if b"\\u" in line or not line.isascii():
            _check_texts(fields)
    _check_types(fields, _TYPES, _REQUIRED, "the line")
    if (v := fields.get("v")) is not None and v not in _U32:
        raise UnusedLineError(f"v is {_short(v)}")
    _check_features(fields)
    for dep in fields["deps"]:
        _check_dep(dep)
    return fields


def _read_plain(line: bytes) -> dict[str, Any] | None:
    """Read a line in the writing of crates.io, or with a space after each colon and comma.

    The round trip shows that nothing was lost on the way, such as a field given twice. None: the
    line is written otherwise, or is no object.
    """
    try:
        fields = orjson.loads(line)  # strict: UTF-8 only, no NaN, no lone surrogate
        if isinstance(fields, dict) and (
            orjson.dumps(fields) == line or _spaced(fields).encode() == line
        ):
            return fields
    except (ValueError, TypeError, RecursionError):  # orjson's deep nesting: TypeError
        pass
    return None


def _read_as_serde(line: bytes) -> _Object:
    # Bytes that are no UTF-8 become surrogates: within an unknown field serde skips over them.
    try:
        value = _DECODER.decode(line.decode(errors="surrogateescape"))
    except RecursionError as error:
        raise DoubtfulLineError("nested too deep to tell") from error
    except ValueError as error:
        raise NotJsonError(f"no JSON: {error}") from error
    if isinstance(value, list):
        raise DoubtfulLineError("a list, which cargo may take for an object")
    if line.count(b"[") + line.count(b"{") > _DEPTH_MAX:
        _check_depth(value)
    if not isinstance(value, _Object):
        raise UnusedLineError(f"a {type(value).__name__}, not an object")
    return value


def _check_depth(value: Any) -> None:
    """Refuse what is nested so deep that a later walk over it might fail where this one did not."""
    level = [value]
    for _ in range(_DEPTH_MAX):
        level = [
            part
            for outer in level
            if isinstance(outer, (dict, list))
            for part in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise DoubtfulLineError("nested too deep to tell")


def _check_repeats(fields: _Object) -> None:
    for what, known in _known_parts(fields):
        if again := what.repeated() & known.keys():
            raise UnusedLineError(f"{min(again)} is given twice")


def _check_texts(fields: _Object) -> None:
    """Refuse what serde refuses only where it keeps a text: bad UTF-8, lone surrogates."""
    parts: list[Any] = []
    for what, known in _known_parts(fields):
        parts += (list(what), *(what.get(key) for key in known if key != "deps"))
    for key in ("features", "features2"):
        if isinstance(fields.get(key), _Object):
            parts.append(fields[key].pairs)
    try:
        _spaced(parts).encode()
    except (UnicodeEncodeError, RecursionError) as error:
        raise UnusedLineError("a text that is not Unicode") from error


def _known_parts(fields: _Object) -> Iterator[tuple[_Object, _Types]]:
    """Yield the objects whose fields cargo knows: the line's, and each dependency's."""
    yield fields, _TYPES
    deps = fields.get("deps")
    for dep in deps if isinstance(deps, list) else ():
        if isinstance(dep, _Object):
            yield dep, _DEP_TYPES


def _check_types(
    fields: dict[str, Any],
    types: _Types,
    required: tuple[str, ...],
    where: str,
) -> None:
    # Real lines have few shapes; a stranger's keys may be long, and are not kept.
    if fields.keys() <= _FAMILIAR and _is_well_typed(
        tuple(fields), tuple(map(type, fields.values())), types is _DEP_TYPES
    ):
        return
    for key, value in fields.items():
        known = types.get(key)
        if known is not None and type(value) not in known:
            raise UnusedLineError(f"{key} of {where} is {_short(value)}")
    for key in required:
        if key not in fields:
            raise UnusedLineError(f"{where} has no {key}")


@lru_cache(maxsize=1_000)
def _is_well_typed(keys: tuple[str, ...], kinds: tuple[type, ...], of_dep: bool) -> bool:
    types, required = (_DEP_TYPES, _DEP_REQUIRED) if of_dep else (_TYPES, _REQUIRED)
    known = all(kind in types.get(key, (kind,)) for key, kind in zip(keys, kinds, strict=True))
    return known and all(key in keys for key in required)


def _check_features(fields: dict[str, Any]) -> None:
    for key in ("features", "features2"):
        for feature, wants in pairs_of(fields.get(key) or {}):
            if wants != []:
                _check_list(wants, f"{key} {_short(feature)}")


def _check_dep(dep: Any) -> None:
    if isinstance(dep, list):
        raise DoubtfulLineError("a dependency is a list, which cargo may take for an object")
    if not isinstance(dep, dict):
        raise UnusedLineError(f"a dependency is {_short(dep)}")
    _check_types(dep, _DEP_TYPES, _DEP_REQUIRED, "a dependency")
    _check_list(dep.get("features", []), "features of a dependency")


def _check_list(value: Any, what: str) -> None:
    if value == []:
        return
    if type(value) is not list:
        raise UnusedLineError(f"{what} is {_short(value)}")
    for part in value:
        if type(part) is not str:
            raise UnusedLineError(f"{what} has {_short(part)}")


def pairs_of(fields: dict[str, Any]) -> Any:
    """Return an object's pairs of field and value as they came, those given twice too."""
    return fields.pairs if isinstance(fields, _Object) else fields.items()


def span_of_value(line: bytes, key: str) -> tuple[int, int]:
    """Return where the value of a line's own field stands, from and to, in bytes.

    Both are the place of the closing brace where the line has no such field. The line has been
    read before: it is an object with at least one field.
    """
    # One character a byte: places in the text are places in the line, and JSON's own are ASCII.
    text = line.decode("latin-1")
    at = text.index("{")
    while text[at] != "}":
        name, at = _DECODER.raw_decode(text, _after_space(text, at + 1))
        at = _after_space(text, _after_space(text, at) + 1)
        start = at
        _, at = _DECODER.raw_decode(text, at)
        if name == key:
            return start, at
        at = _after_space(text, at)
    return at, at


def _after_space(text: str, at: int) -> int:
    while text[at] in " \t\r\n":
        at += 1
    return at


def _short(value: Any) -> str:
    return ascii(value)[:60]


def _whole_number(text: str) -> int | float:
    # serde_json takes -0, and what fits no integer, for a float; Python limits how long an int is.
    return float(text) if len(text) > _INT_MAX_DIGITS or text == "-0" else int(text)


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_Object, parse_int=_whole_number, parse_constant=_no_constant
)
