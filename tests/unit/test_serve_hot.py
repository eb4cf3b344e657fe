import asyncio
import errno
import gzip
import hashlib
import json
import os
from pathlib import Path
from urllib.parse import unquote

import pytest

from mirror.core.names import CrateId
from mirror.seam import Want, WantAnswer
from mirror.serve.files import Files
from mirror.serve.hot import Hot
from mirror.serve.site import Site
from mirror.serve.want import Wants
from mirror.store.publication import Publications
from tests.fakes.sync import NOW, FakeSync, client_of
from tests.fakes.www import COMPLETE, FakeWww, index_line

CRATE = b"\x1f\x8b not really a crate" * 9
LINES = index_line("serde", "1.0.0", CRATE), index_line("serde", "1.1.0+meta", CRATE)
SERDE = b"".join(LINES)
DIGEST = hashlib.sha256(SERDE).hexdigest()
PATH = "/index/se/rd/serde"
CRATE_PATH = "/crates/serde/serde-1.0.0.crate"


@pytest.fixture
def www(tmp_path):
    www = FakeWww(tmp_path / "www")
    www.put_index("serde", *LINES)
    www.put_crate("serde", "1.0.0", CRATE)
    www.publish()
    return www


def ask(www, path, *, method="GET", settings=(), **headers):
    """One request to a server with no sync."""

    async def run():
        _, client = client_of(www.root.parent, **dict(settings))
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        async with client:
            return await client.request(method, path, headers=named)

    return asyncio.run(run())


def with_sync(www, answer, *paths, **settings):
    """All requests at once, to a server whose sync answers so; return (answers, sync)."""

    async def run():
        async with FakeSync(www.root.parent / "run", answer).open() as sync:
            _, client = client_of(www.root.parent, **settings)
            async with client:
                return await asyncio.gather(*(client.get(path) for path in paths)), sync

    return asyncio.run(run())


# ---- what is held


def test_an_index_file_is_answered_with_its_bytes(www):
    answer = ask(www, PATH)
    assert (answer.status_code, answer.content) == (200, SERDE)
    assert answer.headers["etag"] == f'"{DIGEST}"'
    assert answer.headers["vary"] == "accept-encoding"
    assert answer.headers["cache-control"] == "public, max-age=5"
    assert answer.headers["content-length"] == str(len(SERDE))
    assert "content-encoding" not in answer.headers


def test_an_index_file_is_gzip_compressed_when_asked_for(www):
    answer = ask(www, PATH, accept_encoding="deflate, gzip;q=0.5")
    assert (answer.headers["content-encoding"], answer.content) == ("gzip", SERDE)
    assert answer.headers["content-length"] == str(len(gzip.compress(SERDE, mtime=0)))
    assert answer.headers["etag"] == f'"{DIGEST}-gzip"'


@pytest.mark.parametrize("value", ["", "identity", "br", "gzip;q=0", "gzip; q=0.000, br"])
def test_gzip_is_not_sent_to_who_does_not_want_it(www, value):
    assert "content-encoding" not in ask(www, PATH, accept_encoding=value).headers


def test_without_its_gz_an_index_file_goes_out_plain(www):
    www.put_index("tokio", index_line("tokio", "1.0.0"), gz=False)
    www.publish()
    answer = ask(www, "/index/to/ki/tokio", accept_encoding="gzip")
    assert answer.status_code == 200
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize(
    "condition",
    ['"{}"', 'W/"{}"', '"{}-gzip"', '"x", W/"{}"', "*", '"a","{}"'],
)
def test_who_has_the_bytes_already_gets_304(www, condition):
    answer = ask(www, PATH, if_none_match=condition.format(DIGEST))
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == f'"{DIGEST}"'
    assert "content-length" not in answer.headers


@pytest.mark.parametrize("condition", ['"other"', '""', "garbage", DIGEST, f'"{DIGEST}0"'])
def test_any_other_tag_gets_the_bytes(www, condition):
    assert ask(www, PATH, if_none_match=condition).status_code == 200


def test_head_has_the_headers_and_no_body(www):
    for path, length in ((PATH, len(SERDE)), (CRATE_PATH, len(CRATE))):
        answer = ask(www, path, method="HEAD")
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-length"] == str(length)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("path", [PATH, CRATE_PATH, "/tuf/metadata/timestamp.json"])
def test_other_methods_are_not_for_files(www, path, method):
    answer = ask(www, path, method=method)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


def test_config_json_is_the_servers_own(www):
    www.write("index/config.json", b"not this one")
    answer = ask(www, "/index/config.json")
    assert answer.json() == {"dl": "http://127.0.0.1:8470/crates/{crate}/{crate}-{version}.crate"}
    settings = {"public_url": "https://crates.example.org/rust"}
    answer = ask(www, "/index/config.json", settings=settings)
    assert answer.json()["dl"].startswith("https://crates.example.org/rust/crates/{crate}/")


def test_a_crate_is_answered_as_it_lies_there(www):
    answer = ask(www, CRATE_PATH, accept_encoding="gzip")
    assert (answer.status_code, answer.content) == (200, CRATE)
    assert "content-encoding" not in answer.headers
    assert answer.headers["etag"] == f'"{hashlib.sha256(CRATE).hexdigest()}"'
    assert "immutable" in answer.headers["cache-control"]
    assert ask(www, CRATE_PATH, if_none_match=answer.headers["etag"]).status_code == 304


def test_a_plus_in_a_version_stands_literally_or_encoded(www):
    www.put_crate("serde", "1.1.0+meta", CRATE)
    for path in ("/crates/serde/serde-1.1.0+meta.crate", "/crates/serde/serde-1.1.0%2Bmeta.crate"):
        assert ask(www, path).content == CRATE


def test_a_big_crate_is_streamed_whole(www):
    big = bytes(range(256)) * 4_000  # a megabyte
    www.put_index("big", index_line("big", "1.0.0", big))
    www.put_crate("big", "1.0.0", big)
    www.publish()
    answer = ask(www, "/crates/big/big-1.0.0.crate")
    assert answer.content == big
    assert answer.headers["content-length"] == str(len(big))


def test_who_goes_away_in_the_middle_of_a_big_crate_leaves_no_descriptor_open(www):
    big = bytes(range(256)) * 4_000
    www.put_index("big", index_line("big", "1.0.0", big))
    www.put_crate("big", "1.0.0", big)
    www.publish()

    async def run():
        app, _ = client_of(www.root.parent)
        begun = asyncio.Event()

        async def send(message):
            if message["type"] == "http.response.body":
                begun.set()
                await asyncio.sleep(60)

        scope = scope_of("/crates/big/big-1.0.0.crate")
        answering = asyncio.create_task(app(scope, None, send))
        await begun.wait()
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
        return [each.resolve().name for each in Path("/proc/self/fd").iterdir()]

    assert "big-1.0.0.crate" not in asyncio.run(run())


def test_a_big_crate_for_which_no_descriptor_is_left_is_503(www):
    class NoneLeft(Files):
        is_out = False

        def open(self, path):
            if self.is_out:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return super().open(path)

    big = bytes(range(256)) * 4_000
    www.put_index("big", index_line("big", "1.0.0", big))
    www.put_crate("big", "1.0.0", big)
    www.publish()
    files = NoneLeft(www.root)
    site = Site(www.root, Publications(www.root), files)
    hot = Hot(site, Wants(www.root / "sync.sock", 1.0, lambda: 0.0), "http://mirror")

    async def run():
        sent = []

        async def send(message):
            sent.append(message)

        for files.is_out in (False, True):
            await hot.answer(scope_of("/crates/big/big-1.0.0.crate"), send)
        return [message["status"] for message in sent if "status" in message]

    assert asyncio.run(run()) == [200, 503]


def test_crate_paths_keep_the_names_case_and_the_404_says_so(www):
    www.put_index("inflector", index_line("Inflector", "1.0.0", CRATE))
    www.put_crate("Inflector", "1.0.0", CRATE)
    www.publish()
    assert ask(www, "/crates/Inflector/Inflector-1.0.0.crate").content == CRATE
    answer = ask(www, "/crates/inflector/inflector-1.0.0.crate")
    assert answer.status_code == 404
    assert "did you mean /crates/Inflector/Inflector-1.0.0.crate?" in answer.text


def test_metadata_says_whether_it_can_change(www):
    timestamp = ask(www, "/tuf/metadata/timestamp.json")
    assert timestamp.headers["cache-control"] == "public, max-age=5"
    for file in (
        "1.root.json",
        "1.snapshot.json",
        "1.targets.json",
        "1.crates.json",
        "1.crates-0a.json",
    ):
        answer = ask(www, f"/tuf/metadata/{file}")
        assert answer.content == (www.root / "tuf/metadata" / file).read_bytes()
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["content-type"] == "application/json"
    assert ask(www, "/tuf/metadata/2.root.json").status_code == 404


def test_a_timestamp_has_a_new_tag_when_it_is_a_new_one(www):
    first = ask(www, "/tuf/metadata/timestamp.json").headers["etag"]
    www.publish()
    answer = ask(www, "/tuf/metadata/timestamp.json", if_none_match=first)
    assert (answer.status_code, answer.json()["signed"]["version"]) == (200, 2)


def test_targets_have_consistent_snapshot_names(www):
    answer = ask(www, f"/tuf/targets/index/se/rd/{DIGEST}.serde")
    assert answer.content == SERDE
    assert "immutable" in answer.headers["cache-control"]


def test_a_target_of_a_kept_publication_stays_reachable(www):
    www.put_index("serde", *LINES, index_line("serde", "2.0.0"))
    www.publish()
    assert ask(www, PATH).content != SERDE
    assert ask(www, f"/tuf/targets/index/se/rd/{DIGEST}.serde").content == SERDE
    assert ask(www, "/tuf/metadata/1.crates-00.json").status_code == 200


def test_one_file_has_the_caching_of_the_address_it_was_asked_by(www):
    async def run():
        _, client = client_of(www.root.parent)
        async with client:
            for _ in range(2):
                assert "max-age=5" in (await client.get(PATH)).headers["cache-control"]
                target = await client.get(f"/tuf/targets/index/se/rd/{DIGEST}.serde")
                assert "immutable" in target.headers["cache-control"]

    asyncio.run(run())


def test_a_byte_that_is_flipped_on_disk_goes_out_flipped(www):
    """Nothing kept in memory hides from clients what happened to the files."""

    async def run():
        _, client = client_of(www.root.parent)
        async with client:
            assert (await client.get(CRATE_PATH)).content == CRATE
            (www.root / "crates/serde/serde-1.0.0.crate").write_bytes(CRATE[:-1] + b"!")
            assert (await client.get(CRATE_PATH)).content == CRATE[:-1] + b"!"

    asyncio.run(run())


# ---- only what was signed


def test_without_its_line_in_the_bin_an_index_file_is_404(www):
    www.state = COMPLETE
    www.drop("index/se/rd/serde")
    www.publish()
    www.link_index()
    assert (www.root / f"tuf/targets/index/se/rd/{DIGEST}.serde").exists()
    answer = ask(www, PATH)
    assert answer.status_code == 404
    assert "complete as of 2026-11-21T09:00:00Z" in answer.text
    assert ask(www, CRATE_PATH).status_code == 404


def test_in_mode_cache_the_same_is_503_and_never_the_file(www):
    www.drop("index/se/rd/serde")
    www.publish()
    www.link_index()
    for path in (PATH, CRATE_PATH):
        answer = ask(www, path)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert b"1.0.0" not in answer.content.replace(b"serde 1.0.0", b"")


def test_a_crate_file_that_no_line_names_is_not_served(www):
    www.put_crate("serde", "6.6.6", b"evil")
    assert ask(www, "/crates/serde/serde-6.6.6.crate").status_code == 503
    answers, _ = with_sync(www, lambda _: WantAnswer(), "/crates/serde/serde-6.6.6.crate")
    assert answers[0].status_code == 404


def test_a_signed_file_that_is_gone_is_503_and_not_an_absence(www):
    (www.root / f"tuf/targets/index/se/rd/{DIGEST}.serde").unlink()
    answer = ask(www, PATH)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert str(www.root) not in answer.text


def test_before_the_first_publication_everything_is_503(tmp_path):
    empty = FakeWww(tmp_path / "www")
    assert ask(empty, PATH).status_code == 503
    assert ask(empty, CRATE_PATH).status_code == 503
    assert ask(empty, "/tuf/metadata/timestamp.json").status_code == 404
    assert ask(empty, "/index/config.json").status_code in {200, 503}


# ---- paths


@pytest.mark.parametrize(
    ("path", "better"),
    [
        ("/index/serde", "/index/se/rd/serde"),
        ("/index/Se/rd/Serde", "/index/se/rd/serde"),
        ("/index/a", "/index/1/a"),
        ("/index/", "/index/config.json"),
        ("/index", "/index/config.json"),
        ("/config.json", "/index/config.json"),
        ("/se/rd/serde", "/index/se/rd/serde"),
        ("/tuf/1.root.json", "/tuf/metadata/1.root.json"),
        ("/metadata/timestamp.json", "/tuf/metadata/timestamp.json"),
        ("/api/v1/crates/serde/1.0.0/download", "/crates/serde/serde-1.0.0.crate"),
        ("/crates/serde/1.0.0", "/crates/serde/serde-1.0.0.crate"),
    ],
)
def test_a_404_names_the_right_path(www, path, better):
    answer = ask(www, path)
    assert answer.status_code == 404
    assert f"did you mean {better}?" in answer.text


SECRET = b"a secret beside the web root"
TRICKS = [
    "/index/../../secret",
    "/index/..%2f..%2fsecret",
    "/index/%2e%2e/%2e%2e/secret",
    "/crates/../../secret",
    "/crates/serde/../../../secret",
    "/crates/serde/serde-1.0.0.crate/../../../../secret",
    "/crates/..%2f..%2f..%2fsecret-1.0.0.crate",
    "/tuf/metadata/../../../secret",
    "/tuf/metadata/%2e%2e%2f%2e%2e%2f%2e%2e%2fsecret",
    "/tuf/metadata/..%5c..%5csecret",
    "/tuf/metadata/1.root.json%00",
    "/tuf/metadata/1.root.json%00.json",
    "/tuf/metadata//etc/passwd",
    "/tuf/metadata/1.root.json/",
    "/tuf/metadata/01.root.json",
    "/tuf/metadata/1.ROOT.json",
    "/tuf/metadata/.timestamp.json.tmp",
    "/tuf/metadata/1.link.json",
    "/tuf/targets/../../../secret",
    f"/tuf/targets/index/../../../{'0' * 64}.secret",
    f"/tuf/targets/index/se/rd/{'0' * 64}.serde",
    f"/tuf/targets/index/SE/rd/{DIGEST}.serde",
    f"/tuf/targets/index/se/rd/{DIGEST.upper()}.serde",
    f"/tuf/targets/index/se/rd/{DIGEST}.serde.gz",
    f"/tuf/targets/index/se/rd/{DIGEST}.serde%00",
    f"/tuf/targets//index/se/rd/{DIGEST}.serde",
    f"/tuf/targets/index/li/nk/{DIGEST}.link",
    "/index/se/rd/serde%00",
    "/index/SE/RD/SERDE",
    "/index//se/rd/serde",
    "/index/se/rd/serde/",
    "/index/se/rd/serde.gz",
    "/index/withheld/se/rd/serde",
    "//secret",
    "/../secret",
    "/status.json/../../secret",
    "/keys/snapshot.pem",
]


@pytest.mark.parametrize("path", TRICKS)
def test_no_path_leads_to_a_file_outside(www, path):
    www.state = COMPLETE
    www.publish()
    data = www.root.parent
    (data / "secret").write_bytes(SECRET)
    (data / "secret-1.0.0.crate").write_bytes(SECRET)
    www.write(f"tuf/targets/index/li/nk/{DIGEST}.xlink", b"")
    (www.root / f"tuf/targets/index/li/nk/{DIGEST}.link").symlink_to(data / "secret")
    (www.root / "tuf/metadata/1.link.json").symlink_to(data / "secret")

    for decoded in {path, unquote(path), unquote(unquote(path))}:
        status, body = raw(data, decoded)
        assert status == 404
        assert SECRET not in body


def raw(data, path):
    """Ask for exactly this path, as a server hands it to an application; return status and body."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.disconnect"}

    asyncio.run(client_of(data)[0](scope_of(path), receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


def scope_of(path):
    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""}
    return scope | {"raw_path": path.encode(), "root_path": "", "scheme": "http"}


def test_a_signed_line_cannot_lead_outside_either(www):
    """The metadata is only looked up: whoever forged it gets no file of this machine."""
    (www.root.parent / "secret").write_bytes(SECRET)
    www.targets["index/../../../../secret"] = b""
    www.targets["index/se/rd/link"] = SECRET
    www.publish()
    digest = hashlib.sha256(SECRET).hexdigest()
    (www.root / f"tuf/targets/index/se/rd/{digest}.link").symlink_to(www.root.parent / "secret")
    for path in ("/index/../../../../secret", "/index/se/rd/link"):
        assert SECRET not in ask(www, path).content


def test_a_folder_that_is_a_link_is_not_entered(www):
    outside = www.root.parent / "outside"
    (www.root / "crates").rename(outside)
    (www.root / "crates").symlink_to(outside)
    assert ask(www, CRATE_PATH).status_code == 503


# ---- what is not held


def publishing(www):
    """A sync that publishes whatever is wanted."""

    def answer(want):
        for name in want.names:
            www.put_index(name, index_line(name, "1.0.0", CRATE))
        for crate in want.crates:
            www.put_index(crate.canonical_name, index_line(crate.name, crate.version, CRATE))
            www.put_crate(crate.name, crate.version, CRATE)
        return WantAnswer(timestamp=www.publish())

    return answer


def test_an_index_file_that_is_lacking_is_fetched_and_answered(www):
    answers, sync = with_sync(www, publishing(www), "/index/to/ki/tokio")
    assert (answers[0].status_code, answers[0].content) == (
        200,
        index_line("tokio", "1.0.0", CRATE),
    )
    assert sync.asked() == [Want(names=("tokio",))]


def test_fifty_simultaneous_first_requests_are_one_want(www):
    answers, sync = with_sync(www, publishing(www), *["/index/to/ki/tokio"] * 50)
    assert {answer.status_code for answer in answers} == {200}
    assert len(sync.asked()) == 1


def test_a_crate_that_is_lacking_is_fetched(www):
    www.put_index("rand", index_line("rand", "0.9.0", CRATE))
    www.publish()
    answers, sync = with_sync(www, publishing(www), "/crates/rand/rand-0.9.0.crate")
    assert answers[0].content == CRATE
    assert sync.asked() == [Want(crates=(CrateId("rand", "0.9.0"),))]


def test_a_crate_may_be_asked_for_before_its_index_file(www):
    answers, sync = with_sync(www, publishing(www), "/crates/Rand/Rand-0.9.0.crate")
    assert answers[0].content == CRATE
    assert sync.asked() == [Want(crates=(CrateId("Rand", "0.9.0"),))]


def test_a_version_that_the_index_file_lacks_is_looked_for_once_more(www):
    path = "/crates/serde/serde-1.2.0.crate"
    answers, sync = with_sync(www, lambda _: WantAnswer(timestamp=1), path)
    assert answers[0].status_code == 404
    assert sync.asked() == [Want(crates=(CrateId("serde", "1.2.0"),))]


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (WantAnswer(absent=("tokio",)), 404, "upstream has no such crate"),
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
    assert (answers[0].headers.get("retry-after") == "5") is (status == 503)


@pytest.mark.parametrize("key", ["serde 1.2.0", "serde"])
def test_a_refused_crate_is_403_by_its_own_name_or_its_index_files(www, key):
    answer = WantAnswer(refused={key: "its checksum is another"})
    answers, _ = with_sync(www, lambda _: answer, "/crates/serde/serde-1.2.0.crate")
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


def test_what_is_withheld_is_403_with_the_notes_reason(www):
    www.put_note("evil", reason="<b>line 7</b> is no JSON")
    www.publish()

    async def run():
        async with FakeSync(www.root.parent / "run").open() as sync:
            _, client = client_of(www.root.parent)
            async with client:
                paths = "/index/ev/il/evil", "/crates/evil/evil-1.0.0.crate"
                answers = [await client.get(path) for path in paths]
            await sync.told(1)
            return answers, sync.wants

    answers, wants = asyncio.run(run())
    for answer in answers:
        assert answer.status_code == 403
        assert "quarantine (malformed-index): <b>line 7</b> is no JSON" in answer.text
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert wants == [Want(seen=("evil",))]


def test_a_crate_with_a_note_and_an_index_file_is_served(www):
    www.put_note("serde")
    www.publish()
    assert ask(www, PATH).status_code == 200


def test_a_note_without_a_readable_reason_still_withholds(www):
    www._put_target("withheld/ev/il/evil", json.dumps({"entries": 7}).encode(), gz=False)
    www.publish()
    assert ask(www, "/index/ev/il/evil").status_code == 403


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
