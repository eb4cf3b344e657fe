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
    places = {"mode": 100, "uid": 108, "gid": 116, "size": 124, "mtime": 136, "magic": 257}
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


def pax(kind=b"x", **records):
    """Return a pax header with these records."""
    data = b""
    for key, value in records.items():
        record = b" %s=%s\n" % (key.replace("__", ".").encode(), value.encode())
        length = len(record) + 2
        data += b"%d" % (length if len(str(length)) == 2 else length + 1) + record
    return raw("pax", data, kind)
