"""What is not held: who is asked for it, and what clients are told."""

import asyncio

import pytest

from mirror.core.names import CrateId
from mirror.seam import Want, WantAnswer
from tests.fakes.sync import NOW, FakeSync, client_of
from tests.fakes.www import COMPLETE, LISTED, index_line
from tests.support.serving import CRATE, LINES, PATH, ask, publishing, serde_www, with_sync

HERE = "127.0.0.1"
LACKING = "/crates/serde/serde-1.1.0+meta.crate"
MADE_UP = "/crates/serde/serde-9.9.9.crate"


@pytest.fixture
def www(tmp_path):
    return serde_www(tmp_path)


def test_an_index_file_that_is_lacking_is_fetched_and_answered(www):
    answers, sync = with_sync(www, publishing(www), "/index/to/ki/tokio")
    assert (answers[0].status_code, answers[0].content) == (
        200,
        index_line("tokio", "1.0.0", CRATE),
    )
    assert sync.asked() == [Want(names=("tokio",), client=HERE)]


def test_fifty_simultaneous_first_requests_are_one_want(www):
    answers, sync = with_sync(www, publishing(www), *["/index/to/ki/tokio"] * 50)
    assert {answer.status_code for answer in answers} == {200}
    assert len(sync.asked()) == 1


def test_a_crate_that_is_lacking_is_fetched(www):
    www.put_index("rand", index_line("rand", "0.9.0", CRATE))
    www.publish()
    answers, sync = with_sync(www, publishing(www), "/crates/rand/rand-0.9.0.crate")
    assert answers[0].content == CRATE
    assert sync.asked() == [Want(crates=(CrateId("rand", "0.9.0"),), client=HERE)]


def test_a_crate_may_be_asked_for_before_its_index_file(www):
    answers, sync = with_sync(www, publishing(www), "/crates/Rand/Rand-0.9.0.crate")
    assert answers[0].content == CRATE
    assert sync.asked() == [Want(crates=(CrateId("Rand", "0.9.0"),), client=HERE)]


@pytest.mark.parametrize("answer", [WantAnswer(timestamp=1), WantAnswer(absent=("serde",))])
def test_for_a_made_up_version_nobody_asks_upstream_for_a_crate(www, answer):
    paths = [f"/crates/serde/serde-9.9.{number}.crate" for number in range(20)]
    answers, sync = with_sync(www, lambda _: answer, *paths)
    assert {answer.status_code for answer in answers} == {404}
    assert sync.asked() == [Want(names=("serde",), client=HERE)]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (WantAnswer(failed={"serde": "upstream said 500"}), "upstream said 500"),
        (b"", "fetching side is not running"),
    ],
)
def test_while_the_index_file_cannot_be_looked_at_a_version_may_exist(www, answer, words):
    answers, sync = with_sync(www, lambda _: answer, MADE_UP)
    assert (answers[0].status_code, words in answers[0].text) == (503, True)
    assert sync.asked() == [Want(names=("serde",), client=HERE)]


def test_a_version_that_was_published_a_moment_ago_is_found(www):
    def answer(want):
        if want.names:
            www.put_index("serde", *LINES, index_line("serde", "1.2.0", CRATE))
        else:
            www.put_crate("serde", "1.2.0", CRATE)
        return WantAnswer(timestamp=www.publish())

    answers, sync = with_sync(www, answer, "/crates/serde/serde-1.2.0.crate")
    assert answers[0].content == CRATE
    crate = Want(crates=(CrateId("serde", "1.2.0"),), client=HERE)
    assert sync.asked() == [Want(names=("serde",), client=HERE), crate]


def test_a_listed_version_is_asked_for_though_the_index_file_cannot_name_it_yet(www):
    www.state = {**LISTED, "complete_as_of": None}
    www.publish()
    answers, sync = with_sync(www, publishing(www), "/crates/serde/serde-1.2.0.crate")
    assert answers[0].content == CRATE
    assert sync.asked() == [Want(crates=(CrateId("serde", "1.2.0"),), client=HERE)]


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (WantAnswer(absent=("tokio",)), 404, "upstream has no such crate"),
        (WantAnswer(over_budget=("tokio",)), 429, "too many crates"),
        (WantAnswer(refused={"tokio": "line 3 is \x1b[31mno JSON"}), 403, "line 3 is ?[31mno JSON"),
        (WantAnswer(failed={"tokio": "upstream said 500"}), 503, "upstream said 500"),
        (WantAnswer(timestamp=9), 503, "not published yet"),
        (b"garbage\n", 503, "fetching side is not running"),
        (b"", 503, "fetching side is not running"),
    ],
)
def test_what_became_of_a_want_is_said_in_plain_text(www, answer, status, words):
    answers, _ = with_sync(www, lambda _: answer, "/index/to/ki/tokio")
    assert answers[0].status_code == status
    assert words in answers[0].text
    assert answers[0].headers["content-type"].startswith("text/plain")
    assert answers[0].headers["cache-control"] == "no-store"
    assert (answers[0].headers.get("retry-after") == "5") is (status in {429, 503})


@pytest.mark.parametrize(
    ("key", "path"), [("serde 1.1.0+meta", LACKING), ("serde", LACKING), ("serde", MADE_UP)]
)
def test_a_crate_beyond_the_budget_is_429(www, key, path):
    answer = WantAnswer(over_budget=(key,))
    answers, _ = with_sync(www, lambda _: answer, path)
    assert (answers[0].status_code, answers[0].headers["retry-after"]) == (429, "5")


@pytest.mark.parametrize(
    ("key", "path"), [("serde 1.1.0+meta", LACKING), ("serde", LACKING), ("serde", MADE_UP)]
)
def test_a_refused_crate_is_403_by_its_own_name_or_its_index_files(www, key, path):
    answer = WantAnswer(refused={key: "its checksum is another"})
    answers, _ = with_sync(www, lambda _: answer, path)
    assert (answers[0].status_code, "its checksum is another" in answers[0].text) == (403, True)


def test_what_is_published_counts_whatever_sync_says(www):
    def answer(want):
        publishing(www)(want)
        return WantAnswer(failed={"tokio": "no idea"})

    answers, _ = with_sync(www, answer, "/index/to/ki/tokio")
    assert answers[0].status_code == 200


def test_nobody_waits_longer_than_max_hold(www):
    async def run():
        async with FakeSync(www.root.parent / "run").open() as sync:
            sync.hold.clear()
            _, client = client_of(www.root.parent, max_hold=0.1)
            async with client:
                return await client.get("/index/to/ki/tokio")

    answer = asyncio.run(run())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "still being fetched" in answer.text


def test_without_sync_what_is_held_is_served_and_the_rest_is_503(www):
    assert ask(www, PATH).status_code == 200
    answer = ask(www, "/index/to/ki/tokio")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_in_a_complete_index_absence_is_404_with_no_want(www):
    www.state = COMPLETE
    www.publish()
    paths = "/index/to/ki/tokio", "/crates/tokio/tokio-1.0.0.crate"
    answers, sync = with_sync(www, publishing(www), *paths)
    assert [answer.status_code for answer in answers] == [404, 404]
    assert sync.asked() == []


def test_what_is_on_no_list_is_404_and_says_so(www):
    www.state = LISTED
    www.publish()
    paths = (
        "/index/to/ki/tokio",
        "/crates/tokio/tokio-1.0.0.crate",
        "/crates/serde/serde-9.0.0.crate",
    )
    answers, sync = with_sync(www, publishing(www), *paths)
    for answer in answers:
        assert answer.status_code == 404
        assert "not on the list of this mirror" in answer.text
    assert sync.asked() == []


def test_before_all_of_a_list_is_held_what_lacks_is_asked_for(www):
    www.state = {**LISTED, "complete_as_of": None}
    www.publish()
    answers, _ = with_sync(www, publishing(www), "/index/to/ki/tokio")
    assert answers[0].status_code == 200
    answers, _ = with_sync(www, lambda _: WantAnswer(absent=("rand",)), "/index/ra/nd/rand")
    assert answers[0].text == (
        "rand is not held by this mirror: it is on no list of it, or could not be fetched yet\n"
    )


def test_offline_what_is_held_is_served_and_the_rest_is_404_with_no_want(www):
    www.put_index("rand", index_line("rand", "0.9.0", CRATE))
    www.publish()
    paths = PATH, "/index/to/ki/tokio", "/crates/to/to-1.0.0.crate", "/crates/rand/rand-0.9.0.crate"
    answers, sync = with_sync(www, publishing(www), *paths, offline=True)
    assert [answer.status_code for answer in answers] == [200, 404, 404, 404]
    assert all("this mirror, which is offline" in answer.text for answer in answers[1:])
    assert sync.asked() == []


def test_in_an_index_that_is_not_complete_yet_a_miss_is_a_want(www):
    www.state = {**COMPLETE, "complete_as_of": None}
    www.publish()
    answers, _ = with_sync(www, publishing(www), "/index/to/ki/tokio")
    assert answers[0].status_code == 200


def test_in_a_complete_index_a_crate_is_fetched_all_the_same(www):
    www.state = COMPLETE
    www.put_index("rand", index_line("rand", "0.9.0", CRATE))
    www.publish()
    answers, _ = with_sync(www, publishing(www), "/crates/rand/rand-0.9.0.crate")
    assert answers[0].content == CRATE


# ---- hints and the end


def test_held_names_are_told_as_seen_together_and_once(www):
    www.put_index("tokio", index_line("tokio", "1.0.0"))
    www.publish()

    async def run():
        answer = WantAnswer(fresh_seconds=600.0)
        async with FakeSync(www.root.parent / "run", lambda _: answer).open() as sync:
            now = [1000.0]
            _, client = client_of(www.root.parent, monotonic=lambda: now[0])
            async with client:
                for _ in range(3):
                    await asyncio.gather(client.get(PATH), client.get("/index/to/ki/tokio"))
                await sync.told(1)
                now[0] += 599
                await client.get(PATH)
                now[0] += 2
                await client.get("/index/to/ki/tokio")
                await sync.told(2)
            return sync.wants

    wants = asyncio.run(run())
    assert [sorted(want.seen) for want in wants] == [["serde", "tokio"], ["tokio"]]


def test_a_hint_lasts_as_long_as_sync_says_and_no_longer(www):
    """One that comes while the file is young must not silence those that come when it is old."""

    async def run():
        answer = WantAnswer(fresh_seconds=1.5)
        async with FakeSync(www.root.parent / "run", lambda _: answer).open() as sync:
            now = [1000.0]
            _, client = client_of(www.root.parent, monotonic=lambda: now[0])
            async with client:
                for count in (1, 2, 3):
                    await client.get(PATH)
                    await sync.told(count)
                    now[0] += 1.6
            return sync.wants

    assert asyncio.run(run()) == [Want(seen=("serde",))] * 3


def test_a_clock_that_is_set_back_silences_no_hint(www):
    async def run():
        async with FakeSync(www.root.parent / "run").open() as sync:
            wall, passed = [NOW], [0.0]
            _, client = client_of(
                www.root.parent, clock=lambda: wall[0], monotonic=lambda: passed[0]
            )
            async with client:
                await client.get(PATH)
                await sync.told(1)
                wall[0] -= 86_400
                passed[0] += 61
                await client.get(PATH)
                await sync.told(2)
            return sync.wants

    assert asyncio.run(run()) == [Want(seen=("serde",))] * 2


def test_on_the_way_out_those_who_wait_are_answered_503(www):
    async def run():
        async with FakeSync(www.root.parent / "run").open() as sync:
            sync.hold.clear()
            app, client = client_of(www.root.parent)
            async with client:
                waiting = asyncio.create_task(client.get("/index/to/ki/tokio"))
                await sync.asked_once.wait()
                app.drain()
                others = [await client.get(path) for path in ("/index/ra/nd/rand", PATH)]
                return await waiting, *others

    waited, late, held = asyncio.run(run())
    assert (waited.status_code, late.status_code, held.status_code) == (503, 503, 200)
    assert "going away" in waited.text
    assert held.headers["connection"] == "close"
