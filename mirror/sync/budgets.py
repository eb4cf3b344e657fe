"""How much one client may ask for that nobody asked for before: a bounded table of counts."""

from __future__ import annotations

import ipaddress
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from mirror.core.plan import seconds_left

logger = logging.getLogger(__name__)

WINDOW_SECONDS = 600.0
CLIENTS_MAX = 10_000
_IPV6_PREFIX = 64


@dataclass(slots=True)
class _Window:
    began: float
    spent: int = 0
    is_said: bool = False


class Budgets:
    """So many first-time names for each client in ten minutes; those who asked longest ago go."""

    def __init__(self, names: int, clock: Callable[[], float]) -> None:
        self._names = names
        self._clock = clock
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    def spend(self, client: str) -> bool:
        """Take one name from a client's budget; return whether there was one left.

        The client "" is the mirror itself, and has no budget.
        """
        if not client:
            return True
        window = self._window(payer(client))
        if window.spent < self._names:
            window.spent += 1
            return True
        if not window.is_said:
            window.is_said = True
            logger.warning(
                "client %s asked for more than %d unknown names in ten minutes; no more are"
                " fetched for it for %.0f s (--names-per-client)",
                client,
                self._names,
                seconds_left(window.began, WINDOW_SECONDS, now=self._clock()),
            )
        return False

    def _window(self, key: str) -> _Window:
        now = self._clock()
        window = self._windows.get(key)
        if window is None or not seconds_left(window.began, WINDOW_SECONDS, now=now):
            window = self._windows[key] = _Window(now)
        self._windows.move_to_end(key)
        if len(self._windows) > CLIENTS_MAX:
            self._windows.popitem(last=False)
        return window


def payer(client: str) -> str:
    """Return whose budget it is: an IPv4 address, or the network of an IPv6 one."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return client
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
