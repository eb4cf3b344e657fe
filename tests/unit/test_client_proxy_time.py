"""The proxy's application and time: what is slow, what is old, what is fetched ahead."""

import asyncio
import hashlib
import threading
import time
from dataclasses import replace

import pytest

from mirror.client.proxy.work import Looks
from mirror.errors import MachineError, ProofError, UnreachableError
from tests.fakes.source import FakeSource
from tests.support.crates import crate_bytes, index_file
from tests.support.processes import wait_until
from tests.support.proxying import OWN, ask, asked, here, proxied

SERDE = index_file("serde", "1.0.0")
TAG = f'"{hashlib.sha256(SERDE).hexdigest()}"'
CRATE = crate_bytes("serde", "1.0.0")
PATH = here("index/se/rd/serde")
CRATE_PATH = here("crates/serde/serde-1.0.0.crate")
WRONG = ProofError("serde", "http://m/serde", "sha256 aa", "sha256 bb", "tell its operator")


@pytest.fixture
def source():
    return FakeSource({"serde": SERDE}, {"serde 1.0.0": CRATE})


class Gate:
    """Something slow: `gate()` waits until it is opened, then returns or raises."""

    def __init__(self, outcome):
        self.outcome = outcome
        self.opened = threading.Event()
        self.calls = 0

    def __call__(self):
        self.calls += 1
        assert self.opened.wait(10)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def test_what_takes_too_long_is_told_to_come_again_while_the_work_goes_on():
    gate = Gate(SERDE)

    async def scenario(proxy):
        first = await asked(proxy, PATH)
        second = asyncio.create_task(asked(proxy, PATH))
        await asyncio.sleep(0)
        gate.opened.set()
        return first, await second

    first, second = proxied(FakeSource({"serde": gate}), scenario, max_wait=0.05)
    assert (first.status, first.headers["retry-after"]) == (503, "5")
    assert (second.status, second.body) == (200, SERDE)
    assert gate.calls == 1


def test_an_error_that_came_too_late_is_told_to_who_asks_again():
    gate = Gate(WRONG)

    async def scenario(proxy):
        first = await asked(proxy, PATH)
        gate.opened.set()
        await asyncio.sleep(0.05)
        return first, await asked(proxy, PATH)

    first, second = proxied(FakeSource({"serde": gate}), scenario, max_wait=0.05)
    assert (first.status, second.status, gate.calls) == (503, 403, 1)


def test_an_error_that_was_told_is_not_kept():
    source = FakeSource({"serde": WRONG})

    async def scenario(proxy):
        first = await asked(proxy, PATH)
        source.files["serde"] = SERDE
        return first, await asked(proxy, PATH)

    first, second = proxied(source, scenario)
    assert (first.status, second.status) == (403, 200)


def test_what_many_ask_for_at_once_is_done_once():
    gate = Gate(CRATE)

    async def scenario(proxy):
        tasks = [asyncio.create_task(asked(proxy, CRATE_PATH)) for _ in range(16)]
        await asyncio.sleep(0.05)
        gate.opened.set()
        return await asyncio.gather(*tasks)

    answers = proxied(FakeSource(crates={"serde 1.0.0": gate}), scenario)
    assert {answer.body for answer in answers} == {CRATE}
    assert gate.calls == 1


# ---- looking at the mirrors, and ahead


def test_each_answer_rests_on_a_look_that_is_young_enough(source):
    for path, headers in ((PATH, OWN), (CRATE_PATH, OWN), (PATH, OWN | {"if-none-match": TAG})):
        source.calls.clear()
        ask(source, path, headers=headers, refresh_every=7.0)
        assert source.calls[0] == ("refresh", 7.0)


def test_without_any_look_nothing_is_answered(source):
    def fail():
        raise WRONG

    source.on_refresh = fail
    assert ask(source, PATH).status == 403
    assert source.called("index_file") == []
    (refusal,) = source.tally.since().refused
    assert refusal.error is WRONG


def test_after_a_good_look_a_failing_one_changes_nothing_and_is_not_tried_at_each_request(source):
    outcomes = iter([None, UnreachableError("away")])

    def refresh():
        if (error := next(outcomes)) is not None:
            raise error

    source.on_refresh = refresh

    async def scenario(proxy):
        return [(await asked(proxy, PATH)).status for _ in range(4)]

    assert proxied(source, scenario) == [200] * 4
    assert len(source.called("refresh")) == 2


def test_a_clock_that_is_wrong_is_told_even_after_a_good_look(source):
    outcomes = iter([None, MachineError("clock")])

    def refresh():
        if (error := next(outcomes)) is not None:
            raise error

    source.on_refresh = refresh

    async def scenario(proxy):
        return [(await asked(proxy, PATH)).status for _ in range(2)]

    assert proxied(source, scenario) == [200, 403]


def test_who_waits_for_a_look_shares_what_comes_of_it():
    gate = Gate(UnreachableError("away"))
    source = FakeSource(refresh=gate)
    looks, failed = Looks(source, 60.0, print), []

    def look():
        try:
            looks.look()
        except UnreachableError as error:
            failed.append(error)

    threads = [threading.Thread(target=look) for _ in range(5)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    gate.opened.set()
    for thread in threads:
        thread.join()
    assert len(failed) == 5
    assert gate.calls < 5


def test_after_a_good_look_nobody_waits_for_a_mirror_that_does_not_answer():
    gate = Gate(UnreachableError("away"))
    gate.opened.set()
    gate.outcome = None
    source = FakeSource(refresh=gate)
    looks = Looks(source, 0.0, print)
    looks.look()
    gate.opened.clear()
    gate.outcome = UnreachableError("away")
    slow = threading.Thread(target=looks.look)
    slow.start()
    wait_until(lambda: gate.calls == 2)
    others = [threading.Thread(target=looks.look) for _ in range(5)]
    for each in others:
        each.start()
    for each in others:
        each.join(5)
    assert not any(each.is_alive() for each in others)
    assert slow.is_alive()
    gate.opened.set()
    slow.join()
    assert gate.calls == 2


def test_what_users_must_know_is_logged_with_the_first_look_and_not_again(source, caplog):
    source.said = replace(source.said, is_trial=True)

    async def scenario(proxy):
        for _ in range(3):
            await asked(proxy, PATH)

    proxied(source, scenario)
    assert caplog.text.count("TRIAL") == 1


def test_an_index_file_that_was_read_brings_its_dependencies(source):
    async def scenario(proxy):
        await asked(proxy, PATH)
        await asyncio.sleep(0.05)

    proxied(source, scenario)
    assert source.called("prefetch") == [(("serde",), True)]


def test_an_index_file_that_cargo_had_brings_nothing(source):
    async def scenario(proxy):
        await asked(proxy, PATH, headers=OWN | {"if-none-match": TAG})
        await asyncio.sleep(0.05)

    proxied(source, scenario)
    assert source.called("prefetch") == []
