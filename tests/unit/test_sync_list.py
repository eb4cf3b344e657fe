"""Mode list: exactly what lock files name, index files and crates, many at a time."""

import asyncio
from dataclasses import replace

import pytest

from mirror.core.names import CrateName
from mirror.errors import UsageError
from mirror.once import details_of_look, exit_code_of_look
from mirror.store.cursors import Cursors
from mirror.sync.engine import run_sync
from mirror.sync.retrying import crate_of
from mirror.sync.values import Pace, SyncReport
from mirror.sync.work import Work
from tests.fakes.signer import FakeSigner
from tests.fakes.upstream import FakeUpstream
from tests.support.crates import crate_bytes, index_file
from tests.support.syncing import BUSY, Clock, in_loop, settings, sync_once, syncing, until
from tests.unit.test_sync_want import ITOA_CRATE

SAMPLES = ("fnv 1.0.7", "hex 0.4.3", "itoa 1.0.18", "wasi 0.11.0+wasi-snapshot-preview1")
WATCHFUL = replace(BUSY, watch=0.05)
SOURCE = "registry+https://github.com/rust-lang/crates.io-index"


def locked(path, crates, others=""):
    """Write a lock file; return its path."""
    packages = [
        f'[[package]]\nname = "{name}"\nversion = "{version}"\nsource = "{SOURCE}"\n'
        for name, version in (crate.split() for crate in crates)
    ]
    path.write_text("version = 4\n\n" + "\n".join(packages) + others)
    return path


def listed(tmp_path, upstream, crates=SAMPLES, **others):
    lock = locked(tmp_path / "Cargo.lock", crates)
    return settings(tmp_path, upstream, mode="list", lock=(lock,), **others)


def made(upstream, count):
    """Let an upstream have so many small crates; return them."""
    crates = [f"name{number:04} 1.0.0" for number in range(count)]
    for crate in crates:
        name, version = crate.split()
        upstream.put(f"/index/na/me/{name}", index_file(name, version))
        upstream.put(f"/crates/{name}/{name}-{version}.crate", crate_bytes(name, version))
    return crates


def crates_of(signer):
    return {key: data for seen in signer.batches for key, data in seen.crates.items()}


@in_loop
async def test_a_first_look_brings_all_that_is_listed_and_nothing_else(tmp_path):
    with FakeUpstream() as upstream:
        report, signer = await sync_once(listed(tmp_path, upstream))
        assert crates_of(signer).keys() == set(SAMPLES)
        assert crates_of(signer)["itoa 1.0.18"] == upstream.read(ITOA_CRATE)
        assert signer.files.keys() == {crate.split()[0] for crate in SAMPLES}
        assert str(report) == "4 stored"
        assert upstream.total == 9  # config.json, four index files, four crates
        (sweep,) = signer.sweeps
        assert (sweep.names, sweep.missing, sweep.whole_source) == (4, 0, True)


@in_loop
async def test_what_is_held_is_not_fetched_again(tmp_path):
    with FakeUpstream() as upstream:
        config = listed(tmp_path, upstream)
        await sync_once(config)
        report, signer = await sync_once(config)
        assert str(report) == "4 stored"
        assert signer.with_bytes == []
        assert upstream.requests[ITOA_CRATE] == 1
        (config.www / "crates/itoa/itoa-1.0.18.crate").unlink()
        _, signer = await sync_once(config)
        assert crates_of(signer).keys() == {"itoa 1.0.18"}


@in_loop
async def test_a_crate_never_comes_before_its_index_file(tmp_path):
    with FakeUpstream() as upstream:
        crates = made(upstream, 300)
        upstream.fault("/index/na/me/name0007", "stall", times=1)
        config = listed(tmp_path, upstream, crates)
        report, signer = await sync_once(config)
        assert str(report) == "300 stored"
        known = set()
        for seen in signer.batches:
            known |= set(seen.files)
            assert {crate_of(key).canonical_name for key in seen.crates} <= known
        assert crates_of(signer).keys() == set(crates)


@in_loop
async def test_many_crates_go_in_several_batches_while_others_are_fetched(tmp_path):
    with FakeUpstream() as upstream:
        config = listed(tmp_path, upstream, made(upstream, 500))
        _, signer = await sync_once(config, pace=Pace())
        assert 2 <= len([seen for seen in signer.batches if seen.crates]) <= 8
        assert max(signer.at_once) == 1


@in_loop
async def test_what_is_bad_is_counted_by_kind_and_the_rest_arrives(tmp_path):
    with FakeUpstream() as upstream:
        crates = made(upstream, 60)
        for number in range(3):
            upstream.fault(f"/crates/name{number:04}/name{number:04}-1.0.0.crate", "status", 500)
        upstream.fault("/index/na/me/name0010", "html")
        upstream.put("/crates/name0011/name0011-1.0.0.crate", None)
        config = listed(tmp_path, upstream, crates)
        signer = FakeSigner(config)
        signer.refuse = {"name0020 1.0.0": "crate file of x: expected sha256 aa, got bb"}
        report, _ = await sync_once(config, signer=signer)
        assert str(report) == (
            "54 stored, 6 missing: 1 HTML instead of an index file, 1 absent upstream,"
            " 3 of 500, 1 wrong sha256; will retry"
        )
        assert signer.sweeps[0].missing == 7  # six crates and one index file
        assert len(list(config.www.glob("crates/*/*"))) == 54


@in_loop
async def test_what_was_missing_comes_by_itself(tmp_path):
    with FakeUpstream() as upstream:
        upstream.fault(ITOA_CRATE, "status", 500, times=5)
        upstream.fault("/index/3/h/hex", "status", 500, times=5)
        async with syncing(listed(tmp_path, upstream), pace=BUSY) as sync:
            await until(lambda: sync.signer.sweeps)
            await until(lambda: crates_of(sync.signer).keys() == set(SAMPLES))
            assert len(sync.signer.sweeps) == 1


@in_loop
async def test_what_is_not_listed_is_absent_without_a_question(tmp_path):
    with FakeUpstream() as upstream:
        async with syncing(listed(tmp_path, upstream, ["itoa 1.0.18"])) as sync:
            await until(lambda: sync.signer.sweeps)
            before = upstream.total
            answer = await sync.want("hex", crates=["itoa 1.0.17", "hex 0.4.3"])
            assert set(answer.absent) == {"hex", "itoa 1.0.17", "hex 0.4.3"}
            assert upstream.total == before


@in_loop
async def test_a_lock_that_changes_is_followed_from_the_next_sweep_on(tmp_path, caplog):
    with FakeUpstream() as upstream:
        config = listed(tmp_path, upstream, ["itoa 1.0.18"], recheck_every=0.2)
        async with syncing(config, pace=BUSY) as sync:
            await until(lambda: sync.signer.sweeps)
            config.lock[0].write_text("no lock file [")
            await until(lambda: "the earlier list stays in force" in caplog.text)
            assert sync.signer.sweeps[-1].names == 1
            locked(config.lock[0], ["hex 0.4.3", "fnv 1.0.7"])
            await until(lambda: sync.signer.sweeps[-1].names == 2)
            await until(lambda: "fnv 1.0.7" in crates_of(sync.signer))
            assert (await sync.want("itoa")).absent == ("itoa",)


@in_loop
async def test_what_is_listed_no_longer_is_missing_no_longer(tmp_path):
    with FakeUpstream() as upstream:
        config = listed(tmp_path, upstream)
        upstream.fault(ITOA_CRATE, "status", 500)
        report, _ = await sync_once(config)
        assert report.missing == {"of 500": 1}
        locked(config.lock[0], ["hex 0.4.3"])
        report, _ = await sync_once(config)
        assert str(report) == "1 stored"


@in_loop
async def test_lists_that_cannot_be_used_are_wrong_usage(tmp_path):
    nowhere = "sparse+http://127.0.0.1:1/"
    none = settings(tmp_path, nowhere, mode="list")
    away = settings(tmp_path, nowhere, mode="list", lock=(tmp_path / "away.lock",))
    empty = listed(tmp_path, nowhere, [])
    for config, text in ((none, "--lock"), (away, r"away\.lock"), (empty, "no package of")):
        for once in (True, False):
            with pytest.raises(UsageError, match=text):
                await run_sync(config, Clock(), asyncio.Event(), once=once)


@in_loop
async def test_what_a_lock_names_besides_is_said_and_left_out(tmp_path, caplog):
    caplog.set_level("INFO")
    others = '\n[[package]]\nname = "mine"\nversion = "1.0.0"\nsource = "git+https://x/y"\n'
    with FakeUpstream() as upstream:
        config = listed(tmp_path, upstream)
        locked(config.lock[0], ["itoa 1.0.18"], others)
        report, _ = await sync_once(config)
        assert report == SyncReport(looked=1, changed=1, stored=1, is_list=True)
        assert "1 packages are not from crates.io and are not mirrored: mine 1.0.0" in caplog.text


DENIED = {"itoa 1.0.18": "denied: RUSTSEC-2026-0001"}


@in_loop
async def test_what_the_operator_denies_is_not_missing(tmp_path):
    with FakeUpstream() as upstream:
        config = listed(tmp_path, upstream)
        signer = FakeSigner(config)
        signer.refuse, signer.denied = DENIED, tuple(DENIED)
        report, _ = await sync_once(config, signer=signer)
        assert str(report) == "3 stored"
        assert exit_code_of_look(report) == 0
        assert signer.sweeps[0].missing == 0
        cursors = Cursors(config.cursors)
        assert len(cursors.retries) == 0
        cursors.close()


@in_loop
async def test_what_is_denied_is_fetched_once_and_again_when_it_is_allowed(tmp_path):
    with FakeUpstream() as upstream:
        config = listed(tmp_path, upstream, recheck_every=0.2)
        signer = FakeSigner(config)
        signer.refuse, signer.denied = DENIED, tuple(DENIED)
        signer.policy = "one"
        async with syncing(config, signer=signer, pace=WATCHFUL) as sync:
            await until(lambda: len(signer.sweeps) > 3)
            assert upstream.requests[ITOA_CRATE] == 1
            assert (await sync.want(crates=["itoa 1.0.18"])).refused == DENIED
            assert upstream.requests[ITOA_CRATE] == 1
            signer.refuse, signer.denied = {}, ()
            signer.decide("two")
            await until(lambda: upstream.requests[ITOA_CRATE] == 2, seconds=3)
            await until(lambda: list(config.www.glob("crates/itoa/*")))


@in_loop
async def test_a_lock_or_a_decision_that_changed_is_in_force_at_once(tmp_path):
    with FakeUpstream() as upstream:
        config = listed(tmp_path, upstream, ["itoa 1.0.18"], recheck_every=86_400)
        signer = FakeSigner(config)
        signer.policy = "one"
        async with syncing(config, signer=signer, pace=replace(WATCHFUL, tick=60.0)):
            await until(lambda: len(signer.sweeps) == 1)
            await asyncio.sleep(0.3)
            assert len(signer.sweeps) == 1
            locked(config.lock[0], ["hex 0.4.3"])
            await until(lambda: "hex 0.4.3" in crates_of(signer), seconds=3)
            await until(lambda: len(signer.sweeps) == 2)
            signer.decide("two")
            await until(lambda: len(signer.sweeps) == 3, seconds=3)


def test_work_goes_through_each_crate_behind_its_name():
    names = tuple(map(CrateName, ("a", "b", "d")))
    crates = tuple(map(crate_of, ("D 1.0.0", "B 2.0.0", "c 1.0.0", "b 1.0.0", "z 1.0.0")))
    work = Work(names, crates)
    items = [str(item) for item in work.items()]
    assert items == ["a", "b", "B 2.0.0", "b 1.0.0", "d", "c 1.0.0", "D 1.0.0", "z 1.0.0"]
    assert len(work) == 8


@in_loop
async def test_what_upstream_lacks_is_named_and_comes_by_itself(tmp_path, caplog):
    with FakeUpstream() as upstream:
        crate, name = upstream.read(ITOA_CRATE), upstream.read("/index/3/h/hex")
        upstream.put(ITOA_CRATE, None)
        upstream.put("/index/3/h/hex", None)
        config = listed(tmp_path, upstream)
        async with syncing(config, pace=BUSY) as sync:
            await until(lambda: "missing: hex: absent upstream" in caplog.text)
            assert "; itoa 1.0.18: absent upstream" in caplog.text
            cursors = Cursors(config.cursors)
            reasons = {retry.key: retry.reason for retry in cursors.retries}
            cursors.close()
            assert reasons["itoa 1.0.18"] == reasons["hex"] == "absent upstream"
            upstream.put(ITOA_CRATE, crate)
            upstream.put("/index/3/h/hex", name)
            await until(lambda: list(config.www.glob("crates/itoa/*")))
            await until(lambda: "hex" in sync.signer.files)
            assert len(sync.signer.sweeps) == 1


def test_what_was_refused_and_is_missing_is_counted_once():
    refused = {"itoa": "expected x", "itoa 1.0.18": "itoa 1.0.18: expected x"}
    missing = {"other than in the lock": 1}
    reasons = {"itoa 1.0.18": refused["itoa 1.0.18"], "rand": "index file rand: no connection"}
    report = SyncReport(stored=52, missing=missing, reasons=reasons, refused=refused, is_list=True)
    assert str(report) == "52 stored, 1 missing: 1 other than in the lock; will retry"
    lines = list(details_of_look(report))
    assert "refused: itoa 1.0.18: expected x" in lines
    assert "missing: rand: no connection" in lines
