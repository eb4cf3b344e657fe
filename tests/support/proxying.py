"""The proxy's application, asked as its server would: exact bytes of a path, no client between."""

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from mirror.client.home.settings import ClientSettings
from mirror.client.proxy.app import Place, Proxy
from mirror.client.proxy.connections import ConnectionLimits, Connections
from mirror.client.proxy.work import Work

PLACE = Place(8471, "0123456789abcdef")
OWN = {"host": PLACE.host}


class Got(NamedTuple):
    status: int
    headers: dict
    body: bytes

    @property
    def text(self):
        return self.body.decode()


def settings(folder=Path("/nowhere"), **more):
    return ClientSettings(folder / "config", folder / "cache", folder / "run", **more)


@contextmanager
def threads():
    pool = ThreadPoolExecutor(8)
    try:
        yield Work(pool)
    finally:
        pool.shutdown()


def proxied(source, scenario, **more):
    """Run `scenario(proxy)` in a loop of its own; return what it returns."""
    with threads() as work:

        async def run():
            return await scenario(Proxy(source, settings(**more), PLACE, work, time.time))

        return asyncio.run(run())


def ask(source, path, *, method="GET", headers=OWN, **more):
    """Ask a new proxy once."""
    return proxied(source, lambda proxy: asked(proxy, path, method, headers), **more)


async def asked(proxy, path, method="GET", headers=OWN, body=b""):
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    await proxy(scope_of(path, method, headers), receive, send)
    start, *pieces = sent
    assert [piece["more_body"] for piece in pieces] == [True] * (len(pieces) - 1) + [False]
    named = {name.decode(): value.decode() for name, value in start["headers"]}
    return Got(start["status"], named, b"".join(piece["body"] for piece in pieces))


def scope_of(path, method, headers):
    raw, _, query = path.encode().partition(b"?")
    return {
        "type": "http",
        "method": method,
        "raw_path": raw,
        "query_string": query,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }


def here(path):
    """Return the path at the proxy."""
    return f"/{PLACE.root_id}/{path}"


class Served:
    """A proxy's application on a real loopback listener, in a thread of this process."""

    def __init__(self, source, limits=None, **more):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.place = Place(self.listener.getsockname()[1], PLACE.root_id)
        self._source = source
        self._limits = limits or ConnectionLimits()
        self._settings = settings(**more)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_args):
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join()

    async def _run(self):
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        with threads() as work:
            proxy = Proxy(self._source, self._settings, self.place, work, time.time)
            connections = Connections(proxy, self._limits)
            await connections.start(self.listener)
            self._ready.set()
            await self._end.wait()
            await connections.close(5.0)

    def url(self, path):
        return f"{self.place.url}/{path}"

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.place.port), timeout=5)

    def raw(self, data):
        """Send bytes; return everything that comes until the connection is closed."""
        with self.connect() as connection:
            connection.sendall(data)
            return read_all(connection)


def read_all(connection):
    said = b""
    while piece := connection.recv(65_536):
        said += piece
    return said
