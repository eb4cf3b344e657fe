"""deploy/nginx.conf in a real nginx: the web root served with no Python in the path."""

import hashlib
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from mirror.seam import WantAnswer, encode, parse_want
from tests.conftest import need
from tests.fakes.www import FakeWww, index_line
from tests.support.deployed_nginx import deployed_nginx
from tests.support.serve_alone import serving

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


def test_metadata_is_compressed_when_asked_for(url, www):
    data = b"{" + b" " * 5_000 + b"}"
    (www.root / "tuf/metadata/7.snapshot.json").write_bytes(data)
    answer = get(url, "/tuf/metadata/7.snapshot.json", Accept_Encoding="gzip")
    assert (answer.headers["content-encoding"], answer.content) == ("gzip", data)
    assert answer.headers["vary"].lower() == "accept-encoding"
    plain = get(url, "/tuf/metadata/7.snapshot.json", Accept_Encoding="identity")
    assert ("content-encoding" in plain.headers, plain.content) == (False, data)


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


# ---- what is denied, and `crateseal serve` behind


@pytest.fixture
def denied(tmp_path):
    """A web root from which a crate was withdrawn; what was there before, by path."""
    need("nginx")
    www = FakeWww(tmp_path / "www")
    www.put_index("serde", SERDE)
    www.put_crate("serde", "1.0.0", b"crate")
    www.publish()
    www.link_index()
    return www


PATHS = (
    "/index/se/rd/serde",
    "/crates/serde/serde-1.0.0.crate",
    f"/tuf/targets/index/se/rd/{DIGEST}.serde",
)


def withdraw(www):
    """As the signer does it: the note is published, then everything of the crate is unlinked."""
    www.drop("index/se/rd/serde")
    www.put_note("serde", kind="deny", reason="it bites")
    www.publish()
    for path in PATHS:
        for file in (www.root / path[1:], www.root / f"{path[1:]}.gz"):
            file.unlink(missing_ok=True)


def test_of_what_was_withdrawn_not_a_byte_is_served_from_that_moment_on(denied, tmp_path):
    with deployed_nginx(tmp_path, denied.root) as url, httpx.Client() as client:
        for path in PATHS:
            assert client.get(url + path).status_code == 200
        withdraw(denied)
        for encoding in ("gzip", "identity"):
            for path in PATHS:
                answer = client.get(url + path, headers={"Accept-Encoding": encoding})
                assert answer.status_code == 404
                assert DIGEST.encode() not in answer.content
                assert b"cksum" not in answer.content


def test_with_serve_behind_what_was_withdrawn_is_403_with_the_reason(denied, tmp_path):
    with serving(tmp_path) as (_, behind):
        port = int(behind.rpartition(":")[2])
        with deployed_nginx(tmp_path, denied.root, behind=port) as url, httpx.Client() as client:
            assert client.get(url + PATHS[0]).content == SERDE
            withdraw(denied)
            for path in PATHS[:2]:
                answer = client.get(url + path)
                assert answer.status_code == 403
                assert "denied by the operator of this mirror: it bites" in answer.text
            assert client.get(url + PATHS[2]).status_code == 404
            assert client.get(f"{url}/").status_code == 200
            assert client.get(f"{url}/readyz").status_code == 200


def test_with_serve_behind_a_client_cannot_choose_who_it_is(denied, tmp_path):
    """Attack: an X-Forwarded-For of one's own, to have somebody else's budget pay."""
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as sync, ThreadPoolExecutor() as pool:
        sync.bind(str(tmp_path / "run/sync.sock"))
        sync.listen(9)
        with serving(tmp_path, trusted_proxies="127.0.0.1") as (_, behind):
            port = int(behind.rpartition(":")[2])
            with deployed_nginx(tmp_path, denied.root, behind=port) as url:
                asking = pool.submit(_ask_from, "127.0.0.2", f"{url}/index/to/ki/tokio")
                want = _refuse_next(sync)
                answer = asking.result()
    assert (want.names, want.client) == (("tokio",), "127.0.0.2")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")


def _ask_from(address, url):
    forged = {"X-Forwarded-For": "192.0.2.66"}
    with httpx.Client(transport=httpx.HTTPTransport(local_address=address), timeout=20) as client:
        return client.get(url, headers=forged)


def _refuse_next(sync):
    connection, _ = sync.accept()
    with connection, connection.makefile("rb") as lines:
        want = parse_want(lines.readline())
        connection.sendall(encode(WantAnswer(over_budget=want.names)))
        return want
