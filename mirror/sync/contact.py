"""Whether upstream can be reached at all.

After a failed contact everybody is told so at once for a few seconds, instead of each waiting for a
connection that will not come; then one request goes ahead as a probe, the others wait for its word.
An upstream that is there may ask to be left alone: then what nobody waits for is not asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from mirror.errors import UpstreamUnreachableError

logger = logging.getLogger(__name__)

BUSY_WAIT_MAX = 60.0


class Contact:
    """The state of one upstream. Times are the event loop's."""

    def __init__(self, down_seconds: float) -> None:
        self._down_seconds = down_seconds
        self._reason = ""
        self._until = 0.0
        self._probing = False
        self._busy_until = 0.0
        self.answers = 0
        """How many answers came, of any kind."""

    @property
    def is_down(self) -> bool:
        """Whether the last contact failed."""
        return bool(self._reason)

    def reached(self) -> None:
        """Take note of an answer."""
        self.answers += 1
        if self.is_down:
            logger.info("upstream answers again")
        self._reason = ""

    def lost(self, reason: str) -> None:
        """Take note of a failed contact; only the first one is said."""
        if not self.is_down:
            logger.warning("upstream is unreachable: %s; what is held is served", reason)
        self._reason = reason
        self._until = self._now() + self._down_seconds

    def probe_now(self) -> None:
        """Let the next request through, however recent the failure."""
        self._until = 0.0

    def asked_to_wait(self, seconds: float) -> None:
        """Take note that upstream asks to be left alone for so long."""
        if not self.seconds_to_wait():
            logger.warning(
                "upstream asks to wait %.0f s; sweeps pause, wants go on",
                min(seconds, BUSY_WAIT_MAX),
            )
        self._busy_until = max(self._busy_until, self._now() + min(seconds, BUSY_WAIT_MAX))

    def seconds_to_wait(self) -> float:
        """Return for how long nothing is to be asked that nobody waits for."""
        return max(0.0, self._busy_until - self._now())

    async def wait_if_busy(self) -> None:
        """Return when upstream may be asked for what nobody waits for."""
        while (seconds := self.seconds_to_wait()) > 0:  # noqa: ASYNC110 - time has no event
            await asyncio.sleep(seconds)

    @contextmanager
    def attempt(self, subject: str) -> Iterator[None]:
        """Stand around one request.

        Raises:
            UpstreamUnreachableError: not now.
        """
        probe = self.is_down
        if probe:
            if self._probing or self._now() < self._until:
                raise UpstreamUnreachableError(
                    f"{subject}: not asked for: {self._reason}", "without an answer"
                )
            self._probing = True
        try:
            yield
        finally:
            if probe:
                self._probing = False

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
