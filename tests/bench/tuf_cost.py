"""What a TUF client downloads: bytes and requests, by size of the registry and number of bins.

    python -m tests.bench.tuf_cost --data FOLDER [--targets 250000] [--check 9,12]

FOLDER holds the names, the publish trace and the popular crates (see tuf_data.py). Only metadata is
counted: no index files, no crates, no HTTP headers. A client is so many crates drawn from the 6,000
popular ones, likelier the more popular; `cold` knows only the root, `1 h` and `1 d` had all of it
so long before. In between, what the trace says was published (five times the rate: five hours of it
in one), and each bin's renewal on its day of the month. kB are 1,000 bytes; means of many draws.

How it is counted: every bin's size is the sum of its entries, for real names padded to 1,000,000;
10,000,000 is computed as ten times as many in each bin. `--check` compares that with the real files
of a repository, and with what a stock python-tuf client fetches from it, over an hour of the trace.
"""

import argparse
import gzip
import random
import statistics
import tempfile
import time
from math import ceil, log2
from pathlib import Path

from tuf.ngclient import Updater

from tests.bench import tuf_data
from tests.bench.tuf_model import (
    DAY,
    HOUR,
    MOST,
    NUMBER,
    Above,
    Clients,
    Cost,
    Registry,
    Trace,
    client_cost,
    index_of,
    mean,
    snapshot,
)
from tests.fakes.tuf import METADATA, FolderHost, Repository
from tuf_repo.core import update
from tuf_repo.core.bins import BinLayout
from tuf_repo.core.roles import Policy
from tuf_repo.signing import canonical

CLIENTS = (1, 50, 400, 1_500)
BITS = range(8, 17)
RATES = (1, 5)
WINDOWS, DRAWS = 40, 10
HEAD_BYTES = 300
"""A signed tree head: root hash, size, time, signature."""


class Table:
    """The table, for registries of several sizes."""

    def __init__(self, trace, clients, above):
        self._trace = trace
        self._above = above
        self._drawn = {
            count: [[index_of(path) for path in clients.draw(count, seed)] for seed in range(DRAWS)]
            for count in CLIENTS
        }
        dice = random.Random(1)
        self._windows = {
            (seconds, rate): [trace.window(dice, seconds, rate) for _ in range(WINDOWS)]
            for seconds in (HOUR, DAY)
            for rate in RATES
        }
        self._changed = {}

    def rows(self, registry):
        """Yield (bits, count, costs): cold; then an hour and a day later, for each rate."""
        for bits in BITS:
            sizes = registry.bins(bits)
            snapshot_bytes = self._above.snapshot_bytes(bits)
            for count in CLIENTS:
                yield bits, count, list(self._costs(bits, count, snapshot_bytes, sizes))

    def _costs(self, bits, count, *sizes):
        drawn = [{index >> (MOST - bits) for index in draw} for draw in self._drawn[count]]
        yield mean(client_cost(self._above, *sizes, bins, cold=True) for bins in drawn)
        for key in self._windows:
            yield mean(
                client_cost(self._above, *sizes, bins & changed, cold=False)
                for changed in self._changes(bits, key)
                for bins in drawn
            )

    def _changes(self, bits, key):
        found = self._changed.get((bits, key))
        if found is None:
            windows = self._windows[key]
            found = [self._trace.changed(window, bits, key[0]) for window in windows]
            self._changed[bits, key] = found
        return found

    def show(self, registry):
        rows = list(self.rows(registry))
        moments = ["cold", *(f"{seconds // HOUR} h, x{rate}" for seconds, rate in self._windows)]
        for count in CLIENTS:
            print(f"\n{registry.crates:,} crates, a client of {count:,}: kB, requests\n")
            print(f"{'bits':<6}" + "".join(f"{moment:>21}" for moment in moments))
            for bits, of, costs in rows:
                if of == count:
                    print(f"{bits:<6}" + "".join(f"{cost.text():>21}" for cost in costs))
            proof = merkle(registry.crates, count)
            print(f"{'proof':<6}" + "".join(f"{proof.text():>21}" for _ in moments))


def merkle(crates, count):
    """A proof for each crate, and the signed head; every new head takes all proofs anew."""
    return Cost(count * ceil(log2(crates)) * 32 + HEAD_BYTES, count + 1)


class CountingHost(FolderHost):
    """Counts the bytes that it answers with."""

    def __init__(self, base):
        super().__init__(base)
        self.bytes = 0

    def _fetch(self, url):
        for data in super()._fetch(url):
            self.bytes += len(data)
            yield data


def ask(repository, cache, paths):
    """What a stock client really fetches."""
    host = CountingHost(repository.base)
    cache.mkdir(exist_ok=True)
    root = (repository.metadata / "1.root.json").read_bytes()
    updater = Updater(str(cache), METADATA, fetcher=host, bootstrap=root)
    updater.config.max_delegations = 1 << MOST
    for path in paths:
        updater.get_targetinfo(path)
    return Cost(host.bytes, len(host.asked))


def built(base, bits, changes):
    """A real repository whose numbers have eleven digits, as those of the table."""
    repository = Repository(base, bits=bits, now=time.time() - 2 * HOUR)
    repository.entropy = 2**32 - 1
    repository.init(tuf_data.PATTERNS)
    for _ in range(2):
        publisher = repository.open()
        publish(repository, publisher, {})
    publish(repository, publisher, changes)
    return repository, publisher


def publish(repository, publisher, changes):
    publisher.commit(publisher.stage(changes, tuf_data.EXTRA, now=repository.now))


def check(names, bits, trace, clients, work):
    """Print the model beside real files and a real client; return what stands above the bins."""
    registry = Registry(names)
    repository, publisher = built(work / f"{bits}", bits, tuf_data.first_targets(names))

    def size(role, version):
        return (repository.metadata / update.file_name(role, version)).stat().st_size

    above = Above(
        timestamp=(repository.metadata / "timestamp.json").stat().st_size,
        targets=size("targets", 1),
        delegation=size("crates", 2),
    )
    sizes = registry.bins(bits)
    snapshot_bytes = above.snapshot_bytes(bits)
    real = sum(size(name, facts.version) for name, facts in publisher._state.bins.items())
    show_pair(bits, "all bins", sum(sizes), real)
    show_pair(bits, "snapshot", snapshot_bytes, size("snapshot", publisher.snapshot_version))

    drawn = {count: clients.draw(count, 0) for count in CLIENTS}

    def show_clients(when, changed):
        for count, paths in drawn.items():
            bins = {index_of(path) >> (MOST - bits) for path in paths} & changed
            cost = client_cost(above, snapshot_bytes, sizes, bins, cold=when == "cold")
            real = ask(repository, work / f"{bits}-{count}", paths)
            show_pair(bits, f"{count} crates, {when}", cost, real)

    show_clients("cold", set(range(1 << bits)))
    window = trace.window(random.Random(2), HOUR, 5)
    repository.now += HOUR
    for at in range(*window[1:]):
        changes = {tuf_data.target_path(name): tuf_data.target(name, 1) for name in trace.names[at]}
        publish(repository, publisher, changes)
    show_clients("1 h, x5", trace.changed((0, *window[1:]), bits, 0))
    return above


def show_pair(bits, what, *model_and_real):
    sizes = [getattr(each, "bytes", each) for each in model_and_real]
    requests = [each.requests for each in model_and_real if isinstance(each, Cost)]
    columns = [f"{size:14,.0f}" for size in sizes] + [f"{count:8.0f}" for count in requests]
    print(f"{bits:<6}{what:24}" + "".join(columns))


def show_compressed(names):
    """What gzip would save; no server of ours compresses metadata."""
    print(f"\n{'bits':<6}{'snapshot':>12}{'gzip':>12}{'a bin':>12}{'gzip':>12}   bytes; mean bin")
    for bits in BITS:
        layout = BinLayout("crates", bits)
        shown = {layout.name(index) for index in range(min(8, 1 << bits))}
        filled = {name: {} for name in shown}
        for name in names:
            path = tuf_data.target_path(name)
            if (found := layout.bin_of(path)) in shown:
                filled[found][path] = tuf_data.target(name, 0).fields()
        bins = [
            packed(update.next_bin(name, NUMBER, targets, 0, Policy()))
            for name, targets in filled.items()
        ]
        plain, small = (statistics.fmean(sizes) for sizes in zip(*bins, strict=True))
        print(
            "{:<6}{:12,}{:12,}{:12,.0f}{:12,.0f}".format(
                bits, *packed(snapshot(bits, {})), plain, small
            )
        )


def packed(signed):
    data = canonical(signed)
    return len(data), len(gzip.compress(data, 6))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tuf_data.add_data_option(parser)
    parser.add_argument("--targets", type=int, default=250_000)
    parser.add_argument("--check", default="9,12", help="bit lengths of real repositories")
    parser.add_argument("--work", type=Path, default=Path.cwd(), help="where files are written")
    args = parser.parse_args()
    trace, clients = Trace(args.data / tuf_data.TRACE), Clients(args.data)
    names = tuf_data.crate_names(args.data, args.targets * 4)
    print(f"{args.targets:,} crates, bytes: model, real; requests: model, real\n")
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        for bits in map(int, args.check.split(",")):
            above = check(names[: args.targets], bits, trace, clients, Path(work))
    show_compressed(names[: args.targets])
    table = Table(trace, clients, above)
    table.show(Registry(names[: args.targets]))
    table.show(Registry(names))
    table.show(Registry(names, times=10))


if __name__ == "__main__":
    main()
