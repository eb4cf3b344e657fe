"""Names that upstream says are gone: told to the signer only once upstream proved to be itself.

A few names go now and then. Where many go at once, it may be upstream that lost its index, or a
stranger that answers in its place: 404 is what an empty folder says, too.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress

from mirror.core.batch import Outcome
from mirror.core.names import CrateName
from mirror.errors import UpstreamAnswerError, UpstreamError
from mirror.sync.fetcher import Fetcher
from mirror.sync.outbox import NOT_EXAMINED
from mirror.sync.parts import BroughtIndex, Parts

logger = logging.getLogger(__name__)

FEW = 10
FEW_PERCENT = 1.0
"""So many of the followed names may go in one round, whichever is more."""
_SHORT = "gone all at once"


class Losses:
    """The losses of one sweep, or of one round of retries; their flights stay open meanwhile."""

    def __init__(self, parts: Parts, fetcher: Fetcher) -> None:
        self._parts = parts
        self._fetcher = fetcher
        self._held: list[BroughtIndex] = []
        self._is_said = False

    def hold(self, brought: BroughtIndex) -> None:
        """Keep back what a look brought."""
        self._held.append(brought)

    async def settle(self) -> None:
        """Offer what was kept back, or end it as failed."""
        held, self._held = self._held, []
        if self._parts.outbox.stopped:
            for brought in held:
                self._parts.flights.land(brought.name, NOT_EXAMINED)
            return
        doubt = await self._doubt(held)
        if doubt and not self._is_said:
            self._is_said = True
            logger.warning(
                "upstream says of %d names at once that they are gone, and %s:"
                " has it lost its index? nothing of it is believed, and all are asked for again",
                len(held),
                doubt,
            )
        for brought in held:
            with suppress(UpstreamError), self._parts.flights.fetching(brought.name):
                if doubt:
                    text = f"index file {brought.name}: gone, as {len(held) - 1} others; {doubt}"
                    raise UpstreamAnswerError(f"{text}: upstream has lost its index?", _SHORT)
                self._fetcher.index_files.put(brought)

    async def _doubt(self, held: Sequence[BroughtIndex]) -> str:
        """Return why the losses are not to be believed; empty: they are."""
        if len(held) <= FEW:
            return ""
        gone = {brought.name for brought in held}
        try:
            if len(held) <= len(self._parts.following.names()) * FEW_PERCENT / 100:
                return ""
            if not await self._parts.upstream.has_same_config():
                return "its config.json is another one"
            return await self._doubt_of_good(gone)
        except (UpstreamError, OSError) as error:
            return str(error)

    async def _doubt_of_good(self, gone: set[CrateName]) -> str:
        good = self._parts.cursors.last_seen(but=gone)
        if good is None:
            return "every name it had is among them"
        answer = await self._parts.upstream.fetch_index(good.name, good.etag, good.last_modified)
        return f"so is {good.name}" if answer.outcome is Outcome.GONE else ""
