"""What `cargo sealed build` adds to `cargo build` where everything is built and cached already.

    python -m tests.bench.sealed_build --sample FOLDER [--runs 15]

FOLDER is a real project with its crates (as for cold_fetch). Both build it once; then each builds
it again and again, by turns, with nothing to do.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from tests.bench.list_sync import sync_list
from tests.bench.sealed_fetch import customer, http_mirror
from tests.fakes.fast_upstream import fast_upstream

TARGET_MS = 60


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()
    project = options.sample / "project"
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        with fast_upstream(options.sample) as upstream:
            sync_list(work, upstream, project / "Cargo.lock")
        root = work / "crateseal-data/www/tuf/metadata/1.root.json"
        with http_mirror(work, 0) as url, customer(project) as one, customer(project) as other:
            one.use(url)
            other.run("crateseal", "trust", url, "--root", str(root))
            one.run("cargo", "build", "--locked")
            other.run("cargo-sealed", "build", "--locked")
            pairs = [
                (
                    one.run("cargo", "build", "--locked"),
                    other.run("cargo-sealed", "build", "--locked"),
                )
                for _ in range(options.runs)
            ]
    plain, sealed = ([1_000 * seconds for seconds in column] for column in zip(*pairs, strict=True))
    added = [b - a for a, b in zip(plain, sealed, strict=True)]
    print(f"{'':10}{'median':>9}{'least':>9}{'most':>9}")
    for name, column in (("plain", plain), ("sealed", sealed), ("added", added)):
        figures = statistics.median(column), min(column), max(column)
        print(f"{name:10}" + "".join(f"{figure:6.0f} ms" for figure in figures))
    print(f"target: at most {TARGET_MS} ms added")


if __name__ == "__main__":
    main()
