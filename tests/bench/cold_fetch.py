"""A cold `cargo fetch` of a whole lock through mode cache, beside the same straight from upstream.

    python -m tests.bench.cold_fetch --sample FOLDER [--delay 0 30] [--runs 3]

FOLDER holds `project/` (with its Cargo.lock), `index/` and `crates/`. The upstream is on loopback,
each of its answers so many milliseconds late. Every run has a new mirror and an empty cargo home.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fakes.upstream import FakeUpstream
from tests.support.processes import Up, environment


def cargo_fetch(project, index_url, work):
    """Return the seconds that `cargo fetch --locked` takes with nothing in its caches."""
    folder = work / "project"
    shutil.copytree(project, folder)
    (folder / ".cargo").mkdir(exist_ok=True)
    (folder / ".cargo/config.toml").write_text(
        f'[source.crates-io]\nreplace-with = "m"\n[source.m]\nregistry = "sparse+{index_url}/"\n'
    )
    home = work / "cargo-home"
    began = time.perf_counter()
    done = subprocess.run(
        ["cargo", "fetch", "--locked"],
        cwd=folder,
        env=environment(CARGO_HOME=str(home)),
        capture_output=True,
        text=True,
        check=False,
    )
    took = time.perf_counter() - began
    if done.returncode != 0:
        sys.exit(done.stderr)
    shutil.rmtree(folder)
    shutil.rmtree(home)
    return took


def through_mirror(project, upstream, work):
    here = work / "mirror"
    here.mkdir()
    up = Up("--upstream", upstream.source, cwd=here).wait_until_ready()
    try:
        return cargo_fetch(project, f"{up.url}/index", work), up.err.count(" published ")
    finally:
        up.end()
        shutil.rmtree(here)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=Path, required=True)
    parser.add_argument("--delay", type=float, nargs="+", default=[0, 30], help="milliseconds")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    project = options.sample / "project"
    print(f"{'delay':>8}{'straight':>11}{'mirror':>9}{'ratio':>8}{'publications':>14}")
    for delay in options.delay:
        pairs = []
        with FakeUpstream(options.sample, delay=delay / 1000) as upstream:
            for _ in range(options.runs):
                with tempfile.TemporaryDirectory() as work:
                    straight = cargo_fetch(project, f"{upstream.url}/index", Path(work))
                    mirrored, published = through_mirror(project, upstream, Path(work))
                    pairs.append((straight, mirrored, mirrored / straight, published))
        medians = [statistics.median(column) for column in zip(*pairs, strict=True)]
        straight, mirrored, ratio, published = medians
        print(
            f"{delay:5.0f} ms{straight:9.2f} s{mirrored:7.2f} s{ratio:8.2f}{published:14.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
