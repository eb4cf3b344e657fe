"""`run/sync.sock`: takes wants, gives answers. Whoever writes there is treated as hostile.

A line that is no Want gets one line that says so, and a closed connection; nothing that comes in
here ends the process, and no connection is held for longer than the limits say.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from mirror.errors import MalformedMessageError
from mirror.seam import SYNC_SOCKET, Want, WantAnswer, encode, parse_want

logger = logging.getLogger(__name__)

LINE_MAX_BYTES = 1_500_000
"""2,000 names, 2,000 seen and 2,000 crates, each as long as can be, fit."""
READ_SECONDS = 10.0
CONNECTIONS_MAX = 4_096
_MODE = 0o666
"""Any user of this machine may ask for a name, as anybody may over HTTP; `serve` has no group."""

Answerer = Callable[[Want], Awaitable[WantAnswer]]


class Inbox:
    """The listening socket, from `open` to `close`."""

    def __init__(self, run: Path, answer: Answerer) -> None:
        self._path = run / SYNC_SOCKET
        self._answer = answer
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen; the caller holds the lock, so a socket that lies there is a dead process's."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(
            self._take, str(self._path), limit=LINE_MAX_BYTES, backlog=1_024
        )
        self._path.chmod(_MODE)

    async def close(self) -> None:
        """Stop listening; those who wait are cut off, and ask again."""
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= CONNECTIONS_MAX:
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._serve(reader, writer)
        except asyncio.CancelledError:
            # Cut off by `close`: asyncio would print a traceback for each who still waits.
            return
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                line = await reader.readline()
            if not line:
                return
            answer = await self._answer(parse_want(line))
        except (MalformedMessageError, ValueError, TimeoutError) as error:
            # ValueError: a line longer than the limit.
            logger.warning("sync.sock: a message that is no want: %s", str(error)[:200])
            answer = WantAnswer(failed={"want": f"not understood: {error}"[:300]})
        except OSError:
            return
        with suppress(OSError, TimeoutError):
            writer.write(encode(answer))
            async with asyncio.timeout(READ_SECONDS):
                await writer.drain()
