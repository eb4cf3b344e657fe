"""Which bin a target path belongs to, and which paths the bins may hold.

Source: TAP 15 (succinct hash bins) and the TUF specification 4.5 (PATHPATTERN), as python-tuf's
`SuccinctRoles` and `DelegatedRole` read them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

BITS_MAX = 16


@dataclass(frozen=True, slots=True)
class BinLayout:
    """How the bins of one delegation are named and filled."""

    prefix: str
    bits: int
    """2**bits bins."""

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= BITS_MAX:
            raise ValueError(f"bin bits: expected 1 to {BITS_MAX}, got {self.bits}")

    @property
    def count(self) -> int:
        """How many bins there are."""
        return 1 << self.bits

    def name(self, index: int) -> str:
        """`crates-0a3`: as many hex digits as the last bin needs."""
        return f"{self.prefix}-{index:0{(self.bits + 3) // 4}x}"

    def index(self, name: str) -> int:
        """The number of the bin of that name."""
        return int(name.removeprefix(f"{self.prefix}-"), 16)

    def names(self) -> tuple[str, ...]:
        """Every bin's name, in order."""
        return _names(self)

    def bin_of(self, path: str) -> str:
        """The name of the bin that a target path belongs to."""
        return self.name(self.index_of(path))

    def index_of(self, path: str) -> int:
        """The number of the bin that a target path belongs to."""
        digest = hashlib.sha256(path.encode()).digest()
        return int.from_bytes(digest[:4]) >> (32 - self.bits)

    def sources(self, index: int, before: BinLayout) -> range:
        """The indices of the bins of another layout that hold what bin `index` is to hold."""
        if self.bits >= before.bits:
            first = index >> (self.bits - before.bits)
            return range(first, first + 1)
        shift = before.bits - self.bits
        return range(index << shift, (index + 1) << shift)

    def keeps_names_of(self, before: BinLayout) -> bool:
        """Whether every bin of another layout is there under its name: clients miss none then."""
        same_digits = (self.bits + 3) // 4 == (before.bits + 3) // 4
        return self.prefix == before.prefix and same_digits and self.bits >= before.bits


@lru_cache(maxsize=2)
def _names(layout: BinLayout) -> tuple[str, ...]:
    # Each publication goes over all of them several times.
    return tuple(map(layout.name, range(layout.count)))


def compile_patterns(patterns: Iterable[str]) -> re.Pattern[str]:
    """Return what matches exactly the paths that a delegation with these patterns covers.

    Raises:
        ValueError: a pattern has a character class; we publish none.
    """
    expressions = []
    for pattern in patterns:
        if "[" in pattern:
            raise ValueError(f"path pattern: expected * and ? only, got {pattern!r}")
        expressions.append(
            # TUF 4.5: a `*` does not cross a `/`.
            re.escape(pattern).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
        )
    return re.compile("(?:" + "|".join(expressions) + r")\Z", re.DOTALL)
