"""Build and publish at the size of crates.io, beside stock python-tuf doing the same.

    python -m tests.bench.tuf_publish --data FOLDER [--targets 250000] [--bits 12] [--rounds 15]

FOLDER holds the file of crate names (see tuf_data.py); what it lacks is made up in the same shape.
Each side runs in a process of its own, over the same rows of path, length and sha256. Stock signs
and writes, and checks nothing. All is durable: files, sync, rename, sync. `--work` should lie on a
real disk. Targets: build without our check no slower than stock; 30 / 70 / 700 ms; 300 MB.
"""

import argparse
import gc
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench import tuf_data
from tests.bench.tuf_stock import StockRepository
from tests.fakes.tuf import Repository
from tuf_repo import signing
from tuf_repo.core import update
from tuf_repo.core.bins import BinLayout
from tuf_repo.core.roles import Policy
from tuf_repo.core.update import BinFacts, FileFacts, Target
from tuf_repo.disk import PosixDisk
from tuf_repo.keys import create_online_signers

CHANGED = (1, 50, 2_000)
SIDES = ("ours", "ours, unchecked", "stock")


def rows_of(paths, generation):
    """What is to be published, in the form that both sides are given."""
    for path in paths:
        target = tuf_data.target(path, generation)
        yield path, target.length, target.sha256


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def timed(work, *args):
    began, cpu = time.perf_counter(), time.process_time()
    work(*args)
    return {"wall": time.perf_counter() - began, "cpu": time.process_time() - cpu}


class Ours:
    """The real engine: everything is checked."""

    def __init__(self, folder, bits):
        self.repository = Repository(folder, bits=bits, now=time.time())
        self.repository.init()
        self.publisher = self.repository.open()

    def build(self, rows):
        self.publish(rows)

    def publish(self, rows):
        self.repository.now = time.time()
        changes = {path: Target(length, sha256) for path, length, sha256 in rows}
        self.repository.publish(self.publisher, changes)


class Unchecked:
    """The engine's own parts in its order, without the check; only what a build takes."""

    def __init__(self, folder, bits):
        self.folder = folder
        self.disk = PosixDisk(folder.parent)
        self.layout = BinLayout("crates", bits)
        self.signers = create_online_signers(folder.parent / "keys")

    def build(self, rows):
        now, policy = time.time(), Policy()
        changes = {path: Target(length, sha256) for path, length, sha256 in rows}
        grouped = update.group_by_bin(changes, self.layout)
        bins = {}
        for number, name in enumerate(self.layout.names(), start=1):
            targets = update.apply_changes({}, grouped.get(name, {}))
            signed = update.next_bin(name, number, targets, now, policy)
            self._write(name, number, signing.sign(signed, self.signers.bins))
            bins[name] = BinFacts(number, 0, b"", ())
        number += 1
        signed = update.next_snapshot(number, {}, bins, now, policy)
        data = signing.sign(signed, self.signers.snapshot)
        self._write("snapshot", number, data)
        facts = FileFacts(number, len(data), "")
        signed = update.next_timestamp(number + 1, facts, {}, now, policy)
        self._write("timestamp", number + 1, signing.sign(signed, self.signers.timestamp))
        self.disk.sync()
        staged = self.folder / f"{number + 1}.timestamp.json"
        self.disk.rename(staged, self.folder / "timestamp.json")
        self.disk.sync()

    def _write(self, role, number, data):
        self.disk.write_new(self.folder / update.file_name(role, number), data)


def measure(side, folder, bits, rounds, paths):
    """Run one side in this process."""
    made = {"ours": Ours, "ours, unchecked": Unchecked, "stock": StockRepository}[side]
    found = {"before": peak_mb()}
    repository = made(folder, bits)
    found["build"] = timed(repository.build, list(rows_of(paths, 0)))
    found["build peak"] = peak_mb()
    if hasattr(repository, "publish"):
        dice = random.Random(1)
        found["publish"] = {}
        for changed in CHANGED:
            runs = []
            for generation in range(rounds):
                gc.collect()
                rows = list(rows_of(dice.sample(paths, changed), f"{changed} {generation}"))
                runs.append(timed(repository.publish, rows))
            found["publish"][changed] = {
                kind: statistics.median(run[kind] for run in runs) for kind in ("wall", "cpu")
            }
    found["peak"] = peak_mb()
    return found


def in_its_own_process(side, args, work, paths):
    command = [sys.executable, "-m", "tests.bench.tuf_publish", "--side", side]
    command += ["--bits", str(args.bits), "--rounds", str(args.rounds), "--data", paths]
    command += ["--work", str(work / side.replace(", ", "-"))]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def show(found, args):
    ours, stock = found["ours"], found["stock"]
    cores = len(os.sched_getaffinity(0))
    print(f"{args.targets} targets, {1 << args.bits} bins, {cores} cores; seconds\n")
    print(f"{'full build':34}{'wall':>8}{'cpu':>8}{'of stock':>10}{'peak MB':>9}")
    for side in SIDES:
        build = found[side]["build"]
        ratio = build["cpu"] / stock["build"]["cpu"]
        peak = found[side]["build peak"]
        print(f"{side:34}{build['wall']:8.2f}{build['cpu']:8.2f}{ratio:10.2f}{peak:9.0f}")
    print(f"\n{'publish, ms, median of':23}{args.rounds:<11}{'wall':>8}{'cpu':>8}{'of stock':>10}")
    for changed in map(str, CHANGED):
        for side in ("ours", "stock"):
            run = found[side]["publish"][changed]
            ratio = run["cpu"] / stock["publish"][changed]["cpu"]
            label = f"{changed} changed: {side}"
            print(f"{label:34}{run['wall'] * 1e3:8.1f}{run['cpu'] * 1e3:8.1f}{ratio:10.2f}")
    print(f"\npeak of ours: {ours['peak']:.0f} MB ({ours['before']:.0f} MB before it began)")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tuf_data.add_data_option(parser)
    parser.add_argument("--targets", type=int, default=250_000)
    parser.add_argument("--bits", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--work", type=Path, default=Path.cwd(), help="where files are written")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        paths = args.data.read_text().splitlines()
        print(json.dumps(measure(args.side, args.work / "files", args.bits, args.rounds, paths)))
        return
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        work = Path(folder)
        names = tuf_data.crate_names(args.data, args.targets)
        (work / "paths").write_text("\n".join(map(tuf_data.target_path, names)) + "\n")
        found = {side: in_its_own_process(side, args, work, work / "paths") for side in SIDES}
    show(found, args)


if __name__ == "__main__":
    main()
