"""An upstream over a folder (`index/…`, `crates/…`), with faults that a test can set per path.

    with FakeUpstream(folder) as upstream:
        config = Config(upstream=upstream.source, …)
        upstream.fault("/index/it/oa/itoa", "status", 500)
        …
        assert upstream.requests["/index/it/oa/itoa"] == 1

It builds `config.json` itself. Real HTTP: the app runs under uvicorn, in a thread, on a free port.
"""

import asyncio
import gzip
import hashlib
import json
import socket
import threading
import time
from collections import Counter
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

SAMPLES = Path(__file__).parents[1] / "data/upstream"
"""Six small real crates with their index files, and the index file of serde."""
EPOCH = 1_700_000_000
FAULTS = {
    "status",  # value: the status
    "busy",  # 429; value: Retry-After, in seconds or as a date
    "redirect",  # value: Location
    "wrong",  # value: other bytes in place of the file's
    "html",
    "empty",
    "truncate",  # half of the announced bytes
    "half",  # half of the bytes, announced as if they were all
    "length",  # all bytes, announced as so many (value, any text)
    "close",  # no answer at all
    "hang",  # an answer that never begins
    "stall",  # half of the bytes, then silence
    "trickle",  # a byte every 50 ms
    "endless",
    "bomb",  # gzip that inflates to so many bytes (value)
    "two-members",  # gzip with something behind it
}
_HTML = b"<!doctype html><html><body>Please log in</body></html>"


class FakeUpstream:
    """A context manager; `app` can also be called without a server."""

    def __init__(self, folder=SAMPLES, *, validators=True, compress=True, delay=0.0, config=None):
        self.folder = Path(folder)
        self.validators = validators
        self.compress = compress
        self.delay = delay
        self.config = config or {}
        """Fields of config.json in place of the usual ones."""
        self.requests = Counter()
        """Path -> how many requests came for it."""
        self.answers = Counter()
        """Status -> how many."""
        self.headers = {}
        """Path -> the headers of its last request, names in lower case."""
        self.times = {}
        """Path -> when its requests came, by the monotonic clock."""
        self.most_at_once = 0
        self.url = ""
        self._port = 0
        self._open = 0
        self._files = {}
        self._faults = {}

    @property
    def source(self):
        """What `--upstream` takes."""
        return f"sparse+{self.url}/index/"

    @property
    def total(self):
        return sum(self.requests.values())

    def fault(self, path, kind, value=None, *, times=1_000_000):
        """Let the next `times` requests for a path go wrong; `*` is every path."""
        assert kind in FAULTS, kind
        if kind == "bomb":
            value = gzip.compress(b"{" + b" " * (value or 50_000_000), 9)
        self._faults[path] = [kind, value, times]

    def heal(self, path):
        self._faults.pop(path, None)

    def put(self, path, data):
        """Serve these bytes under a path from now on; None: nothing is there."""
        self._files[path] = data

    def read(self, path):
        """Return what is served under a path, or None."""
        if path == "/index/config.json":
            dl = f"{self.url}/crates/{{crate}}/{{crate}}-{{version}}.crate"
            return json.dumps({"dl": dl, **self.config}).encode()
        if path in self._files:
            return self._files[path]
        file = self.folder / path.lstrip("/")
        return file.read_bytes() if file.is_file() else None

    @contextmanager
    def refusing(self):
        """Listen no more for the time of a block; afterwards be back on the same port."""
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()

    @contextmanager
    def silent(self):
        """Take every request and answer none, for the time of a block."""
        self.fault("*", "hang")
        try:
            yield
        finally:
            self.heal("*")

    def __enter__(self):
        self._socket = socket.create_server(("127.0.0.1", self._port), backlog=512)
        self._port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        config = uvicorn.Config(
            self.app, http=_Protocol, ws="none", lifespan="off", log_config=None, log_level=60,
            interface="asgi3", proxy_headers=False, date_header=False, server_header=False,
            timeout_graceful_shutdown=0, timeout_keep_alive=60,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        return self

    def __exit__(self, *_):
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(10)
        self._socket.close()

    async def app(self, scope, receive, send):
        path = scope["path"]
        self.requests[path] += 1
        self.times.setdefault(path, []).append(time.monotonic())
        self.headers[path] = {key.decode(): value.decode() for key, value in scope["headers"]}
        self._open += 1
        self.most_at_once = max(self.most_at_once, self._open)
        try:
            if self.delay:
                await asyncio.sleep(self.delay)
            fault = self._fault_of(path)
            if fault is None:
                await self._serve(path, send)
            else:
                await _misbehave(fault, self.read(path) or b"", scope, send)
        finally:
            self._open -= 1

    def _fault_of(self, path):
        for key in (path, "*"):
            fault = self._faults.get(key)
            if fault is not None and fault[2] > 0:
                fault[2] -= 1
                return fault
        return None

    async def _serve(self, path, send):
        data = self.read(path)
        asked = self.headers[path]
        headers = {}
        if data is None:
            await self._answer(send, 404, headers, b"not here")
            return
        if self.validators:
            headers["etag"] = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
            headers["last-modified"] = formatdate(EPOCH, usegmt=True)
            if asked.get("if-none-match") == headers["etag"]:
                await self._answer(send, 304, headers, b"")
                return
        if path.startswith("/index/") and self.compress and "gzip" in asked["accept-encoding"]:
            headers["content-encoding"] = "gzip"
            data = gzip.compress(data, 1)
        await self._answer(send, 200, headers, data)

    async def _answer(self, send, status, headers, body):
        self.answers[status] += 1
        await _send(send, status, headers, body)


class _Protocol(HttpToolsProtocol):
    """Lets the app get at the connection, to break it."""

    def on_message_begin(self):
        super().on_message_begin()
        self.scope["transport"] = self.transport


async def _send(send, status, headers, body, *, length=None):
    headers = {"content-length": str(len(body) if length is None else length), **headers}
    if status == 304:
        del headers["content-length"]
    await _start(send, status, headers)
    await send({"type": "http.response.body", "body": body, "more_body": length is not None})


async def _start(send, status, headers):
    listed = [(key.encode(), value.encode()) for key, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": listed})


async def _more(send, body):
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _misbehave(fault, data, scope, send):  # noqa: C901, PLR0912 - a table of cases
    kind, value, _ = fault
    match kind:
        case "status":
            await _send(send, value, {}, b"no")
        case "busy":
            await _send(send, 429, {"retry-after": str(value)}, b"slow down")
        case "redirect":
            await _send(send, 302, {"location": value}, b"")
        case "wrong":
            await _send(send, 200, {}, value)
        case "html":
            await _send(send, 200, {"content-type": "text/html; charset=utf-8"}, _HTML)
        case "empty":
            await _send(send, 200, {}, b"")
        case "truncate":
            await _send(send, 200, {}, data[: len(data) // 2], length=len(data))
            scope["transport"].close()
        case "half":
            await _send(send, 200, {}, data[: len(data) // 2])
        case "length":
            # The server under us would not let a lie pass.
            scope["transport"].write(b"HTTP/1.1 200 OK\r\ncontent-length: %b\r\n\r\n" % value)
            scope["transport"].write(data)
            scope["transport"].close()
        case "close":
            scope["transport"].abort()
        case "hang":
            await asyncio.sleep(3600)
        case "stall":
            await _send(send, 200, {}, data[: len(data) // 2], length=len(data))
            await asyncio.sleep(3600)
        case "trickle":
            await _start(send, 200, {"content-length": str(len(data))})
            for at in range(len(data)):
                await _more(send, data[at : at + 1])
                await asyncio.sleep(0.05)
        case "endless":
            await _start(send, 200, {})
            while not scope["transport"].is_closing():
                await _more(send, b'{"a":1}\n' * 8_192)
                await asyncio.sleep(0)
        case "bomb":
            await _send(send, 200, {"content-encoding": "gzip"}, value)
        case "two-members":
            packed = gzip.compress(data) + gzip.compress(b"more")
            await _send(send, 200, {"content-encoding": "gzip"}, packed)
