"""A source that holds crates in memory, each with an index line that names its bytes."""

import hashlib

from mirror.client.source.source import Verified
from mirror.core.index import find_entry
from mirror.core.names import CrateId
from mirror.errors import AbsentError, WithheldError
from tests.support.crates import crate_bytes, index_line


class HoldingSource:
    """What `Source` says of crates that verify, of absent ones, and of those in `errors`."""

    def __init__(self):
        self._lines = {}
        self._crates = {}
        self.errors = {}
        """Crate -> what asking for its bytes raises."""

    def hold(self, name, version, data=None):
        """Hold one crate, by default a tiny library; return its sha256."""
        data = crate_bytes(name, version) if data is None else data
        sha256 = hashlib.sha256(data).hexdigest()
        self._crates[CrateId(name, version)] = data
        self._lines.setdefault(name.lower(), []).append(index_line(name, version, sha256))
        return sha256

    def deny(self, name, version):
        crate = CrateId(name, version)
        self.errors[crate] = WithheldError(str(crate), "withheld/…", "the crate file", "deny: bad")

    def refresh(self, max_age=None):
        pass

    def prefetch(self, names, *, follow=False):
        assert all(name == name.lower() for name in names)

    def prefetch_crates(self, crates):
        pass

    def index_file(self, name):
        data = b"".join(line + b"\n" for line in self._lines[name])
        return Verified(data, hashlib.sha256(data).hexdigest())

    def entry(self, crate):
        lines = self._lines.get(crate.canonical_name, [])
        entry = find_entry(b"\n".join(lines), crate.canonical_name, crate.version)
        if entry is None:
            raise AbsentError(str(crate), "index", "a line", "none", "ask", proved=True)
        return entry

    def crate(self, crate):
        if crate in self.errors:
            raise self.errors[crate]
        return self._crates[crate]
