"""What the signer answers beside yes and no: names it doubts, a sweep it stops."""

import asyncio
from dataclasses import replace

from mirror.core.names import CrateName
from mirror.core.plan import Known
from mirror.store.cursors import Cursors
from tests.fakes.signer import FakeSigner
from tests.fakes.upstream import FakeUpstream
from tests.support.syncing import BUSY, QUICK, Clock, in_loop, settings, sync_once, syncing, until
from tests.unit.test_sync_sweep import ITOA, NAMES, indexed
from tests.unit.test_sync_want import ITOA_CRATE


@in_loop
async def test_what_a_sweep_found_says_of_which_sweep_it_is(tmp_path):
    with FakeUpstream() as upstream:
        config = indexed(tmp_path, upstream)
        _, signer = await sync_once(config)
        sweeping = signer.with_bytes[0].batch.sweeping
        assert (sweeping.began, sweeping.names) == (signer.sweeps[0].began, 6)
        assert signer.batches[-1].batch.sweeping is None


@in_loop
async def test_what_somebody_asked_for_is_part_of_no_sweep(tmp_path):
    with FakeUpstream() as upstream:
        async with syncing(settings(tmp_path, upstream)) as sync:
            await sync.want("itoa", crates=["itoa 1.0.18"])
            assert sync.signer.with_bytes[0].batch.sweeping is None


@in_loop
async def test_a_doubted_name_is_looked_at_again_in_time_though_nobody_asks(tmp_path):
    clock = Clock()
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream)
        async with syncing(config, clock=clock, pace=BUSY) as sync:
            await sync.want("itoa")
            upstream.put(ITOA, None)
            clock.ahead += config.max_age + 1
            sync.signer.doubt = {"itoa": clock() + 900}
            answer = await sync.want("itoa")
            # It stays published, so nobody is told that it is absent.
            assert (answer.absent, answer.failed, answer.refused) == ((), {}, {})
            seen = len(sync.signer.with_bytes)
            clock.ahead += 800
            await sync.want("hex")
            assert len(sync.signer.with_bytes) == seen + 1
            sync.signer.doubt = {}
            clock.ahead += 101
            await until(lambda: len(sync.signer.with_bytes) == seen + 2)
            assert sync.signer.with_bytes[-1].gone == ["itoa"]
            assert (await sync.want("itoa")).absent == ("itoa",)


@in_loop
async def test_a_doubt_outlives_the_process(tmp_path):
    clock = Clock()
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream)
        signer = FakeSigner(config)
        signer.doubt = {"itoa": clock() + 900}
        async with syncing(config, clock=clock, signer=signer) as sync:
            await sync.want("itoa")
            upstream.put(ITOA, None)
            clock.ahead += config.max_age + 1
            await sync.want("itoa")
        cursors = Cursors(config.cursors)
        cursor = cursors.get(CrateName("itoa"))
        assert (cursor.known, cursor.etag, cursor.sha256) == (Known.PUBLISHED, "", "")
        cursors.close()
        clock.ahead += 900
        async with syncing(config, clock=clock, pace=BUSY) as sync:
            await until(lambda: sync.signer.with_bytes)
            assert sync.signer.with_bytes[0].gone == ["itoa"]


@in_loop
async def test_a_doubted_name_that_is_back_unchanged_is_told_to_the_signer(tmp_path):
    clock = Clock()
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream)
        async with syncing(config, clock=clock, pace=BUSY) as sync:
            await sync.want("itoa")
            data = upstream.read(ITOA)
            upstream.put(ITOA, None)
            clock.ahead += config.max_age + 1
            sync.signer.doubt = {"itoa": clock() + 900}
            await sync.want("itoa")
            upstream.put(ITOA, data)
            clock.ahead += 901
            await until(lambda: sync.signer.with_bytes[-1].files == {"itoa": data})
            assert len(sync.signer.with_bytes) == 3


@in_loop
async def test_a_sweep_that_the_signer_stops_ends_at_once_and_is_never_complete(tmp_path, caplog):
    with FakeUpstream() as upstream:
        config = indexed(tmp_path, upstream)
        signer = FakeSigner(config)
        signer.stop = "12 of 600 files are findings"
        report, _ = await sync_once(config, signer=signer)
        assert report.stopped == "12 of 600 files are findings"
        assert (report.looked, report.missing, signer.sweeps) == (0, {}, [])
        assert len(signer.offers) == 1
        assert caplog.text.count("12 of 600") == 1
        # Nothing of it is remembered as looked at.
        report, signer = await sync_once(config)
        assert (report.changed, set(signer.files)) == (6, set(NAMES))
        assert signer.sweeps[0].missing == 0


@in_loop
async def test_after_a_stopped_sweep_the_next_comes_at_its_time(tmp_path, caplog):
    with FakeUpstream() as upstream:
        config = indexed(tmp_path, upstream, sweep_every=0.5)
        signer = FakeSigner(config)
        signer.stop = "too much"
        async with syncing(config, signer=signer, pace=replace(QUICK, tick=0.05)) as sync:
            await until(lambda: "ended by the signer" in caplog.text)
            sync.signer.stop = ""
            await until(lambda: sync.signer.sweeps)
            assert set(sync.signer.files) == set(NAMES)
            assert caplog.text.count("ended by the signer") == 1


@in_loop
async def test_one_line_says_what_was_fetched_and_one_what_was_refused(tmp_path, caplog):
    caplog.set_level("INFO")
    with FakeUpstream() as upstream:
        config = indexed(tmp_path, upstream)
        signer = FakeSigner(config)
        signer.refuse = {"hex": "no good"}
        await sync_once(config, signer=signer)
        lines = [record.getMessage() for record in caplog.records if "outbox" in record.name]
        assert len(lines) == 2
        assert " and 4 more, settled at 101 (" in lines[0]
        assert lines[1].startswith("hex: refused by the signer at 101 (")


@in_loop
async def test_a_signer_that_is_just_starting_is_not_complained_of(tmp_path, caplog):
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream)
        async with syncing(config, pace=replace(QUICK, signer_grace=0.6)) as sync:
            (config.run / "sign.sock").unlink()
            wanted = asyncio.create_task(sync.want("itoa"))
            await asyncio.sleep(0.3)
            assert "the signer" not in caplog.text
            async with FakeSigner(config):
                assert not (await wanted).failed
            assert "the signer" not in caplog.text
            (config.run / "sign.sock").unlink(missing_ok=True)
            wanted = asyncio.create_task(sync.want("hex"))
            await until(lambda: "the signer does not take batch" in caplog.text)
            async with FakeSigner(config):
                assert not (await wanted).failed
            assert "the signer is back" in caplog.text


@in_loop
async def test_a_decision_makes_every_refusal_worth_a_question(tmp_path):
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream)
        signer = FakeSigner(config)
        signer.refuse = {"hex": "no good", "itoa 1.0.18": "no good"}
        signer.policy = "one"
        async with syncing(config, signer=signer, pace=replace(BUSY, watch=0.05)) as sync:
            assert (await sync.want("hex", crates=["itoa 1.0.18"])).refused == signer.refuse
            await asyncio.sleep(0.3)
            assert upstream.requests[ITOA_CRATE] == 1
            signer.refuse = {}
            signer.decide("two")
            # What is on the list comes by itself, and an index file when somebody asks.
            await until(lambda: upstream.requests[ITOA_CRATE] == 2, seconds=3)
            assert not (await sync.want("hex")).refused


@in_loop
async def test_a_crate_refused_in_a_batch_that_was_left_over_is_tried_again(tmp_path):
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream)
        signer = FakeSigner(config)
        signer.silent = 1_000
        async with syncing(config, signer=signer) as sync:
            wanted = asyncio.create_task(sync.want(crates=["itoa 1.0.18"]))
            await until(lambda: signer.offers)
            wanted.cancel()
        signer = FakeSigner(config)
        signer.refuse = {"itoa 1.0.18": "expected sha256 aa, got bb"}
        async with syncing(config, signer=signer):
            await until(lambda: signer.batches)
            await asyncio.sleep(0.2)
        cursors = Cursors(config.cursors)
        assert [retry.key for retry in cursors.retries] == ["itoa 1.0.18"]
        cursors.close()
