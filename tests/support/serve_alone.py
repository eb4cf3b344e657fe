"""`serve` as a process of its own, on an inherited socket, with nothing else running.

With kind "bare" the same process answers everything with so many bytes, under the same settings.
"""

import asyncio
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import uvicorn
import uvloop

from mirror.config import Config
from mirror.serve.app import run_server, server_settings

REPOSITORY = Path(__file__).parents[2]


@contextmanager
def listening():
    """Yield a listening socket and its URL, as the parent of the servers has them."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(512)
        yield sock, f"http://127.0.0.1:{sock.getsockname()[1]}"


def start(sock, data, *, kind="serve", stderr=None, **settings):
    """Start a server on a listening socket; return its process."""
    number = str(sock.fileno())
    command = [sys.executable, "-W", "error", "-m", "tests.support.serve_alone", kind, number]
    command += [str(data), *(f"{key}={value}" for key, value in settings.items())]
    return subprocess.Popen(command, pass_fds=[sock.fileno()], cwd=REPOSITORY, stderr=stderr)


@contextmanager
def serving(data, **settings):
    """Yield (process, URL) of one server; it is told to end afterwards."""
    with listening() as (sock, url):
        process = start(sock, data, **settings)
        try:
            yield process, url
        finally:
            process.terminate()
            process.wait(20)


def main(kind, fd, data, *settings):
    logging.basicConfig(level=logging.INFO)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    values = {key: _value(key, text) for key, _, text in (each.partition("=") for each in settings)}
    sock = socket.socket(fileno=int(fd))
    if kind == "bare":
        uvloop.run(_serve_bare(sock, int(values["size"]), stop))
    else:
        run_server(Config(data=Path(data), port=0, **values), time.time, sock, stop)


def _value(key, text):
    setting = Config.__dataclass_fields__.get(key)
    return setting.metadata["kind"].parse(text) if setting else float(text)


async def _serve_bare(sock, size, stop):
    head = {"type": "http.response.start", "status": 200}
    head["headers"] = [(b"content-length", str(size).encode())]
    body = {"type": "http.response.body", "body": b"x" * size}

    async def app(scope, receive, send):
        await send(head)
        await send(body)

    server = uvicorn.Server(server_settings(app))
    task = asyncio.create_task(server._serve([sock]))
    await asyncio.to_thread(stop.wait)
    server.should_exit = True
    await task


if __name__ == "__main__":
    main(*sys.argv[1:])
