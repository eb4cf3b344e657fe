"""What cargo keeps of a registry's index: is each line one that was signed?

cargo writes a file for each crate that it asked about (`SummariesCache` in its
`sources/registry/index/cache.rs`), and believes it when the registry says that nothing has changed,
or when it is offline: a byte for the format, four for that of the lines, the file's version (an
ETag), NUL; then, for each line, its version, NUL, the line as it came, NUL.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirror.client.commands.checked import Checked, shown
from mirror.client.commands.files import read_file
from mirror.client.source.source import Source
from mirror.core.index import IndexLimits
from mirror.core.names import CrateName, parse_name
from mirror.errors import ProofError, RejectedError, UnreachableError

_FORMAT = 3
_HEAD_BYTES = 5
# Behind each line cargo has its version.
_FILE_MAX_BYTES = 2 * IndexLimits().file_max_bytes
_AFRESH = "do not build with it; delete it, and cargo asks for it afresh"


@dataclass(frozen=True, slots=True)
class KeptIndex:
    """cargo's copy of one crate's index file."""

    name: CrateName
    file: Path


def kept_index(home: Path, registries: Iterable[str]) -> Iterator[KeptIndex]:
    """Yield the index files that cargo keeps in a home, of these registries' folders."""
    for folder in sorted(registries):
        for place, folders, files in os.walk(home / "registry" / "index" / folder / ".cache"):
            # A link is not walked into; cargo would follow it.
            links = [each for each in folders if os.path.islink(os.path.join(place, each))]
            for each in sorted((*files, *links)):
                try:
                    yield KeptIndex(parse_name(each), Path(place, each))
                except RejectedError:
                    continue  # cargo asks for no such name


def check_index(kept: Iterable[KeptIndex], source: Source, jobs: int) -> Iterator[Checked]:
    """Yield what is wrong with these; of those that are right, nothing."""
    with ThreadPoolExecutor(jobs) as pool:
        for each in pool.map(lambda one: _check(one, source), kept):
            if each.errors:
                yield each


def _check(kept: KeptIndex, source: Source) -> Checked:
    subject, where = f"{kept.name} (index)", shown(str(kept.file))
    try:
        wrong = _what_is_wrong(kept, source)
    except (ProofError, UnreachableError) as error:
        return Checked(subject, where, (error,))
    if wrong is None:
        return Checked(subject, where)
    expected = "nothing but signed index lines"
    return Checked(subject, where, (ProofError(subject, where, expected, wrong, _AFRESH),))


def _what_is_wrong(kept: KeptIndex, source: Source) -> str | None:
    try:
        data = read_file(kept.file, _FILE_MAX_BYTES)
    except OSError as error:
        return f"what cannot be read as a file: {error.strerror}"
    if not data:
        return None  # cargo takes it for none
    if data[0] != _FORMAT:
        return f"a format that is not known here ({data[0]})"
    fields = data[_HEAD_BYTES:].split(b"\0")[1:-1]
    if len(fields) % 2:
        return "a file that ends amid a line"
    signed = frozenset(source.index_file(kept.name).data.splitlines())
    pairs = zip(fields[::2], fields[1::2], strict=True)
    return next(filter(None, (_wrong_line(version, line, signed) for version, line in pairs)), None)


def _wrong_line(version: bytes, line: bytes, signed: frozenset[bytes]) -> str | None:
    said, told = _parsed(line), version.decode(errors="replace")
    if said is None or said.get("vers") != told:
        return f"a line that is not about the version it is kept for, {told[:60]!r}"
    if line not in signed and not any(_is_the_same(said, each) for each in signed):
        return f"a line for {told[:60]} that was not signed"
    return None


def _is_the_same(said: dict[str, Any], line: bytes) -> bool:
    """Whether a signed line says the same, but for `yanked`: cargo's copy may be an older one."""
    signed = _parsed(line)
    return signed is not None and {**signed, "yanked": None} == {**said, "yanked": None}


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None
