"""Where a redirect, or the download address in config.json, may lead.

Upstream's word must not make us knock on doors of our own network: no address that is not public,
unless upstream itself is at such an address; none that cannot be looked up; and never from https
to http. The address of each request is looked at as it is sent.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket

import httpx

from mirror.errors import UpstreamAnswerError

_REMEMBERED_MAX = 1_000
# Other characters are read in one way here and in another by the client that connects.
_HOST = re.compile(r"[a-z0-9._:-]+", re.ASCII)


class Hops:
    """The rule for one upstream; remembers which hosts are public."""

    def __init__(self, upstream: httpx.URL) -> None:
        self._upstream = upstream
        self._public: dict[str, bool] = {}

    async def check_redirect(self, start: httpx.URL, to: httpx.URL, subject: str) -> None:
        """Raise UpstreamAnswerError where a redirect must not be followed."""
        if start.scheme == "https" and to.scheme != "https":
            raise UpstreamAnswerError(f"{subject}: redirected from https to {_short(to)}")
        await self.check(to, subject)

    async def check(self, to: httpx.URL, subject: str) -> None:
        """Raise UpstreamAnswerError where upstream must not send us."""
        host = _host(to)
        if to.scheme not in ("http", "https") or not _HOST.fullmatch(host):
            raise UpstreamAnswerError(f"{subject}: sent to {_short(to)}, which is no http address")
        ours = _host(self._upstream)
        if host == ours:
            return
        is_public = await self._is_public(host)
        if is_public is None:
            raise UpstreamAnswerError(f"{subject}: sent to {_short(to)}, which has no address")
        if not is_public and await self._is_public(ours) is not False:
            raise UpstreamAnswerError(
                f"{subject}: sent to {_short(to)}, which is a private address"
            )

    async def _is_public(self, host: str) -> bool | None:
        """Whether all addresses of a host are public; None: there is none now, ask again."""
        if host not in self._public:
            addresses = await _addresses(host)
            if not addresses:
                return None
            if len(self._public) >= _REMEMBERED_MAX:
                self._public.clear()
            self._public[host] = all(map(is_public_address, addresses))
        return self._public[host]


def is_public_address(text: str) -> bool:
    """Whether an IP address is reachable from anywhere."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_global and not (mapped or address).is_multicast


async def _addresses(host: str) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        # UnicodeError: a label that is empty or too long, before anybody is asked.
        return []
    return [str(entry[4][0]) for entry in found]


def _host(url: httpx.URL) -> str:
    return url.raw_host.decode("ascii", "replace").lower()


def _short(url: httpx.URL) -> str:
    return str(url)[:200]
