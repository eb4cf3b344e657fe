"""What a first request in mode cache costs beyond the upstream's own answer, and beyond two syncs.

    python -m tests.bench.first_request [--runs 100]

All on loopback: an upstream, `crateseal up` in mode cache, one client asking for one new index
file after another.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import httpx

from tests.fakes.upstream import FakeUpstream
from tests.support.crates import index_file
from tests.support.processes import Up
from tuf_repo.disk import PosixDisk


def milliseconds(call):
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def two_syncs(folder):
    disk = PosixDisk(folder)
    for number in range(5):
        disk.replace(folder / f"file{number}", b"x" * 10_000)
    return milliseconds(lambda: (disk.sync(), disk.replace(folder / "t", b"x"), disk.sync()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as work, FakeUpstream(Path(work) / "none") as upstream:
        paths = [f"/index/cr/at/crate{number:04}" for number in range(runs)]
        for path in paths:
            name = path.rpartition("/")[2]
            upstream.put(path, index_file(name, *(f"1.{minor}.0" for minor in range(20))))
        up = Up("--upstream", upstream.source, cwd=Path(work)).wait_until_ready()
        with httpx.Client(timeout=20) as client:
            client.get(f"{up.url}/index/wa/rm/warmup")
            direct = [milliseconds(lambda p=p: client.get(f"{upstream.url}{p}")) for p in paths]
            first = [milliseconds(lambda p=p: client.get(f"{up.url}{p}")) for p in paths]
            again = [milliseconds(lambda p=p: client.get(f"{up.url}{p}")) for p in paths]
        syncs = [two_syncs(Path(work)) for _ in range(30)]
        up.end()
    print(f"{runs} index files, one after another, milliseconds\n")
    print(f"{'':34}{'median':>9}{'90 %':>9}")
    for what, times in (
        ("upstream's own answer", direct),
        ("first request through the mirror", first),
        ("the same again (held)", again),
        ("two syncs of the disk", syncs),
    ):
        print(
            f"{what:34}{statistics.median(times):9.1f}{statistics.quantiles(times, n=10)[8]:9.1f}"
        )
    over = statistics.median(first) - statistics.median(direct) - statistics.median(syncs)
    print(f"\nfirst request, over upstream's answer and two syncs: {over:.1f} ms (at most 40)")


if __name__ == "__main__":
    main()
