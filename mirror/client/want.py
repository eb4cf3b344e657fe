"""Asking a mirror for index files that it lacks; only signed metadata says what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mirror.client.fetcher import HttpFetcher
from mirror.core.names import CrateName
from mirror.seam import WANT_MAX_NAMES

WANT_PATH = "api/v1/want"
ROUNDS = 4
"""How often what is still being fetched is asked for, the first time included."""
PAUSE_SECONDS = 2.0
"""Between two rounds; the mirror itself holds each question for some seconds (10 unless set)."""


def bring(server: HttpFetcher, names: Sequence[CrateName]) -> frozenset[CrateName]:
    """Have the mirror fetch and sign these; return those that it is still at after all rounds."""
    pending = list(names)
    for number in range(ROUNDS):
        if number:
            server.pause(PAUSE_SECONDS)
        pending = [name for portion in _portions(pending) for name in _pending(server, portion)]
        if not pending:
            break
    return frozenset(pending)


def _portions(names: Sequence[CrateName]) -> Iterator[Sequence[CrateName]]:
    for start in range(0, len(names), WANT_MAX_NAMES):
        yield names[start : start + WANT_MAX_NAMES]


def _pending(server: HttpFetcher, names: Sequence[CrateName]) -> list[CrateName]:
    """Ask once; a mirror that has no answer to this (a static one) is not at anything."""
    answer = server.post(WANT_PATH, {"names": names})
    said = answer.get("pending") if isinstance(answer, dict) else None
    still = {each for each in said if isinstance(each, str)} if isinstance(said, list) else ()
    return [name for name in names if name in still]
