"""Company networks: which request goes through which proxy, and what may be asked of one."""

import asyncio

import httpx
import pytest

from mirror.errors import UpstreamAnswerError, UsageError
from mirror.sync.hops import PROXIED_LOOKUP_SECONDS, Hops, is_private_name
from mirror.sync.proxies import Proxies, shown
from tests.support.syncing import in_loop

PROXY = "http://proxy.corp:3128"
OTHER = "http://other.corp:3128"


def of(url, **environment):
    return Proxies(environment).of(httpx.URL(url))


@pytest.mark.parametrize(
    ("variable", "url", "proxy"),
    [
        ("HTTPS_PROXY", "https://index.crates.io/", PROXY),
        ("https_proxy", "https://index.crates.io/", PROXY),
        ("HTTP_PROXY", "http://index.crates.io/", PROXY),
        ("http_proxy", "http://index.crates.io/", PROXY),
        ("ALL_PROXY", "https://index.crates.io/", PROXY),
        ("all_proxy", "http://index.crates.io/", PROXY),
        ("HTTP_PROXY", "https://index.crates.io/", None),
        ("HTTPS_PROXY", "http://index.crates.io/", None),
        ("ALL_PROXY", "ftp://index.crates.io/", None),
    ],
)
def test_a_scheme_has_its_own_variable_or_that_for_all(variable, url, proxy):
    assert of(url, **{variable: PROXY}) == proxy


def test_the_lower_case_counts_and_an_empty_value_is_none():
    assert of("https://a.example/", HTTPS_PROXY=OTHER, https_proxy=PROXY) == PROXY
    assert of("https://a.example/", HTTPS_PROXY=OTHER, https_proxy="") is None
    assert of("https://a.example/", ALL_PROXY=OTHER, HTTPS_PROXY=PROXY) == PROXY
    assert of("https://a.example/", HTTPS_PROXY="proxy.corp:3128") == PROXY


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "a.localhost", "[::1]"])
def test_loopback_never_goes_through_a_proxy(host):
    assert of(f"http://{host}:8470/", ALL_PROXY=PROXY) is None


@pytest.mark.parametrize(
    ("exempt", "host", "direct"),
    [
        ("crates.io", "crates.io", True),
        ("crates.io", "index.crates.io", True),
        (".crates.io", "index.crates.io", True),
        ("*.crates.io", "index.crates.io", True),
        ("a.b, CRATES.io ,c", "index.Crates.IO", True),
        ("crates.io:443", "crates.io", True),
        ("*", "crates.io", True),
        ("crates.io", "notcrates.io", False),
        ("rates.io", "crates.io", False),
        ("index.crates.io", "crates.io", False),
        ("", "crates.io", False),
        (", ,", "crates.io", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("[fd00::1]", "[fd00::1]", True),
        ("fd00::/8", "[fd00::1]", True),
        ("10.0.0.0/8", "ten.example", False),
    ],
)
def test_no_proxy_names_domains_addresses_and_networks(exempt, host, direct):
    found = of(f"https://{host}/", HTTPS_PROXY=PROXY, NO_PROXY=exempt)
    assert found == (None if direct else PROXY)


@pytest.mark.parametrize("value", ["ftp://u:s3cret@x", "http://", "s3cret://", "http://u:s3cret@["])
def test_a_variable_that_is_no_proxy_is_said_without_its_password(value):
    with pytest.raises(UsageError, match="HTTPS_PROXY: expected the URL of a proxy") as caught:
        Proxies({"HTTPS_PROXY": value})
    assert "s3cret" not in str(caught.value)


def test_a_proxy_is_shown_without_its_login():
    assert shown("http://user:s3cret@proxy.corp:3128/") == "proxy.corp:3128"


# ---- where upstream may send us, through a proxy


def dns(*private):
    """A look-up that knows addresses as such, this machine, and these hosts of our own network."""

    async def look_up(host):
        if host.replace(".", "").isdigit() or ":" in host:
            return ["127.0.0.1" if host == "127.1" else host.strip("[]")]
        return ["127.0.0.1"] if host == "localhost" else ["10.9.9.9"] if host in private else []

    return look_up


def hops(*, look_up=None, upstream="https://8.8.8.8/", **environment):
    proxies = Proxies({"HTTPS_PROXY": PROXY, **environment})
    return Hops(httpx.URL(upstream), proxies, look_up or dns())


@in_loop
async def test_a_host_that_the_proxy_looks_up_needs_no_address_here():
    await hops().check(httpx.URL("https://static.crates.io/x"), "crate x")


@in_loop
async def test_a_host_that_does_without_the_proxy_needs_one():
    with pytest.raises(UpstreamAnswerError, match="has no address"):
        await hops(NO_PROXY="crates.io").check(httpx.URL("https://static.crates.io/x"), "crate x")


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1",
        "169.254.169.254",
        "[fd00::1]",
        "127.0.0.1",
        "localhost",
        "wiki",
        "wiki.",
        "wiki.corp",
        "metadata.google.internal",
        "printer.local",
        "2130706433",
        "0x7f.1",
        "127.1",
    ],
)
@in_loop
async def test_upstream_cannot_send_us_through_the_proxy_into_our_own_network(host):
    """Attack: the proxy stands inside, and would fetch what we ask it for."""
    with pytest.raises(UpstreamAnswerError, match="a private address"):
        await hops().check(httpx.URL(f"https://{host}/x"), "crate x")


@in_loop
async def test_a_name_that_our_own_dns_knows_as_private_is_private_behind_a_proxy_too():
    """Attack: a name of the company's own domain, known inside."""
    inside = dns("wiki.megacorp.com")
    with pytest.raises(UpstreamAnswerError, match="a private address"):
        await hops(look_up=inside).check(httpx.URL("https://wiki.megacorp.com/"), "crate x")


@in_loop
async def test_a_dns_that_never_answers_holds_nobody_up_and_is_asked_once():
    asked = []

    async def silent(host):
        asked.append(host)
        await asyncio.sleep(3600)

    began = asyncio.get_running_loop().time()
    one = hops(look_up=silent)
    for _ in range(3):
        await one.check(httpx.URL("https://static.crates.io/x"), "crate x")
    assert asyncio.get_running_loop().time() - began < PROXIED_LOOKUP_SECONDS + 0.9
    assert asked == ["static.crates.io"]


@in_loop
async def test_an_upstream_of_the_company_may_send_us_to_its_other_hosts():
    await hops(upstream="https://index.corp/").check(httpx.URL("https://dl.corp/x"), "crate x")


@in_loop
async def test_what_was_judged_for_one_way_is_not_taken_for_the_other():
    """Attack: a name that was fine for the proxy, then asked for over plain http, directly."""
    one = hops()
    await one.check(httpx.URL("https://static.crates.io/"), "crate x")
    with pytest.raises(UpstreamAnswerError, match="has no address"):
        await one.check(httpx.URL("http://static.crates.io/"), "crate x")


def test_outside_names_are_not_private_ones():
    for host in ("static.crates.io", "crates.io.", "a.corp.com", "8.8.8.8", "2001:db8::1"):
        assert not is_private_name(host)
    for host in ("010.0.0.1", "1.2.3", "8.8.8.08"):
        assert is_private_name(host)
