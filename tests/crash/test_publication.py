"""The publication path is stopped at every single change to the disk, in every way, and goes on.

After each stop: recover, run the invariant checker (`Checker`, everything from the root down), see
one of the known states and no other, offer the same batches again as `sync` would, see the last.
"""

import shutil
import sqlite3
import subprocess

import pytest

from mirror.core.batch import Sweep
from tests.fakes.disk import Crash, CrashingDisk, Mode
from tests.support.crates import crate_bytes, index_file
from tests.support.signing import Workbench

OLD = {"demo": index_file("demo", "1.0.0"), "stays": index_file("stays", "1.0.0")}
NEW = {
    "demo": index_file("demo", "1.0.0", "1.1.0"),
    "fresh": index_file("fresh", "0.1.0"),
    "bad": index_file("other", "1.0.0"),
}
CRATES = {("demo", "1.1.0"): crate_bytes("demo", "1.1.0")}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "data"
    bench = Workbench(folder)
    bench.init()
    bench.open()
    bench.settle(OLD, {("demo", "1.0.0"): crate_bytes("demo", "1.0.0")})
    bench.close()
    return folder


def copy_of(base, tmp_path):
    folder = tmp_path / "data"
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(["cp", "-a", base, folder], check=True)  # keeps hard links
    return folder


def work(bench, *, opened=True):
    """Two publications, a sweep that changed nothing, and a pruning."""
    if not opened:
        bench.open()
    bench.settle(NEW, CRATES)
    bench.settle({"demo": OLD["demo"] + index_file("demo", "1.1.0", "1.2.0")})
    bench.settle(sweep=Sweep(bench.now, bench.now, 3, 0, whole_source=False))
    bench.now += bench.config.grace + 100
    bench.signer.renew(now=bench.now)
    bench.signer.prune(now=bench.now)
    bench.close()


def state_of(bench):
    return {
        name: (bench.www(path).read_bytes() if bench.www(path).exists() else None)
        for name, path in {
            "demo": "index/de/mo/demo",
            "stays": "index/st/ay/stays",
            "fresh": "index/fr/es/fresh",
            "bad": "index/3/b/bad",
        }.items()
    }


def changes_of(base, tmp_path):
    folder = copy_of(base, tmp_path)
    disk = CrashingDisk(folder)
    bench = Workbench(folder, disk=disk)
    bench.now += 100
    bench.open()
    work(bench)
    return disk


def states(base, tmp_path):
    bench = Workbench(copy_of(base, tmp_path))
    bench.now += 100
    bench.open()
    seen = [state_of(bench)]
    bench.settle(NEW, CRATES)
    seen.append(state_of(bench))
    bench.settle({"demo": OLD["demo"] + index_file("demo", "1.1.0", "1.2.0")})
    seen.append(state_of(bench))
    bench.close()
    return seen


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", list(Mode))
def test_no_stop_at_any_change_loses_or_tears_anything(base, tmp_path, mode):
    changes = changes_of(base, tmp_path).changes
    assert changes > 60
    possible = states(base, tmp_path)
    for stop_at in range(changes):
        folder = copy_of(base, tmp_path)
        disk = CrashingDisk(folder, stop_at=stop_at, mode=mode, seed=stop_at)
        bench = Workbench(folder, disk=disk)
        bench.now += 100
        with pytest.raises(Crash):
            work(bench, opened=False)
        where = f"{mode}, change {stop_at}: {disk.log[-1]}"
        if hasattr(bench, "parts"):
            bench.parts.ledger.close()
        again = Workbench(folder)
        again.now = bench.now + 100
        again._next_batch = 1000
        again.open()
        again.signer.renew(now=again.now)  # a day may have passed
        assert again.findings() == [], where
        assert state_of(again) in possible, where
        if state_of(again) == possible[0]:
            again.settle(NEW, CRATES)
        again.settle({"demo": OLD["demo"] + index_file("demo", "1.1.0", "1.2.0")})
        assert again.findings() == [], where
        assert state_of(again) == possible[2], where
        again.close()


def test_a_full_disk_loses_nothing_and_the_same_batch_goes_through_later(base, tmp_path):
    """Every change fails once with ENOSPC, the process lives on, the batch is settled again."""

    class FullDisk(CrashingDisk):
        def _change(self, words, do, torn=None, touched=()):
            if self.changes == self._stop_at:
                self.changes += 1
                raise OSError(28, "No space left on device", words)
            self._stop_at, kept = None, self._stop_at
            try:
                super()._change(words, do, torn, touched)
            finally:
                self._stop_at = kept

    struck = 0
    for stop_at in range(4, 47):
        folder = copy_of(base, tmp_path)
        bench = Workbench(folder, disk=FullDisk(folder, stop_at=stop_at))
        bench.now += 100
        bench.open()
        number = bench.offer(NEW, CRATES)
        try:
            bench.signer.settle([number], now=bench.now)
            bench.signer.swap_links()
        except OSError:
            struck += 1
            bench.now += 1
            bench.signer.settle([number], now=bench.now)
            bench.signer.swap_links()
        assert bench.findings() == [], stop_at
        assert bench.www("index/fr/es/fresh").exists()
        assert bench.www("crates/demo/demo-1.1.0.crate").exists()
        bench.parts.ledger.close()
    assert struck > 20  # the rest comes after the last change of that path


def test_a_ledger_that_cannot_be_written_stops_the_publication_only(base, tmp_path):
    """SQLite fails in its own way: the same batch goes through once it can write again."""
    bench = Workbench(copy_of(base, tmp_path))
    bench.now += 100
    bench.open()
    number = bench.offer(NEW, CRATES)
    bench.parts.ledger._db.execute("PRAGMA query_only=1")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        bench.signer.settle([number], now=bench.now)
    bench.parts.ledger._db.execute("PRAGMA query_only=0")
    assert bench.findings() == []
    bench.now += 1
    bench.signer.settle([number], now=bench.now)
    bench.signer.swap_links()
    assert bench.findings() == []
    assert bench.www("index/fr/es/fresh").exists()
    bench.parts.ledger.close()
