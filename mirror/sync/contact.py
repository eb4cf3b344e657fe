"""Whether upstream can be reached at all.

After a failed contact everybody is told so at once for a few seconds, instead of each waiting for a
connection that will not come; then one request goes ahead as a probe, the others wait for its word.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from mirror.errors import UpstreamUnreachableError

logger = logging.getLogger(__name__)


class Contact:
    """The state of one upstream. Times are the event loop's."""

    def __init__(self, down_seconds: float) -> None:
        self._down_seconds = down_seconds
        self._reason = ""
        self._until = 0.0
        self._probing = False
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

    @contextmanager
    def attempt(self, subject: str) -> Iterator[None]:
        """Stand around one request.

        Raises:
            UpstreamUnreachableError: not now.
        """
        probe = self.is_down
        if probe:
            if self._probing or self._now() < self._until:
                raise UpstreamUnreachableError(f"{subject}: not asked for: {self._reason}")
            self._probing = True
        try:
            yield
        finally:
            if probe:
                self._probing = False

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
