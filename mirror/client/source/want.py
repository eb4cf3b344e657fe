"""Asking a mirror for index files that it lacks; only signed metadata says what came of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future

from mirror.client.fetch.fetcher import HttpFetcher
from mirror.core.names import CrateName
from mirror.seam import WANT_MAX_NAMES

WANT_PATH = "api/v1/want"
ROUNDS = 4
"""How often what is still being fetched is asked for, the first time included."""
PAUSE_SECONDS = 2.0
"""Between two rounds; the mirror itself holds each question for some seconds (10 unless set)."""
GATHER_SECONDS = 0.02
"""Names that are asked for within so long go into one question, and into one publication."""


class Wants:
    """Questions to the mirrors, gathered. Thread-safe."""

    def __init__(
        self,
        servers: Sequence[HttpFetcher],
        after: Callable[[], object],
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Ask these.

        Args:
            servers: in this order, until one answers.
            after: called once after each question, before anybody is told: looks anew.
            sleep: waits so many seconds.
        """
        self._servers = servers
        self._after = after
        self._sleep = sleep
        self._lock = threading.Lock()
        self._next: tuple[dict[CrateName, None], Future[frozenset[CrateName]]] | None = None

    def bring(self, names: Iterable[CrateName]) -> frozenset[CrateName]:
        """Have a mirror fetch and sign these; return those that it is still at.

        Raises:
            Exception: what `after` raises.
        """
        if not self._servers:
            return frozenset()
        with self._lock:
            is_first = self._next is None
            if self._next is None:
                self._next = {}, Future()
            gathered, answer = self._next
            gathered.update(dict.fromkeys(names))
        if is_first:
            self._sleep(GATHER_SECONDS)
            with self._lock:
                self._next = None
            self._ask(list(gathered), answer)
        return answer.result()

    def _ask(self, names: list[CrateName], answer: Future[frozenset[CrateName]]) -> None:
        try:
            pending = bring(self._servers, names)
            self._after()
            answer.set_result(pending)
        except BaseException as error:
            answer.set_exception(error)
            raise


def bring(servers: Sequence[HttpFetcher], names: Sequence[CrateName]) -> frozenset[CrateName]:
    """Have one of the mirrors fetch and sign these; return what it is still at after all rounds."""
    pending = sorted(names)
    for number in range(ROUNDS):
        if number:
            servers[0].pause(PAUSE_SECONDS)
        pending = [name for portion in _portions(pending) for name in _pending(servers, portion)]
        if not pending:
            break
    return frozenset(pending)


def _portions(names: Sequence[CrateName]) -> Iterator[Sequence[CrateName]]:
    for start in range(0, len(names), WANT_MAX_NAMES):
        yield names[start : start + WANT_MAX_NAMES]


def _pending(servers: Sequence[HttpFetcher], names: Sequence[CrateName]) -> list[CrateName]:
    """Ask once; mirrors that have no answer to this (static ones) are not at anything."""
    for server in servers:
        answer = server.post(WANT_PATH, {"names": names})
        if not isinstance(answer, dict):
            continue
        said = answer.get("pending")
        still = {each for each in said if isinstance(each, str)} if isinstance(said, list) else ()
        return [name for name in names if name in still]
    return []
