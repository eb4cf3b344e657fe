"""Crates that upstream deletes, and names that return: what is withdrawn, kept and held."""

import hashlib

import pytest

from mirror.core.layout import target_path
from mirror.core.names import CrateName
from mirror.seam import Order, Verb
from mirror.sign.orders import obey
from mirror.store.ledger import LedgerReader
from tests.support.crates import crate_bytes, index_file
from tests.support.crates import index_line as line_of
from tests.support.signing import START, Workbench, at_work
from tests.support.tar import Entry

DEMO = CrateName("demo")
LINK = target_path(DEMO)
FILE = index_file("demo", "1.0.0")
MANIFEST = b'[package]\nname = "demo"\nversion = "1.0.0"\n'
OTHER = [Entry("demo-1.0.0/Cargo.toml", MANIFEST), Entry("demo-1.0.0/other", b"x")]


def digest(data):
    return hashlib.sha256(data).hexdigest()


def index_line(*args):
    return line_of(*args) + b"\n"


@pytest.fixture
def bench(tmp_path):
    with at_work(tmp_path / "data") as bench:
        bench.settle({"demo": FILE}, {("demo", "1.0.0"): crate_bytes("demo", "1.0.0")})
        yield bench


def delete(bench):
    bench.settle(gone=["demo"])
    bench.now += 900
    bench.settle(gone=["demo"])


def with_pubtime(version, at, cksum="1" * 64):
    line = index_line("demo", version, cksum)
    return line.replace(b"}\n", f',"pubtime":"{at}"}}\n'.encode())


def test_one_look_that_finds_a_crate_gone_withdraws_nothing(bench):
    assert bench.settle(gone=["demo"]) == {}
    bench.now += 800
    assert bench.settle(gone=["demo"]) == {}
    assert bench.www(LINK).read_bytes() == FILE
    assert bench.findings() == []


def test_the_signer_says_when_a_second_look_counts(bench):
    bench.now += 1
    (settled,) = bench.signer.settle([bench.offer(gone=["demo"])], now=bench.now)
    assert settled.doubted == {"demo": bench.now + 900}


def test_a_crate_that_two_looks_find_gone_is_withdrawn_and_its_crates_stay(bench):
    delete(bench)
    assert not bench.www(LINK).exists()
    assert bench.parts.publisher.lookup(LINK) is None
    assert bench.www("crates/demo/demo-1.0.0.crate").exists()
    (deletion,) = bench.parts.ledger.memory.deletions()
    assert (deletion.name, deletion.since) == ("demo", START + 2)
    assert bench.findings() == []


def test_its_crates_go_where_the_operator_wants_that(tmp_path):
    with at_work(tmp_path / "data", drop_deleted=True) as bench:
        bench.settle({"demo": FILE}, {("demo", "1.0.0"): crate_bytes("demo", "1.0.0")})
        delete(bench)
        assert not bench.www("crates/demo/demo-1.0.0.crate").exists()
        assert bench.findings() == []


def test_a_crate_that_is_back_between_two_looks_was_never_deleted(bench):
    bench.settle(gone=["demo"])
    bench.settle({"demo": FILE})
    bench.now += 2000
    bench.settle(gone=["demo"])
    assert bench.www(LINK).exists()


def test_a_look_of_long_ago_says_nothing_any_more(bench):
    bench.settle(gone=["demo"])
    bench.now += 3 * 86400
    bench.settle(gone=["demo"])
    assert bench.www(LINK).exists()


def test_the_same_crate_may_come_back(bench):
    delete(bench)
    assert bench.settle({"demo": FILE}) == {}
    assert bench.www(LINK).read_bytes() == FILE
    assert bench.parts.ledger.memory.deletions() == []
    assert bench.findings() == []


def held(bench):
    """The one finding; nothing is published of it but a note."""
    (finding,) = bench.parts.ledger.quarantined()
    assert (finding.subject, finding.kind, finding.rule) == ("demo", "hold", "returned")
    assert bench.parts.publisher.lookup(LINK) is None
    assert bench.findings() == []
    return finding


def test_an_old_version_with_another_checksum_is_held(bench):
    delete(bench)
    assert bench.settle({"demo": index_line("demo", "1.0.0", "6" * 64)})
    held(bench)


def test_a_name_of_which_everything_is_new_is_held(bench):
    delete(bench)
    assert bench.settle({"demo": with_pubtime("0.1.0", "2099-01-01T00:00:00Z")})
    held(bench)


def test_what_is_held_is_published_once_it_is_accepted(bench):
    delete(bench)
    back = with_pubtime("0.1.0", "2099-01-01T00:00:00Z")
    bench.settle({"demo": back})
    done = obey(bench.parts, bench.signer, Order(Verb.ACCEPT, DEMO), now=bench.now)
    assert done.exit_code == 0, done.text
    assert bench.www(LINK).read_bytes() == back
    assert bench.parts.ledger.quarantined() == []
    assert bench.findings() == []
    # From here on it is an ordinary crate.
    more = back + with_pubtime("0.2.0", "2099-02-01T00:00:00Z")
    assert bench.settle({"demo": more}) == {}
    assert bench.settle({"demo": back})


def test_a_tombstone_keeps_its_checksums_through_a_second_life(bench):
    delete(bench)
    back = with_pubtime("0.1.0", "2099-01-01T00:00:00Z")
    bench.settle({"demo": back})
    obey(bench.parts, bench.signer, Order(Verb.ACCEPT, DEMO), now=bench.now)
    assert "1.0.0" in bench.settle({"demo": back + index_line("demo", "1.0.0", "6" * 64)})["demo"]
    assert bench.settle({"demo": back + FILE}) == {}


def test_a_deletion_outlives_a_crash_and_a_restart(bench):
    delete(bench)
    bench.parts.ledger.close()  # no good end
    bench.open()
    assert bench.settle({"demo": index_line("demo", "1.0.0", "6" * 64)})
    held(bench)


def test_the_log_says_what_was_deleted_and_what_returned(bench):
    delete(bench)
    bench.settle({"demo": FILE})
    reader = LedgerReader(bench.config.ledger)
    records = " ".join(record for _, record, _ in reader.log())
    reader.close()
    assert f'"deleted":{{"demo":{START + 2}}}' in records
    assert '"returned":["demo"]' in records


def test_a_deletion_ends_the_findings_of_its_crates(bench):
    bench.settle(crates={("demo", "1.0.0"): crate_bytes("demo", "6.6.6")})
    assert bench.parts.ledger.quarantined()
    delete(bench)
    assert bench.parts.ledger.quarantined() == []


def test_the_crate_of_another_life_is_not_served_for_the_first_ones_line(bench):
    delete(bench)
    other = index_line("demo", "1.0.0", digest(crate_bytes("demo", "1.0.0", entries=OTHER)))
    bench.settle({"demo": other})
    obey(bench.parts, bench.signer, Order(Verb.ACCEPT, DEMO), now=bench.now)
    held = bench.www("crates/demo/demo-1.0.0.crate")
    assert not held.exists()
    bench.settle(crates={("demo", "1.0.0"): crate_bytes("demo", "1.0.0", entries=OTHER)})
    assert held.exists()
    delete(bench)
    assert bench.settle({"demo": FILE})  # of two lives with two checksums the last one counts
    obey(bench.parts, bench.signer, Order(Verb.ACCEPT, DEMO), now=bench.now)
    assert bench.www(LINK).read_bytes() == FILE
    assert not held.exists()
    assert bench.findings() == []


def test_a_deletion_is_no_way_to_change_what_a_version_depends_on(bench):
    good = line_of("pair", "1.0.0", "1" * 64, deps=("rand",)) + b"\n"
    evil = line_of("pair", "1.0.0", "1" * 64, deps=("evil",)) + b"\n"
    newer = line_of("pair", "1.1.0", "2" * 64) + b"\n"
    path = target_path(CrateName("pair"))
    bench.settle({"pair": good + newer})
    bench.settle(gone=["pair"])
    bench.now += 900
    bench.settle(gone=["pair"])
    assert bench.settle({"pair": evil + newer})
    assert bench.parts.publisher.lookup(path) is None
    # Nor may it come back later, beside a version that came back at once.
    assert bench.settle({"pair": newer}) == {}
    assert bench.settle({"pair": newer + evil})
    assert bench.settle({"pair": newer + good}) == {}
    assert bench.findings() == []


def test_sync_cannot_say_that_the_second_look_was_long_after_the_first(bench):
    bench.now += 1
    number = bench.offer(gone=["demo"])
    again = bench.offer(gone=["demo"])
    bench.signer.settle([number, again], now=bench.now)
    assert bench.www(LINK).exists()


def test_crates_that_should_be_dropped_go_at_the_next_start_at_the_latest(tmp_path):
    with at_work(tmp_path / "data") as bench:
        bench.settle({"demo": FILE}, {("demo", "1.0.0"): crate_bytes("demo", "1.0.0")})
        delete(bench)
        bench.close()
        again = Workbench(bench.config.data, drop_deleted=True)
        again.now = bench.now + 100
        again.open()
        assert not again.www("crates/demo/demo-1.0.0.crate").exists()
        assert again.findings() == []
        again.close()
