"""What is wanted and missing, and when it is asked for again.

On the list comes what somebody wanted or the operator lists, and could not be had: upstream gave no
usable answer, or the signer refused the crate that it gave. It leaves when it is there, when
upstream says that there is no such thing (unless the operator lists it, or the index names it), or
when it is not followed any more. A wish that no sweep, list or held file backs ends after a week:
else nonsense would stay for ever. A version that the index file does not name never comes on it.

What is on the list changes in one place, where a flight lands; a sweep adds what it follows.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from mirror.core.names import CrateId, CrateName
from mirror.core.plan import (
    RETRY_FOR_SECONDS,
    RETRY_LONGEST_SECONDS,
    Known,
    Retry,
    Trouble,
    retry_wait,
)
from mirror.store.cursors import Cursors
from mirror.sync.following import Following
from mirror.sync.known import KnownVersions
from mirror.sync.values import (
    ABSENT,
    INDEX_NAMES_IT,
    LISTED_ABSENT,
    Kind,
    Life,
    Result,
    in_groups,
    without_subject,
)

logger = logging.getLogger(__name__)

NAMED_MAX = 5
"""So much of what is missing is named in the log."""
ROUND_MAX = 1_000
"""So many are tried in one round."""
_WRONG_SHA256 = re.compile(r"expected (sha256|cksum)\b")
_DOUBT = Result(Kind.FAILED, "upstream says that it is gone", short="gone upstream")


class Retrying:
    """The list of one process."""

    def __init__(
        self, life: Life, cursors: Cursors, following: Following, known: KnownVersions
    ) -> None:
        self._clock = life.clock
        self._first = life.pace.retry_first
        self._refused_first = min(life.config.max_age, RETRY_LONGEST_SECONDS)
        self._cursors = cursors
        self._all = cursors.retries
        self._following = following
        self._known = known
        self._said = ""
        for retry in self._all:
            self._all.mark(retry.key, is_wish=not self._is_backed(retry.key))

    def absence(self, crate: CrateId) -> Result:
        """Return what it means that upstream has no such crate."""
        if self._following.is_list:
            return LISTED_ABSENT
        # A CDN may be behind its index: that does not last.
        return INDEX_NAMES_IT if self._known.name(crate) else ABSENT

    def landed(self, key: str, result: Result, wanted: bool) -> None:
        """Take note of the end of a flight."""
        is_crate = " " in key
        in_vain = result.kind in (Kind.FAILED, Kind.REFUSED) and not result.denied
        if in_vain and is_crate and self._is_nonsense(crate_of(key)):
            self._all.drop(key)
        elif result.kind is Kind.FAILED:
            if wanted or self.wants(key):
                self._put(key, Trouble.FAILED, result, self._first)
        elif in_vain and is_crate:
            short = short_refusal(result.reason)
            self._put(key, Trouble.REFUSED, replace(result, short=short), self._refused_first)
        elif self._is_listed_and_absent(key, result):
            self._put(key, Trouble.FAILED, LISTED_ABSENT, self._first)
        else:
            self._all.drop(key)
        if self._all.is_changed:
            self._cursors.save()

    def follow_up(self, results: Mapping[str, Result]) -> None:
        """Put on the list what a sweep follows and could not have."""
        for key, result in results.items():
            if not self.wants(key):
                self._put(key, Trouble.FAILED, result, self._first)
        self._cursors.save()

    def hurry_refused(self) -> None:
        """Have everything that was refused tried now: the operator decided otherwise."""
        now = self._clock()
        for retry in self._all:
            if retry.trouble is Trouble.REFUSED:
                is_wish = not self._is_backed(retry.key)
                self._all.put(replace(retry, due_at=now), is_wish=is_wish)

    def doubted(self, name: CrateName, at: float) -> None:
        """Have a name looked at again at that time or soon after: upstream says it is gone."""
        retry = Retry(name, Trouble.DOUBTED, _DOUBT.short, _DOUBT.reason, self._clock(), 0, at)
        self._all.put(retry)
        self._cursors.save()

    def due(self) -> list[Retry]:
        """Return what is to be tried now, the longest due first."""
        now = self._clock()
        due = [retry for retry in self._all if retry.is_due(now)]
        return sorted(due, key=lambda retry: retry.due_at)[:ROUND_MAX]

    def next_due(self) -> float | None:
        """Return when something is to be tried."""
        return min((retry.due_at for retry in self._all), default=None)

    def wants(self, key: str) -> bool:
        """Whether this is on the list."""
        return self._all.get(key) is not None

    def all_due(self) -> list[Retry]:
        """Return everything, for a sweep: it tries what is missing, and what is doubted if due."""
        now = self._clock()
        return [retry for retry in self._all if retry.is_missing or retry.is_due(now)]

    def prune(self, held: Iterable[str] = ()) -> None:
        """Drop what is not followed any more, and what is held by now."""
        gone = [retry.key for retry in self._all if not self._is_followed(retry.key)]
        for key in (*gone, *held):
            self._all.drop(key)
        self._cursors.save()

    def missing(self) -> Counter[str]:
        """Count what is missing, by what it has in common; a crate and its index file are one."""
        missing = {retry.key: retry.short for retry in self._all if retry.is_missing}
        names = {key: crate_of(key).canonical_name for key in missing if " " in key}
        told = set(names.values())
        return Counter(
            missing.get(names[key], short) if key in names else short
            for key, short in missing.items()
            if key not in told
        )

    def say_if_changed(self) -> None:
        """Log how much is missing, if that is news."""
        missing = self.missing()
        text = in_groups(missing) if missing else ""
        if self._following.is_list:
            text += self._first_missing()
        if text == self._said:
            return
        self._said = text
        if text:
            logger.warning("%s; tried again by itself, at most an hour apart", text)
        else:
            logger.info("nothing is missing any more")

    def _first_missing(self) -> str:
        """Name some of what is missing, a crate and its index file as one."""
        missing = {retry.key: retry.reason for retry in self._all if retry.is_missing}
        told = {crate_of(key).canonical_name for key in missing if " " in key}
        keys = sorted(key for key in missing if key not in told)
        named = [f"{key}: {without_subject(key, missing[key])}" for key in keys[:NAMED_MAX]]
        return f"; missing: {'; '.join(named)}" if named else ""

    def _put(self, key: str, trouble: Trouble, result: Result, first: float) -> None:
        now = self._clock()
        before = self._all.get(key) or Retry(key, trouble, "", "", now, -1, now)
        is_backed = self._is_backed(key)
        if before.since + RETRY_FOR_SECONDS < now and not is_backed:
            logger.info("%s: given up after a week: %s", key, result.reason)
            self._all.drop(key)
            return
        tries, due_at = before.tries, before.due_at
        if result.unreachable:
            # It says nothing about this one: the wait does not grow.
            tries, due_at = max(tries, 0), now + first
        elif before.is_due(now):
            tries += 1
            due_at = now + retry_wait(tries, first)
        # A doubted name is there, whatever happens to the second look.
        is_doubted = before.trouble is Trouble.DOUBTED and result is not LISTED_ABSENT
        kept = before.trouble if is_doubted else trouble
        retry = Retry(key, kept, result.short, result.reason, before.since, tries, due_at)
        self._all.put(retry, is_wish=not is_backed)

    def _is_listed_and_absent(self, key: str, result: Result) -> bool:
        is_absent = result.kind is Kind.ABSENT
        return is_absent and self._following.is_list and self._is_followed(key)

    def _is_followed(self, key: str) -> bool:
        if " " in key:
            return self._following.may_fetch_crate(crate_of(key))
        return self._following.may_fetch(CrateName(key))

    def _is_nonsense(self, crate: CrateId) -> bool:
        """Whether upstream is known to have no such version; what is listed is wanted anyhow."""
        return not self._following.is_list and self._known.lack(crate)

    def _is_backed(self, key: str) -> bool:
        """Whether there is more behind it than that somebody asked once."""
        if " " in key:
            return self._following.is_list
        cursor = self._cursors.get(CrateName(key))
        held = cursor is not None and cursor.known in (Known.PUBLISHED, Known.REFUSED)
        return held or self._following.whole_source


def crate_of(key: str) -> CrateId:
    """Return the crate that `name version` stands for."""
    name, _, version = key.partition(" ")
    return CrateId(name, version)


def short_refusal(reason: str) -> str:
    """Return what a refusal of the signer has in common with many others."""
    if "expected the lock's " in reason:
        return "other than in the lock"
    return "wrong sha256" if _WRONG_SHA256.search(reason) else "refused by the audit"
