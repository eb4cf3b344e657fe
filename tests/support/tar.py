"""Tar entries of any kind, harmless or not."""

import tarfile
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One entry of an archive."""

    path: str
    data: bytes = b""
    type: bytes = tarfile.REGTYPE
    link: str = ""

    def info(self) -> tarfile.TarInfo:
        """Return its header."""
        info = tarfile.TarInfo(self.path)
        info.size = len(self.data)
        info.type = self.type
        info.linkname = self.link
        return info


def header(path, length=0, kind=b"0", *, link="", **fields):
    """Return one ustar header, each field as told: `uid=b"zzzzzzz"`, `sum=b"000000"`."""
    places = {"mode": 100, "uid": 108, "gid": 116, "size": 124, "mtime": 136}
    places |= {"magic": 257, "prefix": 345}
    block = bytearray(512)
    block[0 : len(path)] = path.encode()
    defaults = {
        "mode": b"0000644\0",
        "uid": b"0000000\0",
        "gid": b"0000000\0",
        "magic": b"ustar\x0000",
    }
    defaults |= {"size": b"%011o\0" % length, "mtime": b"00000000000\0"}
    for name, value in (defaults | fields).items():
        if name != "sum":
            block[places[name] : places[name] + len(value)] = value
    block[156:157] = kind
    block[157 : 157 + len(link)] = link.encode()
    block[148:156] = b" " * 8
    block[148:156] = fields.get("sum", b"%06o\0 " % sum(block))
    return bytes(block)


def raw(path, data=b"", kind=b"0", **fields):
    """Return one whole entry, its header as `header` makes it."""
    return header(path, len(data), kind, **fields) + data + bytes(-len(data) % 512)


def gnu(name, kind=b"L", *, entry=None):
    """Return a GNU long name (or with `K` a link's target), and the entry that bears it."""
    long = raw("././@LongLink", name.encode() + b"\0", kind, magic=b"ustar  \0")
    return long + (raw("short", b"x") if entry is None else entry)


def pax(kind=b"x", **records):
    """Return a pax header with these records; two underscores stand for a dot."""
    lines = [f"{key.replace('__', '.')}={value}" for key, value in records.items()]
    return pax_records(*lines, kind=kind)


def pax_records(*lines, kind=b"x"):
    """Return a pax header with these records `KEY=VALUE`, also such that are none."""
    return raw("pax", b"".join(_pax_record(line.encode()) for line in lines), kind)


def _pax_record(line):
    rest = len(line) + 2  # the space and the newline count, and so do the digits of the length
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s\n" % (length, line)
