"""Where upstream may send us. Nothing here leaves this machine: the transport is a fake."""

import json

import httpx
import pytest

from mirror.core.names import CrateId, CrateName
from mirror.errors import UpstreamAnswerError
from mirror.sync.contact import Contact
from mirror.sync.hops import Hops, is_public_address
from mirror.sync.slots import Slots
from mirror.sync.upstream import Upstream
from tests.support.syncing import Clock, in_loop, settings

PUBLIC = "https://8.8.8.8/"


class Recorder(httpx.AsyncBaseTransport):
    """Answers every request with the same; remembers where each went."""

    def __init__(self, status, headers, body):
        self._answer = (status, headers, body)
        self.urls = []

    async def handle_async_request(self, request):
        self.urls.append(str(request.url))
        status, headers, body = self._answer
        return httpx.Response(status, headers=headers, stream=_Body(body))


class _Body(httpx.AsyncByteStream):
    def __init__(self, body):
        self._body = body

    async def __aiter__(self):
        yield self._body


def at_public_address(tmp_path, recorder):
    """An upstream that is not of our own network."""
    return Upstream(
        settings(tmp_path, f"sparse+{PUBLIC}"), recorder, Contact(1.0), Slots(4), Clock()
    )


@in_loop
async def test_nobody_is_sent_from_a_public_upstream_into_our_own_network():
    hops = Hops(httpx.URL("https://8.8.8.8/"))
    here = httpx.URL("https://8.8.8.8/a")
    for inside in ("https://127.0.0.1/", "https://10.0.0.1/", "https://[::1]/", "https://localhost/",
                   "https://169.254.169.254/latest", "https://[::ffff:10.0.0.1]/"):  # fmt: skip
        with pytest.raises(UpstreamAnswerError, match="a private address"):
            await hops.check_redirect(here, httpx.URL(inside), "crate x")
    with pytest.raises(UpstreamAnswerError, match="from https"):
        await hops.check_redirect(here, httpx.URL("http://8.8.8.8/"), "crate x")
    with pytest.raises(UpstreamAnswerError, match="no http address"):
        await hops.check_redirect(
            httpx.URL("http://8.8.8.8/"), httpx.URL("ftp://8.8.8.8/"), "crate x"
        )
    await hops.check_redirect(here, httpx.URL("https://1.1.1.1/"), "crate x")
    inner = Hops(httpx.URL("http://127.0.0.1/"))
    await inner.check_redirect(
        httpx.URL("http://127.0.0.1/"), httpx.URL("http://10.0.0.1/"), "crate x"
    )


def test_addresses_are_told_apart():
    assert is_public_address("8.8.8.8")
    assert not any(
        map(is_public_address, ("10.1.2.3", "224.0.0.1", "fe80::1%eth0", "::1", "100.64.0.1"))
    )


@pytest.mark.parametrize("host", [f"{'a' * 70}.com", "a..b"])
@in_loop
async def test_a_host_without_an_address_is_refused_and_asked_for_again(host):
    for upstream in (PUBLIC, "http://127.0.0.1/"):
        hops = Hops(httpx.URL(upstream))
        with pytest.raises(UpstreamAnswerError, match="has no address"):
            await hops.check(httpx.URL(f"https://{host}/"), "crate x")
        assert not hops._public


@pytest.mark.parametrize("host", ["127.0.0.1\\.x", "127%2E0%2E0%2E1", "127.0.0.1%00.com"])
@in_loop
async def test_a_host_that_two_programs_may_read_differently_is_refused(host):
    with pytest.raises(UpstreamAnswerError, match="no http address"):
        await Hops(httpx.URL(PUBLIC)).check(httpx.URL(f"https://{host}/"), "crate x")


@pytest.mark.parametrize(
    ("dl", "text"),
    [
        ("https://127.{version}/x", "a private address"),
        ("https://{crate}/x", "a private address"),
        ("https://127.0.0.1/x", "a private address"),
        ("https://a..b/{crate}", "has no address"),
        ("file:///etc/passwd?{crate}", "expected a URL as `dl`"),
        (["x"], "expected a URL as `dl`"),
        ("https://[{crate}", "crate localhost 0.0.1: "),
    ],
)
@in_loop
async def test_a_download_address_is_looked_at_once_it_is_filled_in(tmp_path, dl, text):
    recorder = Recorder(200, {}, json.dumps({"dl": dl}).encode())
    upstream = at_public_address(tmp_path, recorder)
    with pytest.raises(UpstreamAnswerError) as caught:
        await upstream.fetch_crate(CrateId("localhost", "0.0.1"), tmp_path / "crate")
    assert text in str(caught.value)
    assert recorder.urls == [PUBLIC + "config.json"]


@in_loop
async def test_a_redirect_is_looked_at_before_it_is_followed(tmp_path):
    recorder = Recorder(302, {"location": "https://127.0.0.1/"}, b"")
    upstream = at_public_address(tmp_path, recorder)
    with pytest.raises(UpstreamAnswerError, match="a private address"):
        await upstream.fetch_index(CrateName("itoa"))
    assert recorder.urls == [PUBLIC + "it/oa/itoa"]


@in_loop
async def test_where_the_operator_keeps_names_is_up_to_the_operator(tmp_path):
    recorder = Recorder(200, {}, b"itoa\n")
    upstream = at_public_address(tmp_path, recorder)
    assert (await upstream.fetch_page("http://127.0.0.1/names", 100)).data == b"itoa\n"
