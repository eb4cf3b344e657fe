"""An upstream for the demo: a sparse registry on loopback that counts what it is asked for.

It knows its files by name only and never touches a path, so there is nothing to escape from.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mirror.demo.samples import Sample, digest


class Upstream(ThreadingHTTPServer):
    """Serves samples as crates.io would; `asked` counts the requests by path."""

    daemon_threads = True

    def __init__(self, samples: Iterable[Sample]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.asked: Counter[str] = Counter()
        for sample in samples:
            self.files[f"/{sample.index_path}"] = sample.index
            self.files[f"/{sample.crate_path}"] = sample.data
        dl = f"{self.url}/crates/{{crate}}/{{crate}}-{{version}}.crate"
        self.files["/index/config.json"] = json.dumps({"dl": dl, "api": self.url}).encode()

    @property
    def url(self) -> str:
        """Where it answers, without a slash at its end."""
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def index_url(self) -> str:
        """What `--upstream` takes."""
        return f"sparse+{self.url}/index/"


@contextmanager
def serving(samples: Iterable[Sample]) -> Iterator[Upstream]:
    """Run an upstream in a thread for as long as the block lasts."""
    with Upstream(samples) as upstream:
        thread = threading.Thread(target=upstream.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield upstream
        finally:
            upstream.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream
    # Head and body go out in one write, or a peer waits 40 ms for the second.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        data = self.server.files.get(self.path)
        self.server.asked[self.path] += 1
        if data is None:
            self._send(HTTPStatus.NOT_FOUND, b"no such crate here\n", None)
            return
        tag = f'"{digest(data)[:16]}"'
        if self.headers.get("If-None-Match") == tag:
            self._send(HTTPStatus.NOT_MODIFIED, None, tag)
        else:
            self._send(HTTPStatus.OK, data, tag)

    def _send(self, status: HTTPStatus, body: bytes | None, tag: str | None) -> None:
        self.send_response(status)
        if tag is not None:
            self.send_header("ETag", tag)
        if body is not None:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body or b"")
        self.wfile.flush()

    def log_message(self, *_args: Any) -> None:
        """Stay silent: the demo tells its own story."""
