"""A TCP relay on loopback that delays each byte by half a round trip, and counts what passes.

    python -m tests.support.slow_link PORT MILLISECONDS

Delay alone: as much as is sent at once arrives at once, so many milliseconds later. A new
connection costs a round trip, as on a real link. Prints the port it listens on; `bytes` on stdin
is answered with what went to the client so far.
"""

import asyncio
import subprocess
import sys
from contextlib import contextmanager, suppress

CHUNK_BYTES = 262_144


class Link:
    """One listening port that leads to another."""

    def __init__(self, port, one_way):
        self._port = port
        self._one_way = one_way
        self.bytes = 0

    async def accept(self, reader, writer):
        # A connection is made in one round trip: the SYN and its answer.
        await asyncio.sleep(2 * self._one_way)
        try:
            there = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(
            self._carry(reader, there[1], counts=False), self._carry(there[0], writer, counts=True)
        )

    async def _carry(self, reader, writer, *, counts):
        loop, queue = asyncio.get_running_loop(), asyncio.Queue()
        sender = asyncio.create_task(self._send(queue, writer))
        with suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                self.bytes += len(data) if counts else 0
                queue.put_nowait((loop.time() + self._one_way, data))
        queue.put_nowait((loop.time() + self._one_way, b""))
        await sender

    async def _send(self, queue, writer):
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            while True:
                due, data = await queue.get()
                if (wait := due - loop.time()) > 0:
                    await asyncio.sleep(wait)
                if not data:
                    break
                writer.write(data)
                await writer.drain()
        with suppress(OSError):
            writer.close()


async def serve(port, one_way):
    link = Link(port, one_way)
    server = await asyncio.start_server(link.accept, "127.0.0.1", 0, limit=CHUNK_BYTES)
    print(server.sockets[0].getsockname()[1], flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(link.bytes, flush=True)


class SlowLink:
    """The relay's process."""

    def __init__(self, process):
        self._process = process
        self.port = int(process.stdout.readline())

    def bytes(self):
        """What went to clients so far: heads and bodies, TLS if there is any."""
        self._process.stdin.write("bytes\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextmanager
def slow_link(port, milliseconds):
    """Yield a `SlowLink` to a port of this machine, with this round trip."""
    command = [sys.executable, "-m", "tests.support.slow_link", str(port), str(milliseconds)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield SlowLink(process)
        finally:
            process.terminate()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2]) / 2_000))
