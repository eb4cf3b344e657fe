import asyncio

import pytest

from mirror.core.names import CrateId
from mirror.seam import Want, WantAnswer
from mirror.serve.want import Became, Hints, Limits, Outcome, Wants
from tests.fakes.sync import FakeSync

HERE = "192.0.2.1"


def through(run, script, *, answer=lambda _: WantAnswer(), max_hold=5.0, **limits):
    """Run `script(wants, sync)` against a fake sync."""

    async def whole():
        async with FakeSync(run, answer).open() as sync:
            return await script(
                Wants(run / "sync.sock", max_hold, lambda: 0.0, Limits(**limits)), sync
            )

    return asyncio.run(whole())


def test_identical_wants_are_one_question_and_different_ones_are_not(tmp_path):
    async def script(wants, sync):
        crate = CrateId("serde", "1.0.0")
        questions = [wants.index_file("serde", HERE) for _ in range(5)] + [
            wants.crate(crate, HERE)
        ] * 1
        outcomes = await asyncio.gather(*questions)
        again = await wants.index_file("serde", HERE)
        return {*outcomes, again}, sync.asked()

    outcomes, asked = through(tmp_path, script)
    assert outcomes == {Outcome(Became.PUBLISHED)}
    assert asked.count(Want(names=("serde",), client=HERE)) == 2
    assert len(asked) == 3


def test_clients_who_ask_the_same_at_once_are_one_question(tmp_path):
    async def script(wants, sync):
        clients = [f"192.0.2.{number}" for number in range(50)]
        outcomes = await asyncio.gather(*(wants.index_file("serde", each) for each in clients))
        return set(outcomes), sync.asked()

    outcomes, asked = through(tmp_path, script)
    assert outcomes == {Outcome(Became.PUBLISHED)}
    assert asked == [Want(names=("serde",), client="192.0.2.0")]


def test_a_spent_budget_is_nobody_elses(tmp_path):
    spent = "192.0.2.66"

    def answer(want):
        over = want.names if want.client == spent else ()
        return WantAnswer(over_budget=over)

    async def script(wants, _):
        asking = [wants.index_file("serde", client) for client in (spent, HERE, HERE)]
        return [outcome.became for outcome in await asyncio.gather(*asking)]

    became = through(tmp_path, script, answer=answer)
    assert became == [Became.OVER_BUDGET, Became.PUBLISHED, Became.PUBLISHED]


def test_who_goes_away_does_not_end_the_question_of_others(tmp_path):
    async def script(wants, sync):
        sync.hold.clear()
        first, second = (asyncio.create_task(wants.index_file("serde", HERE)) for _ in range(2))
        await sync.asked_once.wait()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        sync.hold.set()
        return await second, len(sync.asked())

    assert through(tmp_path, script) == (Outcome(Became.PUBLISHED), 1)


def test_only_so_many_questions_are_open_at_a_time(tmp_path):
    async def script(wants, sync):
        sync.hold.clear()
        first = asyncio.create_task(wants.index_file("serde", HERE))
        await sync.asked_once.wait()
        refused = await wants.index_file("tokio", HERE)
        sync.hold.set()
        await first
        return refused, await wants.index_file("tokio", HERE)

    refused, later = through(tmp_path, script, questions_max=1)
    assert (refused.became, later.became) == (Became.TOO_MANY, Became.PUBLISHED)


def test_one_client_has_its_share_of_the_questions_and_others_have_theirs(tmp_path):
    async def script(wants, sync):
        sync.hold.clear()
        greedy = [asyncio.create_task(wants.index_file(f"a{n}", HERE)) for n in range(5)]
        await sync.asked_once.wait()
        refused = await wants.index_file("tokio", HERE)
        other = asyncio.create_task(wants.index_file("rand", "192.0.2.2"))
        while Want(names=("rand",), client="192.0.2.2") not in sync.asked():
            await asyncio.sleep(0.005)
        open_at_once = [want.client for want in sync.asked()].count(HERE)
        sync.hold.set()
        outcomes = await asyncio.gather(*greedy, other)
        return refused.became, open_at_once, {each.became for each in outcomes}

    limits = {"questions_max": 4, "client_questions_max": 2, "line_max": 5}
    answer = through(tmp_path, script, **limits)
    assert answer == (Became.TOO_MANY, 2, {Became.PUBLISHED})


def test_a_cold_build_of_400_crates_gets_all_of_them(tmp_path):
    async def script(wants, sync):
        names = [f"a{n}" for n in range(400)]
        outcomes = await asyncio.gather(*(wants.index_file(name, HERE) for name in names))
        return {each.became for each in outcomes}, len(sync.asked())

    assert through(tmp_path, script) == ({Became.PUBLISHED}, 400)


def test_what_stands_in_a_clients_line_holds_up_nobody_who_wants_the_same(tmp_path):
    async def script(wants, sync):
        sync.hold.clear()
        greedy = [asyncio.create_task(wants.index_file(name, HERE)) for name in ("a", "serde")]
        await sync.asked_once.wait()
        other = asyncio.create_task(wants.index_file("serde", "192.0.2.2"))
        while len(sync.asked()) < 2:
            await asyncio.sleep(0.005)
        sync.hold.set()
        outcomes = await asyncio.gather(*greedy, other)
        return {each.became for each in outcomes}, sync.asked()[1]

    became, second = through(tmp_path, script, client_questions_max=1)
    assert became == {Became.PUBLISHED}
    assert second == Want(names=("serde",), client="192.0.2.2")


def test_nobody_stands_in_line_longer_than_max_hold_and_leaves_no_trace(tmp_path):
    async def script(wants, sync):
        sync.hold.clear()
        both = [wants.index_file(name, HERE) for name in ("a", "b")]
        late = {each.became for each in await asyncio.gather(*both)}
        sync.hold.set()
        return late, (await wants.index_file("b", HERE)).became

    answer = through(tmp_path, script, max_hold=0.2, client_questions_max=1)
    assert answer == ({Became.TOO_LONG}, Became.PUBLISHED)


def test_on_the_way_out_those_in_line_are_answered_too(tmp_path):
    async def script(wants, sync):
        sync.hold.clear()
        both = [asyncio.create_task(wants.index_file(name, HERE)) for name in ("a", "b")]
        await sync.asked_once.wait()
        wants.close()
        return {each.became for each in await asyncio.gather(*both)}

    assert through(tmp_path, script, client_questions_max=1) == {Became.CLOSING}


@pytest.mark.parametrize("line", [b"", b"x\n", b"[]\n", b'{"timestamp":[]}\n', b'{"refused":1}\n'])
def test_an_answer_that_is_none_counts_as_nobody_there(tmp_path, line):
    async def script(wants, _):
        return await wants.index_file("serde", HERE)

    outcome = through(tmp_path, script, answer=lambda _: line)
    assert outcome.became is Became.NOBODY_THERE


def test_hints_remember_a_limited_number_of_names():
    async def whole():
        told = []
        hints = Hints(lambda: 0.0, told.append, names_max=3)
        for name in ("a", "b", "c", "d", "a", "d"):
            hints.seen(name)
        await asyncio.sleep(0.2)
        return told

    assert asyncio.run(whole()) == [["a", "b", "c", "d", "a"]]
