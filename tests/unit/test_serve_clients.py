"""Whose budget pays: an address that a client cannot choose."""

import asyncio
import ipaddress

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.config import Config
from mirror.seam import WantAnswer
from mirror.serve.app import build_app
from mirror.serve.clients import HOPS_MAX, Clients
from tests.fakes.sync import NOW, FakeSync
from tests.support.serving import serde_www

TRUSTED = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "127.0.0.1/32", "fd00::/8")))


def client(peer, *forwarded, trusted=TRUSTED):
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
    scope = {"client": peer and (peer, 4711), "headers": [(b"host", b"x"), *headers]}
    return Clients(trusted).of(scope)


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("127.0.0.1", "127.0.0.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("not an address", ""),
        (None, ""),
    ],
)
def test_without_a_proxy_the_client_is_who_connected(peer, address):
    assert client(peer) == address


def test_what_a_client_says_of_itself_counts_for_nothing():
    """Attack: a budget of one's own for each request, or one that a neighbour pays."""
    assert client("192.0.2.1", "198.51.100.7") == "192.0.2.1"
    assert client("127.0.0.1", "198.51.100.7", trusted=()) == "127.0.0.1"


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        (["192.0.2.1"], "192.0.2.1"),
        (["  192.0.2.1  "], "192.0.2.1"),
        (["198.51.100.7, 192.0.2.1"], "192.0.2.1"),  # the left one is the client's own word
        (["198.51.100.7", "192.0.2.1"], "192.0.2.1"),
        (["192.0.2.1, 10.1.1.1, 10.2.2.2"], "192.0.2.1"),
        (["10.1.1.1, 192.0.2.1, 10.2.2.2"], "192.0.2.1"),
        (["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        (["192.0.2.1:4711"], "192.0.2.1"),
        (["[2001:db8::1]:4711"], "2001:db8::1"),
        (["[2001:db8::1]"], "2001:db8::1"),
        (["::ffff:192.0.2.1"], "192.0.2.1"),
        (["192.0.2.1, fd00::7"], "192.0.2.1"),
    ],
)
def test_behind_trusted_proxies_the_client_is_the_last_address_they_do_not_stand_for(
    forwarded, address
):
    assert client("10.0.0.1", *forwarded) == address


def test_a_trusted_proxy_that_comes_as_ipv4_in_ipv6_is_trusted():
    assert client("::ffff:10.0.0.1", "192.0.2.1") == "192.0.2.1"


@pytest.mark.parametrize(
    "junk",
    ["", ",", "unknown", "198.51.100.7, unknown", "198.51.100.7,", "::1::", "1.2.3", "é", "\0"],
)
def test_junk_is_ignored_and_lets_nothing_left_of_it_through(junk):
    """Attack: junk between the client's own word and the proxy's."""
    assert client("10.0.0.1", junk) == "10.0.0.1"


def test_a_chain_longer_than_any_real_one_is_looked_at_to_a_limit():
    chain = ", ".join(["198.51.100.7"] + ["10.0.0.2"] * 10_000)
    assert client("10.0.0.1", chain) == "10.0.0.2"
    assert (
        client("10.0.0.1", ", ".join(["192.0.2.1"] + ["10.0.0.2"] * (HOPS_MAX - 1))) == "192.0.2.1"
    )


@given(st.lists(st.text(alphabet=st.characters(max_codepoint=255), max_size=40), max_size=5))
def test_whatever_stands_in_the_header_the_answer_is_an_address(values):
    ipaddress.ip_address(client("10.0.0.1", *values))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/index/to/ki/tokio"),
        ("GET", "/crates/tokio/tokio-1.0.0.crate"),
        ("POST", "/api/v1/want"),
    ],
)
@pytest.mark.parametrize(("trusted", "pays"), [((), "10.0.0.1"), (TRUSTED, "192.0.2.1")])
def test_whoever_asks_for_what_is_lacking_is_named_to_sync(tmp_path, method, path, trusted, pays):
    serde_www(tmp_path)

    async def run():
        async with FakeSync(tmp_path / "run", lambda _: WantAnswer()).open() as sync:
            config = Config(data=tmp_path, trusted_proxies=trusted)
            app = build_app(config, lambda: NOW, lambda: 0.0)
            transport = httpx.ASGITransport(app=app, client=("10.0.0.1", 4711))
            async with httpx.AsyncClient(transport=transport, base_url="http://mirror") as client:
                headers = {"X-Forwarded-For": "198.51.100.7, 192.0.2.1"}
                content = b'{"names":["tokio"]}' if method == "POST" else None
                await client.request(method, path, headers=headers, content=content)
            return [want.client for want in sync.asked()]

    assert asyncio.run(run()) == [pays]
