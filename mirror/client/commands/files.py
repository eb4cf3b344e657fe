"""Plain files on this machine, read with care: no link at the end, no fifo, no endless one."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Not to wait for the other end, where a fifo stands in a file's place.
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read_file(path: Path, max_bytes: int) -> bytes:
    """Return a regular file's bytes.

    Raises:
        OSError: it cannot be read, is a link or no file, or is longer than that.
    """
    with _opened(path) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise OSError(errno.EFBIG, f"longer than {max_bytes} bytes", str(path))
    return data


def sha256_of_file(path: Path) -> str:
    """Return the sha256 of a regular file; other threads go on meanwhile.

    Raises:
        OSError: it cannot be read, or is a link or no file.
    """
    with _opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader]:
    fd = os.open(path, _OPEN_FILE)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        yield file
