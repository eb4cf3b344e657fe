"""Hostile mirrors, as a process: it serves folders, and lies where it was told to.

    python -m tests.support.hostile FOLDER

prints a free port of loopback, and serves FOLDER/www there; or, below /A/B/, FOLDER/A/B/www: as
many mirrors as there are such folders. The file lies.json beside a www/ is read anew at each
request, and says which of them get a lie instead: `[{"on": REGEX, "lie": NAME, …}]`, where REGEX is
looked for in e.g. `GET /tuf/metadata/timestamp.json`, NAME is one of `LIES` below, and what follows
are its arguments. Each request is a line of asked.log there. The process ends when its standard
input does, so that no test leaves one behind.

HTTP is written by hand: a library would not let us break it.
"""

import asyncio
import gzip
import json
import re
import subprocess
import sys
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

from tests.support.processes import REPOSITORY, environment

BLOCK = bytes(65_536)
ENDLESS_BYTES = 200_000_000
"""What "without end" comes to, should nobody hang up: no test fills a disk or a memory."""


class Exchange:
    """One request, and the wire to answer on."""

    def __init__(self, folder, method, path, writer):
        self.folder, self.method, self.path = folder, method, path
        self._writer = writer

    def body(self):
        """Return what an honest mirror would send; None: there is no such file."""
        file = self.folder / "www" / unquote(self.path.partition("?")[0]).lstrip("/")
        return file.read_bytes() if file.is_file() else None

    async def send(self, data):
        self._writer.write(data)
        await self._writer.drain()

    async def head(self, status="200 OK", **headers):
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.send("\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode())

    async def answer(self, body, status="200 OK", **headers):
        await self.head(status, Content_Length=len(body), **headers)
        await self.send(body)


async def honest(exchange):
    body = exchange.body() if exchange.method == "GET" else None
    if body is None:
        await exchange.answer(b"not there\n", "404 Not Found")
    else:
        await exchange.answer(body)


# ---- lies; the connection is closed after each


async def say(exchange, body="", status="200 OK", **headers):
    """Anything at all: another status, another body, headers that nobody asked for."""
    await exchange.answer(body.encode(), status, **headers)


async def honest_body(exchange, status, **headers):
    await exchange.answer(exchange.body(), status, **headers)


async def missing(exchange):
    await exchange.answer(b"not there\n", "404 Not Found")


async def endless(exchange, start=""):
    """As many bytes as anybody takes."""
    await exchange.head(Connection="close")
    await exchange.send(start.encode())
    for _ in range(ENDLESS_BYTES // len(BLOCK)):
        await exchange.send(BLOCK)


async def endless_header(exchange):
    await exchange.send(b"HTTP/1.1 200 OK\r\n")
    for number in range(ENDLESS_BYTES // 1000):
        await exchange.send(b"X-%d: %s\r\n" % (number, b"x" * 1000))


async def endless_interim(exchange):
    """Answers that say that the answer is about to come."""
    for _ in range(ENDLESS_BYTES // 25):
        await exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")


async def endless_trailer(exchange):
    """The honest body in one chunk, and headers behind it without end."""
    body = exchange.body()
    await exchange.head(Transfer_Encoding="chunked")
    await exchange.send(b"%x\r\n%s\r\n0\r\n" % (len(body), body))
    for number in range(ENDLESS_BYTES // 1000):
        await exchange.send(b"X-%d: %s\r\n" % (number, b"x" * 1000))


async def trickle(exchange, every=0.05, header=False):
    """The honest answer, a byte at a time: never a pause that looks like a dead connection."""
    body = exchange.body() or b""
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    if not header:
        await exchange.send(head)
    for byte in head + body if header else body:
        await exchange.send(bytes([byte]))
        await asyncio.sleep(every)


async def silence(_exchange, seconds=60):
    await asyncio.sleep(seconds)


async def no_http(exchange):
    await exchange.send(b"SSH-2.0-hello\r\n\r\n")


async def length(exchange, more):
    """The honest body, said to be so many bytes longer (or shorter) than it is."""
    body = exchange.body()
    await exchange.head(Content_Length=len(body) + more)
    await exchange.send(body)


async def longer(exchange):
    await exchange.answer(exchange.body() + b"\n")


async def shorter(exchange):
    await exchange.answer(exchange.body()[:-1])


async def gzip_bomb(exchange, packed_bytes=4_900_000):
    """Eight hundred times as many zeros, in one member whose end never comes."""
    await exchange.head(Content_Encoding="gzip", Connection="close")
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    # After a full flush each block is packed like the one before.
    first, again = (packer.compress(BLOCK) + packer.flush(zlib.Z_FULL_FLUSH) for _ in "12")
    await exchange.send(first)
    many = again * 1000
    for _ in range(packed_bytes // len(many)):
        await exchange.send(many)


async def gzip_members(exchange):
    """The honest body in two members, which most readers take for one."""
    body = exchange.body()
    half = len(body) // 2
    parts = gzip.compress(body[:half]) + gzip.compress(body[half:])
    await exchange.answer(parts, Content_Encoding="gzip")


async def gzip_twice(exchange, coding="gzip, gzip"):
    body = gzip.compress(gzip.compress(exchange.body()))
    await exchange.answer(body, Content_Encoding=coding)


async def gzip_and_more(exchange):
    """The honest body in one member, and something behind it."""
    body = gzip.compress(exchange.body()) + b"more"
    await exchange.answer(body, Content_Encoding="gzip")


async def gzip_cut(exchange):
    """The honest body, whole, in a member whose checksum is cut off."""
    await exchange.answer(gzip.compress(exchange.body())[:-8], Content_Encoding="gzip")


async def coding(exchange, name):
    """The honest body, said to be in a coding that nobody asked for."""
    await exchange.answer(exchange.body(), Content_Encoding=name)


LIES = {
    function.__name__: function
    for function in (
        say,
        honest_body,
        missing,
        endless,
        endless_header,
        endless_interim,
        endless_trailer,
        trickle,
        silence,
        no_http,
        length,
        longer,
        shorter,
        gzip_bomb,
        gzip_members,
        gzip_twice,
        gzip_and_more,
        gzip_cut,
        coding,
    )
}


# ---- the process


class Server:
    """Answers connections, one task each."""

    def __init__(self, folder):
        self._folder = folder

    async def serve(self, reader, writer):
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                exchange = await self._exchange(reader, writer)
                with (exchange.folder / "asked.log").open("a") as log:
                    log.write(f"{exchange.method} {exchange.path}\n")
                lie, arguments = lie_for(exchange)
                if lie is not None:
                    await lie(exchange, **arguments)
                    break
                await honest(exchange)
        writer.close()

    async def _exchange(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, path, _ = head.split("\r\n")[0].split(" ")
        length = re.search(r"(?i)\r\ncontent-length: *(\d+)", head)
        await reader.readexactly(int(length[1]) if length else 0)
        # A client that takes us for a proxy names the host, too.
        parts = re.sub("^http://[^/]*", "", path).split("/")[1:]
        folder = self._folder
        while parts and not (folder / "www").exists() and (folder / parts[0]).is_dir():
            folder /= parts.pop(0)
        return Exchange(folder, method, "/" + "/".join(parts), writer)


def lie_for(exchange):
    file = exchange.folder / "lies.json"
    for rule in json.loads(file.read_bytes()) if file.exists() else ():
        arguments = dict(rule)
        on, name = arguments.pop("on"), arguments.pop("lie")
        if re.search(on, f"{exchange.method} {exchange.path}"):
            return LIES[name], arguments
    return None, {}


async def main(folder):
    server = await asyncio.start_server(Server(folder).serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


@contextmanager
def hosting(folder):
    """Serve a mirror's folder, or one with several below it, in a process; yield the URL."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.hostile", str(folder)],
        cwd=REPOSITORY,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def tell_lies(folder, *lies):
    """Tell the mirror over this folder how to lie from now on; with none it is honest."""
    new = folder / "lies.json.new"
    new.write_text(json.dumps(lies))
    new.rename(folder / "lies.json")


def asked(folder):
    """Return what that mirror was asked, as `METHOD PATH`."""
    log = folder / "asked.log"
    return log.read_text().splitlines() if log.exists() else []


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
