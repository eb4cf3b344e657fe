"""An upstream for benchmarks, as a process of its own: all in memory, nothing but answers.

    with fast_upstream(folder, delay=0.03, hung={"/crates/a/a-1.0.0.crate"}) as url:
        …

It reads no more of a request than its path and whether gzip is welcome. A hung path is taken and
never answered; `how="stall"` answers half of it, `how="trickle"` a byte every 50 ms.
"""

import asyncio
import contextlib
import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import uvloop

REPOSITORY = Path(__file__).parents[2]


@contextlib.contextmanager
def fast_upstream(folder, *, delay=0.0, hung=(), how="hang"):
    """Serve a registry's folder from another process; yield its URL."""
    command = [sys.executable, "-m", "tests.fakes.fast_upstream", str(folder), str(delay), how]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            process.stdin.write(json.dumps(sorted(hung)) + "\n")
            process.stdin.flush()
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


class _Answers:
    """Path -> whole answers, plain and (index files only) as gzip."""

    def __init__(self, folder, url):
        dl = f"{url}/crates/{{crate}}/{{crate}}-{{version}}.crate"
        config = json.dumps({"dl": dl}).encode()
        self._plain = {b"/index/config.json": _answer(config)}
        self._packed = {}
        self._none = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
        for file in folder.glob("*/**/*"):
            if not file.is_file():
                continue
            path, data = f"/{file.relative_to(folder)}".encode(), file.read_bytes()
            self._plain[path] = _answer(data)
            if path.startswith(b"/index/"):
                packed = gzip.compress(data, 6)
                self._packed[path] = _answer(packed, b"content-encoding: gzip\r\n")

    def to(self, path, *, packed):
        plain = self._plain.get(path, self._none)
        return self._packed.get(path, plain) if packed else plain


def _answer(data, headers=b""):
    tag = hashlib.sha256(data).hexdigest()[:16].encode()
    head = b'HTTP/1.1 200 OK\r\ncontent-length: %d\r\netag: "%b"\r\n' % (len(data), tag)
    return head + headers + b"\r\n" + data


class _Connection(asyncio.Protocol):
    """One client's connection; requests may come one behind the other."""

    def __init__(self, answers, delay, hung, how):
        self._answers = answers
        self._delay = delay
        self._hung = hung
        self._how = how
        self._read = b""

    def connection_made(self, transport):
        self._transport = transport

    def data_received(self, data):
        self._read += data
        while b"\r\n\r\n" in self._read:
            request, _, self._read = self._read.partition(b"\r\n\r\n")
            path = request.split(b" ", 2)[1]
            answer = self._answers.to(path, packed=b"gzip" in request)
            if path in self._hung:
                self._misbehave(answer)
                continue
            # All are as late as each other, so they stay in order.
            asyncio.get_running_loop().call_later(self._delay, self._write, answer)

    def _misbehave(self, answer):
        head, _, body = answer.partition(b"\r\n\r\n")
        if self._how == "stall":
            self._write(head + b"\r\n\r\n" + body[: len(body) // 2])
        elif self._how == "trickle":
            self._write(head + b"\r\n\r\n")
            self._trickle(body)

    def _trickle(self, body):
        self._write(body[:1])
        if body and not self._transport.is_closing():
            asyncio.get_running_loop().call_later(0.05, self._trickle, body[1:])

    def _write(self, answer):
        if not self._transport.is_closing():
            self._transport.write(answer)


async def _serve(folder, delay, hung, how):
    loop, answers = asyncio.get_running_loop(), None
    server = await loop.create_server(
        lambda: _Connection(answers, delay, hung, how), "127.0.0.1", 0, backlog=1024
    )
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    answers = _Answers(folder, url)
    print(url, flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    hung_paths = {path.encode() for path in json.loads(sys.stdin.readline())}
    uvloop.run(_serve(Path(sys.argv[1]), float(sys.argv[2]), hung_paths, sys.argv[3]))
