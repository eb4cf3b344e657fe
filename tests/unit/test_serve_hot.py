"""What is held, as it goes out."""

import asyncio
import errno
import gzip
import hashlib
import os
from pathlib import Path

import pytest

from mirror.serve.clients import Clients
from mirror.serve.files import Files
from mirror.serve.hot import Hot
from mirror.serve.site import Site
from mirror.serve.want import Wants
from mirror.store.publication import Publications
from tests.fakes.sync import client_of
from tests.fakes.www import index_line
from tests.support.serving import (
    CRATE,
    CRATE_PATH,
    DIGEST,
    LINES,
    PATH,
    SERDE,
    ask,
    scope_of,
    serde_www,
)


@pytest.fixture
def www(tmp_path):
    return serde_www(tmp_path)


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
    wants = Wants(www.root / "sync.sock", 1.0, lambda: 0.0)
    hot = Hot(site, wants, Clients(()), "http://mirror")

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
