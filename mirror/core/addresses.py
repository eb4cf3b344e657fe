"""What a host's name or address tells of where it is, without asking anybody."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether this host is this machine, as far as its name tells.

    `host` is what a URL holds between user and port, an IPv6 address without its brackets.
    """
    # RFC 6761, 6.3: `localhost` and all names below it.
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
