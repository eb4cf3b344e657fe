"""Where things lie in the folder of a repository that signs by itself.

Rule: names only; nothing here looks at a disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FINISHING = ".finishing"
"""Lies in `ceremony/` while `tuf-repo finish` puts files there: they are taken together."""


@dataclass(frozen=True, slots=True)
class DataFolder:
    """The folder that a command is given with `--data`."""

    path: Path

    @property
    def metadata(self) -> Path:
        """The published metadata: `N.root.json`, `timestamp.json`, …; everybody may read it."""
        return self.path / "www" / "tuf" / "metadata"

    @property
    def targets(self) -> Path:
        """The published targets, under their consistent-snapshot names."""
        return self.path / "www" / "tuf" / "targets"

    @property
    def state(self) -> Path:
        """The counter, and what is staged; nobody but the signer needs it."""
        return self.path / "staging"

    @property
    def ceremony(self) -> Path:
        """Where signed offline roles wait for the signer to take them."""
        return self.path / "ceremony"

    @property
    def keys(self) -> Path:
        """The online keys."""
        return self.path / "keys"

    @property
    def offline_keys(self) -> Path:
        """The keys of the offline roles; only in a trial."""
        return self.path / "offline-keys"
