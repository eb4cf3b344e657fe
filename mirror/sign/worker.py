"""The signer's loop: take what was offered, settle it, answer, swap links; renew, prune, tell.

Rule: no failure of one round ends the process. A disk that is full, or a clock that is wrong, is
told in status.json and tried again with back-off, while `serve` goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from mirror.core.batch import Settled
from mirror.seam import Done, Offer, Order, Recover
from mirror.sign.ceremony import CeremonyDesk
from mirror.sign.expiry_watch import ExpiryWatch
from mirror.sign.heartbeat import Beat, last_beat, put_config, put_heartbeat
from mirror.sign.inbox import Inbox, Message, Pending
from mirror.sign.orders import obey, obey_again
from mirror.sign.parts import Parts
from mirror.sign.recover import end_well, recover
from mirror.sign.signer import Signer
from mirror.store.lockfile import LockWatch
from tuf_repo.errors import OtherSignerError

log = logging.getLogger(__name__)

Clock = Callable[[], float]

_TICK_SECONDS = 1.0
_HEARTBEAT_SECONDS = 15.0
_PRUNE_EVERY_SECONDS = 60.0
_RETRY_MAX_SECONDS = 30.0
_RESTLESS_SECONDS = 0.5


def run_signer(parts: Parts, clock: Clock, stop: threading.Event) -> None:
    """Sign until `stop` is set; the caller holds the lock.

    A publication under way is finished first.
    """
    lists = LockWatch(parts.config.lock)  # before they are read: no change is missed
    signer = Signer(parts)
    recover(parts, signer, now=clock())
    worker = _Worker(parts, signer, lists, clock, stop)
    worker.take_ceremony()
    parts.publisher.require_signers()
    put_config(parts)
    with Inbox(parts.config.run) as inbox:
        worker.tell_status()
        worker.loop(inbox)
    with suppress(OSError):
        end_well(parts, signer)
    parts.ledger.close()


def obey_alone(parts: Parts, order: Order | Recover, clock: Clock) -> Done:
    """Carry out one order where no signer runs; the caller holds the lock."""
    signer = Signer(parts)
    try:
        recover(parts, signer, now=clock())
        if isinstance(order, Order):
            obey_again(parts, signer, now=clock())
        done = obey(parts, signer, order, now=clock())
        # As of the last one that a signer wrote: none runs, and who reads it should see that.
        put_heartbeat(parts, signer.rules, trouble=signer.trouble or None, beat=last_beat(parts))
        end_well(parts, signer)
    finally:
        parts.ledger.close()
    return done


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
    def __init__(
        self,
        parts: Parts,
        signer: Signer,
        lists: LockWatch,
        clock: Clock,
        stop: threading.Event,
    ) -> None:
        self._parts = parts
        self._signer = signer
        self._ceremony = CeremonyDesk(parts, signer)
        self._expiry = ExpiryWatch(parts)
        self._clock = clock
        self._stop = stop
        self._budget = Budget(parts.config.publications_a_minute)
        self._pending: list[Pending] = []
        self._lists = lists
        self._undone = True
        """A decision stands in the ledger that may not be published yet."""
        self._trouble: str | None = None
        self._retry_seconds = 0.0
        self._told_at = self._pruned_at = clock()

    def loop(self, inbox: Inbox) -> None:
        """Until told to stop; what has been taken is settled or dropped unanswered, never half."""
        while not self._stop.is_set():
            at_once = self._pending or self._undone
            self._pending += inbox.take(0.0 if at_once else _TICK_SECONDS)
            with self._trouble_told():
                self._obey()
                self._round()
            if self._trouble:
                self._rest(inbox)
        for pending in self._pending:
            pending.drop()

    def _rest(self, inbox: Inbox) -> None:
        """Wait before the next try, but not when an operator has an order."""
        until = time.monotonic() + self._retry_seconds
        while not self._stop.is_set() and time.monotonic() < until:
            if any(not isinstance(pending.message, Offer) for pending in self._pending):
                return
            self._pending += inbox.take(_RESTLESS_SECONDS)

    def take_ceremony(self) -> bool:
        """Publish what a ceremony left, if it did; return whether it was published."""
        return self._ceremony.take(now=self._clock())

    def _obey(self) -> None:
        """Carry out the operator's orders, before anything else."""
        # First what may be needed before anything can be signed at all.
        self._answer(Recover)
        if self._lists.changed():
            log.info("a lock file changed: publishing what it lists now")
            self._undone = True
        if self._undone:
            obey_again(self._parts, self._signer, now=self._clock())
            self._undone = False
            self.tell_status()
        self._answer(Order)

    def _answer(self, kind: type[Order | Recover]) -> None:
        for pending in [each for each in self._pending if isinstance(each.message, kind)]:
            self._pending.remove(pending)
            pending.answer(self._answer_to(pending.message))
            self.tell_status()

    def _answer_to(self, order: Message) -> Done:
        assert isinstance(order, Order | Recover)
        try:
            return obey(self._parts, self._signer, order, now=self._clock())
        except Exception as error:
            # The decision may be durable already: it must come into force.
            self._undone = True
            log.exception("%s: not finished; tried again", order)
            return Done(f"not finished: {error}; it is tried again, see `crateseal status`", 5)

    def _round(self) -> None:
        now = self._clock()
        if self.take_ceremony() or self._signer.renew(now=now):
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
        offers = [(each, each.message) for each in self._pending]
        batches = [offer.batch for _, offer in offers if isinstance(offer, Offer)]
        answers: dict[int, Settled] = {a.batch: a for a in self._signer.settle(batches, now=now)}
        if self._parts.publisher.timestamp_version != before:
            self._budget.spend(now)
        for pending, offer in offers:
            if isinstance(offer, Offer):
                pending.answer(answers[offer.batch])
        self._pending = []

    @contextmanager
    def _trouble_told(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it is, the loop goes on
            log.debug("this round failed", exc_info=True)
            self._retry_seconds = min(self._retry_seconds * 2 or 1.0, _RETRY_MAX_SECONDS)
            reason = getattr(error, "strerror", None) or str(error)
            if isinstance(error, OtherSignerError):
                reason = self._signer.trouble  # what to do about it
            self._trouble = f"{reason}; tried again in {self._retry_seconds:.0f} s"
            log.error("%s; tried again in %.0f s", error, self._retry_seconds)  # noqa: TRY400 - one line; there is nothing to trace
            with suppress(OSError):
                self.tell_status()
        else:
            if self._trouble:
                self._trouble, self._retry_seconds = None, 0.0
                self.tell_status()

    def tell_status(self) -> None:
        """Write the heartbeat, www/status.json."""
        self._told_at = self._clock()
        self._expiry.tell(self._told_at)
        trouble = self._trouble or self._signer.trouble or self._ceremony.trouble or None
        put_heartbeat(
            self._parts,
            self._signer.rules,
            trouble=trouble,
            beat=Beat(self._told_at, self._parts.config.url),
        )
