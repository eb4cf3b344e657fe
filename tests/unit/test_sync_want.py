"""Wants: one upstream request each, one publication for what belongs together."""

import asyncio
import hashlib
import time
from dataclasses import replace

from mirror.core.batch import Batch, Look, Outcome
from mirror.core.names import CrateId, CrateName
from mirror.core.plan import Cursor
from mirror.store.cursors import Cursors
from mirror.store.spool import BatchWriter
from mirror.sync.ahead import AHEAD_MAX, Ahead
from mirror.sync.flights import Remembered
from mirror.sync.outbox import Ends, Outbox
from mirror.sync.values import ABSENT, Life, Pace
from tests.fakes.signer import FakeSigner
from tests.fakes.upstream import FakeUpstream
from tests.support.crates import index_line
from tests.support.syncing import QUICK, Clock, in_loop, settings, syncing, until

ITOA = "/index/it/oa/itoa"
ITOA_CRATE = "/crates/itoa/itoa-1.0.18.crate"


def index(name, *deps, version="1.0.0"):
    return index_line(name, version, deps=deps) + b"\n"


@in_loop
async def test_a_wanted_name_reaches_the_signer_byte_for_byte(tmp_path):
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream)
        async with syncing(config) as sync:
            answer = await sync.want("itoa")
            assert (answer.absent, answer.refused, answer.failed) == ((), {}, {})
            assert answer.timestamp == sync.signer.timestamp
            assert sync.signer.files == {"itoa": upstream.read(ITOA)}
            assert sync.signer.batches[0].batch.source == upstream.source
            assert sync.signer.batches[0].batch.confirmed is not None
        assert not list(config.spool.glob("[0-9]*"))


@in_loop
async def test_fifty_who_want_the_same_cost_one_request_and_one_batch(tmp_path):
    with FakeUpstream(delay=0.1) as upstream:
        async with syncing(settings(tmp_path, upstream)) as sync:
            wants = [sync.want("itoa", crates=["itoa 1.0.18"]) for _ in range(50)]
            answers = await asyncio.gather(*wants)
            assert all(answer.timestamp == sync.signer.timestamp for answer in answers)
            assert upstream.requests[ITOA] == upstream.requests[ITOA_CRATE] == 1
            assert len(sync.signer.batches) == 1
            assert sync.signer.batches[0].crates["itoa 1.0.18"] == upstream.read(ITOA_CRATE)


@in_loop
async def test_fifty_names_at_once_go_in_few_batches(tmp_path):
    names = [f"crate{number}" for number in range(50)]
    with FakeUpstream(delay=0.02) as upstream:
        for name in names:
            upstream.put(f"/index/cr/at/{name}", index(name))
        config = settings(tmp_path, upstream, jobs=64)
        # About what two syncs of a disk and a few signatures take.
        async with syncing(config, signer=FakeSigner(config, takes=0.1)) as sync:
            await asyncio.gather(*(sync.want(name) for name in names))
            assert set(sync.signer.files) == set(names)
            assert len(sync.signer.batches) <= 8
            assert max(sync.signer.at_once) == 1


@in_loop
async def test_dependencies_come_along_in_the_same_batch_one_level_deep(tmp_path):
    with FakeUpstream() as upstream:
        upstream.put("/index/to/p1/top1", index("top1", "mid1", "mid2"))
        upstream.put("/index/mi/d1/mid1", index("mid1", "deep"))
        upstream.put("/index/mi/d2/mid2", index("mid2"))
        upstream.put("/index/de/ep/deep", index("deep"))
        async with syncing(settings(tmp_path, upstream)) as sync:
            await sync.want("top1")
            assert len(sync.signer.batches) == 1
            assert set(sync.signer.files) == {"top1", "mid1", "mid2"}
            await sync.want("mid1")
            assert upstream.requests["/index/mi/d1/mid1"] == 1
            assert upstream.requests["/index/de/ep/deep"] == 0


@in_loop
async def test_a_dependency_that_hangs_does_not_hold_up_what_was_wanted(tmp_path):
    with FakeUpstream() as upstream:
        upstream.put("/index/to/p1/top1", index("top1", "mid1"))
        upstream.fault("/index/mi/d1/mid1", "hang")
        patient = settings(tmp_path, upstream, stall_timeout=60.0, total_timeout=60.0)
        async with syncing(patient) as sync:
            # Far less than the stall timeout, and than what a want waits for at most.
            answer = await asyncio.wait_for(sync.want("top1"), 15)
            assert not answer.failed
            assert sync.signer.files.keys() == {"top1"}


@in_loop
async def test_a_crate_brings_its_index_file_in_the_same_batch(tmp_path):
    with FakeUpstream() as upstream:
        async with syncing(settings(tmp_path, upstream)) as sync:
            await sync.want(crates=["wasi 0.11.0+wasi-snapshot-preview1"])
            (seen,) = sync.signer.batches
            assert list(seen.files) == ["wasi"]
            assert list(seen.crates) == ["wasi 0.11.0+wasi-snapshot-preview1"]
            await sync.want(crates=["wasi 0.11.0+wasi-snapshot-preview1"])
            assert upstream.total == 3  # index file, config.json, crate


@in_loop
async def test_a_crate_without_an_index_file_upstream_is_absent(tmp_path):
    with FakeUpstream() as upstream:
        upstream.put("/index/it/oa/itoa", None)
        async with syncing(settings(tmp_path, upstream)) as sync:
            answer = await sync.want(crates=["itoa 1.0.18"])
            assert answer.absent == ("itoa 1.0.18",)
            assert sync.signer.batches == []
            assert not list(sync.config.spool.glob("*/*.crate"))


@in_loop
async def test_absence_is_remembered_for_a_while(tmp_path):
    clock = Clock()
    with FakeUpstream() as upstream:
        async with syncing(settings(tmp_path, upstream), clock=clock) as sync:
            for _ in range(3):
                answer = await sync.want("nosuch", crates=["itoa 9.9.9"])
                assert set(answer.absent) == {"nosuch", "itoa 9.9.9"}
            assert upstream.requests["/index/no/su/nosuch"] == 1
            clock.ahead += sync.config.max_age + 1
            await sync.want("nosuch")
            assert upstream.requests["/index/no/su/nosuch"] == 2


@in_loop
async def test_what_the_signer_refuses_is_answered_with_its_reason(tmp_path):
    with FakeUpstream() as upstream:
        async with syncing(settings(tmp_path, upstream)) as sync:
            sync.signer.refuse = {"hex": "no good", "itoa 1.0.18": "wrong checksum"}
            answer = await sync.want("hex", crates=["itoa 1.0.18"])
            assert answer.refused == {"hex": "no good", "itoa 1.0.18": "wrong checksum"}
            assert (await sync.want("hex")).refused == {"hex": "no good"}
            assert upstream.requests["/index/3/h/hex"] == 1


@in_loop
async def test_a_seen_name_is_looked_at_behind_when_it_is_old(tmp_path):
    clock = Clock()
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream)
        async with syncing(config, clock=clock) as sync:
            await sync.want("itoa")
            answer = await sync.want(seen=["itoa"])
            assert 0 < answer.fresh_seconds <= config.max_age
            assert upstream.requests[ITOA] == 1
            clock.ahead += config.max_age + 1
            await sync.want(seen=["itoa"])
            await until(lambda: upstream.answers[304] == 1)
            while not (await sync.want(seen=["itoa"])).fresh_seconds < config.max_age:
                await asyncio.sleep(0.01)  # until that look is over
            changed = upstream.read(ITOA) + index("itoa", version="9.0.0")
            upstream.put(ITOA, changed)
            clock.ahead += config.max_age + 1
            await sync.want(seen=["itoa"])
            await until(lambda: sync.signer.files["itoa"] == changed)
            assert len(sync.signer.batches) == 2


@in_loop
async def test_without_validators_the_same_bytes_are_unchanged(tmp_path):
    clock = Clock()
    with FakeUpstream(validators=False, compress=False) as upstream:
        config = settings(tmp_path, upstream)
        async with syncing(config, clock=clock) as sync:
            await sync.want("itoa")
            clock.ahead += config.max_age + 1
            await sync.want(seen=["itoa"])
            await until(lambda: upstream.requests[ITOA] == 2)
            answer = await sync.want(seen=["itoa"])
            assert answer.fresh_seconds > 0
            assert len(sync.signer.batches) == 1


@in_loop
async def test_a_held_name_that_is_gone_upstream_is_told_to_the_signer_once(tmp_path):
    clock = Clock()
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream)
        async with syncing(config, clock=clock) as sync:
            await sync.want("itoa")
            upstream.put(ITOA, None)
            for _ in range(2):
                clock.ahead += config.max_age + 1
                await sync.want(seen=["itoa"])
                await until(lambda: len(sync.signer.batches) == 2)
            assert sync.signer.batches[1].gone == ["itoa"]


@in_loop
async def test_who_lacks_a_file_gets_its_bytes_whatever_was_remembered(tmp_path):
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream)
        for _ in range(2):  # the second process may stand before a restored, older publication
            async with syncing(config) as sync:
                await sync.want("itoa")
                assert sync.signer.files["itoa"] == upstream.read(ITOA)
        assert upstream.requests[ITOA] == 2
        assert upstream.answers[304] == 0


@in_loop
async def test_a_batch_that_a_dead_process_left_is_offered_again_at_start(tmp_path):
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream)
        (config.spool / "8.tmp").mkdir(parents=True)
        left = BatchWriter(config.spool, 7)
        left.finish(Batch(7, upstream.source))
        async with syncing(config) as sync:
            await until(lambda: sync.signer.batches)
            assert sync.signer.batches[0].batch.number == 7
            await sync.want("itoa")
            assert sync.signer.batches[1].batch.number > 8
        assert [entry.name for entry in config.spool.iterdir()] == ["incoming.tmp"]


@in_loop
async def test_a_signer_that_is_away_gets_the_batch_when_it_is_back(tmp_path):
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream, max_hold=0.2)
        async with syncing(config) as sync:
            sync.signer.free.clear()
            answer = await sync.want("itoa")
            assert "not signed yet" in answer.failed["itoa"]
            late = asyncio.create_task(sync.want("hex"))
            await asyncio.sleep(0.05)
            sync.signer.free.set()
            assert not (await late).failed
            assert upstream.requests[ITOA] == 1
            assert len(sync.signer.batches) == 2


@in_loop
async def test_no_signer_at_all_is_said_and_nothing_is_lost(tmp_path):
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream, max_hold=0.2)
        async with syncing(config) as sync:
            (config.run / "sign.sock").unlink()
            answer = await sync.want("itoa")
            assert "the signer does not answer" in answer.failed["itoa"]
            async with FakeSigner(config) as signer:
                await until(lambda: "itoa" in signer.files)


@in_loop
async def test_a_signer_that_falls_silent_is_offered_the_batch_again(tmp_path):
    with FakeUpstream() as upstream:
        pace = replace(QUICK, offer=0.3)
        async with syncing(settings(tmp_path, upstream), pace=pace) as sync:
            sync.signer.silent = 1
            assert not (await sync.want("itoa")).failed
            first, second = sync.signer.offers
            assert first == second
            assert len(sync.signer.batches) == 1


@in_loop
async def test_what_the_signer_did_not_look_at_is_failed_and_fetched_again(tmp_path):
    with FakeUpstream() as upstream:
        async with syncing(settings(tmp_path, upstream)) as sync:
            sync.signer.refuse_whole = ["a torn batch"]
            answer = await sync.want("itoa", crates=["itoa 1.0.18"])
            assert answer.failed == {"itoa": "a torn batch", "itoa 1.0.18": "a torn batch"}
            assert not list(sync.config.spool.glob("[0-9]*"))
            answer = await sync.want("itoa", crates=["itoa 1.0.18"])
            assert (answer.absent, answer.refused, answer.failed) == ((), {}, {})
            assert upstream.requests[ITOA] == upstream.requests[ITOA_CRATE] == 2
            assert sync.signer.files == {"itoa": upstream.read(ITOA)}


@in_loop
async def test_a_leftover_that_the_signer_did_not_look_at_moves_no_cursor(tmp_path):
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream)
        data = upstream.read(ITOA)
        name = CrateName("itoa")
        left = BatchWriter(config.spool, 7)
        left.add(data)
        digest = hashlib.sha256(data).hexdigest()
        look = Look(name, time.time(), Outcome.BYTES, 0, len(data), digest)
        left.finish(Batch(7, upstream.source, (look,)))
        signer = FakeSigner(config)
        signer.refuse_whole = ["a torn batch"]
        async with syncing(config, signer=signer):
            await until(lambda: not (config.spool / "7").exists())
        assert signer.refused_whole == [7]
        cursors = Cursors(config.cursors)
        assert cursors.get(name) is None
        cursors.close()


@in_loop
async def test_a_published_name_that_is_gone_upstream_is_refused_if_the_signer_says_so(tmp_path):
    clock = Clock()
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream)
        async with syncing(config, clock=clock) as sync:
            await sync.want("itoa")
            upstream.put(ITOA, None)
            sync.signer.refuse = {"itoa": "it was published"}
            clock.ahead += config.max_age + 1
            answer = await sync.want("itoa")
            assert (answer.absent, answer.refused) == ((), {"itoa": "it was published"})
            assert (await sync.want("itoa")).refused == {"itoa": "it was published"}


@in_loop
async def test_what_came_along_brings_its_own_dependencies_once_it_was_seen(tmp_path):
    with FakeUpstream() as upstream:
        upstream.put("/index/to/p1/top1", index("top1", "mid1"))
        upstream.put("/index/mi/d1/mid1", index("mid1", "deep1"))
        upstream.put("/index/de/ep/deep1", index("deep1", "deep2"))
        upstream.put("/index/de/ep/deep2", index("deep2", "deep3"))
        async with syncing(settings(tmp_path, upstream)) as sync:
            await sync.want("top1")
            assert set(sync.signer.files) == {"top1", "mid1"}
            # The answer does not wait: nobody signs anything now.
            sync.signer.free.clear()
            await asyncio.wait_for(sync.want(seen=["mid1"]), 15)
            sync.signer.free.set()
            await until(lambda: "deep1" in sync.signer.files)
            assert set(sync.signer.files) == {"top1", "mid1", "deep1"}
            await sync.want(seen=["mid1", "top1"])  # each brings its own once
            assert upstream.requests["/index/de/ep/deep2"] == 0
            await sync.want(seen=["deep1"])
            await until(lambda: "deep2" in sync.signer.files)
            assert max(upstream.requests.values()) == 1
            assert upstream.requests["/index/de/ep/deep3"] == 0


def test_what_is_remembered_for_later_is_bounded_and_used_once():
    ahead = Ahead()
    names = [CrateName(f"n{number}") for number in range(AHEAD_MAX + 1)]
    for name in names:
        ahead.put(name, [CrateName("dep")])
    ahead.put(CrateName("leaf"), [])
    assert len(ahead) == AHEAD_MAX
    assert ahead.pop(names[0]) == []
    assert ahead.pop(names[1]) == ["dep"]
    assert ahead.pop(names[1]) == []


@in_loop
async def test_somebody_in_a_hurry_hurries_what_is_there_and_not_what_comes_next(tmp_path):
    life = Life(settings(tmp_path, "sparse+http://127.0.0.1:1/"), Clock(), Pace(bulk_age=60.0))
    cursors = Cursors(life.config.cursors)
    outbox = Outbox(life, cursors, Ends(*[lambda *_: None] * 4))
    outbox.open()
    outbox.hurry()
    outbox.add_index(Cursor(CrateName("itoa")), b"{}", urgent=False)
    assert outbox._take() is None
    outbox.hurry()
    taken = outbox._take()
    assert taken.subjects() == ["itoa"]
    taken.writer.abandon()
    cursors.close()


def test_an_answer_from_the_future_does_not_hold():
    clock = Clock()
    remembered = Remembered(clock)
    clock.ahead = 86_400
    remembered.put("itoa", ABSENT, 600.0)
    assert remembered.get("itoa") == ABSENT
    clock.ahead = 0
    assert remembered.get("itoa") is None


@in_loop
async def test_offline_everything_is_absent_and_nobody_is_asked(tmp_path):
    with FakeUpstream() as upstream:
        async with syncing(settings(tmp_path, upstream, offline=True)) as sync:
            answer = await sync.want("itoa", crates=["itoa 1.0.18"], seen=["hex"])
            assert set(answer.absent) == {"itoa", "itoa 1.0.18"}
            assert upstream.total == 0


@in_loop
async def test_a_name_in_any_case_is_one_name(tmp_path):
    with FakeUpstream() as upstream:
        async with syncing(settings(tmp_path, upstream)) as sync:
            await asyncio.gather(sync.want("itoa"), sync.want(CrateName("ITOA")))
            assert upstream.requests[ITOA] == 1
            assert str(CrateId("ITOA", "1.0.0")) == "ITOA 1.0.0"
