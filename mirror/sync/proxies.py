"""Which requests go through which of the company's proxies, as the environment says.

`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, in either case (the lower one counts, as in
curl); an empty value is none. Loopback never goes through one. The rule is applied here and nowhere
else: the transport's own reading of the same variables is switched off, so that what `hops.py`
takes for proxied is.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping

import httpx

from mirror.core.addresses import is_loopback
from mirror.errors import UsageError

_SCHEMES = ("http", "https", "socks5", "socks5h")
_HOST = re.compile(r"[a-z0-9._:-]+", re.ASCII)
_PORT = re.compile(r":[0-9]+\Z")


class Proxies:
    """The proxies of one environment, and who does without."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        everything = _proxy(environment, "all_proxy")
        self._by_scheme = {
            "http": _proxy(environment, "http_proxy") or everything,
            "https": _proxy(environment, "https_proxy") or everything,
        }
        self._exempt = [
            entry for entry in _either(environment, "no_proxy").lower().split(",") if entry.strip()
        ]

    def of(self, url: httpx.URL) -> str | None:
        """Return the URL of the proxy that a request goes through, or None: it goes directly."""
        proxy = self._by_scheme.get(url.scheme)
        host = url.raw_host.decode("ascii", "replace").lower().rstrip(".")
        if proxy is None or is_loopback(host) or any(_covers(each, host) for each in self._exempt):
            return None
        return proxy


def environment_proxies() -> Proxies:
    """Return the proxies of this process's environment.

    Raises:
        UsageError: a variable holds no URL of a proxy.
    """
    return Proxies(os.environ)


def shown(proxy: str) -> str:
    """Return host and port of a proxy, without the password in its URL."""
    url = httpx.URL(proxy)
    return f"{url.host}:{url.port}" if url.port is not None else url.host


def _either(environment: Mapping[str, str], variable: str) -> str:
    value = environment.get(variable)
    return environment.get(variable.upper(), "") if value is None else value


def _proxy(environment: Mapping[str, str], variable: str) -> str | None:
    text = _either(environment, variable).strip()
    if not text:
        return None
    whole = text if "://" in text else f"http://{text}"
    try:
        url = httpx.URL(whole)
    except (httpx.InvalidURL, ValueError):
        url = httpx.URL()
    if url.scheme not in _SCHEMES or not _HOST.fullmatch(url.raw_host.decode("ascii").lower()):
        # The value may hold a password: it is not repeated.
        raise UsageError(
            f"environment variable {variable.upper()}: expected the URL of a proxy such as"
            f" http://proxy.example.com:3128, or {', '.join(_SCHEMES[1:])} in place of http"
        )
    return whole


def _covers(entry: str, host: str) -> bool:
    """Whether an entry of NO_PROXY is about a host: all, a network, or a domain and all below."""
    entry = entry.strip()
    if entry == "*":
        return True
    try:
        network = ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        name = _PORT.sub("", entry).removeprefix("*").strip(".[]")
        return bool(name) and (host == name or host.endswith(f".{name}"))
    try:
        return ipaddress.ip_address(host) in network
    except ValueError:
        return False
