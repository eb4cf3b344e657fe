"""deploy/nginx.conf in a real nginx: the web root served with no Python in the path."""

import hashlib

import httpx
import pytest

from tests.conftest import need
from tests.fakes.www import FakeWww, index_line
from tests.support.deployed_nginx import deployed_nginx

SERDE = index_line("serde", "1.0.0", b"crate")
DIGEST = hashlib.sha256(SERDE).hexdigest()


@pytest.fixture(scope="module")
def www(tmp_path_factory):
    need("nginx")
    folder = tmp_path_factory.mktemp("nginx")
    www = FakeWww(folder / "www")
    www.put_index("serde", SERDE)
    www.put_index("a", index_line("a", "1.0.0"))
    www.put_crate("serde", "1.0.0+meta", b"crate")
    www.put_status(format=1)
    www.publish()
    www.link_index()
    (folder / "secret").write_bytes(b"s3cr3t")
    (www.root / "crates/link.crate").symlink_to(folder / "secret")
    (www.root / "crates/way").symlink_to(folder)
    www.write("index/se/rd/.serde.tmp", b"half")
    return www


@pytest.fixture(scope="module")
def url(www, tmp_path_factory):
    with deployed_nginx(tmp_path_factory.mktemp("work"), www.root) as url:
        yield url


def get(url, path, **headers):
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return httpx.get(url + path, headers={"Accept-Encoding": "identity", **named})


@pytest.mark.parametrize(
    ("path", "caching", "kind"),
    [
        ("/index/config.json", "public, max-age=5", "application/json"),
        ("/index/se/rd/serde", "public, max-age=5", "text/plain"),
        ("/index/1/a", "public, max-age=5", "text/plain"),
        ("/crates/serde/serde-1.0.0+meta.crate", "immutable", "application/octet-stream"),
        ("/tuf/metadata/timestamp.json", "public, max-age=5", "application/json"),
        ("/tuf/metadata/1.root.json", "immutable", "application/json"),
        ("/tuf/metadata/1.crates-0a.json", "immutable", "application/json"),
        (f"/tuf/targets/index/se/rd/{DIGEST}.serde", "immutable", "text/plain"),
        ("/status.json", "no-store", "application/json"),
    ],
)
def test_everything_published_is_there(www, url, path, caching, kind):
    answer = get(url, path)
    assert (answer.status_code, answer.content) == (200, (www.root / path[1:]).read_bytes())
    assert caching in answer.headers["cache-control"]
    assert answer.headers["content-type"].startswith(kind)
    assert get(url, path, If_None_Match=answer.headers["etag"]).status_code == 304


def test_index_files_and_targets_are_compressed_when_asked_for_and_crates_are_not(url):
    for path in ("/index/se/rd/serde", f"/tuf/targets/index/se/rd/{DIGEST}.serde"):
        answer = get(url, path, Accept_Encoding="gzip")
        assert (answer.headers["content-encoding"], answer.content) == ("gzip", SERDE)
        assert answer.headers["vary"].lower() == "accept-encoding"
    answer = get(url, "/crates/serde/serde-1.0.0+meta.crate", Accept_Encoding="gzip")
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/index/se/rd/serde.gz",
        "/index/se/rd/.serde.tmp",
        "/index/se/rd/",
        "/index/SE/rd/serde",
        "/index/to/ki/tokio",
        "/crates/link.crate",
        "/crates/way/secret",
        "/crates/..%2f..%2fsecret",
        "/secret",
        "/tuf/metadata/",
        "/tuf/metadata/9.root.json",
    ],
)
def test_what_is_not_published_is_not_there(url, path):
    answer = get(url, path)
    assert answer.status_code in {400, 403, 404}
    assert b"s3cr3t" not in answer.content
