"""What is followed as a whole; in mode `index` a file or a URL of crate names, one a line.

Blank lines and lines that begin with `#` are skipped; anything else must be a crate's name.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

from mirror.core.names import CrateId, CrateName, parse_name
from mirror.errors import InvalidNameError, UsageError
from mirror.sync.upstream import Upstream

NAMES_MAX_BYTES = 256_000_000


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one reading of the source."""

    names: Sequence[CrateName]
    """Sorted, each once."""
    as_of: float
    """The age of the list, in seconds since 1970."""
    crates: tuple[CrateId, ...] = ()
    """Mode `list`: the crates that are listed."""

    def __contains__(self, name: CrateName) -> bool:
        # A quarter of a million names: a set beside the list would double its memory.
        at = bisect_left(self.names, name)
        return at < len(self.names) and self.names[at] == name


async def read_names(source: str, upstream: Upstream, *, now: float) -> Names:
    """Read the whole source.

    Raises:
        UsageError: the file is not there, or a line is no name.
        UpstreamError: the URL gave no usable answer.
    """
    if source.startswith(("http://", "https://")):
        page = await upstream.fetch_page(source, NAMES_MAX_BYTES)
        return Names(parse_names(page.data, source), _age(page.last_modified, now))
    return await asyncio.to_thread(_read_file, source)


def _read_file(source: str) -> Names:
    path = Path(source)
    try:
        return Names(parse_names(path.read_bytes(), source), path.stat().st_mtime)
    except OSError as error:
        raise UsageError(
            f"names source {source}: {error.strerror or error}; give a file or URL of crate names"
        ) from error


def parse_names(data: bytes, source: str) -> tuple[CrateName, ...]:
    """Return the names, sorted, each once.

    Raises:
        UsageError: a line is no name; the text says which.
    """
    names = set()
    for number, line in enumerate(data.split(b"\n"), start=1):
        text = line.strip().decode(errors="replace")
        if not text or text.startswith("#"):
            continue
        try:
            names.add(parse_name(text))
        except InvalidNameError as error:
            raise UsageError(
                f"names source {source}, line {number}: expected a crate name, got {text[:80]!r}"
            ) from error
    return tuple(sorted(names))


def _age(last_modified: str, now: float) -> float:
    try:
        # A list cannot be from the future; a clock may be.
        return min(parsedate_to_datetime(last_modified).timestamp(), now)
    except ValueError:
        return now
