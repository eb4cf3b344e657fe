"""The fault table: 1,500 crates of which 15 are bad, one row per fault.

    python -m tests.bench.faults [--crates 1500] [--bad 15] [--only hang]

Mode list, `sync --once`, all limits as they are by default. Columns:

    stored         crates under the web root after the look with the fault
    lost           crates of the list that are not there after one more look, upstream being well
    served wrong   bad crates or index files that `serve` then gives as wrong bytes with 200
    restarted      the same after another start of `serve`
    exit           exit code of the look with the fault (of `check` for the damaged files)

and the line that the user saw, in full below. What peers do, measured likewise on 1,500 crates of
which 15 were bad:

    500 always                 panamax loses 15 of 15, exit 0, says nothing
    wrong bytes with 200       crates-io-proxy and NORA serve and keep 15, also after a restart
    hang                       panamax never ends
    upstream refuses all       panamax prints "Sync complete." with 0 files, and never asks again
    stored file damaged        panamax's `verify` sees nothing
"""

import argparse
import hashlib
import random
import shutil
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.fakes.upstream import FakeUpstream
from tests.support.crates import crate_bytes
from tests.support.mirror_folder import flip
from tests.support.processes import crateseal
from tests.support.registry import VERSION, crate_url, index_url, small_registry
from tests.support.serve_alone import serving

PATIENCE_SECONDS = 600
WRONG = crate_bytes("somebody-else", VERSION)


@dataclass(frozen=True)
class Fault:
    """One row."""

    what: str
    kind: str = ""
    """As FakeUpstream.fault has it; "": upstream is well."""
    value: object = None
    times: int = 1_000_000
    of_index: bool = False
    """The index files are bad, not the crates."""
    refuses: bool = False
    damages: bool = False

    def paths(self, names):
        return [(index_url if self.of_index else crate_url)(name) for name in names]


FAULTS = (
    Fault("500 always", "status", 500),
    Fault("500 once", "status", 500, times=1),
    Fault("wrong bytes with 200", "wrong", WRONG),
    Fault("truncated", "truncate"),
    Fault("HTML for index files", "html", of_index=True),
    Fault("hang", "hang"),
    Fault("upstream refuses all", refuses=True),
    Fault("stored file damaged", damages=True),
)


class Trial:
    """One mirror, one fault."""

    def __init__(self, work, upstream, registry, lock, bad, fault):
        self.work = work
        self.upstream = upstream
        self.names = registry.names
        self.bad = bad
        self.fault = fault
        self.folder = registry.folder
        self.www = work / "crateseal-data/www"
        self.options = ("--mode", "list", "--lock", lock, "--upstream", upstream.source)

    def run(self):
        """Return one row, and the line that the user saw."""
        self.work.mkdir()
        made = crateseal("init", "--trial", *self.options, cwd=self.work)
        assert made.returncode == 0, made.stderr
        began = time.perf_counter()
        done = self._look_with_fault()
        took = time.perf_counter() - began
        if self.fault.damages:
            done = self._damage_and_check()
        stored = self._stored()
        wrong, again = self._wrong_served(), self._wrong_served()
        if not self.fault.damages:
            self._look()
        lost = len(self.names) - self._stored()
        shutil.rmtree(self.work)
        said = (done.stdout.strip() or done.stderr.strip()).splitlines() or ["(nothing)"]
        return (stored, lost, wrong, again, done.returncode, took), said

    def _look(self):
        return crateseal("sync", "--once", *self.options, cwd=self.work, timeout=PATIENCE_SECONDS)

    def _look_with_fault(self):
        paths = self.fault.paths(self.bad)
        if self.fault.kind:
            for path in paths:
                self.upstream.fault(path, self.fault.kind, self.fault.value, times=self.fault.times)
        with self.upstream.refusing() if self.fault.refuses else nullcontext():
            done = self._look()
        for path in paths:
            self.upstream.heal(path)
        return done

    def _damage_and_check(self):
        for name in self.bad:
            flip(self.www / crate_url(name)[1:])
        checked = crateseal("check", cwd=self.work)
        named = sum(f"{name}-{VERSION}" in checked.stdout for name in self.bad)
        checked.stdout = f"check names {named} of {len(self.bad)}: {checked.stdout}"
        return checked

    def _stored(self):
        """How many crates of the list are there, with the right bytes or (damaged) without."""
        files = [self.www / crate_url(name)[1:] for name in self.names]
        return sum(file.exists() for file in files)

    def _wrong_served(self):
        paths = [crate_url(name) for name in self.bad] + [index_url(name) for name in self.bad]
        with serving(self.work / "crateseal-data") as (_, url), httpx.Client(timeout=60) as client:
            return sum(self._is_wrong(client.get(f"{url}{path}"), path) for path in paths)

    def _is_wrong(self, answer, path):
        good = (self.folder / path[1:]).read_bytes()
        return answer.status_code == 200 and _sha256(answer.content) != _sha256(good)


def _sha256(data):
    return hashlib.sha256(data).hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crates", type=int, default=1500)
    parser.add_argument("--bad", type=int, default=15)
    parser.add_argument("--only", help="the one fault with this in its name")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        registry = small_registry(folder / "upstream", options.crates)
        lock = registry.write_lock(folder / "Cargo.lock")
        bad = random.Random(7).sample(registry.names, options.bad)
        print(f"{options.crates} crates, {options.bad} of them bad\n")
        heads = ("stored", "lost", "served wrong", "restarted", "exit")
        print(f"{'':22}" + "".join(f"{head:>13}" for head in heads) + f"{'seconds':>10}")
        lines = []
        with FakeUpstream(registry.folder) as upstream:
            for number, fault in enumerate(FAULTS):
                if options.only and options.only not in fault.what:
                    continue
                trial = Trial(folder / f"{number}", upstream, registry, lock, bad, fault)
                (*counts, took), said = trial.run()
                row = "".join(f"{count:13}" for count in counts)
                print(f"{fault.what:22}{row}{took:10.1f}", flush=True)
                lines.append((fault.what, said[0]))
    print("\nwhat the user saw (its first line)\n")
    for what, line in lines:
        print(f"{what:22}{line[:300]}")


if __name__ == "__main__":
    main()
