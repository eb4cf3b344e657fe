"""Mode list: the index names what is listed and held; the audit compares upstream all the same."""

import hashlib

import pytest

from mirror.core.batch import Sweep
from mirror.core.layout import target_path
from mirror.core.names import CrateName
from mirror.seam import Order, Verb
from mirror.sign.orders import obey, obey_again
from mirror.sign.state import EXTRA
from tests.support.crates import crate_bytes, index_file, index_line
from tests.support.mirror_folder import locked
from tests.support.signing import Workbench, at_work

LINK = target_path(CrateName("demo"))
FILE = index_file("demo", "1.0.0", "1.1.0", "1.2.0")
LINES = FILE.splitlines(keepends=True)


def lock_file(path, *crates):
    text = "version = 4\n\n" + "\n".join(
        locked(name, version, hashlib.sha256(data).hexdigest()) for name, version, data in crates
    )
    path.write_text(text)
    return path


def demo(*versions):
    return [("demo", version, crate_bytes("demo", version)) for version in versions]


@pytest.fixture
def lock(tmp_path):
    return lock_file(tmp_path / "Cargo.lock", *demo("1.0.0", "1.2.0"))


@pytest.fixture
def bench(tmp_path, lock):
    with at_work(tmp_path / "data", mode="list", lock=(lock,)) as bench:
        yield bench


def crates(*versions):
    return {("demo", version): crate_bytes("demo", version) for version in versions}


def shown(bench):
    return bench.www(LINK).read_bytes() if bench.www(LINK).exists() else None


def test_the_index_names_what_is_listed_and_held(bench):
    bench.settle({"demo": FILE})
    assert shown(bench) is None
    bench.settle(crates=crates("1.0.0"))
    assert shown(bench) == LINES[0]
    bench.settle(crates=crates("1.2.0"))
    assert shown(bench) == LINES[0] + LINES[2]
    assert bench.findings() == []


def test_index_file_and_crates_may_come_in_one_batch(bench):
    assert bench.settle({"demo": FILE}, crates("1.0.0", "1.2.0")) == {}
    assert shown(bench) == LINES[0] + LINES[2]
    assert bench.findings() == []


def test_what_is_not_listed_is_not_taken_in(bench):
    refused = bench.settle(
        {"demo": FILE, "other": index_file("other", "1.0.0")}, crates("1.0.0", "1.1.0")
    )
    assert set(refused) == {"other", "demo 1.1.0"}
    assert shown(bench) == LINES[0]
    assert bench.parts.ledger.quarantined() == []
    assert bench.findings() == []


def test_the_audit_sees_what_the_list_cuts(bench):
    bench.settle({"demo": FILE}, crates("1.0.0"))
    assert "1.1.0" in bench.settle({"demo": LINES[0] + LINES[2]})["demo"]
    assert shown(bench) == LINES[0]


def test_a_checksum_that_is_not_the_locks_is_a_finding(tmp_path):
    lock = lock_file(tmp_path / "Cargo.lock", ("demo", "1.0.0", b"another crate"))
    bench = Workbench(tmp_path / "data", mode="list", lock=(lock,))
    bench.init()
    bench.open()
    refused = bench.settle({"demo": FILE}, crates("1.0.0"))
    assert "the lock's" in refused["demo"]
    assert bench.parts.ledger.quarantined()[0].rule == "lock-mismatch"
    assert shown(bench) is None
    # Such bytes are never what the next ones are compared with.
    right = index_line("demo", "1.0.0", hashlib.sha256(b"another crate").hexdigest()) + b"\n"
    assert bench.settle({"demo": right}) == {}
    assert bench.findings() == []
    bench.parts.ledger.close()


def test_it_is_complete_once_all_that_is_listed_is_held(bench):
    def sweep():
        return Sweep(bench.now, bench.now, 1, 0, whole_source=True)

    bench.settle({"demo": FILE}, crates("1.0.0"), sweep=sweep())
    assert bench.parts.publisher.extra[EXTRA]["complete_as_of"] is None
    bench.settle(crates=crates("1.2.0"), sweep=sweep())
    assert bench.parts.publisher.extra[EXTRA]["complete_as_of"]


def test_a_list_that_changed_is_published_at_the_next_start_and_nothing_is_lost(bench, lock):
    bench.settle({"demo": FILE}, crates("1.0.0", "1.2.0"))
    bench.close()
    lock_file(lock, *demo("1.2.0"))
    bench.now += 100
    bench.open()
    assert shown(bench) == LINES[2]
    assert bench.www("crates/demo/demo-1.0.0.crate").exists()
    assert bench.findings() == []
    bench.close()
    lock_file(lock, *demo("1.0.0", "1.2.0"))
    bench.now += 100
    bench.open()
    assert shown(bench) == LINES[0] + LINES[2]


def test_a_cache_that_becomes_a_list_and_a_cache_again_has_lost_nothing(tmp_path, lock):
    folder = tmp_path / "data"
    bench = Workbench(folder)
    bench.init()
    bench.open()
    files = {"demo": FILE, "other": index_file("other", "1.0.0")}
    bench.settle(files, crates("1.0.0", "1.1.0"))
    bench.close()
    for settings, expected in (
        ({"mode": "list", "lock": (lock,)}, (LINES[0], False)),
        ({}, (FILE, True)),
    ):
        again = Workbench(folder, **settings)
        again.now = bench.now = bench.now + 100
        again.open()
        assert (shown(again), again.www("index/ot/he/other").exists()) == expected
        assert again.findings() == []
        again.close()


def test_a_lock_file_that_is_gone_leaves_the_earlier_list_in_force(bench, lock):
    bench.settle({"demo": FILE}, crates("1.0.0"))
    lock.unlink()
    bench.signer.reload_rules()
    assert "stays in force" in bench.signer.trouble
    bench.settle(crates=crates("1.2.0"))
    assert shown(bench) == LINES[0] + LINES[2]


def deny(bench, version):
    bench.now += 1
    decided = Order(Verb.DENY, CrateName("demo"), version, "bad")
    return obey(bench.parts, bench.signer, decided, now=bench.now)


def test_a_denied_crate_does_not_keep_the_list_from_being_complete(bench):
    bench.settle({"demo": FILE}, crates("1.0.0"))
    deny(bench, "1.2.0")
    number = bench.offer(crates=crates("1.2.0"), sweep=Sweep(bench.now, bench.now, 1, 0, True))
    (settled,) = bench.signer.settle([number], now=bench.now)
    assert settled.denied == ("demo 1.2.0",)
    assert bench.parts.publisher.extra[EXTRA]["complete_as_of"]


def test_it_is_complete_no_longer_once_the_list_grows(bench, lock):
    sweep = Sweep(bench.now, bench.now, 1, 0, whole_source=True)
    bench.settle({"demo": FILE}, crates("1.0.0", "1.2.0"), sweep=sweep)
    assert bench.parts.publisher.extra[EXTRA]["complete_as_of"]
    lock_file(lock, *demo("1.0.0", "1.1.0", "1.2.0"))
    obey_again(bench.parts, bench.signer, now=bench.now + 1)
    assert bench.parts.publisher.extra[EXTRA]["complete_as_of"] is None


def test_accepting_another_checksum_names_nothing_that_is_not_held(bench):
    bench.settle({"demo": FILE}, crates("1.0.0", "1.2.0"))
    other = index_line("demo", "1.0.0", "6" * 64) + b"\n" + LINES[1] + LINES[2]
    assert bench.settle({"demo": other})
    bench.now += 1
    obey(bench.parts, bench.signer, Order(Verb.ACCEPT, CrateName("demo")), now=bench.now)
    assert shown(bench) == LINES[2]
    assert not bench.www("crates/demo/demo-1.0.0.crate").exists()
    assert bench.findings() == []


def test_a_finding_ends_with_its_name_on_the_list(bench, lock):
    bench.settle({"demo": FILE}, crates("1.0.0"))
    bench.settle(crates={("demo", "1.2.0"): crate_bytes("demo", "6.6.6")})
    assert bench.parts.ledger.quarantined()
    lock_file(lock, *demo("1.0.0"))
    obey_again(bench.parts, bench.signer, now=bench.now + 1)
    assert bench.parts.ledger.quarantined() == []


def test_trouble_with_a_lock_file_names_no_path_of_this_machine(bench, lock):
    lock.unlink()
    bench.signer.reload_rules()
    assert str(lock) not in bench.signer.trouble
    assert bench.signer.trouble


def test_a_crate_can_be_denied_without_the_lock_files_at_hand(bench):
    bench.settle({"demo": FILE}, crates("1.0.0", "1.2.0"))
    bench.close()
    bare = Workbench(bench.config.data, mode="list")
    bare.now = bench.now + 100
    bare.open()
    assert shown(bare) == LINES[0] + LINES[2]
    deny(bare, "1.2.0")
    assert b'"yanked":true' in shown(bare)
    assert bare.findings() == []
    bare.close()
