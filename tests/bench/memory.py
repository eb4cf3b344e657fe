"""Memory of `crateseal up` with a whole index published: all processes, shared pages counted once.

    python -m tests.bench.memory --index FOLDER

FOLDER as for cold_sync. Counted after the first sweep, and after every index file was asked for.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import httpx

from tests.bench.cold_sync import index_names
from tests.support.nginx import nginx_over
from tests.support.processes import Up, wait_until


def proportional_mb(pid):
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1e3


def show(up, when):
    parts = {name: proportional_mb(pid) for name, pid in sorted(up.children().items())}
    parts["up"] = proportional_mb(up.pid)
    listed = ", ".join(f"{name} {size:.0f}" for name, size in parts.items())
    print(f"{when:32}{sum(parts.values()):7.0f} MB   ({listed})", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--index", type=Path, required=True)
    folder = parser.parse_args().index.resolve()
    names = index_names(folder)
    with tempfile.TemporaryDirectory() as work, nginx_over(folder) as base:
        source = Path(work) / "names"
        source.write_text("\n".join(names) + "\n")
        options = ["--mode", "index", "--upstream", f"sparse+{base}/", "--names", source]
        up = Up(*options, cwd=Path(work)).wait_until_ready()
        print(f"{len(names)} index files, {os.cpu_count()} cores; proportional set sizes (PSS)\n")
        show(up, "at the start")
        with httpx.Client() as client:

            def complete():
                return client.get(f"{up.url}/api/v1/status").json().get("complete_as_of")

            wait_until(complete, 300, every=0.5)
            show(up, "after the first sweep")
            for name in names:
                path = next(p for p in _paths(name) if (folder / p).exists())
                client.get(f"{up.url}/index/{path}")
        time.sleep(1)
        show(up, "after every file was asked for")
        up.end()


def _paths(name):
    lower = name.lower()
    short = {1: f"1/{lower}", 2: f"2/{lower}", 3: f"3/{lower[0]}/{lower}"}
    yield short.get(len(lower), f"{lower[:2]}/{lower[2:4]}/{lower}")


if __name__ == "__main__":
    main()
