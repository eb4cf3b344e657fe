"""Offering one batch to the signer, until it answers."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from mirror.core.batch import Settled
from mirror.errors import MalformedMessageError
from mirror.seam import SIGN_SOCKET, Offer, ask, parse_settled
from mirror.sync.values import Pace

logger = logging.getLogger(__name__)


class Offering:
    """The socket of the signer, one offer at a time."""

    def __init__(self, run: Path, pace: Pace) -> None:
        self._socket = run / SIGN_SOCKET
        self._pace = pace
        self.silence = ""
        """Why the signer does not answer; empty when it does."""

    async def offer(self, number: int) -> Settled:
        """Offer until the signer answers; the batch stays where it is meanwhile."""
        began = asyncio.get_running_loop().time()
        is_said = False
        while True:
            answer = await self._once(number)
            if isinstance(answer, Settled):
                break
            self.silence = answer
            waited = asyncio.get_running_loop().time() - began
            # A signer that has just been started takes a moment.
            if not is_said and waited >= self._pace.signer_grace:
                is_said = True
                logger.warning(
                    "the signer does not take batch %d: %s; offered again every %g s",
                    number,
                    answer,
                    self._pace.signer_retry,
                )
            await asyncio.sleep(self._pace.signer_retry)
        self.silence = ""
        if is_said:
            logger.warning("the signer is back and took batch %d", number)
        return answer

    async def _once(self, number: int) -> Settled | str:
        """Offer; return the answer, or why there is none."""
        try:
            async with asyncio.timeout(self._pace.offer):
                settled = parse_settled(await ask(self._socket, Offer(number)))
        except TimeoutError:
            # To offer twice is harmless: the second time nothing is left to be done.
            return f"no answer within {self._pace.offer:g} s"
        except (OSError, MalformedMessageError, ValueError, TypeError) as error:
            return str(error) or type(error).__name__
        if settled.batch != number:
            return f"it answered about batch {settled.batch}"
        return settled
