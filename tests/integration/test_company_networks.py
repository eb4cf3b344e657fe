"""Proxies and private authorities of a company, with the real processes.

`index.upstream.test` is known to nobody but the proxy, and its certificate is signed by nobody but
the company: what arrives came the one way there is.
"""

from importlib.metadata import version

import pytest

from mirror.config import DEFAULT_UPSTREAM
from mirror.sync.upstream import PROJECT_URL
from tests.fakes.company import NAME, company
from tests.fakes.upstream import FakeUpstream
from tests.support.crates import crate_bytes, index_file
from tests.support.processes import Up, crateseal, wait_until

INDEX = "/index/fi/ne/fine"
CRATE = "/crates/fine/fine-1.0.0.crate"
DL = f"https://{NAME}/crates/{{crate}}/{{crate}}-{{version}}.crate"
SOURCE = f"sparse+https://{NAME}/index/"
LOGIN = "jane%40corp:s3cr%2Ft"
"""As it stands in a URL; the proxy is to get it decoded."""
_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


def environment(**more):
    """Variables that say nothing of this machine's own network."""
    names = [*_VARIABLES, *(name.lower() for name in _VARIABLES)]
    return {**dict.fromkeys([*names, "SSL_CERT_FILE", "SSL_CERT_DIR"]), **more}


@pytest.fixture
def upstream(tmp_path):
    with FakeUpstream(tmp_path / "upstream", config={"dl": DL}) as upstream:
        upstream.put(INDEX, index_file("fine", "1.0.0"))
        upstream.put(CRATE, crate_bytes("fine", "1.0.0"))
        upstream.put("/index/ot/he/other", index_file("other", "1.0.0"))
        yield upstream


@pytest.fixture
def start(tmp_path):
    started = []

    def start(*arguments, source=SOURCE, **variables):
        cwd = tmp_path / "here"
        cwd.mkdir(exist_ok=True)
        started.append(Up("--upstream", source, *arguments, cwd=cwd, **environment(**variables)))
        return started[-1].wait_until_ready()

    yield start
    for each in started:
        each.end()


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_through_the_proxy_and_with_the_companys_authority_a_mirror_works(
    tmp_path, upstream, start, variable
):
    with company(tmp_path, upstream) as (authority, proxy):
        up = start(**{variable: proxy.url(), "SSL_CERT_FILE": str(authority.file)})
        assert up.get(INDEX).content == upstream.read(INDEX)
        assert up.get(CRATE).content == upstream.read(CRATE)
        assert set(proxy.asked) == {f"CONNECT {NAME}:443 HTTP/1.1"}


def test_an_authority_may_stand_in_a_folder(tmp_path, upstream, start):
    with company(tmp_path, upstream) as (authority, proxy):
        folder = tmp_path / "certs"
        folder.mkdir()
        # OpenSSL's name for it; any reader of such folders takes files of this form.
        (folder / "12345678.0").write_bytes(authority.file.read_bytes())
        up = start(HTTPS_PROXY=proxy.url(), SSL_CERT_DIR=str(folder))
        assert up.get(INDEX).status_code == 200


def test_without_the_companys_authority_it_says_what_to_set(tmp_path, upstream, start):
    with company(tmp_path, upstream) as (_, proxy):
        other = tmp_path / "other"
        other.mkdir()
        with company(other, upstream) as (wrong, _):
            up = start(HTTPS_PROXY=proxy.url(), SSL_CERT_FILE=str(wrong.file))
            assert up.get(INDEX).status_code == 503
    assert upstream.total == 0
    (line,) = [line for line in up.err.splitlines() if "unreachable" in line]
    assert "an authority that this machine does not know" in line
    assert "SSL_CERT_FILE" in line


def test_with_no_authority_to_be_read_at_all_it_says_so_and_serves(tmp_path, upstream, start):
    with company(tmp_path, upstream) as (_, proxy):
        up = start(HTTPS_PROXY=proxy.url(), SSL_CERT_FILE=str(tmp_path / "gone.pem"))
        assert up.get(INDEX).status_code == 503
        assert up.get("/readyz").status_code == 200
    wait_until(lambda: "SSL_CERT_FILE" in up.err)
    assert "Traceback" not in up.err


def test_a_proxy_that_wants_a_password_gets_it_and_no_log_does(tmp_path, upstream, start):
    with company(tmp_path, upstream, login="jane@corp:s3cr/t") as (authority, proxy):
        up = start("-v", HTTPS_PROXY=proxy.url(LOGIN), SSL_CERT_FILE=str(authority.file))
        assert up.get(CRATE).content == upstream.read(CRATE)
    # The proxy is gone now, so that the log has something to say about it.
    assert up.get("/index/ot/he/other").status_code == 503
    wait_until(lambda: "unreachable" in up.err)
    status = up.get("/api/v1/status").text + up.get("/").text
    for secret in ("s3cr", LOGIN, "jane"):
        assert secret not in up.err + up.out + status
    assert f"through the proxy 127.0.0.1:{proxy.port}" in up.err


def test_a_proxy_that_refuses_the_password_is_an_outage_with_a_clear_line(
    tmp_path, upstream, start
):
    with company(tmp_path, upstream, login="jane@corp:s3cr/t") as (authority, proxy):
        bad = proxy.url("jane:wr0ng")
        up = start(HTTPS_PROXY=bad, HTTP_PROXY=bad, SSL_CERT_FILE=str(authority.file))
        assert up.get(INDEX).status_code == 503
        assert upstream.total == 0
    wait_until(lambda: "unreachable" in up.err)
    assert "wr0ng" not in up.err
    assert "proxy" in up.err


def test_plain_http_is_forwarded_and_its_407_is_no_word_of_upstreams(tmp_path, upstream, start):
    upstream.config["dl"] = DL.replace("https:", "http:")
    source = SOURCE.replace("https:", "http:")
    with company(tmp_path, upstream, login="jane:pw") as (_, proxy):
        up = start(source=source, HTTP_PROXY=proxy.url("jane:pw"))
        assert up.get(CRATE).content == upstream.read(CRATE)
        assert up.stop() == 130
        again = start(source=source, HTTP_PROXY=proxy.url())
        assert again.get("/index/ot/he/other").status_code == 503
        wait_until(lambda: "unreachable" in again.err)
        assert "it wants a login" in again.err
        assert again.get(INDEX).content == upstream.read(INDEX)


def test_no_proxy_is_respected(tmp_path, upstream, start):
    with company(tmp_path, upstream) as (authority, proxy):
        up = start(
            HTTPS_PROXY=proxy.url(), NO_PROXY=".upstream.test", SSL_CERT_FILE=str(authority.file)
        )
        # Without the proxy nobody knows the name.
        assert up.get(INDEX).status_code == 503
        assert proxy.asked == []


def test_loopback_needs_no_exception(tmp_path, upstream, start):
    upstream.config = {}
    with company(tmp_path, upstream) as (_, proxy):
        up = start(source=upstream.source, ALL_PROXY=proxy.url())
        assert up.get(CRATE).content == upstream.read(CRATE)
        assert proxy.asked == []


def test_a_proxy_that_is_down_is_an_outage_and_what_is_held_is_served(tmp_path, upstream, start):
    with company(tmp_path, upstream) as (authority, proxy):
        up = start(HTTPS_PROXY=proxy.url(), SSL_CERT_FILE=str(authority.file))
        assert up.get(CRATE).status_code == 200
    answer = up.get("/index/ot/he/other")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert up.get(INDEX).content == upstream.read(INDEX)
    assert up.get(CRATE).content == upstream.read(CRATE)
    wait_until(lambda: "unreachable" in up.err)
    (line,) = [line for line in up.err.splitlines() if "unreachable" in line]
    assert NAME in line
    assert f"through the proxy 127.0.0.1:{proxy.port}" in line


def test_one_look_through_a_proxy_ends_with_0_and_without_it_with_3(tmp_path, upstream):
    here = tmp_path / "here"
    here.mkdir()
    (here / "names.txt").write_text("fine\n")
    assert (
        crateseal("init", "--trial", "--mode", "index", "--bin-bits", "5", cwd=here).returncode == 0
    )
    options = ("sync", "--once", "--upstream", SOURCE, "--names", "names.txt")
    with company(tmp_path, upstream) as (authority, proxy):
        trusted = environment(HTTPS_PROXY=proxy.url(), SSL_CERT_FILE=str(authority.file))
        found = crateseal(*options, cwd=here, **trusted)
        assert found.returncode == 0, found.stderr
        assert "1 changed" in found.stdout
    found = crateseal(*options, cwd=here, **trusted)
    assert found.returncode == 3, found.stderr


def test_upstream_is_told_who_asks_and_whom_to_complain_to(tmp_path, upstream, start):
    upstream.config = {}
    up = start("--contact", "ops@example.org, room 7", source=upstream.source)
    assert up.get(CRATE).status_code == 200
    told = f"crateseal/{version('crateseal')} (+{PROJECT_URL}; ops@example.org, room 7)"
    for path in ("/index/config.json", INDEX, CRATE):
        assert upstream.headers[path]["user-agent"] == told


def test_crates_io_is_not_mirrored_without_the_advice_to_give_a_contact(tmp_path, start):
    # Everything goes to a proxy that is not there, so nothing leaves this machine.
    words = "set --contact"
    nowhere = {"source": DEFAULT_UPSTREAM, "ALL_PROXY": "http://127.0.0.1:9"}
    up = start(**nowhere)
    wait_until(lambda: up.err.count(words) == 1)
    up.stop()
    up = start("--contact", "ops@example.org", **nowhere)
    wait_until(lambda: "unreachable" in up.err)
    assert words not in up.err


def test_a_variable_that_names_no_proxy_is_wrong_configuration(tmp_path):
    assert crateseal("init", "--trial", cwd=tmp_path).returncode == 0
    found = crateseal("sync", cwd=tmp_path, **environment(HTTPS_PROXY="ftp://u:s3cret@proxy"))
    assert found.returncode == 2
    assert "HTTPS_PROXY: expected the URL of a proxy" in found.stderr
    assert "s3cret" not in found.stderr
