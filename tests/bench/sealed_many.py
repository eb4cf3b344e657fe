"""Many cargo runs at once through one `crateseal proxy`: errors, requests at the mirror, memory.

    python -m tests.bench.sealed_many --sample FOLDER [--runs 50]

FOLDER is a real project with its crates (as for cold_fetch). Every run has an empty cargo home of
its own, as jobs in containers of one machine would; nginx serves the mirror and counts.
"""

import argparse
import os
import re
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from tests.bench.list_sync import sync_list
from tests.bench.sealed_fetch import Customer
from tests.fakes.fast_upstream import fast_upstream
from tests.support.nginx import free_port, running_nginx
from tests.support.processes import environment, wait_until

_SERVER = """
  log_format asked '$status $uri';
  server {{ listen 127.0.0.1:{port} backlog=1024; root {www}; keepalive_requests 100000;
    default_type application/octet-stream; gzip_static on; access_log {log} asked; }}
"""
MEMORY_TARGET_MB = 150


def highest_rss_mb(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1_000


def started_proxy(stack, who, port):
    """Start `crateseal proxy` and return its process once it listens."""
    process = subprocess.Popen(
        ["crateseal", "proxy", "--port", str(port)],
        cwd=who.folder,
        env=environment(**who.settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)
    said = []
    wait_until(lambda: said.append(process.stdout.readline()) or "http://127.0.0.1" in said[-1])
    return process, re.search(r"http://127\.0\.0\.1:\d+/[0-9a-f]{16}", said[-1])[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=50)
    options = parser.parse_args()
    project = options.sample / "project"
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        work = Path(temporary)
        with fast_upstream(options.sample) as upstream:
            sync_list(work, upstream, project / "Cargo.lock")
        www, log, port = work / "crateseal-data/www", work / "asked.log", free_port()
        (work / "nginx").mkdir()
        server = _SERVER.format(port=port, www=www, log=log)
        url = stack.enter_context(running_nginx(work / "nginx", port, server))
        owner = made(work / "owner", project)
        owner.run("crateseal", "trust", url, "--root", str(www / "tuf/metadata/1.root.json"))
        proxy, address = started_proxy(stack, owner, free_port())
        began = time.perf_counter()
        runs = [fetching(made(work / f"{n}", project), address) for n in range(options.runs)]
        failed = [run.communicate()[0] for run in runs if run.wait() != 0]
        took = time.perf_counter() - began
        crates = [line for line in log.read_text().splitlines() if "/crates/" in line]
        asked = Counter(crates)
        print(f"{options.runs} runs in {took:.1f} s, {len(failed)} failed")
        most = max(asked.values())
        print(f"{len(asked)} crates, fetched {len(crates)} times; each at most {most} times")
        print(f"proxy: {highest_rss_mb(proxy.pid):.0f} MB at most (target {MEMORY_TARGET_MB})")
        print("\n".join(failed[:3]))


def made(folder, project):
    folder.mkdir()
    return Customer(folder, project)


def fetching(who, address):
    """Start a cargo whose crates.io is the proxy."""
    who.use(address)
    return subprocess.Popen(
        ["cargo", "fetch", "--locked"],
        cwd=who.project,
        env=environment(**who.settings, NO_PROXY="127.0.0.1", PATH=os.environ["PATH"]),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


if __name__ == "__main__":
    main()
