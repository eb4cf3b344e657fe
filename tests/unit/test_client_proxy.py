"""The proxy's application: who may ask, what for, and what is said in place of bytes."""

import hashlib
import json

import pytest

from mirror.client.proxy.answers import matches
from mirror.errors import (
    ExpiredError,
    MachineError,
    NotHeldError,
    ProofError,
    UnreachableError,
    WithheldError,
)
from tests.fakes.source import FakeSource, absent
from tests.support.crates import crate_bytes, index_file
from tests.support.proxying import OWN, PLACE, ask, asked, here, proxied

SERDE = index_file("serde", "1.0.0")
TAG = f'"{hashlib.sha256(SERDE).hexdigest()}"'
CRATE = crate_bytes("serde", "1.0.0")
PATH = here("index/se/rd/serde")
CRATE_PATH = here("crates/serde/serde-1.0.0.crate")
WRONG = ProofError("serde", "http://m/serde", "sha256 aa", "sha256 bb", "tell its operator")


@pytest.fixture
def source():
    return FakeSource({"serde": SERDE}, {"serde 1.0.0": CRATE})


# ---- what is answered


def test_the_config_names_where_crates_are_and_nothing_else(source):
    answer = ask(source, here("index/config.json"))
    assert answer.status == 200
    assert json.loads(answer.body) == {
        "dl": f"http://127.0.0.1:8471/{PLACE.root_id}/crates/{{crate}}/{{crate}}-{{version}}.crate"
    }


def test_an_index_file_comes_with_its_signed_digest_as_its_tag(source):
    answer = ask(source, PATH)
    assert (answer.status, answer.body) == (200, SERDE)
    assert answer.headers["etag"] == TAG
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["content-length"] == str(len(SERDE))


@pytest.mark.parametrize("tags", [TAG, f"W/{TAG}", f'"other", {TAG}', "*"])
def test_who_has_the_file_is_told_so_and_it_is_not_fetched(source, tags):
    answer = ask(source, PATH, headers=OWN | {"if-none-match": tags})
    assert (answer.status, answer.body) == (304, b"")
    assert answer.headers["etag"] == TAG
    assert source.called("index_file") == []


def test_who_has_another_file_gets_this_one(source):
    answer = ask(source, PATH, headers=OWN | {"if-none-match": '"other"'})
    assert (answer.status, answer.body) == (200, SERDE)


@pytest.mark.parametrize("condition", [b"", b"abc", b'"ab"', b'"abcd"', b"*x", b'""'])
def test_only_the_whole_tag_is_the_tag(condition):
    assert not matches(condition, b'"abc"')


def test_a_crate_comes_with_its_length(source):
    answer = ask(source, CRATE_PATH)
    assert (answer.status, answer.body) == (200, CRATE)
    assert answer.headers["content-length"] == str(len(CRATE))


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 131_072, 1_000_000])
def test_large_bodies_go_out_in_pieces_and_whole(size):
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert (
        ask(FakeSource(crates={"big 1.0.0": data}), here("crates/big/big-1.0.0.crate")).body == data
    )


def test_head_is_answered_like_get_without_the_body(source):
    answer = ask(source, PATH, method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-length"] == str(len(SERDE))


def test_build_metadata_stands_literally_in_a_path():
    source = FakeSource(crates={"a 1.0.0+b.1": CRATE})
    assert ask(source, here("crates/a/a-1.0.0+b.1.crate")).body == CRATE


# ---- who may ask


@pytest.mark.parametrize(
    "host", ["localhost:8471", "127.0.0.1", "127.0.0.1:8472", "evil.example", "127.0.0.1:8471.", ""]
)
def test_a_request_under_another_name_is_refused(source, host):
    answer = ask(source, PATH, headers={"host": host})
    assert answer.status == 403
    assert "answers to no other name" in answer.text
    assert source.calls == []


def test_a_request_that_names_no_host_is_refused(source):
    assert ask(source, PATH, headers={}).status == 403


@pytest.mark.parametrize("name", ["origin", "sec-fetch-site", "Origin"])
def test_browsers_are_refused(source, name):
    answer = ask(source, PATH, headers=OWN | {name: "null"})
    assert (answer.status, answer.text) == (403, "crateseal: this is for cargo, not for browsers\n")
    assert source.calls == []


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get"])
def test_only_get_and_head_are_answered(source, method):
    answer = ask(source, PATH, method=method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    assert source.calls == []


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "http://index.crates.io/se/rd/serde"),
        ("GET", "https://static.crates.io/crates/serde/serde-1.0.0.crate"),
        ("GET", f"http://127.0.0.1:8471{PATH}"),
        ("CONNECT", "index.crates.io:443"),
        ("POST", "http://evil.example/"),
    ],
)
def test_a_request_past_the_mirror_is_refused_told_and_counted(source, method, target):
    answer = ask(source, target, method=method, headers={"host": "index.crates.io"})
    assert answer.status == 403
    assert f"cargo tried to fetch {target} past the mirror" in answer.text
    (refusal,) = source.tally.since().refused
    assert refusal.subject == target
    assert source.calls == []


def test_a_websocket_is_not_opened(source):
    async def scenario(proxy):
        sent = []

        async def send(message):
            sent.append(message)

        await proxy({"type": "websocket"}, None, send)
        return sent

    assert proxied(source, scenario) == [{"type": "websocket.close"}]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/index/se/rd/serde",
        "/fedcba9876543210/index/se/rd/serde",
        f"/{PLACE.root_id.upper()}/index/se/rd/serde",
        f"/{PLACE.root_id}",
        here(""),
        here("index"),
        here("index/"),
        here("index/config.json/"),
        here("index//se/rd/serde"),
        here("/index/se/rd/serde"),
        here("index/./se/rd/serde"),
        here("index/se/../se/rd/serde"),
        here("index/se/rd/Serde"),
        here("index/SE/RD/serde"),
        here("index/se/rd/%73erde"),
        here("index%2fse/rd/serde"),
        here("index/se/rd/serde?x=1"),
        here("index/se/rd/serde/"),
        here("index/3/s/serde"),
        here("index/se/rd/serde\n"),
        here("crates/serde/serde-1.0.0.crate.asc"),
        here("crates/serde/other-1.0.0.crate"),
        here("crates/serde/serde-1.0.0%2Bx.crate"),
        here("crates/../index/config.json"),
        here("crates/serde/serde-1.crate"),
        here("tuf/metadata/1.root.json"),
        "*",
    ],
)
def test_what_is_not_the_one_path_of_something_is_not_there(source, path):
    source.files["config.json"] = source.files["Serde"] = SERDE
    assert ask(source, path).status == 404
    assert source.calls == []


# ---- what is said in place of bytes


def test_what_does_not_verify_is_a_403_that_says_what_failed_where_and_what_to_do():
    answer = ask(FakeSource({"serde": WRONG}), PATH)
    assert answer.status == 403
    assert answer.text.splitlines() == [
        "crateseal: serde does not verify",
        "  where: http://m/serde",
        "  expected: sha256 aa",
        "  got: sha256 bb",
        "  what to do: tell its operator",
    ]


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (WithheldError("serde", "w", "x", "deny: malware"), 403, "withheld: deny: malware"),
        (absent("serde", proved=True), 404, "proved absent"),
        (absent("serde", proved=False), 404, "unproved"),
        (NotHeldError("serde 1", "w", "the file", "404", "ask"), 403, "is not to be had"),
        (ExpiredError("m", "w", "fresh", "old", "wait", expired_at=1.0), 403, "got: old"),
        (MachineError("the clock says 1970"), 403, "crateseal: the clock says 1970"),
        (PermissionError(13, "Permission denied"), 500, "Permission denied"),
    ],
)
def test_every_error_is_an_answer(error, status, said):
    source = FakeSource({"serde": error}, {"serde 1.0.0": error})
    for path in (PATH, CRATE_PATH):
        answer = ask(source, path)
        assert answer.status == status
        assert said in answer.text
        assert answer.headers["cache-control"] == "no-store"


def test_a_mirror_that_is_away_is_a_503_that_says_when_to_ask_again():
    answer = ask(FakeSource({"serde": UnreachableError("http://m/: no connection")}), PATH)
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert "no connection" in answer.text


def test_an_absence_that_is_not_proved_is_marked():
    assert ask(FakeSource(), PATH).headers["x-crateseal-absence"] == "unproved"


def test_with_strict_absence_only_a_proved_absence_is_told():
    assert ask(FakeSource(), PATH, strict_absence=True).status == 403
    proved = FakeSource({"serde": absent("serde", proved=True)})
    assert ask(proved, PATH, strict_absence=True).status == 404


def test_a_mistake_of_ours_is_an_answer_and_a_traceback_in_the_log(caplog):
    answer = ask(FakeSource({"serde": ZeroDivisionError("oh")}), PATH)
    assert (answer.status, answer.text.count("\n")) == (500, 1)
    assert "ZeroDivisionError" in caplog.text


def test_text_from_outside_cannot_speak_to_a_terminal():
    error = WithheldError("serde", "w", "x", "deny: \x1b[2Jgone\r\nno")
    assert ask(FakeSource({"serde": error}), PATH).text.removesuffix("\n").isprintable()


def test_a_refusal_is_logged_once_however_often_it_is_asked_for(caplog):
    async def scenario(proxy):
        for _ in range(3):
            await asked(proxy, PATH)

    proxied(FakeSource({"serde": WRONG}), scenario)
    assert caplog.text.count("403 serde does not verify where: http://m/serde") == 1
