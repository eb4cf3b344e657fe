"""Which versions upstream is known not to have, as of the index files that are published."""

from __future__ import annotations

from mirror.core.index import IndexLimits, parse_index_file
from mirror.core.layout import INDEX
from mirror.core.names import CrateId, CrateName, index_path
from mirror.core.plan import Known, seconds_left
from mirror.errors import RejectedError
from mirror.store.cursors import Cursors
from mirror.sync.flights import Remembered
from mirror.sync.values import Kind, Life


class KnownVersions:
    """What a look not long ago says of versions; older ones say nothing."""

    def __init__(self, life: Life, cursors: Cursors, remembered: Remembered) -> None:
        self._life = life
        self._cursors = cursors
        self._remembered = remembered

    def lack(self, crate: CrateId) -> bool:
        """Whether upstream has no such name, or its index file does not name this version."""
        name = crate.canonical_name
        remembered = self._remembered.get(name)
        if remembered is not None and remembered.kind is Kind.ABSENT:
            return True
        cursor = self._cursors.get(name)
        if cursor is None:
            return False
        max_age = self._life.config.max_age
        if not seconds_left(cursor.looked_at, max_age, now=self._life.clock()):
            return False
        if cursor.known is Known.ABSENT:
            return True
        # An empty digest: upstream says that it is gone, and that is in doubt.
        return cursor.known is Known.PUBLISHED and bool(cursor.sha256) and self._omits(name, crate)

    def name(self, crate: CrateId) -> bool:
        """Whether the index file that is published names this version, however old it is."""
        name = crate.canonical_name
        cursor = self._cursors.get(name)
        return (cursor is None or cursor.known is not Known.ABSENT) and bool(
            self._versions_name(name, crate)
        )

    def _omits(self, name: CrateName, crate: CrateId) -> bool:
        return self._versions_name(name, crate) is False

    def _versions_name(self, name: CrateName, crate: CrateId) -> bool | None:
        """Whether the published file names it; None: there is no such file to read."""
        limits = IndexLimits(file_max_bytes=self._life.config.index_max_bytes)
        try:
            data = (self._life.config.www / INDEX / index_path(name)).read_bytes()
            return crate.version in parse_index_file(name, data, limits).by_version()
        except (OSError, RejectedError):
            return None
