"""Which checksum a crate file that is held must have, and by whose word.

A signed index line names it; or the upstream bytes that the ledger keeps where a list cut them, so
that what leaves a list is not lost; or a tombstone, as crates that upstream deleted stay. What the
operator denies may not be held at all.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from mirror.core.index import find_entry
from mirror.core.layout import CRATES_DIR, parse_crate_path
from mirror.core.names import CrateId, CrateName
from mirror.errors import RejectedError
from mirror.seam import Verb
from mirror.store.memory import MemoryReader

IndexFileOf = Callable[[CrateName], bytes | None]
"""The bytes that are published, or None."""


class Holdings:
    """What may be held."""

    def __init__(self, memory: MemoryReader, index_file_of: IndexFileOf) -> None:
        self._memory = memory
        self._index_file_of = index_file_of
        self._marked = memory.marked_names()
        self._denied = {
            (each.name, each.version) for each in memory.decisions() if each.verb == Verb.DENY
        }

    def cksums_of(self, file: str) -> frozenset[str]:
        """Return the checksums that a file `crates/NAME/NAME-VERSION.crate` may have."""
        with suppress(RejectedError):
            crate = parse_crate_path(file.removeprefix(f"{CRATES_DIR}/"))
            name = crate.canonical_name
            if {(name, None), (name, crate.version)} & self._denied:
                return frozenset()
            return self._cksums_of(crate)
        return frozenset()

    def may_differ(self, file: str) -> bool:
        """Whether a decision or a deletion may have made other bytes right than were once."""
        name = file.split("/")[1].lower()
        return name in self._marked or name in {denied for denied, _ in self._denied}

    def _cksums_of(self, crate: CrateId) -> frozenset[str]:
        name = crate.canonical_name
        marked = name in self._marked
        own = self._memory.record(name) if marked else None
        data = own if own is not None else self._index_file_of(name)
        entry = find_entry(data, name, crate.version) if data else None
        if entry is not None:
            return frozenset({entry.cksum}) if entry.crate == crate else frozenset()
        if marked:
            return self._memory.tombstones(name).get(crate.version, frozenset())
        return frozenset()
