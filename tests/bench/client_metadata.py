"""What our client downloads to prove crates out of 250,000: bytes on the wire, and its memory.

    python -m tests.bench.client_metadata --data FOLDER [--targets 250000] [--bits 13]

FOLDER is that of tuf_cost. The repository is real, `crateseal serve` serves it, a relay counts
every byte towards the client (heads too), and the client is the one that `cargo sealed` uses. Only
metadata is asked for: the digests of 400 index files, cold and an hour of the publish trace later
(once at the trace's rate, once at five times that).
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mirror.client.home.settings import read_settings
from mirror.client.source.source import open_source
from mirror.core.layout import name_of_target
from tests.bench import tuf_data
from tests.bench.sealed_fetch import Serve
from tests.bench.sealed_many import highest_rss_mb
from tests.bench.tuf_cost import built, publish
from tests.bench.tuf_model import HOUR, Clients, Trace
from tests.support.nginx import free_port
from tests.support.slow_link import slow_link

CRATES = 400
TARGETS_KB = {"cold": 900, "an hour later": 80}


def ask(url, root, folder, names):
    """Look everything up, as a process of its own would; return its peak memory in MB."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.client_metadata", "--ask", url, root, folder, *names],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return float(done.stdout)


def answer(url, root, folder, *names):
    settings = read_settings(
        {"mirror": [url], "root": root, "cache_dir": f"{folder}/cache"},
        {"HOME": folder, "XDG_CONFIG_HOME": f"{folder}/config"},
    )
    with open_source(settings, time.time) as source, ThreadPoolExecutor(32) as pool:
        source.refresh()
        list(pool.map(source.digest, names))
    print(highest_rss_mb(os.getpid()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tuf_data.add_data_option(parser)
    parser.add_argument("--targets", type=int, default=250_000)
    parser.add_argument("--bits", type=int, default=13)
    args = parser.parse_args()
    trace, clients = Trace(args.data / tuf_data.TRACE), Clients(args.data)
    names = tuf_data.crate_names(args.data, args.targets)
    wanted = [name_of_target(path) for path in clients.draw(CRATES, 0)]
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        # Popular today, and not there yet on the day of the names.
        first = tuf_data.first_targets(dict.fromkeys([*names, *wanted]))
        repository, publisher = built(work / "data", args.bits, first)
        root = str(repository.metadata / "1.root.json")
        port = free_port()
        server = Serve(work, f"http://127.0.0.1:{port}", port, data=work / "data")
        try:
            with slow_link(port, 0) as link:
                url = f"http://127.0.0.1:{link.port}"
                print(f"{args.targets:,} crates, {1 << args.bits:,} bins, {CRATES} asked for")
                before = 0
                for when, rate in (("cold", 0), ("an hour later", 1), ("an hour later, x5", 5)):
                    if rate:
                        pass_hour(repository, publisher, trace, rate)
                    memory = ask(url, root, str(work), wanted)
                    seen = link.bytes()
                    target = TARGETS_KB[when.partition(",")[0]]
                    print(
                        f"{when:20}{(seen - before) / 1_000:8.1f} kB (target {target});"
                        f" {memory:.0f} MB of memory"
                    )
                    before = seen
        finally:
            server.end()


def pass_hour(repository, publisher, trace, rate):
    window = trace.window(random.Random(2), HOUR, rate)
    repository.now += HOUR
    for at in range(*window[1:]):
        changes = {
            tuf_data.target_path(name): tuf_data.target(name, rate + 1) for name in trace.names[at]
        }
        publish(repository, publisher, changes)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--ask"]:
        answer(*sys.argv[2:])
    else:
        main()
