"""Where a redirect, or the download address in config.json, may lead.

Upstream's word must not make us knock on doors of our own network: no address that is not public,
unless upstream itself is at such an address; none that cannot be looked up; and never from https
to http. The address of each request is looked at as it is sent.

Behind a proxy it is the proxy that looks a name up, and this machine may know no outside name at
all. There the rule holds for what can be told here: addresses, names that only a private network
has, and names that this machine's own DNS, asked for a moment, has private addresses for.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable

import httpx

from mirror.errors import UpstreamAnswerError
from mirror.sync.proxies import Proxies, environment_proxies

ELSEWHERE = "sent to where we do not go"
_REMEMBERED_MAX = 1_000
PROXIED_LOOKUP_SECONDS = 1.0
# RFC 6761, 6762, 8375, 9476 and ICANN's `internal`; then what companies took without asking.
_PRIVATE_DOMAINS = tuple(
    f".{domain}"
    for domain in (
        *("alt", "example", "home.arpa", "internal", "invalid", "local", "localhost", "onion"),
        *("test", "corp", "home", "intranet", "lan", "localdomain", "private"),
    )
)
_IPV4 = re.compile(r"(?:(?:0|[1-9][0-9]{0,2})\.){3}(?:0|[1-9][0-9]{0,2})")
_NUMBER = re.compile(r"(?:\A|\.)(?:[0-9]+|0x[0-9a-f]*)\Z")
# Other characters are read in one way here and in another by the client that connects.
_HOST = re.compile(r"[a-z0-9._:-]+", re.ASCII)


LookUp = Callable[[str], Awaitable[list[str]]]
"""From a host to its addresses; none: it has none, or nobody knows."""


class Hops:
    """The rule for one upstream; remembers which hosts are public."""

    def __init__(
        self,
        upstream: httpx.URL,
        proxies: Proxies | None = None,
        look_up: LookUp | None = None,
    ) -> None:
        self._upstream = upstream
        self._proxies = proxies or environment_proxies()
        self._look_up = look_up or _addresses
        self._public: dict[tuple[str, bool], bool] = {}

    async def check_redirect(self, start: httpx.URL, to: httpx.URL, subject: str) -> None:
        """Raise UpstreamAnswerError where a redirect must not be followed."""
        if start.scheme == "https" and to.scheme != "https":
            raise _refusal(f"{subject}: redirected from https to {_short(to)}")
        await self.check(to, subject)

    async def check(self, to: httpx.URL, subject: str) -> None:
        """Raise UpstreamAnswerError where upstream must not send us."""
        host = _host(to)
        if to.scheme not in ("http", "https") or not _HOST.fullmatch(host):
            raise _refusal(f"{subject}: sent to {_short(to)}, which is no http address")
        ours = _host(self._upstream)
        if host == ours:
            return
        is_public = await self._is_public(to)
        if is_public is None:
            raise _refusal(f"{subject}: sent to {_short(to)}, which has no address")
        if not is_public and await self._is_public(self._upstream) is not False:
            raise _refusal(f"{subject}: sent to {_short(to)}, which is a private address")

    async def _is_public(self, url: httpx.URL) -> bool | None:
        """Whether all addresses of a host are public; None: there is none now, ask again."""
        host, proxied = _host(url), self._proxies.of(url) is not None
        key = (host, proxied)
        if key not in self._public:
            is_public = await (self._may_be_public(host) if proxied else self._are_public(host))
            if is_public is None:
                return None
            if len(self._public) >= _REMEMBERED_MAX:
                self._public.clear()
            self._public[key] = is_public
        return self._public[key]

    async def _are_public(self, host: str) -> bool | None:
        addresses = await self._look_up(host)
        return all(map(is_public_address, addresses)) if addresses else None

    async def _may_be_public(self, host: str) -> bool:
        """Whether nothing here speaks against a host that a proxy will look up."""
        if is_private_name(host):
            return False
        try:
            async with asyncio.timeout(PROXIED_LOOKUP_SECONDS):
                return await self._are_public(host) is not False
        except TimeoutError:
            return True


def is_public_address(text: str) -> bool:
    """Whether an IP address is reachable from anywhere."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_global and not (mapped or address).is_multicast


def is_private_name(host: str) -> bool:
    """Whether a name can only be of a private network: `wiki`, `wiki.corp`, `printer.local`.

    So is a number that programs read differently (`010.0.0.1`, `0x7f.1`).
    """
    if ":" in host or _IPV4.fullmatch(host):
        return False  # an address
    name = host.rstrip(".")
    return "." not in name or name.endswith(_PRIVATE_DOMAINS) or bool(_NUMBER.search(name))


async def _addresses(host: str) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        # UnicodeError: a label that is empty or too long, before anybody is asked.
        return []
    return [str(entry[4][0]) for entry in found]


def _refusal(text: str) -> UpstreamAnswerError:
    return UpstreamAnswerError(text, ELSEWHERE)


def _host(url: httpx.URL) -> str:
    return url.raw_host.decode("ascii", "replace").lower()


def _short(url: httpx.URL) -> str:
    return str(url)[:200]
