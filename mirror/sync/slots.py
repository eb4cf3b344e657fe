"""Turns at upstream: so many requests at once, and one that hangs does not keep its slot.

A request that got nothing, or next to nothing, for a short while is set aside, before the answer's
head or behind it: it goes on, and its slot goes to the next one. Those set aside are bounded too,
so upstream never sees more than `most` requests of ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

PATIENCE_SECONDS = 0.2
"""Without a byte for so long, a request gives its slot away."""
BYTES_PER_SECOND_MIN = 10_000
"""So does a body that comes more slowly than this, byte by byte."""
PATIENCE_FACTOR = 4.0
"""Where upstream is slow with all its answers: so many times as long as it usually takes."""
SET_ASIDE_FACTOR = 4
"""So many times the number of slots may be set aside."""
_WEIGHT = 0.1


class Slots:
    """The slots of one process. What a sweep fetches leaves some free for what somebody wants."""

    def __init__(self, jobs: int, patience: float = PATIENCE_SECONDS) -> None:
        self._all = asyncio.Semaphore(jobs)
        self._bulk = asyncio.Semaphore(max(1, jobs - jobs // 8))
        self._patience = patience
        self._usual = 0.0
        self._aside_max = SET_ASIDE_FACTOR * jobs
        self.aside = 0
        """How many are set aside now."""
        self.most = jobs + self._aside_max
        self._at_bulk = 0

    @asynccontextmanager
    async def turn(self, *, bulk: bool) -> AsyncIterator[Turn]:
        """Stand around one request; waits for a slot. `bulk`: nobody waits for it."""
        if bulk:
            await self._bulk.acquire()
        try:
            await self._all.acquire()
        except BaseException:
            if bulk:
                self._bulk.release()
            raise
        self._at_bulk += bulk
        turn = Turn(self, bulk=bulk)
        try:
            yield turn
        finally:
            turn.end()

    @property
    def is_idle(self) -> bool:
        """Whether of what nobody waits for everything was answered, or hangs."""
        return not self._at_bulk

    @property
    def patience(self) -> float:
        """How long a request may be without a byte before it is set aside."""
        return max(self._patience, PATIENCE_FACTOR * self._usual)

    def set_aside(self, *, bulk: bool) -> bool:
        """Take a slot back, if not too many were taken back already."""
        if self.aside >= self._aside_max:
            return False
        self.aside += 1
        self.give_back(bulk=bulk)
        return True

    def give_back(self, *, bulk: bool) -> None:
        """Let the next one have a slot."""
        self._at_bulk -= bulk
        self._all.release()
        if bulk:
            self._bulk.release()

    def note_first_byte(self, seconds: float) -> None:
        """Learn how long upstream usually takes to begin."""
        self._usual += _WEIGHT * (seconds - self._usual)


class Turn:
    """One request's time at upstream."""

    def __init__(self, slots: Slots, *, bulk: bool) -> None:
        self._slots = slots
        self._bulk = bulk
        self._is_aside = False
        self._loop = asyncio.get_running_loop()
        self._began = self._since = self._loop.time()
        self._bytes = 0
        """How many came since then."""
        self._timer = self._loop.call_later(slots.patience, self._lose_patience)

    def begun(self) -> None:
        """Take note of the answer's head; what comes keeps its slot."""
        now = self._loop.time()
        self._slots.note_first_byte(now - self._began)
        self._since, self._bytes = now, 0

    def came(self, count: int) -> None:
        """Take note of bytes of the body."""
        self._bytes += count

    def end(self) -> None:
        """Give the slot back, unless it was given away long ago."""
        self._timer.cancel()
        if self._is_aside:
            self._slots.aside -= 1
        else:
            self._slots.give_back(bulk=self._bulk)

    def _lose_patience(self) -> None:
        now, patience = self._loop.time(), self._slots.patience
        wait = self._since + patience - now
        if wait <= 0:
            is_slow = self._bytes < BYTES_PER_SECOND_MIN * (now - self._since)
            if is_slow and self._slots.set_aside(bulk=self._bulk):
                self._is_aside = True
                return
            wait = patience
            self._since, self._bytes = now, 0
        self._timer = self._loop.call_later(wait, self._lose_patience)


class HeardBody(httpx.AsyncByteStream):
    """The body of an answer, whose bytes are told to the turn that it comes in."""

    def __init__(self, body: httpx.AsyncByteStream, turn: Turn) -> None:
        self._body = body
        self._turn = turn

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._body:
            self._turn.came(len(chunk))
            yield chunk

    async def aclose(self) -> None:
        """Close the answer."""
        await self._body.aclose()
