"""The entries of a tar stream as cargo reads them, and nothing that only some readers see.

A library that is lenient shows another archive than cargo unpacks: one that ends at a header it
does not like, one with names from a global header. So this reader knows what crates are made of
(ustar, GNU long names, pax path, linkpath and size) and refuses the rest. Sources: POSIX, "pax
Interchange Format"; the GNU tar manual; the `tar` crate that cargo uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

BLOCK = 512
META_MAX_BYTES = 65_536
"""The longest long name or pax header; real ones have a few hundred bytes."""
_PAX_MAX_RECORDS = 32
"""For one entry; real ones have three or four."""

FILE, HARD_LINK, SYMLINK, FOLDER = b"0", b"1", b"2", b"5"
_LONG_NAME, _LONG_LINK, _PAX = b"L", b"K", b"x"

_USTAR, _GNU = b"ustar\x0000", b"ustar  \0"

Read = Callable[[int], bytes]
"""Gives exactly so many bytes, or fewer at the end of the stream."""


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One entry, its name and link target as they would be unpacked."""

    path: str
    kind: bytes
    """The type flag: FILE, HARD_LINK, SYMLINK, FOLDER, or one that nobody should unpack."""
    size: int
    link: str
    data: bytes | None = None
    """The contents, where they were wanted."""
    is_executable: bool = False
    """Whether its owner may run it; a mode that does not read says no."""


@dataclass(slots=True)
class _Overrides:
    """What goes before an entry and changes it; each at most once."""

    path: str | None = None
    link: str | None = None
    size: int | None = None
    has_pax: bool = False


def read_entries(read: Read, wanted: Callable[[TarEntry], bool]) -> Iterator[TarEntry]:
    """Yield the entries of an archive; their contents only where they are `wanted`.

    Raises:
        ValueError: it is no such archive, or holds what cargo would read in another way.
    """
    over = _Overrides()
    while True:
        block = read(BLOCK)
        if 0 < len(block) < BLOCK:
            raise ValueError("an archive that ends too early")
        if not any(block):  # zeros, or the stream ends where a header would begin
            if over != _Overrides():
                raise ValueError("a long name without an entry")
            _only_zeros(read)
            return
        header = _parse_header(block)
        if header.kind in (_LONG_NAME, _LONG_LINK, _PAX):
            if over.size is not None:
                # Some readers take the size for that of this header.
                raise ValueError("a pax size before a long name")
            _take_override(over, header.kind, _metadata(read, header.size))
            continue
        entry = _overridden(header, over)
        over = _Overrides()
        if wanted(entry):
            data = _exactly(read, entry.size)
            _exactly(read, -entry.size % BLOCK)
            yield replace(entry, data=data)
        else:
            yield entry
            _skip(read, entry.size)


def _overridden(header: TarEntry, over: _Overrides) -> TarEntry:
    if over.size not in (None, header.size):
        raise ValueError("a pax size that is not the header's")
    path = header.path if over.path is None else over.path
    kind = header.kind
    if kind == FILE and path.endswith("/"):
        # An old way to write a folder. Under a ustar header cargo makes a file of it.
        if header.size:
            raise ValueError("a folder with contents")
        kind = FOLDER
    link = header.link if over.link is None else over.link
    return TarEntry(path, kind, header.size, link, is_executable=header.is_executable)


def _parse_header(block: bytes) -> TarEntry:
    stored = _octal(block[148:156])
    unsigned = sum(block) - sum(block[148:156]) + 8 * 0x20
    if stored != unsigned:
        raise ValueError("a header whose checksum is wrong")
    path = _text(block[0:100])
    kind = FILE if block[156:157] in (b"\0", b"7") else block[156:157]
    form = block[257:265]
    if form == _USTAR and block[345]:
        path = f"{_text(block[345:500])}/{path}"
    elif form not in (_USTAR, _GNU) and (block[345] or kind in (_LONG_NAME, _LONG_LINK, _PAX)):
        # A prefix or a long name to some readers; to cargo neither.
        raise ValueError("an old header that would be another in a newer format")
    size = _octal(block[124:136])
    if kind in (HARD_LINK, SYMLINK, FOLDER) and size:
        # Readers differ on whether data follows.
        raise ValueError("a link or folder with a size")
    for number in (block[108:116], block[116:124], block[136:148]):
        if number.strip(b"\0 "):
            _octal(number)  # user, group and time: what does not parse, some readers stop at
    link = _text(block[157:257])
    return TarEntry(path, kind, size, link, is_executable=_is_executable(block[100:108]))


def _is_executable(mode: bytes) -> bool:
    try:
        return bool(_octal(mode) & 0o100)
    except ValueError:
        return False


def _octal(field: bytes) -> int:
    if field[0] & 0x80:
        if field[0] != 0x80:
            raise ValueError("a negative number in a header")
        return int.from_bytes(field[1:], "big")
    digits = field.rstrip(b"\0 ").lstrip(b" ")
    if not digits or digits.strip(b"01234567"):
        raise ValueError(f"a number that is none in a header: {digits[:12]!r}")
    return int(digits, 8)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _long_text(data: bytes) -> str:
    # One NUL ends it. With another inside, readers see two names: the path's check refuses it.
    return data.removesuffix(b"\0").decode("utf-8", "surrogateescape")


def _metadata(read: Read, size: int) -> bytes:
    if size > META_MAX_BYTES:
        raise ValueError(f"a long name or pax header of {size} bytes")
    data = _exactly(read, size)
    _exactly(read, -size % BLOCK)
    return data


def _take_override(over: _Overrides, kind: bytes, data: bytes) -> None:
    if kind == _LONG_NAME:
        found = [("path", _long_text(data))]
    elif kind == _LONG_LINK:
        found = [("linkpath", _long_text(data))]
    else:
        _once(over.has_pax or None)
        over.has_pax = True
        found = list(_pax_records(data))
    for key, value in found:
        match key:
            case "path":
                _once(over.path)
                over.path = value
            case "linkpath":
                _once(over.link)
                over.link = value
            case "size":
                _once(over.size)
                over.size = int(value)
            case _:
                if key.startswith("GNU.sparse."):
                    raise ValueError("a sparse file")


def _once(before: object) -> None:
    if before is not None:
        raise ValueError("two long names for one entry")


def _pax_records(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield the records `LENGTH KEY=VALUE`, a newline behind each (POSIX)."""
    at = 0
    for _ in range(_PAX_MAX_RECORDS):
        if at == len(data):
            return
        length, _, _ = data[at : at + 8].partition(b" ")
        if not length.isdigit() or not len(length) < int(length) <= len(data) - at:
            raise ValueError("a pax record whose length is wrong")
        record = data[at : at + int(length)]
        at += int(length)
        key, equals, value = record[len(length) + 1 : -1].partition(b"=")
        # With a newline inside, cargo sees two records.
        if not equals or not record.endswith(b"\n") or b"\n" in record[:-1] or b"\0" in value:
            raise ValueError("a pax record that is none")
        yield key.decode(), value.decode()
    if at < len(data):
        raise ValueError(f"more than {_PAX_MAX_RECORDS} pax records for one entry")


def _skip(read: Read, size: int) -> None:
    left = size + -size % BLOCK
    while left:
        left -= len(_exactly(read, min(left, META_MAX_BYTES)))


def _only_zeros(read: Read) -> None:
    while data := read(META_MAX_BYTES):
        if data.count(0) != len(data):
            raise ValueError("something after the end of the archive")


def _exactly(read: Read, size: int) -> bytes:
    data = read(size)
    if len(data) != size:
        raise ValueError("an archive that ends too early")
    return data
