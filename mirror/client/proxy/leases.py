"""The door of a running proxy, and the leases of those who hold it up.

A lease is a connection of one of our own runners (`cargo sealed`). It lives as long as the runner's
cargo; it may carry hints, and questions after what was refused since it began. One line of JSON
each: `{"prefetch":[NAME,…]}`, `{"lock":PATH}`, `{"report":true}`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import select
import socket
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mirror.client.gate.gate import greet
from mirror.client.source.standing import Mark
from mirror.core.names import CrateName, parse_name
from mirror.errors import CratesealError, InvalidNameError
from mirror.store.lockfile import read_lock

LOG = logging.getLogger("crateseal.proxy")

LINE_MAX_BYTES = 4_000_000
_SERVING = {"serving": True}

Report = Callable[[Mark], Awaitable[dict[str, Any]]]
Prefetch = Callable[[tuple[CrateName, ...]], object]


class Leases:
    """Those for whom this proxy runs.

    Attributes:
        gone: set while there is none of them.
    """

    def __init__(self, mark: Callable[[], Mark], report: Report, prefetch: Prefetch) -> None:
        self.gone = asyncio.Event()
        self.gone.set()
        self._mark = mark
        self._report = report
        self._prefetch = prefetch
        self._tasks: set[asyncio.Task[None]] = set()
        self._door: socket.socket | None = None
        self._greet: Callable[[], socket.socket | None] = lambda: None

    def take_over(self, leases: Iterable[socket.socket]) -> None:
        """Take leases that began before this process did; what they wrote still waits in them."""
        for lease in leases:
            self._begin(lease, Mark())

    def open(self, door: socket.socket, hello: bytes, listener: socket.socket) -> None:
        """Let others in from now on. The door becomes ours to close, the listener does not."""
        door.setblocking(False)
        self._door = door
        self._greet = lambda: greet(door, hello, listener)
        asyncio.get_running_loop().add_reader(door, self._let_in)

    def let_in_who_waits(self) -> bool:
        """Let in who stands at the door; return whether there is any lease now."""
        while self._door is not None and select.select([self._door], (), (), 0)[0]:
            self._let_in()
        return bool(self._tasks)

    def close_door(self) -> None:
        """Let nobody in from now on."""
        if self._door is not None:
            asyncio.get_running_loop().remove_reader(self._door)
            self._door.close()
            self._door = None

    async def close(self) -> None:
        """End every lease: who still needs a proxy starts another one."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _let_in(self) -> None:
        lease = self._greet()
        if lease is not None:
            self._begin(lease, self._mark())

    def _begin(self, lease: socket.socket, mark: Mark) -> None:
        self.gone.clear()
        task = asyncio.create_task(self._serve(lease, mark))
        self._tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self.gone.set()

    async def _serve(self, lease: socket.socket, mark: Mark) -> None:
        lease.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=lease, limit=LINE_MAX_BYTES)
        try:
            await _write(writer, _SERVING)
            while line := await reader.readline():
                await self._obey(line, mark, writer)
        except (OSError, ValueError) as error:  # gone, or a line too long
            LOG.debug("a lease ended: %s", error)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _obey(self, line: bytes, mark: Mark, writer: asyncio.StreamWriter) -> None:
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            said = None
        match said:
            case {"report": True}:
                await _write(writer, await self._report(mark))
            case {"prefetch": list(names)}:
                self._prefetch(tuple(_names(names)))
            case {"lock": str(path)}:
                with suppress(CratesealError):  # a hint, no more
                    self._prefetch(await asyncio.to_thread(_names_of_lock, Path(path)))
            case _:
                LOG.warning("a lease said what this version does not know: %.80r", line)


async def _write(writer: asyncio.StreamWriter, said: dict[str, Any]) -> None:
    writer.write(json.dumps(said).encode() + b"\n")
    await writer.drain()


def _names(words: Iterable[object]) -> Iterable[CrateName]:
    for word in words:
        with suppress(InvalidNameError):
            yield parse_name(str(word))


def _names_of_lock(path: Path) -> tuple[CrateName, ...]:
    return tuple(dict.fromkeys(each.crate.canonical_name for each in read_lock(path).crates))
