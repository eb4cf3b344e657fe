"""A denial, a deletion, an acceptance and a list, stopped at every change to the disk.

After each stop: recover, the invariant checker, and what was decided durably is in force; what was
not is decided again as the operator, or `sync`, would, and ends the same.
"""

import hashlib

import pytest

from mirror.core.names import CrateName
from mirror.seam import Order, Verb
from mirror.sign.orders import obey
from tests.crash.test_publication import copy_of
from tests.fakes.disk import Crash, CrashingDisk, Mode
from tests.support.crates import crate_bytes, index_file, index_line
from tests.support.mirror_folder import locked
from tests.support.signing import Workbench

DEMO, STAYS = CrateName("demo"), CrateName("stays")
FILES = {"demo": index_file("demo", "1.0.0", "1.1.0"), "stays": index_file("stays", "1.0.0")}
CRATES = {
    ("demo", "1.0.0"): crate_bytes("demo", "1.0.0"),
    ("demo", "1.1.0"): crate_bytes("demo", "1.1.0"),
    ("stays", "1.0.0"): crate_bytes("stays", "1.0.0"),
}
CHANGED = {"stays": index_line("stays", "1.0.0", "6" * 64) + b"\n"}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Both are held; a change of `stays` is quarantined."""
    bench = Workbench(tmp_path_factory.mktemp("base") / "data")
    bench.init()
    bench.open()
    bench.settle(FILES, CRATES)
    assert bench.settle(CHANGED)
    bench.close()
    return bench.config.data


def deny(bench):
    obey(bench.parts, bench.signer, Order(Verb.DENY, DEMO, "1.0.0", "bad"), now=bench.now)


def denied(bench):
    link = bench.www("index/de/mo/demo")
    return (
        b'"yanked":true' in link.read_bytes()
        and not bench.www("crates/demo/demo-1.0.0.crate").exists()
        and bench.www("crates/demo/demo-1.1.0.crate").exists()
    )


def accept(bench):
    obey(bench.parts, bench.signer, Order(Verb.ACCEPT, STAYS), now=bench.now)


def accepted(bench):
    is_there = bench.www("index/st/ay/stays").read_bytes() == CHANGED["stays"]
    return is_there and not bench.www("crates/stays/stays-1.0.0.crate").exists()


def delete(bench):
    bench.settle(gone=["stays"])
    bench.now += 1000
    bench.settle(gone=["stays"])


def deleted(bench):
    return (
        not bench.www("index/st/ay/stays").exists()
        and bench.www("crates/stays/stays-1.0.0.crate").exists()
        and [each.name for each in bench.parts.ledger.memory.deletions()] == ["stays"]
        and bench.parts.ledger.memory.tombstones(STAYS) != {}
    )


CASES = {"deny": (deny, denied), "accept": (accept, accepted), "delete": (delete, deleted)}


def changes_of(base, tmp_path, act):
    folder = copy_of(base, tmp_path)
    disk = CrashingDisk(folder)
    bench = Workbench(folder, disk=disk)
    bench.now += 100
    bench.open()
    opened = disk.changes
    act(bench)
    bench.close()
    return opened, disk.changes


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("what", CASES)
def test_no_stop_undoes_a_decision_or_tears_it(base, tmp_path, what, mode):
    act, is_done = CASES[what]
    opened, changes = changes_of(base, tmp_path, act)
    assert changes > opened + 5
    for stop_at in range(opened, changes):
        folder = copy_of(base, tmp_path)
        disk = CrashingDisk(folder, stop_at=stop_at, mode=mode, seed=stop_at)
        bench = Workbench(folder, disk=disk)
        bench.now += 100
        with pytest.raises(Crash):
            bench.open()
            act(bench)
            bench.close()
        where = f"{what}, {mode}, change {stop_at}: {disk.log[-1]}"
        bench.parts.ledger.close()
        again = Workbench(folder)
        again.now = bench.now + 100
        again._next_batch = 1000
        again.open()
        assert again.findings() == [], where
        act(again)
        assert is_done(again), where
        assert again.findings() == [], where
        again.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", list(Mode))
def test_a_list_never_names_what_is_not_held(tmp_path_factory, tmp_path, mode):
    folder = tmp_path_factory.mktemp("list")
    lock = folder / "Cargo.lock"
    lock.write_text(
        "version = 4\n\n"
        + "\n".join(
            locked(*each, hashlib.sha256(data).hexdigest()) for each, data in CRATES.items()
        )
    )
    settings = {"mode": "list", "lock": (lock,)}
    bench = Workbench(folder / "data", **settings)
    bench.init()
    bench.open()
    bench.close()

    def run(disk=None, base=bench.config.data):
        copy = copy_of(base, tmp_path)
        return Workbench(copy, disk=disk(copy) if disk else None, **settings)

    def work(bench):
        bench.now += 100
        bench.open()
        bench.settle(FILES, {key: CRATES[key] for key in list(CRATES)[:1]})
        bench.settle(crates=CRATES)
        bench.close()

    counting = run(CrashingDisk)
    work(counting)
    for stop_at in range(4, counting.disk.changes):
        bench_ = run(lambda copy, at=stop_at: CrashingDisk(copy, stop_at=at, mode=mode, seed=at))
        with pytest.raises(Crash):
            work(bench_)
        if hasattr(bench_, "parts"):
            bench_.parts.ledger.close()
        again = Workbench(bench_.config.data, **settings)
        again.now = bench_.now + 100
        again._next_batch = 1000
        again.open()
        assert again.findings() == [], stop_at
        for link in again.config.www.glob("index/*/*/*[a-z]"):
            for line in link.read_bytes().splitlines() if link.suffix != ".gz" else ():
                version = line.partition(b'"vers":"')[2].partition(b'"')[0].decode()
                held = f"crates/{link.name}/{link.name}-{version}.crate"
                assert again.www(held).exists(), (stop_at, held)
        again.settle(FILES, CRATES)
        assert (again.www("index/de/mo/demo")).read_bytes() == FILES["demo"]
        again.close()
