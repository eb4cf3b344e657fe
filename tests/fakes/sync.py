"""What `serve` sees of `sync`: a socket in `run/` that takes wants, and a client for the app."""

import asyncio
import contextlib

import httpx

from mirror.config import Config
from mirror.seam import WantAnswer, encode, parse_want
from mirror.serve.app import build_app

NOW = 1_800_000_000.0  # January 2027


class FakeSync:
    """Answers wants with what `answer(want)` returns; remembers them. Not there until opened."""

    def __init__(self, run, answer=lambda _: WantAnswer()):
        self._path = run / "sync.sock"
        self.answer = answer
        self.wants = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.asked_once = asyncio.Event()
        self._connections = set()

    @contextlib.asynccontextmanager
    async def open(self):
        self._path.parent.mkdir(exist_ok=True)
        server = await asyncio.start_unix_server(self._take, str(self._path), backlog=1_024)
        try:
            yield self
        finally:
            # asyncio drops, unclosed, who was let in just before `close`: so nobody is let in any
            # more, and the loop takes some turns for those who were to get to `_take`.
            asyncio.get_running_loop().remove_reader(server.sockets[0].fileno())
            for _ in range(10):
                await asyncio.sleep(0)
            self.hold.set()
            await asyncio.gather(*self._connections)
            server.close()

    async def _take(self, reader, writer):
        task = asyncio.current_task()
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        want = parse_want(await reader.readline())
        self.wants.append(want)
        self.asked_once.set()
        if not want.seen:
            await self.hold.wait()
        answer = self.answer(want)
        if answer is not None:
            writer.write(answer if isinstance(answer, bytes) else encode(answer))
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def told(self, count):
        """Return once so many wants have come and been answered."""
        async with asyncio.timeout(10):
            while len(self.wants) < count or self._connections:
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.02)  # for those who asked to read the answer

    def asked(self):
        """The wants, without the hints."""
        return [want for want in self.wants if not want.seen]


def client_of(data, *, clock=lambda: NOW, monotonic=lambda: 0.0, **settings):
    """Return (app, client) of a server on this data folder."""
    app = build_app(Config(data=data, **settings), clock, monotonic)
    # As bytes on the wire would: nothing decodes a body behind the test's back.
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    headers = {"Accept-Encoding": "identity"}
    return app, httpx.AsyncClient(transport=transport, base_url="http://mirror", headers=headers)
