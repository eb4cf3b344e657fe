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
