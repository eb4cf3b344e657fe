"""What expires when, as the signer knows it; the log hears of an offline role once a day.

The online roles are renewed by the signer itself; an offline one needs people, who read logs.
"""

from __future__ import annotations

import logging
import shlex

from mirror.core.expiry import CEREMONY, DAY, Expiry, advice, warning_text
from mirror.sign.parts import Parts
from mirror.sign.state import EXTRA
from tuf_repo.core.expiry import outlook

log = logging.getLogger(__name__)


def expiries_of(parts: Parts, now: float) -> list[Expiry]:
    """Return how long each role of what is published will do, by the signer's own windows."""
    return [
        Expiry(each.role, each.expires, each.renew_from, each.by.value, each.urgency.value)
        for each in outlook(parts.publisher.expires, now, parts.policy)
    ]


def is_trial(parts: Parts) -> bool:
    """Whether the newest root says that it was made for a first try."""
    return parts.publisher.root_extra.get(EXTRA, {}).get("trial") is True


class ExpiryWatch:
    """Remembers what it told when: each role once a day, and at once when it gets worse."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._told: dict[str, tuple[str, float]] = {}

    def tell(self, now: float) -> None:
        """Write a line for each offline role in its window that was not told of today."""
        for each in expiries_of(self._parts, now):
            if each.by == CEREMONY and each.is_warning and self._is_news(each, now):
                self._told[each.role] = (each.state, now)
                data = shlex.quote(str(self._parts.config.data))
                todo = advice([each.role], trial=is_trial(self._parts), data=data)
                log.warning("%s; %s", warning_text(each, now), "; ".join(todo))

    def _is_news(self, each: Expiry, now: float) -> bool:
        state, told_at = self._told.get(each.role, ("", now))
        # A clock that was set back is no reason for silence.
        return state != each.state or not 0 <= now - told_at < DAY
