"""Only what was signed is served, and no path leads anywhere else."""

import hashlib
from urllib.parse import unquote

import pytest

from mirror.seam import WantAnswer
from tests.fakes.www import COMPLETE, FakeWww, index_line
from tests.support.serving import CRATE_PATH, DIGEST, PATH, ask, raw, serde_www, with_sync


@pytest.fixture
def www(tmp_path):
    return serde_www(tmp_path)


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


def test_behind_a_sub_path_the_404_names_the_path_that_clients_see(www):
    settings = {"public_url": "https://crates.example.org/rust"}
    answer = ask(www, "/index/serde", settings=settings)
    assert "did you mean /rust/index/se/rd/serde?" in answer.text
    www.put_index("inflector", index_line("Inflector", "1.0.0"))
    www.publish()
    answer = ask(www, "/crates/inflector/inflector-1.0.0.crate", settings=settings)
    assert "did you mean /rust/crates/Inflector/Inflector-1.0.0.crate?" in answer.text


def test_a_proxy_that_does_not_strip_its_sub_path_is_told_so(www):
    settings = {"public_url": "https://crates.example.org/rust/"}
    answer = ask(www, "/rust/index/config.json", settings=settings)
    assert answer.status_code == 404
    assert "must strip /rust from the path" in answer.text


@pytest.mark.parametrize(
    "path", ["/favicon.ico", "/login", "/docs", "/metrics", "/package.json", "/tuf/x", "/a/b/c/d"]
)
def test_a_404_names_no_path_that_nobody_can_have_meant(www, path):
    answer = ask(www, path)
    assert answer.status_code == 404
    assert answer.text == "nothing here; the front page / says what this mirror has\n"


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


def test_metadata_is_compressed_when_asked_for_and_the_timestamp_never_is(www):
    snapshot = next((www.root / "tuf/metadata").glob("*.snapshot.json"))
    path = f"/tuf/metadata/{snapshot.name}"
    plain = ask(www, path, accept_encoding="identity")
    packed = ask(www, path, accept_encoding="gzip")
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert plain.content == packed.content == snapshot.read_bytes()
    assert plain.headers["vary"] == packed.headers["vary"] == "accept-encoding"
    assert packed.headers["etag"] != plain.headers["etag"]
    again = ask(www, path, accept_encoding="gzip", if_none_match=packed.headers["etag"])
    assert again.status_code == 304
    timestamp = ask(www, "/tuf/metadata/timestamp.json", accept_encoding="gzip")
    assert (timestamp.status_code, "content-encoding" in timestamp.headers) == (200, False)


@pytest.mark.parametrize("file", ["1.link.json", "../../../secret", "nothing.json", "9.root.json"])
def test_what_is_no_metadata_is_not_compressed_either(www, file):
    (www.root / "tuf/metadata/1.link.json").symlink_to("/etc/passwd")
    answer = ask(www, f"/tuf/metadata/{file}", accept_encoding="gzip")
    assert answer.status_code == 404
