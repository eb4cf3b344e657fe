"""What builds will ask for next, one level at a time."""

from __future__ import annotations

from mirror.core.names import CrateName

AHEAD_MAX = 4_096


class Ahead:
    """What names that came along will need in turn: a bounded table, each entry used once."""

    def __init__(self) -> None:
        self._names: dict[CrateName, list[CrateName]] = {}

    def __len__(self) -> int:
        return len(self._names)

    def put(self, name: CrateName, dependencies: list[CrateName]) -> None:
        """Remember; the oldest entry makes room."""
        if dependencies:
            self._names[name] = dependencies
            if len(self._names) > AHEAD_MAX:
                del self._names[next(iter(self._names))]

    def pop(self, name: CrateName) -> list[CrateName]:
        """Return what is remembered, once."""
        return self._names.pop(name, [])
