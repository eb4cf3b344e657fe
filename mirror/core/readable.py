"""Whether cargo can read a field that may change: else the change takes the version away.

Stricter than cargo, since it is asked of changes only: crates.io writes these fields itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mirror.core.times import parse_rfc3339

_RUST_VERSION = re.compile(r"(0|[1-9]\d{0,9})(\.(0|[1-9]\d{0,9})){0,2}\Z")
_NUMBER = r"(?:0|[1-9]\d{0,18}|[*xX])"
_COMPARATOR = (
    rf"(?:=|>=?|<=?|~|\^)? *{_NUMBER}(?:\.{_NUMBER}){{0,2}}"
    r"(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?"
)
_REQUIREMENT = re.compile(rf" *{_COMPARATOR}(?: *, *{_COMPARATOR})* *\Z")
_TRIPLE = re.compile(r"[A-Za-z0-9_.-]+\Z")
_CFG = re.compile(r"cfg\([A-Za-z0-9_\"=,.() -]*\)\Z")
_TARGET_MAX_CHARS = 1_000


def unreadable(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Say which fields that changed or appeared no cargo might read."""
    for key, reads in (("rust_version", _reads_rust_version), ("pubtime", _reads_time)):
        value = new.get(key)
        if value is not None and value != old.get(key) and not reads(value):
            yield f"{key} {value!r}"
    known = [dep for dep in old["deps"] if dep.get("kind") == "dev"]
    for dep in new["deps"]:
        if dep.get("kind") == "dev" and dep not in known and not _reads_dep(dep):
            yield f"dev-dependency {dep!r}"


def _reads_rust_version(value: Any) -> bool:
    return isinstance(value, str) and bool(_RUST_VERSION.match(value))


def _reads_time(value: Any) -> bool:
    try:
        parse_rfc3339(value if isinstance(value, str) else "")
    except ValueError:
        return False
    return True


def _reads_dep(dep: Mapping[str, Any]) -> bool:
    registry, target = dep.get("registry"), dep.get("target")
    return (
        bool(_REQUIREMENT.match(str(dep.get("req"))))
        and (registry is None or str(registry).startswith(("https://", "sparse+https://")))
        and (target is None or _reads_target(str(target)))
    )


def _reads_target(target: str) -> bool:
    if len(target) > _TARGET_MAX_CHARS or not target.startswith("cfg("):
        return bool(_TRIPLE.match(target))
    balanced = target.count("(") == target.count(")") and target.count('"') % 2 == 0
    return bool(_CFG.match(target)) and balanced and "((" not in target
