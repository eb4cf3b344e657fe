"""`cargo fetch` of a lock that is held, every index file past its age, while upstream is gone.

    python -m tests.bench.outage --sample FOLDER [--runs 3]

FOLDER as for cold_fetch. Upstream is well, refuses connections, or takes them and never answers;
the first fetch of an outage is the one that finds out, the second knows. Each has an empty cargo
home. Of two peers, one took 49 s for 45 crates, one never ended.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

from tests.bench.cold_fetch import cargo_fetch
from tests.fakes.upstream import FakeUpstream
from tests.support.crates import index_line
from tests.support.processes import Up, wait_until

MAX_AGE_SECONDS = 1.0
TARGET_SECONDS = 1.0


def two_fetches(up, upstream, state, project, work):
    """Return the seconds of two fetches, one after the other, in one state of upstream."""
    time.sleep(MAX_AGE_SECONDS + 0.2)
    states = {"well": nullcontext, "refusing": upstream.refusing, "silent": upstream.silent}
    with states[state]():
        times = []
        for _ in range(2):
            times.append(cargo_fetch(project, f"{up.url}/index", work))
            time.sleep(MAX_AGE_SECONDS + 0.2)
    return times


def hold_the_rest(upstream):
    """Give upstream the names that it lacks and cargo asks for: the sample has locked ones only."""
    for path in [path for path in upstream.requests if upstream.read(path) is None]:
        upstream.put(path, index_line(path.rpartition("/")[2], "0.0.1") + b"\n")


def back_again(up, upstream):
    """Wait until the mirror knows that upstream is well."""
    number = upstream.total
    wait_until(lambda: up.get(f"/index/ba/ck/back-{number}").status_code == 404, 60, every=0.5)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    project = options.sample / "project"
    rows = {"well": [], "refusing": [], "silent": []}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        shutil.copytree(options.sample, work / "upstream")
        measure(work, project, rows, options.runs)
    show(rows)


def measure(work, project, rows, runs):
    with FakeUpstream(work / "upstream") as upstream:
        (work / "mirror").mkdir()
        age = ("--max-age", f"{MAX_AGE_SECONDS:g}s")
        up = Up("--upstream", upstream.source, *age, cwd=work / "mirror").wait_until_ready()
        try:
            cargo_fetch(project, f"{up.url}/index", work)
            hold_the_rest(upstream)
            cargo_fetch(project, f"{up.url}/index", work)
            for _ in range(runs):
                for state, times in rows.items():
                    back_again(up, upstream)
                    times.append(two_fetches(up, upstream, state, project, work))
        finally:
            up.end()


def show(rows):
    print(f"{'upstream':12}{'first':>9}{'second':>9}{'more':>9}")
    base = statistics.median(min(pair) for pair in rows["well"])
    for state, pairs in rows.items():
        first, second = (statistics.median(column) for column in zip(*pairs, strict=True))
        verdict = f"   (under {TARGET_SECONDS:g} s)" if state != "well" else ""
        print(f"{state:12}{first:7.2f} s{second:7.2f} s{first - base:+7.2f} s{verdict}")


if __name__ == "__main__":
    main()
