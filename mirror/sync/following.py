"""Which names are followed, and since when all of them were looked at."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mirror.core.batch import Look
from mirror.core.layout import INDEX, METADATA_DIR, parse_index_path
from mirror.core.names import CrateId, CrateName
from mirror.core.plan import Cursor, Known
from mirror.errors import RejectedError
from mirror.store.cursors import Cursors
from mirror.sync.changes import Names


class Following:
    """In modes `index` and `list` the names of the source; in mode `cache` what is held."""

    def __init__(self, cursors: Cursors, mode: str) -> None:
        self.whole_source = mode in ("index", "list")
        self.is_list = mode == "list"
        self.source: Names | None = None
        """The last good reading of the names source or of the lists."""
        self._listed: frozenset[CrateId] = frozenset()
        self._cursors = cursors

    @property
    def is_known(self) -> bool:
        """Whether it can be said of a name that it is not followed."""
        return not self.whole_source or self.source is not None

    def may_fetch(self, name: CrateName) -> bool:
        """Whether upstream may be asked for this name."""
        if not self.whole_source:
            return True
        return self.source is not None and name in self.source

    def may_fetch_crate(self, crate: CrateId) -> bool:
        """Whether upstream may be asked for this crate."""
        return crate in self._listed if self.is_list else self.may_fetch(crate.canonical_name)

    def names(self) -> Sequence[CrateName]:
        """Return every name that a sweep looks at, sorted."""
        if self.whole_source:
            return self.source.names if self.source is not None else ()
        return self._cursors.followed()

    def take(self, source: Names) -> None:
        """Follow these names from now on, and no others.

        Raises:
            OSError: the others could not be forgotten; the earlier names stay in force.
        """
        self._cursors.keep_only(source.names)
        self.source = source
        self._listed = frozenset(source.crates)

    def confirmed(self, looks: Sequence[Look], now: float) -> float | None:
        """Return the time of the oldest successful look; None if one name was never looked at.

        Raises:
            OSError: the cursors cannot be asked.
        """
        if self.whole_source:
            wanted = len(self.source.names) if self.source is not None else 0
            return self._cursors.oldest_look_at_all(wanted, now) if wanted else None
        if self._cursors.holds_any():
            return self._cursors.oldest_look_at_held(now)
        return min((look.at for look in looks), default=None)


def held_names(www: Path) -> Iterator[Cursor]:
    """Go through the index files that are published: what to follow when the cursors are lost."""
    root = www / INDEX
    for folder, _, files in os.walk(root):
        relative = Path(folder).relative_to(root)
        for file in files:
            try:
                name = parse_index_path((relative / file).as_posix())
            except RejectedError:  # config.json, and the .gz beside each
                continue
            yield Cursor(name, Known.PUBLISHED)


def published_version(www: Path) -> int | None:
    """Return the version of the published timestamp: 0 if there is none, None if nobody can tell.

    It is compared with what the signer said last, and nothing is believed because of it.
    """
    try:
        return int(
            json.loads((www / METADATA_DIR / "timestamp.json").read_bytes())["signed"]["version"]
        )
    except FileNotFoundError:
        return 0
    except OSError:
        return None
    except (ValueError, KeyError, TypeError):
        return 0  # torn, or no timestamp
