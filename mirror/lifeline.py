"""How a process learns that it should end: SIGTERM, SIGINT, or its parent is gone.

A parent hands each child the read end of one pipe and keeps the write end. The kernel closes that
with the parent, however it dies, and every child reads the end of the file.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping

from mirror.options import PARENT_FD_VARIABLE

ORPHAN_SECONDS = 10.0
"""A process whose parent is gone ends itself so much later, if it did not manage in good order."""


class Stop:
    """Why this process should end, once it should."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.signal: int | None = None
        self._listeners: list[Callable[[], None]] = []

    def request(self, number: int | None = None) -> None:
        """Ask for the end; only the first reason counts."""
        if not self.event.is_set():
            self.signal = number
            self.event.set()
            for listener in self._listeners:
                listener()

    def in_loop(self) -> asyncio.Event:
        """Return the same wish as an event of the running asyncio loop."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()

        def pass_on() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(stop.set)

        self._listeners.append(pass_on)
        if self.event.is_set():
            stop.set()
        return stop

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, else 0: being told to end is no failure."""
        return 130 if self.signal == signal.SIGINT else 0


def listen(environment: Mapping[str, str]) -> Stop:
    """Return the `Stop` of this process, and keep it informed from now on.

    The first signal asks for the end in good order; a second one ends at once.
    """
    stop = Stop()
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)

    def on_signal(number: int, _frame: object) -> None:
        # A handler runs between any two steps of the main thread, perhaps inside a lock that
        # `Event.set` would take: so it does no more than write a byte to a thread.
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)
        os.write(write_end, bytes([number]))

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, on_signal)
    parent = environment.get(PARENT_FD_VARIABLE)
    sources = (read_end, int(parent)) if parent else (read_end,)
    threading.Thread(target=_watch, args=(sources, stop), daemon=True).start()
    return stop


def _watch(sources: tuple[int, ...], stop: Stop) -> None:
    signals, *parent = sources
    while True:
        ready, _, _ = select.select(sources, (), ())
        if signals in ready:
            stop.request(os.read(signals, 1)[0])
            sources = tuple(parent)
        elif not os.read(ready[0], 1):
            break  # The end of the file: the parent is gone.
        if not sources:
            return
    stop.request()
    time.sleep(ORPHAN_SECONDS)
    _give_up()


def _give_up() -> None:
    sys.stderr.write("crateseal: the parent is gone and this process hangs: ended at once\n")
    sys.stderr.flush()
    os._exit(1)
