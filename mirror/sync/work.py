"""What one sweep, or one round of retries, goes through."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from mirror.core.names import CrateId, CrateName
from mirror.core.plan import Retry
from mirror.sync.listed import lacking
from mirror.sync.parts import Parts
from mirror.sync.retrying import crate_of

Item = CrateName | CrateId


@dataclass(frozen=True, slots=True)
class Work:
    """Names to look at and crates to fetch."""

    names: Sequence[CrateName]
    """Sorted, each once."""
    crates: Sequence[CrateId] = ()
    unfollowed: frozenset[CrateName] = frozenset()
    """Names among them that somebody wanted once, and nobody follows."""
    held: int = 0
    """How many of the listed crates were in place before."""

    @property
    def followed(self) -> int:
        """How many followed names it goes through."""
        return len(self.names) - len(self.unfollowed)

    def __len__(self) -> int:
        return len(self.names) + len(self.crates)

    def items(self) -> Iterator[Item]:
        """Go through everything once, each crate behind its index file if that is among it."""
        crates = sorted(self.crates, key=lambda crate: crate.canonical_name)
        groups = groupby(crates, key=lambda crate: crate.canonical_name)
        group = next(groups, None)
        for name in self.names:
            yield name
            while group is not None and group[0] <= name:
                yield from group[1]
                group = next(groups, None)
        while group is not None:
            yield from group[1]
            group = next(groups, None)


async def sweep_work(parts: Parts, *, once: bool) -> Work:
    """Return what a sweep goes through: all that is followed.

    `once`: there are no rounds of retries, so all that is missing is tried as well.
    """
    following = parts.following
    names = following.names()
    if not following.is_list:
        return _with_retries(names, parts.retrying.all_due() if once else ())
    assert following.source is not None
    listed = following.source.crates
    # Thousands of looks at the disk.
    crates = await asyncio.to_thread(lacking, parts.life.config.www, listed)
    missing = set(crates)
    # The operator denies them: nothing comes of another try before that is forgotten.
    denied = {crate for crate in crates if parts.remembered.is_denied(str(crate))}
    parts.retrying.prune(str(crate) for crate in listed if crate not in missing)
    crates = [crate for crate in crates if crate not in denied]
    return Work(names, crates, held=len(listed) - len(missing))


def round_work(due: Sequence[Retry]) -> Work:
    """Return what a round of retries goes through."""
    return _with_retries((), due)


def _with_retries(names: Sequence[CrateName], retries: Sequence[Retry]) -> Work:
    crates = [crate_of(retry.key) for retry in retries if " " in retry.key]
    more = {CrateName(retry.key) for retry in retries if " " not in retry.key}
    # A crate is compared with its index file, which may be old, or have failed as well.
    more |= {crate.canonical_name for crate in crates}
    more.difference_update(names)
    return Work(sorted([*names, *more]) if more else names, crates, frozenset(more))
