"""Keeps an eye on what the operator may change at any time: the lists, and the decisions.

What is decided shows in the digest of the rules that the signer puts into the timestamp. Nothing is
believed because of it: that it is another one only means that refusals may not hold any more.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from typing import NoReturn

from mirror.core.layout import METADATA_DIR, STATE_FIELD
from mirror.store.lockfile import LockWatch
from mirror.sync.parts import Parts

logger = logging.getLogger(__name__)


class Watch:
    """Looks now and then, also while a sweep goes on."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._locks = LockWatch(parts.life.config.lock if parts.following.is_list else ())
        self._timestamp = parts.life.config.www / METADATA_DIR / "timestamp.json"
        self._policy = self._policy_now()
        self._changed = asyncio.Event()
        self._calls_for_sweep = False

    async def work(self) -> NoReturn:
        """Look for ever."""
        while True:
            await asyncio.sleep(self._parts.life.pace.watch)
            self._look_at_locks()
            self._look_at_policy()

    async def wait(self, seconds: float) -> None:
        """Return after so long, or when something changed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.clear()

    def takes_sweep(self) -> bool:
        """Whether a change calls for a sweep; it is told once."""
        calls, self._calls_for_sweep = self._calls_for_sweep, False
        return calls

    def _look_at_locks(self) -> None:
        if self._locks.changed():
            logger.info("a lock file changed: it comes into force now")
            self._calls_for_sweep = True
            self._changed.set()

    def _look_at_policy(self) -> None:
        policy = self._policy_now()
        # Where nothing is published yet, or cannot be read, the last one stands.
        if not policy or policy == self._policy:
            return
        is_first, self._policy = not self._policy, policy
        if is_first:
            return
        self._parts.remembered.forget_refusals()
        self._parts.retrying.hurry_refused()
        self._calls_for_sweep |= self._parts.following.is_list
        self._changed.set()

    def _policy_now(self) -> str:
        try:
            signed = json.loads(self._timestamp.read_bytes())["signed"]
            return str(signed.get(STATE_FIELD, {}).get("policy", ""))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return ""
