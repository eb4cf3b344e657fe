"""The signer's loop: take what was offered, settle it, answer, swap links; renew, prune, tell.

Rule: no failure of one round ends the process. A disk that is full, or a clock that is wrong, is
told in status.json and tried again with back-off, while `serve` goes on.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from mirror.core.batch import Settled
from mirror.seam import SIGN_SOCKET
from mirror.sign.heartbeat import put_config, put_heartbeat
from mirror.sign.inbox import Inbox, Pending
from mirror.sign.recover import end_well, recover
from mirror.sign.signer import Parts, Signer

log = logging.getLogger(__name__)

Clock = Callable[[], float]

_TICK_SECONDS = 1.0
_HEARTBEAT_SECONDS = 15.0
_PRUNE_EVERY_SECONDS = 60.0
_RETRY_MAX_SECONDS = 30.0


def run_signer(parts: Parts, clock: Clock, stop: threading.Event) -> None:
    """Sign until `stop` is set; the caller holds the lock.

    A publication under way is finished first.
    """
    signer = Signer(parts)
    recover(parts, signer, now=clock())
    put_config(parts)
    worker = _Worker(parts, signer, clock, stop)
    with Inbox(parts.config.run / SIGN_SOCKET) as inbox:
        worker.tell_status()
        worker.loop(inbox)
    with suppress(OSError):
        end_well(parts, signer)
    parts.ledger.close()


class Budget:
    """So many publications a minute; beyond it, one a second."""

    def __init__(self, a_minute: int) -> None:
        self._times: deque[float] = deque(maxlen=a_minute)

    def wait_seconds(self, now: float) -> float:
        """How long the next publication has to wait."""
        if len(self._times) < (self._times.maxlen or 0) or now - self._times[0] >= 60:
            return 0.0
        return max(0.0, min(1.0, self._times[-1] + 1.0 - now))

    def spend(self, now: float) -> None:
        """Note a publication."""
        self._times.append(now)


class _Worker:
    def __init__(self, parts: Parts, signer: Signer, clock: Clock, stop: threading.Event) -> None:
        self._parts = parts
        self._signer = signer
        self._clock = clock
        self._stop = stop
        self._budget = Budget(parts.config.publications_a_minute)
        self._pending: list[Pending] = []
        self._trouble: str | None = None
        self._retry_seconds = 0.0
        self._told_at = self._pruned_at = clock()

    def loop(self, inbox: Inbox) -> None:
        """Until told to stop; what has been taken is settled or dropped unanswered, never half."""
        while not self._stop.is_set():
            self._pending += inbox.take(0.0 if self._pending else _TICK_SECONDS)
            with self._trouble_told():
                self._round()
        for pending in self._pending:
            pending.drop()

    def _round(self) -> None:
        now = self._clock()
        if self._signer.renew(now=now):
            self.tell_status()
        if self._pending:
            self._stop.wait(self._budget.wait_seconds(now))
            self._settle(self._clock())
            self._signer.swap_links()
            self.tell_status()
        elif now - self._told_at >= _HEARTBEAT_SECONDS:
            self._signer.swap_links()
            self.tell_status()
        if now - self._pruned_at >= _PRUNE_EVERY_SECONDS:
            # A long absence leaves much to prune: some a round, so that nobody waits for it.
            self._pruned_at = now if self._signer.prune(now=now) == 0 else self._pruned_at

    def _settle(self, now: float) -> None:
        before = self._parts.publisher.timestamp_version
        batches = [pending.batch for pending in self._pending]
        answers: dict[int, Settled] = {a.batch: a for a in self._signer.settle(batches, now=now)}
        if self._parts.publisher.timestamp_version != before:
            self._budget.spend(now)
        for pending in self._pending:
            pending.answer(answers[pending.batch])
        self._pending = []

    @contextmanager
    def _trouble_told(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it is, the loop goes on
            log.debug("this round failed", exc_info=True)
            self._retry_seconds = min(self._retry_seconds * 2 or 1.0, _RETRY_MAX_SECONDS)
            # Public: the reason without the paths of this machine.
            reason = getattr(error, "strerror", None) or str(error)
            self._trouble = f"{reason}; tried again in {self._retry_seconds:.0f} s"
            log.error("%s; tried again in %.0f s", error, self._retry_seconds)  # noqa: TRY400 - one line; there is nothing to trace
            with suppress(OSError):
                self.tell_status()
            self._stop.wait(self._retry_seconds)
        else:
            if self._trouble:
                self._trouble, self._retry_seconds = None, 0.0
                self.tell_status()

    def tell_status(self) -> None:
        """Write the heartbeat, www/status.json."""
        self._told_at = self._clock()
        put_heartbeat(self._parts, trouble=self._trouble, now=self._told_at)
