"""The program `cargo-sealed`, which cargo starts for `cargo sealed`.

It is on the way of each build. So Python collects no garbage while it loads, and takes no leave of
each module at the end: 3 ms and 4 ms.
"""

from __future__ import annotations

import gc
import os
import sys


def main() -> int:
    """Run one cargo command; end this process with its exit code."""
    gc.disable()
    _open_streams()
    from mirror.client.sealed.cargo_command import main as run  # noqa: PLC0415 - loaded without collections

    gc.enable()
    code = run(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _open_streams() -> None:
    """Let there be streams 0 to 2: else the next files opened would be cargo's streams."""
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)
