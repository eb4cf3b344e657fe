"""The ring at work, with the real processes: who waits for whom, and what a bad upstream does."""

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from tests.fakes.upstream import FakeUpstream
from tests.support.crates import crate_bytes, index_file, index_line
from tests.support.processes import Up, crateseal, wait_until

NAMES = [f"crate{number:02}" for number in range(50)]


def index(name):
    return f"/index/{name[:2]}/{name[2:4]}/{name}"


def crate(name, version="1.0.0"):
    return f"/crates/{name}/{name}-{version}.crate"


@pytest.fixture
def upstream(tmp_path):
    with FakeUpstream(tmp_path / "upstream") as upstream:
        for name in NAMES:
            upstream.put(index(name), index_file(name, "1.0.0"))
            upstream.put(crate(name), crate_bytes(name, "1.0.0"))
        yield upstream


@contextmanager
def ring(folder, upstream, *options):
    folder.mkdir()
    up = Up("--upstream", upstream.source, *options, cwd=folder)
    try:
        yield up.wait_until_ready()
    finally:
        up.end()


@pytest.fixture
def up(tmp_path, upstream):
    """A mirror to which nothing gets old while a test looks."""
    with ring(tmp_path / "here", upstream, "--workers", "2", "--max-age", "1h") as up:
        yield up


@pytest.fixture
def aging(tmp_path, upstream):
    """A mirror to which everything is old after two seconds."""
    with ring(tmp_path / "here", upstream, "--workers", "2", "--max-age", "2s") as up:
        yield up


@pytest.fixture(scope="module")
def idle(tmp_path_factory):
    """A mirror for questions that lead to nothing."""
    folder = tmp_path_factory.mktemp("idle")
    with (
        FakeUpstream(folder / "upstream") as upstream,
        ring(folder / "here", upstream, "--max-age", "1h") as up,
    ):
        yield up


def at_once(url, paths):
    """Ask for all paths at the same moment, each over a connection of its own."""
    barrier = threading.Barrier(len(paths))

    def ask(path):
        with httpx.Client(timeout=30) as client:
            barrier.wait()
            return client.get(f"{url}{path}")

    with ThreadPoolExecutor(len(paths)) as pool:
        return list(pool.map(ask, paths))


def publications(up):
    return up.err.count(" published ")


def test_fifty_first_requests_for_one_crate_are_one_request_upstream(up, upstream):
    upstream.delay = 0.2
    answers = at_once(up.url, [index("crate07")] * 50)
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.content for answer in answers} == {upstream.read(index("crate07"))}
    assert upstream.requests[index("crate07")] == 1
    assert publications(up) == 1

    answers = at_once(up.url, [crate("crate07")] * 50)
    assert {answer.content for answer in answers} == {upstream.read(crate("crate07"))}
    assert upstream.requests[crate("crate07")] == 1
    assert publications(up) == 1  # a crate changes no metadata


def test_fifty_first_requests_for_fifty_crates_are_few_publications(up, upstream):
    upstream.delay = 0.2
    answers = at_once(up.url, [index(name) for name in NAMES])
    assert [answer.content for answer in answers] == [upstream.read(index(n)) for n in NAMES]
    assert all(upstream.requests[index(name)] == 1 for name in NAMES)
    assert publications(up) <= 10


def test_dependencies_come_along_in_the_same_publication(up, upstream):
    deps = tuple(NAMES[:10])
    upstream.put("/index/pa/re/parent", index_file("parent", "1.0.0", deps=deps))
    assert up.get("/index/pa/re/parent").status_code == 200
    assert publications(up) == 1
    before = upstream.total
    for name in deps:
        assert up.get(index(name)).status_code == 200
    assert upstream.total == before


def test_a_crate_may_be_asked_for_without_its_index_file(up, upstream):
    answer = up.get(crate("crate01"))
    assert (answer.status_code, answer.content) == (200, upstream.read(crate("crate01")))


def test_want_brings_many_names_in_one_publication(up, upstream):
    upstream.put(index("broken"), index_line("other", "1.0.0"))
    names = [*NAMES[:20], "nobody", "broken"]
    answer = httpx.post(f"{up.url}/api/v1/want", json={"names": names}, timeout=20)
    said = answer.json()
    assert answer.status_code == 200, said
    assert said["absent"] == ["nobody"]
    assert "broken" in said["refused"]
    assert said["pending"] == []
    assert publications(up) <= 2
    timestamp = httpx.get(f"{up.url}/tuf/metadata/timestamp.json").json()
    assert timestamp["signed"]["version"] >= said["timestamp"]
    before = upstream.total
    assert all(up.get(index(name)).status_code == 200 for name in NAMES[:20])
    assert upstream.total == before


def test_a_held_file_is_not_asked_for_again_while_it_is_young(up, upstream):
    name = "crate03"
    held = up.get(index(name)).content
    upstream.put(index(name), index_file(name, "1.0.0", "1.1.0"))
    for other in NAMES[10:20]:
        assert up.get(index(name)).content == held
        # Each answer says that `sync` has heard of it meanwhile.
        assert up.get(index(other)).status_code == 200
    assert upstream.requests[index(name)] == 1


def test_a_held_file_is_asked_for_again_once_it_is_old_and_somebody_wants_it(aging, upstream):
    name = "crate03"
    assert aging.get(index(name)).status_code == 200
    newer = index_file(name, "1.0.0", "1.1.0")
    upstream.put(index(name), newer)
    wait_until(lambda: aging.get(index(name)).content == newer, every=0.3)
    assert "if-none-match" in upstream.headers[index(name)]


def test_what_upstream_lacks_is_404_and_says_so(up):
    answer = up.get("/index/no/bo/nobody")
    assert answer.status_code == 404
    assert "nobody" in answer.text


BAD = {
    "500": ("status", 500),
    "403": ("status", 403),
    "truncated": ("truncate", None),
    "html": ("html", None),
    "empty": ("empty", None),
    "no answer": ("close", None),
    "gzip bomb": ("bomb", None),
    "two gzip members": ("two-members", None),
}


@pytest.mark.parametrize("fault", BAD.values(), ids=BAD)
def test_a_bad_answer_for_an_index_file_is_503_and_nothing_is_stored(up, upstream, fault):
    upstream.fault(index("crate05"), *fault)
    answer = up.get(index("crate05"))
    assert answer.status_code == 503, answer.text
    assert answer.headers["retry-after"] == "5"
    assert "crate05" in answer.text
    assert publications(up) == 0
    assert up.get(index("crate06")).status_code == 200  # its neighbours go on
    upstream.heal(index("crate05"))
    wait_until(lambda: up.get(index("crate05")).status_code == 200, every=0.3)


@pytest.mark.parametrize(
    ("lines", "rule"),
    [
        (b'{"name":"crate05","vers":', "malformed-index"),
        (index_line("other", "1.0.0"), "malformed-index"),
        (index_line("crate05", "1.0.0").replace(b'"cksum"', b'"cksums"'), "malformed-index"),
    ],
)
def test_what_is_no_index_file_is_403_with_the_signed_reason_until_it_is_one(
    aging, upstream, lines, rule
):
    upstream.put(index("crate05"), lines)
    answer = aging.get(index("crate05"))
    assert answer.status_code == 403, answer.text
    assert "crate05" in answer.text
    # The signer answers first, and writes its heartbeat then.
    wait_until(lambda: aging.get("/status.json").json()["quarantined"])
    status = crateseal("status", "--json", "--data", aging.data, cwd=aging.data.parent)
    assert status.returncode == 1
    (shown,) = json.loads(status.stdout)["quarantined"]
    assert (shown["name"], shown["rule"]) == ("crate05", rule)
    upstream.put(index("crate05"), index_file("crate05", "1.0.0"))
    wait_until(lambda: aging.get(index("crate05")).status_code == 200, every=0.3)


def test_a_crate_with_wrong_bytes_is_403_and_never_stored(up, upstream):
    upstream.fault(crate("crate05"), "wrong", crate_bytes("crate05", "6.6.6"))
    answer = up.get(crate("crate05"))
    assert answer.status_code == 403, answer.text
    assert "sha256" in answer.text
    assert not list(up.data.glob("www/crates/**/*.crate"))


def test_a_changed_cksum_keeps_what_is_published(aging, upstream):
    name = "crate08"
    good = aging.get(index(name)).content
    upstream.put(index(name), index_line(name, "1.0.0", "6" * 64))
    wait_until(lambda: aging.get(index(name)) and "quarantined" in aging.err, every=0.3)
    answer = aging.get(index(name))
    assert (answer.status_code, answer.content) == (200, good)
    wait_until(lambda: aging.get("/status.json").json()["quarantined"])
    page = aging.get("/").text
    assert name in page
    assert "cksum" in page


def test_an_upstream_that_hangs_holds_nobody_longer_than_max_hold(tmp_path, upstream):
    # After ten seconds without a byte the fetch itself fails: that is another answer.
    with ring(tmp_path / "hold", upstream, "--max-hold", "1s") as up:
        upstream.fault(index("crate05"), "hang")
        answer = up.get(index("crate05"))
        assert answer.status_code == 503
        assert "still being fetched" in answer.text
        assert up.get(index("crate06")).status_code == 200


PATHS = [
    "/index/../keys/timestamp.pem",
    "/index/..%2f..%2fkeys%2ftimestamp.pem",
    "/%2e%2e/keys/timestamp.pem",
    "/crates/../../keys/timestamp.pem",
    "/crates/a/..%2f..%2f..%2fkeys%2ftimestamp.pem",
    "/tuf/metadata/..%2f..%2f..%2fledger.sqlite3",
    "/tuf/targets/index/..%2f..%2f..%2f..%2fkeys/timestamp.pem",
    "//keys/timestamp.pem",
    "/index/se/rd/serde%00",
    "/index/SE/RD/SERDE",
    "/status.json/../../keys/timestamp.pem",
]


@pytest.mark.parametrize("path", PATHS)
def test_no_path_leads_out_of_the_web_root(idle, path):
    host, port = idle.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 30) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert answer.split()[1] in {b"404", b"400"}, answer[:200]
    assert b"PRIVATE" not in answer
