"""Ten real weeks of crates.io, published one look at a time by the real engine.

    python -m tests.bench.tuf_replay --data FOLDER [--targets 250000] [--bits 12] [--disk]

FOLDER holds the names and the publish trace (see tuf_data.py). Every look of the trace is one
publication on the trace's own clock: the index files of its names change length and digest. When
nothing is published the engine renews what is due, as a signer does. Superseded files go when
their grace of 25 hours is over. `--disk` makes each publication durable; without it nothing is
synced, which shows the work alone.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections import Counter, deque
from pathlib import Path

from tests.bench import tuf_data
from tests.fakes.tuf import Repository
from tuf_repo.disk import PosixDisk

GRACE = 25 * 3_600
LOOK_AGAIN = 3_600
"""A signer looks at least so often whether something is due."""


class CountingDisk(PosixDisk):
    """Counts what is written; syncs only where it is told to."""

    def __init__(self, root, *, durable):
        super().__init__(root)
        self.written = Counter()
        self._durable = durable

    def write_new(self, path, data, **kwargs):
        super().write_new(path, data, **kwargs)
        kind = path.name.partition(".")[2].partition("-")[0].removesuffix(".json")
        self.written[kind] += len(data)
        self.written["files"] += 1

    def sync(self):
        if self._durable:
            super().sync()


class Replay:
    """A repository on the trace's clock, and the files that wait for the end of their grace."""

    def __init__(self, folder, bits, names, start, *, durable):
        self.disk = CountingDisk(folder, durable=durable)
        self.repository = Repository(folder, bits=bits, now=float(start), disk=self.disk)
        self.repository.init(tuf_data.PATTERNS)
        self.publisher = self.repository.open()
        self.times = []
        self._kept = deque()
        self.publish(tuf_data.first_targets(names), start)

    def publish(self, changes, now):
        self.repository.now = float(now)
        began = time.perf_counter()
        staged = self.publisher.stage(changes, tuf_data.EXTRA, now=float(now))
        self.publisher.commit(staged)
        self.times.append(time.perf_counter() - began)
        self._kept.append((now, staged.superseded))
        while self._kept and self._kept[0][0] + GRACE <= now:
            for file in self._kept.popleft()[1]:
                self.repository.storage.remove(file)

    def go_to(self, now):
        """Renew what becomes due until then."""
        clock = int(self.repository.now)
        while (clock := clock + LOOK_AGAIN) < now:
            if self.publisher.due(clock):
                self.publish({}, clock)

    def begin(self):
        """Count from here on."""
        self.disk.written.clear()
        self.times.clear()

    def on_disk(self):
        """Files, their bytes, and the room they take."""
        found = [entry.stat() for entry in os.scandir(self.repository.metadata)]
        sizes = sum(each.st_size for each in found), sum(each.st_blocks * 512 for each in found)
        return len(found), *sizes


def replay(folder, bits, names, looks, *, durable):
    run = Replay(folder, bits, names, looks[0][0] - LOOK_AGAIN, durable=durable)
    start = run.on_disk()
    run.begin()
    began, cpu, most, changed = time.perf_counter(), time.process_time(), start, 0
    for number, (now, changed_names) in enumerate(looks):
        run.go_to(now)
        changes = {
            tuf_data.target_path(name): tuf_data.target(name, number) for name in changed_names
        }
        changed += len(changes)
        run.publish(changes, now)
        if number % 100 == 0:
            most = max(most, run.on_disk(), key=lambda found: found[1])
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    written = run.disk.written
    bins, snapshots = written["crates"] / 1e6, written["snapshot"] / 1e6
    median = statistics.median(run.times) * 1e3
    end = run.on_disk()
    print(
        f"{bits:<6}{len(run.times):>13,}{changed:>9,}{took:>9.1f}{cpu:>8.1f}{median:>10.1f}"
        f"{bins:>10,.0f}{snapshots:>10,.0f}{written['files']:>9,}"
        f"{start[1] / 1e6:>8.1f}{end[1] / 1e6:>8.1f}{most[1] / 1e6:>8.1f}{end[2] / 1e6:>8.1f}"
        f"{end[0]:>8,}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tuf_data.add_data_option(parser)
    parser.add_argument("--trace", type=Path, help="another trace")
    parser.add_argument("--targets", type=int, default=250_000)
    parser.add_argument("--bits", default="12", help="one bit length, or some: 9,12,14")
    parser.add_argument("--disk", action="store_true", help="sync as a signer does")
    parser.add_argument("--work", type=Path, default=Path.cwd(), help="where files are written")
    args = parser.parse_args()
    looks = list(tuf_data.looks(args.trace or args.data / tuf_data.TRACE))
    names = tuf_data.crate_names(args.data, args.targets)
    synced = "synced" if args.disk else "not synced"
    print(f"{len(looks):,} looks, {args.targets:,} targets at the start; {synced}; MB are 10**6\n")
    print(
        f"{'bits':<6}{'publications':>13}{'changes':>9}{'seconds':>9}{'cpu':>8}{'median ms':>10}"
        f"{'MB: bins':>10}{'snapshots':>10}{'files':>9}{'| kept':>8}{'end':>8}{'most':>8}"
        f"{'room':>8}{'files':>8}"
    )
    for bits in map(int, args.bits.split(",")):
        with tempfile.TemporaryDirectory(dir=args.work) as folder:
            replay(Path(folder), bits, names, looks, durable=args.disk)
    print(f"\npeak memory, names and trace among it: {peak_mb():.0f} MB")


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    main()
