"""Cold sync and no-change sync of a whole index, beside the bare fetch rate of the same transport.

    python -m tests.bench.cold_sync --index FOLDER

FOLDER holds index files in the real layout (`se/rd/serde`). nginx serves them on loopback;
`crateseal sync --once` fetches, its signer audits, signs and commits; a second run asks again for
everything.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import uvloop

from mirror.sync.transport import PyreqwestTransport, TimeLimits
from tests.support.nginx import nginx_over


def index_names(folder):
    names = []
    for path, _, files in os.walk(folder):
        if Path(path) != folder:  # config.json and README.md lie at the root
            names += files
    return sorted(names)


def crateseal(*args):
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "mirror", *args], capture_output=True, text=True, check=False
    )
    took = time.perf_counter() - began
    if done.returncode != 0:
        sys.exit(f"crateseal {' '.join(map(str, args))}: exit {done.returncode}\n{done.stderr}")
    return took


async def bare(base, folder, jobs=64):
    """Fetch everything with the bare transport, throw it away."""
    paths = iter([str(p.relative_to(folder)) for p in folder.glob("*/**/*") if p.is_file()])
    transport = PyreqwestTransport(TimeLimits(5, 10, 10))

    async def worker():
        for path in paths:
            request = httpx.Request("GET", f"{base}/{path}", headers={"accept-encoding": "gzip"})
            answer = await transport.handle_async_request(request)
            async for _ in answer.stream:
                pass
            await answer.aclose()

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(jobs)))
    took = time.perf_counter() - began
    await transport.aclose()
    return took


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--index", type=Path, required=True)
    folder = parser.parse_args().index.resolve()
    names = index_names(folder)
    with tempfile.TemporaryDirectory() as work, nginx_over(folder) as base:
        data, source = Path(work) / "data", Path(work) / "names"
        source.write_text("\n".join(names) + "\n")
        options = ["--data", data, "--mode", "index", "--upstream", f"sparse+{base}/"]
        options += ["--names", source]
        crateseal("init", "--trial", *options)
        rows = [("bare fetch, same transport", uvloop.run(bare(base, folder)))]
        rows.append(("cold sync", crateseal("sync", "--once", *options)))
        rows.append(("no-change sync", crateseal("sync", "--once", *options)))
        rows.append(("check", crateseal("check", "--data", data)))
    print(f"{len(names)} index files, {os.cpu_count()} cores\n")
    print(f"{'':28}{'seconds':>9}{'files/s':>9}{'of bare':>9}")
    for what, took in rows:
        print(f"{what:28}{took:9.1f}{len(names) / took:9.0f}{rows[0][1] / took:9.2f}")


if __name__ == "__main__":
    main()
