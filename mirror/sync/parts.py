"""What the parts of `sync` that fetch are handed, and what they hand to each other."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from mirror.core.names import CrateId, CrateName
from mirror.store.cursors import Cursors
from mirror.sync.flights import Flights, Remembered
from mirror.sync.following import Following
from mirror.sync.outbox import Outbox
from mirror.sync.retrying import Retrying
from mirror.sync.slots import Slots
from mirror.sync.upstream import IndexAnswer, Upstream
from mirror.sync.values import Life


@dataclass(frozen=True, slots=True)
class Parts:
    """What the fetcher works with."""

    life: Life
    upstream: Upstream
    cursors: Cursors
    outbox: Outbox
    flights: Flights
    remembered: Remembered
    following: Following
    retrying: Retrying
    tasks: asyncio.TaskGroup
    slots: Slots


@dataclass(frozen=True, slots=True)
class BroughtIndex:
    """What one look at an index file brought."""

    name: CrateName
    at: float
    answer: IndexAnswer


@dataclass(frozen=True, slots=True)
class BroughtCrate:
    """One crate's file, whole."""

    crate: CrateId
    file: Path
    length: int


@dataclass(slots=True)
class Bundle:
    """What one want asked for, collected until it is whole or its time is up."""

    ready: list[BroughtIndex | BroughtCrate] = field(default_factory=list)
    bytes: int = 0
    is_open: bool = True
    served: set[CrateName] = field(default_factory=set)
    """Names whose dependencies come along in it."""

    def take(self) -> list[BroughtIndex | BroughtCrate]:
        """Return what is there, index files first: the signer compares crates with them."""
        ready, self.ready, self.bytes = self.ready, [], 0
        return sorted(ready, key=lambda brought: isinstance(brought, BroughtCrate))
