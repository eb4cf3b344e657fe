"""What the fields of an index line mean: forms that are equal where cargo would act alike.

The fields come from `index_line.read_fields`, so those that cargo knows have the right types.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

_SHOWN = 3
_SHORT_CHARS = 60


class Dep(NamedTuple):
    """One dependency, in one form for every way to write it."""

    name: str
    req: str
    package: str | None
    registry: str | None
    kind: str
    target: str | None
    optional: bool
    default_features: bool
    public: bool
    features: tuple[str, ...]
    rest: str
    """Fields that only newer cargos know, or none does, as JSON."""


_DEP_FIELDS = frozenset(Dep._fields) - {"rest"}


def dep_of(fields: Mapping[str, Any]) -> Dep:
    """Return the one form of a dependency: defaults filled in as cargo does, lists sorted."""
    kind = fields.get("kind")
    rest = {
        key: value
        for key, value in fields.items()
        if key not in _DEP_FIELDS and value is not None and not (key == "lib" and value is False)
    }
    return Dep(
        fields["name"],
        fields["req"],
        fields.get("package"),
        fields.get("registry"),
        kind if kind in {"dev", "build"} else "normal",
        fields.get("target"),
        fields.get("optional", False),
        fields.get("default_features", True),
        bool(fields.get("public")),
        # Old lines have empty feature names, which cargo drops.
        tuple(sorted(filter(None, fields.get("features", ())))),
        canonical(rest) if rest else "",
    )


def deps_of(fields: Mapping[str, Any]) -> tuple[Counter[Dep], Counter[Dep]]:
    """Return a line's dependencies: those that builds of it may need, and the dev-dependencies."""
    needed: list[Dep] = []
    dev: list[Dep] = []
    for dep in map(dep_of, fields["deps"]):
        (dev if dep.kind == "dev" else needed).append(dep)
    return Counter(needed), Counter(dev)


def features_of(fields: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return `features` and `features2` as the one map that cargo makes of them."""
    merged: dict[str, list[str]] = {}
    for key in ("features", "features2"):
        for feature, wants in (fields.get(key) or {}).items():
            merged.setdefault(feature, []).extend(wants)
    return {feature: sorted(wants) for feature, wants in merged.items()}


def split_of(fields: Mapping[str, Any]) -> tuple[int, frozenset[str]]:
    """Return the format `v`, and the features that stand in `features2`."""
    return fields.get("v") or 1, frozenset(fields.get("features2") or ())


def canonical(value: Any) -> str:
    """Return a JSON value as one text, the same for every order of keys."""
    return json.dumps(value, sort_keys=True)


def dep_changes(before: Counter[Dep], after: Counter[Dep]) -> tuple[str, str]:
    """Say in what dependencies differ: what was there, what is there now."""
    lost, gained = list((before - after).elements()), list((after - before).elements())
    was, now = [], []
    for dep in lost:
        other = next((new for new in gained if new.name == dep.name), None)
        if other is None:
            was.append(f"dependency {_shown(dep)}")
            now.append(f"no {_text(dep.name)}")
            continue
        gained.remove(other)
        old, new = dep._asdict(), other._asdict()
        changed = [key for key in old if old[key] != new[key]]
        was.append(f"dependency {_named(dep.name, old, changed)}")
        now.append(_named(dep.name, new, changed))
    was += [f"no dependency {_text(dep.name)}" for dep in gained]
    now += [_shown(dep) for dep in gained]
    return _listed(was), _listed(now)


def feature_changes(
    before: Mapping[str, list[str]], after: Mapping[str, list[str]]
) -> tuple[str, str]:
    """Say in what features differ: what was there, what is there now."""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return (
        _listed(f"feature {_feature(name, before)}" for name in names),
        _listed(_feature(name, after) for name in names),
    )


def short(value: Any) -> str:
    """Return any JSON value as a short printable text on one line."""
    text = canonical(value)
    return text if len(text) <= _SHORT_CHARS else text[:_SHORT_CHARS] + "…"


def _text(name: str) -> str:
    """Return a name as it is where it is plain, else quoted."""
    plain = name.replace("-", "").replace("_", "")
    return name if plain.isascii() and plain.isalnum() and len(name) <= 64 else short(name)


def _shown(dep: Dep) -> str:
    return f"{_text(dep.name)} {short(dep.req)}"


def _named(name: str, fields: Mapping[str, Any], keys: Iterable[str]) -> str:
    return " ".join([_text(name), *(f"{key} {short(fields[key])}" for key in keys)])


def _feature(name: str, features: Mapping[str, list[str]]) -> str:
    return f"{_text(name)} {short(features[name])}" if name in features else f"no {_text(name)}"


def _listed(parts: Iterable[str]) -> str:
    texts = list(parts)
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more
