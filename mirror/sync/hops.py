"""Where a redirect, or the download address in config.json, may lead.

Upstream's word must not make us knock on doors of our own network: no address that is not public,
unless upstream itself is at such an address; and never from https to http.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import httpx

from mirror.errors import UpstreamAnswerError

_REMEMBERED_MAX = 1_000


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
        if to.scheme not in ("http", "https") or not to.host:
            raise UpstreamAnswerError(f"{subject}: sent to {_short(to)}, which is no http address")
        if to.host == self._upstream.host or await self._is_public(to.host):
            return
        if await self._is_public(self._upstream.host):
            raise UpstreamAnswerError(
                f"{subject}: sent to {_short(to)}, which is a private address"
            )

    async def _is_public(self, host: str) -> bool:
        if host not in self._public:
            if len(self._public) >= _REMEMBERED_MAX:
                self._public.clear()
            self._public[host] = all(map(is_public_address, await _addresses(host)))
        return self._public[host]


def is_public_address(text: str) -> bool:
    """Whether an IP address is reachable from anywhere."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_global and not (mapped or address).is_multicast


async def _addresses(host: str) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        # A name that only the proxy can resolve, or nobody: then the request itself fails.
        return []
    return [str(entry[4][0]) for entry in found]


def _short(url: httpx.URL) -> str:
    return str(url)[:200]
