"""What a fetch costs, transport beside transport, and what is left of it in a whole sweep.

    python -m tests.bench.transport --index FOLDER [--files 8000]

FOLDER holds index files in the real layout (`se/rd/serde`). nginx serves them on loopback, 64
requests in flight, under uvloop. The sweeps run against a signer that settles at once, so they show
`sync` alone; tests/bench/cold_sync.py has the whole ring.
"""

import argparse
import asyncio
import contextlib
import importlib
import random
import tempfile
import time
from itertools import chain
from pathlib import Path

import httpx
import uvloop

from mirror.config import Config
from mirror.sync.engine import run_sync
from mirror.sync.transport import PyreqwestTransport, TimeLimits
from tests.fakes.signer import FakeSigner
from tests.support.nginx import nginx_over

JOBS = 64
HEADERS = [("user-agent", "crateseal-bench"), ("accept-encoding", "gzip")]


class ThroughClient:
    """httpx's client with our transport in it."""

    def __init__(self):
        self._client = httpx.AsyncClient(
            transport=PyreqwestTransport(TimeLimits(5, 10, 10)), timeout=None
        )

    async def fetch(self, url):
        async with self._client.stream("GET", url, headers=HEADERS) as answer:
            return sum([len(chunk) async for chunk in answer.aiter_raw()])

    async def close(self):
        await self._client.aclose()


class Direct:
    """A transport's own method, as `sync` calls it."""

    def __init__(self, transport):
        self._transport = transport

    async def fetch(self, url):
        request = httpx.Request("GET", url, headers=HEADERS)
        answer = await self._transport.handle_async_request(request)
        try:
            return sum([len(chunk) async for chunk in answer.stream])
        finally:
            await answer.stream.aclose()

    async def close(self):
        await self._transport.aclose()


def transports():
    limits = httpx.Limits(max_connections=JOBS, max_keepalive_connections=JOBS)
    yield "ours (pyreqwest)", lambda: Direct(PyreqwestTransport(TimeLimits(5, 10, 10)))
    yield "ours, through httpx's client", ThroughClient
    with contextlib.suppress(ImportError):  # not among our dependencies
        yield "httpx-aiohttp", _aiohttp()
    yield "httpx's own", lambda: Direct(httpx.AsyncHTTPTransport(limits=limits))


def _aiohttp():
    aiohttp = importlib.import_module("aiohttp")
    transport = importlib.import_module("httpx_aiohttp").AiohttpTransport

    def session():
        return aiohttp.ClientSession(
            auto_decompress=False, connector=aiohttp.TCPConnector(limit=JOBS)
        )

    return lambda: Direct(transport(client=session))


async def rate(make, urls):
    fetcher, todo = make(), iter(urls)

    async def work():
        return [await fetcher.fetch(url) for url in todo]

    began = time.perf_counter()
    got = list(chain.from_iterable(await asyncio.gather(*(work() for _ in range(JOBS)))))
    took = time.perf_counter() - began
    await fetcher.close()
    assert len(got) == len(urls)
    assert sum(got) > 0
    return len(urls) / took


async def sweep(config):
    async with FakeSigner(config, keep=False):
        began = time.perf_counter()
        report = await run_sync(config, time.time, asyncio.Event(), once=True)
        took = time.perf_counter() - began
    assert not report.missing
    return report, report.looked / took


async def measure(base, paths, folder):
    for name, make in transports():
        # The slowest would take minutes over all of them.
        some = paths[: len(paths) // 8] if name.startswith("httpx") else paths
        print(f"{name:32} {await rate(make, [f'{base}/{path}' for path in some]):8,.0f} files/s")
    names = Path(folder) / "names.txt"
    names.write_text("".join(f"{Path(path).name}\n" for path in paths))
    config = Config(
        data=Path(folder) / "data", mode="index", names=str(names), upstream=f"sparse+{base}/"
    )
    for name, changed in (("sweep, cold", len(paths)), ("sweep, no change", 0)):
        report, files = await sweep(config)
        assert report.changed == changed, report
        print(f"{name:32} {files:8,.0f} files/s")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--files", type=int, default=8_000)
    options = parser.parse_args()
    paths = sorted(
        str(file.relative_to(options.index))
        for file in options.index.glob("*/**/*")
        if file.is_file()
    )
    paths = random.Random(1).sample(paths, min(options.files, len(paths)))
    with tempfile.TemporaryDirectory() as folder, nginx_over(options.index) as base:
        uvloop.run(measure(base, paths, folder))


if __name__ == "__main__":
    main()
