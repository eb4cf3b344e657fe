"""Who asks: the address whose budget pays for what is fetched for the first time.

Anybody can write an `X-Forwarded-For`, so it counts only from a proxy that the operator trusts, and
of it only what such a proxy added: its right end.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mirror.serve.answers import Scope

if TYPE_CHECKING:
    from mirror.kinds import Network

HOPS_MAX = 32
"""So many addresses of one chain are looked at; no real chain of proxies is as long."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Some proxies add the port.
_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5})\Z")


class Clients:
    """Tells clients apart by their address, behind trusted proxies too."""

    def __init__(self, trusted_proxies: tuple[Network, ...]) -> None:
        self._trusted = trusted_proxies

    def of(self, scope: Scope) -> str:
        """Return the IP address of who sent a request; "" where the connection has none."""
        peer = scope.get("client")
        client = _address(str(peer[0])) if peer else None
        if client is None:
            return ""
        for hop in _forwarded_for(scope):
            if not self._is_trusted(client):
                break
            address = _address(hop)
            if address is None:
                break  # whatever stands left of it was not written by a proxy we know
            client = address
        return str(client)

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def _forwarded_for(scope: Scope) -> Iterator[str]:
    """Yield what proxies wrote down, the last one first."""
    values = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    rest = b",".join(values).decode("latin-1")
    for _ in range(HOPS_MAX):
        rest, comma, hop = rest.rpartition(",")
        if hop or comma:
            yield hop.strip()
        if not comma:
            return


def _address(text: str) -> Address | None:
    """Read an address as proxies write it; an IPv4 address in IPv6's clothes is an IPv4 address."""
    found = _PORT.match(text)
    bare = (found[1] or found[2]) if found else text.partition("%")[0]
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
