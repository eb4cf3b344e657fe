"""What several threads want at a time is done once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Flights:
    """Calls under way. The first to ask does the work in its own thread, the others wait for it.

    So nobody ever waits for work that has not begun, and a full pool cannot lock itself up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[Hashable, Future[Any]] = {}

    def join(self, key: Hashable, work: Callable[[], T]) -> T:
        """Return what `work` returns, or raise what it raises; of one key one runs at a time."""
        with self._lock:
            future = self._under_way.get(key)
            is_first = future is None
            if future is None:
                future = self._under_way[key] = Future()
        if not is_first:
            result: T = future.result()
            return result
        try:
            done = work()
        except BaseException as error:
            self._end(key)
            future.set_exception(error)
            raise
        self._end(key)
        future.set_result(done)
        return done

    def _end(self, key: Hashable) -> None:
        with self._lock:
            del self._under_way[key]
