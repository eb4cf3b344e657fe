"""A hundred hung files among 1,500: how long the rest takes, with them and without.

    python -m tests.bench.hung [--sample FOLDER] [--crates 1500] [--hung 100] [--delay 30]
        [--how hang|stall|trickle]

Upstream takes the request for a hung file and never answers, or answers half of it, or a byte every
50 ms. `sync --once` in mode list, all time
limits as they are by default; what counts is the moment when the last of the others lies under the
web root. Without: a list that does not name the hung ones.
"""

import argparse
import random
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.fakes.fast_upstream import fast_upstream
from tests.support.processes import Process, crateseal
from tests.support.registry import crate_url, index_url, real_sized_registry

TARGET = 1.2
PATIENCE_SECONDS = 300


def seconds_until_stored(work, upstream, lock, names):
    """Sync a list; return when the crates and index files of these names were all there."""
    work.mkdir()
    options = ("--mode", "list", "--lock", lock, "--upstream", f"sparse+{upstream}/index/")
    made = crateseal("init", "--trial", *options, cwd=work)
    if made.returncode != 0:
        sys.exit(made.stderr)
    began = time.perf_counter()
    process = Process("sync", "--once", *options, cwd=work)
    try:
        www = work / "crateseal-data/www"
        wanted = [www / url(name)[1:] for name in names for url in (index_url, crate_url)]
        while wanted := [file for file in wanted if not file.exists()]:
            took = time.perf_counter() - began
            if process.process.poll() is not None or took > PATIENCE_SECONDS:
                print(f"after {took:.0f} s {len(wanted)} files of the rest are not there")
                sys.exit(process.err[-2000:])
            time.sleep(0.02)
        return time.perf_counter() - began
    finally:
        process.end()
        shutil.rmtree(work)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=Path)
    parser.add_argument("--crates", type=int, default=1500)
    parser.add_argument("--hung", type=int, default=100)
    parser.add_argument("--delay", type=float, default=30, help="milliseconds")
    parser.add_argument("--how", choices=("hang", "stall", "trickle"), default="hang")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        registry = real_sized_registry(folder / "registry", options.crates, options.sample)
        hung = set(random.Random(7).sample(registry.names, options.hung))
        rest = [name for name in registry.names if name not in hung]
        locks = {
            "without": registry.write_lock(folder / "rest.lock", rest),
            "crates": registry.write_lock(folder / "all.lock"),
        }
        locks["index files"] = locks["crates"]
        paths = {
            "without": [],
            "crates": [crate_url(name) for name in hung],
            "index files": [index_url(name) for name in hung],
        }
        print(
            f"{options.crates} crates, {options.hung} hung; until the other {len(rest)} are held\n"
        )
        print(f"{'hung':12}{'seconds':>9}{'of without':>12}")
        base = None
        for what, lock in locks.items():
            times = []
            for number in range(options.runs):
                with fast_upstream(
                    registry.folder, delay=options.delay / 1000, hung=paths[what], how=options.how
                ) as upstream:
                    work = folder / f"{what}-{number}"
                    times.append(seconds_until_stored(work, upstream, lock, rest))
            took = statistics.median(times)
            base = base or took
            verdict = f"   (at most {TARGET})" if what != "without" else ""
            print(f"{what:12}{took:9.2f}{took / base:12.2f}{verdict}", flush=True)


if __name__ == "__main__":
    main()
