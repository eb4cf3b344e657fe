"""A sweep that turns into findings is stopped, said once, and what is published stays."""

import logging

import pytest

from mirror.core.batch import Sweep, Sweeping
from tests.support.crates import index_file
from tests.support.crates import index_line as line_of
from tests.support.signing import at_work

NAMES = [f"crate{number:04}" for number in range(40)]


def index_line(*args):
    return line_of(*args) + b"\n"


@pytest.fixture
def bench(tmp_path):
    with at_work(tmp_path / "data") as bench:
        bench.settle({name: index_file(name, "1.0.0") for name in NAMES})
        yield bench


def settle(bench, files, *, began, names=1000, sweep=None):
    bench.now += 1
    number = bench.offer(files, sweep=sweep, sweeping=Sweeping(began, names))
    (settled,) = bench.signer.settle([number], now=bench.now)
    bench.signer.swap_links()
    return settled


def bad(names):
    return {name: index_line(name, "1.0.0", "6" * 64) for name in names}


def test_ten_findings_stop_no_sweep(bench):
    settled = settle(bench, bad(NAMES[:10]), began=1.0)
    assert (len(settled.refused), settled.stopped) == (10, "")


def test_one_more_does_where_that_is_more_than_one_in_a_hundred(bench, caplog):
    caplog.set_level(logging.ERROR)
    settled = settle(bench, bad(NAMES), began=1.0)
    assert len(settled.refused) == 11
    assert set(settled.unexamined) == set(NAMES[11:])
    assert "11 of 1,000" in settled.stopped
    later = settle(bench, {"fresh": index_file("fresh", "1.0.0")}, began=1.0)
    assert later.unexamined == ("fresh",)
    assert len(caplog.records) == 1
    assert bench.signer.trouble == settled.stopped
    assert bench.findings() == []


def test_a_large_sweep_may_have_more_findings(bench):
    assert settle(bench, bad(NAMES[:30]), began=1.0, names=3000).stopped == ""
    assert settle(bench, bad(NAMES[30:]), began=1.0, names=3000).stopped


def test_what_somebody_asks_for_is_no_part_of_it(bench):
    assert len(bench.settle(bad(NAMES))) == len(NAMES)


def test_a_stopped_sweep_never_makes_the_mirror_complete(tmp_path):
    with at_work(tmp_path / "data", mode="index") as bench:
        bench.settle({name: index_file(name, "1.0.0") for name in NAMES})
        sweep = Sweep(1.0, 1.0, 1000, 0, whole_source=True)
        settle(bench, bad(NAMES), began=1.0, sweep=sweep)
        assert bench.parts.publisher.extra["x-crateseal"]["complete_as_of"] is None


def test_the_next_sweep_begins_anew(bench):
    settle(bench, bad(NAMES), began=1.0)
    settled = settle(bench, {"fresh": index_file("fresh", "1.0.0")}, began=2.0)
    assert (settled.stopped, settled.unexamined) == ("", ())
    assert bench.signer.trouble == ""


def test_findings_that_stand_already_stop_no_later_sweep(bench):
    settle(bench, bad(NAMES[:10]), began=1.0)
    settled = settle(bench, bad(NAMES[:20]), began=2.0)
    assert (len(settled.refused), settled.stopped) == (20, "")
    assert settle(bench, bad(NAMES), began=3.0).stopped


def gone(bench, names):
    bench.now += 1
    (settled,) = bench.signer.settle([bench.offer(gone=names)], now=bench.now)
    bench.signer.swap_links()
    return settled


def test_an_upstream_that_has_nothing_any_more_takes_little_with_it(bench):
    gone(bench, NAMES)
    bench.now += 900
    settled = gone(bench, NAMES)
    left = [name for name in NAMES if bench.parts.publisher.lookup(f"index/cr/at/{name}")]
    assert len(left) == len(NAMES) - 10
    assert set(settled.doubted) == set(left)
    assert "no more than that are withdrawn within an hour" in bench.signer.trouble
    bench.settle({name: index_file(name, "1.0.0") for name in left})
    assert bench.parts.ledger.quarantined() == []
    assert bench.findings() == []


def test_what_is_gone_for_good_goes_hour_by_hour(bench):
    gone(bench, NAMES)
    for _ in range(4):
        bench.now += 3601
        gone(bench, NAMES)
    assert len(bench.parts.ledger.memory.deletions()) == len(NAMES)
