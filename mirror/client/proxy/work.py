"""Where the proxy's event loop meets the blocking source, and what is done without being asked."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from mirror.client.fetch.fetcher import one_line
from mirror.core.names import CrateName
from mirror.errors import CratesealError, MachineError

if TYPE_CHECKING:
    from mirror.client.source.source import Source
    from mirror.client.source.standing import Standing

LOG = logging.getLogger("crateseal.proxy")
T = TypeVar("T")

_KEPT_SECONDS = 30.0
"""So long an error is kept that came after everybody had been told to ask again (after 5 s)."""
_AHEAD_MAX = 4
"""Prefetches under way; each of them is parallel in itself."""


class Work:
    """The one place where the event loop meets the blocking source: its threads.

    What is asked for twice at a time is done once, so that a client that asks again and again for
    something slow takes one thread, not all.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._under_way: dict[tuple[object, ...], asyncio.Future[Any]] = {}
        self._given_up: set[tuple[object, ...]] = set()

    def start(self, function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """Start `function(*arguments)` in a thread, or join it."""
        key = (function, *arguments)
        future = self._under_way.get(key)
        if future is None:
            loop = asyncio.get_running_loop()
            future = loop.run_in_executor(self._executor, function, *arguments)
            self._under_way[key] = future
            future.add_done_callback(lambda done: self._done(key, done))
        return future

    async def in_time(self, seconds: float, function: Callable[..., T], *arguments: Any) -> T:
        """Return what `function(*arguments)` returns within so many seconds; later it goes on.

        Raises:
            TimeoutError: it is not there yet. Who asks again finds it kept by the source, or is
                told why it failed.
        """
        future = self.start(function, *arguments)
        try:
            return await asyncio.wait_for(asyncio.shield(future), seconds)
        except TimeoutError:
            if not future.done():
                self._given_up.add((function, *arguments))
            raise

    def _done(self, key: tuple[object, ...], future: asyncio.Future[Any]) -> None:
        failed = not future.cancelled() and future.exception() is not None
        if failed and key in self._given_up:
            # Nobody was there to hear it.
            asyncio.get_running_loop().call_later(_KEPT_SECONDS, self._forget, key)
        else:
            self._forget(key)

    def _forget(self, key: tuple[object, ...]) -> None:
        self._under_way.pop(key, None)
        self._given_up.discard(key)


class Looks:
    """Keeps the source's look at the mirrors young. One thread looks; who waits shares the outcome.

    Where looking fails, the last look stands, and the source itself refuses what has expired.
    """

    def __init__(self, source: Source, every: float, told: Callable[[Standing], None]) -> None:
        self._source = source
        self._told = told
        self._every = every
        self._lock = threading.Lock()
        self._has_looked = False
        self._tried_at = 0.0
        self._pause_until = 0.0
        self._failure: CratesealError | None = None

    def look(self) -> None:
        """Look where the last look is older than it may be.

        Raises:
            CratesealError: there was no look yet, or this machine's clock is wrong.
        """
        came = time.monotonic()
        if came < self._pause_until or not self._lock.acquire(blocking=not self._has_looked):
            return  # The last look stands: nobody waits for a mirror that does not answer.
        try:
            if self._tried_at < came:
                self._failure = self._try()
                self._tried_at = time.monotonic()
            if self._failure is not None:
                raise self._failure
        finally:
            self._lock.release()

    def _try(self) -> CratesealError | None:
        try:
            self._told(self._source.refresh(self._every))
        except CratesealError as error:
            if isinstance(error, MachineError) or not self._has_looked:
                self._source.tally.refused(getattr(error, "subject", "the mirror"), error)
                return error
            LOG.warning("no newer look at the mirrors: %s", one_line(str(error)))
            self._pause_until = time.monotonic() + self._every
        self._has_looked = True
        return None


class Ahead:
    """Fetches what cargo will ask for next, a few calls at a time, so that answers come first."""

    def __init__(self, source: Source, work: Work) -> None:
        self._source = source
        self._work = work
        self._names: set[CrateName] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def follow(self, name: CrateName) -> None:
        """Fetch the dependencies of this crate, soon; what fails is told when cargo asks for it."""
        self._names.add(name)
        if len(self._tasks) < _AHEAD_MAX:
            task = asyncio.create_task(self._run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self) -> None:
        while self._names:
            names, self._names = tuple(sorted(self._names)), set()
            with suppress(CratesealError, OSError):
                await self._work.start(self._fetch, names)

    def _fetch(self, names: tuple[CrateName, ...]) -> None:
        self._source.prefetch(names, follow=True)
