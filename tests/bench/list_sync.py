"""Cold sync of a list of crates with their files, beside `curl -Z` fetching the same addresses.

    python -m tests.bench.list_sync [--sample FOLDER] [--crates 1500] [--delay 0 30] [--runs 3]

The crates are made for this, their sizes and index files drawn from those in FOLDER (as for
cold_fetch), else of a typical size. The upstream is a process of its own, each of its answers so
many milliseconds late; both sides have as many connections. curl writes its files and checks
nothing; ours compares, audits, signs, and has every file on the disk when it ends.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fakes.fast_upstream import fast_upstream
from tests.support.processes import crateseal
from tests.support.registry import crate_url, index_url, real_sized_registry

TARGET = 0.7
AT_DELAY_MS = 30


def sync_list(work, upstream, lock, *, jobs=64, code=0):
    """Make a mirror and sync a list into it; return the seconds of the sync alone, and its line."""
    options = ("--mode", "list", "--lock", lock, "--upstream", f"sparse+{upstream}/index/")
    made = crateseal("init", "--trial", *options, cwd=work)
    if made.returncode != 0:
        sys.exit(made.stderr)
    began = time.perf_counter()
    done = crateseal("sync", "--once", *options, "--jobs", jobs, cwd=work, timeout=900)
    took = time.perf_counter() - began
    if done.returncode != code:
        sys.exit(f"sync --once: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return took, done.stdout.strip()


def curl(work, upstream, registry, *, jobs=64):
    """Fetch the same files with curl; return the seconds."""
    urls = [index_url(name) for name in registry.names]
    urls += [crate_url(name) for name in registry.names]
    lines = [f'url = "{upstream}{url}"\noutput = "got/{n}"' for n, url in enumerate(urls)]
    (work / "urls").write_text("\n".join(lines) + "\n")
    (work / "got").mkdir()
    command = ["curl", "-sS", "--fail", "-Z", "--parallel-max", str(jobs)]
    command += ["-H", "Accept-Encoding: gzip", "--no-progress-meter", "-K", "urls"]
    began = time.perf_counter()
    subprocess.run(command, cwd=work, check=True)
    took = time.perf_counter() - began
    assert len(list((work / "got").iterdir())) == len(urls)
    shutil.rmtree(work / "got")
    return took


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=Path)
    parser.add_argument("--crates", type=int, default=1500)
    parser.add_argument("--delay", type=float, nargs="+", default=[0, 30], help="milliseconds")
    parser.add_argument("--jobs", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        registry = real_sized_registry(folder / "registry", options.crates, options.sample)
        lock = registry.write_lock(folder / "Cargo.lock")
        describe(registry, options.jobs)
        print(f"{'delay':>8}{'curl -Z':>10}{'ours':>9}{'ratio':>8}")
        for delay in options.delay:
            with fast_upstream(registry.folder, delay=delay / 1000) as upstream:
                measure(folder, upstream, registry, lock, delay, options)


def describe(registry, jobs):
    sizes = [(registry.folder / crate_url(name)[1:]).stat().st_size for name in registry.names]
    print(
        f"{len(sizes)} crates, median {statistics.median(sizes) / 1e3:.0f} kB, together"
        f" {sum(sizes) / 1e6:.0f} MB, and their index files; {jobs} connections\n"
    )


def measure(folder, upstream, registry, lock, delay, options):
    theirs, ours = [], []
    for number in range(options.runs):
        work = folder / f"{delay:g}-{number}"
        work.mkdir()
        theirs.append(curl(work, upstream, registry, jobs=options.jobs))
        ours.append(sync_list(work, upstream, lock, jobs=options.jobs)[0])
        shutil.rmtree(work)
    curls, syncs = statistics.median(theirs), statistics.median(ours)
    verdict = f"   (at least {TARGET})" if delay == AT_DELAY_MS else ""
    print(
        f"{delay:5.0f} ms{curls:8.2f} s{syncs:7.2f} s{curls / syncs:8.2f}{verdict}",
        flush=True,
    )


if __name__ == "__main__":
    main()
