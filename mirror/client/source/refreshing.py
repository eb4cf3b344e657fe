"""From what is remembered and what mirrors say to the newest look at a repository.

Order: the next root is asked of every mirror, with the first one's timestamp in the same round
trip; then, mirror by mirror until one is good: timestamp, snapshot, targets and crates. What is
remembered goes forward only, and only by what has verified.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from tuf.api.exceptions import DownloadError, DownloadLengthMismatchError, RepositoryError

from mirror.client.fetch.fetcher import MirrorFetcher, one_line
from mirror.client.source.cache import Cache
from mirror.client.source.look import ROOT_MAX_BYTES, TIMESTAMP_MAX_BYTES, BehindError, Look, Need
from mirror.client.source.mirrors import Mirrors
from mirror.client.source.standing import Standing
from mirror.client.source.words import LOOK_THERE, gravest, in_plain_words, in_short
from mirror.client.trust.memory import Remembered, version_of
from mirror.client.trust.roots import next_root
from mirror.core.layout import DELEGATION, METADATA_DIR
from mirror.core.times import rfc3339
from mirror.errors import CratesealError, MachineError, ProofError, UnreachableError, UsageError
from mirror.store.roots import is_trial

if TYPE_CHECKING:
    from mirror.client.home.settings import ClientSettings
    from mirror.client.trust.store import Trust

ROOTS_MAX = 256
"""As many as python-tuf follows in one refresh."""
TIMESTAMP_PATH = f"{METADATA_DIR}/timestamp.json"
_SUBJECT = "the mirror"
TARGETS = "targets"


@dataclass(frozen=True, slots=True)
class View:
    """One verified look, and what is told of it."""

    look: Look
    standing: Standing
    accept_stale: bool

    def is_same(self, other: Look, *, accept_stale: bool, now: float) -> bool:
        """Whether the other look, as far as its timestamp, is this one again, and still good."""
        return (
            self.look.timestamp_data == other.timestamp_data
            and self.look.root_data == other.root_data
            and self.accept_stale == accept_stale
            and now < self.standing.expires
        )


@dataclass(frozen=True, slots=True)
class Beginning:
    """What one refresh starts from."""

    last: View | None
    now: float
    remembered: Remembered
    accept_stale: bool

    def look(self, root: bytes) -> Look:
        """Return a look that knows no more than what is remembered, under this root.

        Raises:
            UsageError: the root is none.
        """
        try:
            look = Look(root, self.now, accept_stale=self.accept_stale)
        except RepositoryError as error:
            reason = one_line(str(error))
            raise UsageError(f"the trusted root is no TUF root: {reason}") from error
        look.recall_timestamp(self.remembered.timestamp)
        return look


class Refresher:
    """Makes views. Not thread-safe: one refresh at a time."""

    def __init__(
        self, trust: Trust, mirrors: Mirrors, cache: Cache, settings: ClientSettings, pool: Executor
    ) -> None:
        self._trust = trust
        self._mirrors = mirrors
        self._cache = cache
        self._settings = settings
        self._pool = pool
        # For a root or a timestamp: less than a proxy lets cargo wait, so that a mirror which does
        # not answer holds up no look at the others.
        self._look_seconds = 0.8 * settings.max_wait

    def refresh(self, last: View | None, now: float) -> View:
        """Return the newest view that verifies: a mirror's, else what is remembered.

        Raises:
            CratesealError: as `Source` says.
        """
        until = self._settings.accept_stale_until
        remembered = self._trust.memory.load()
        start = Beginning(last, now, remembered, until is not None and now < until)
        known = start.look(remembered.root)
        self._mirrors.begin()
        first = self._mirrors.signed[0]
        timestamp = self._pool.submit(self._timestamp, first)
        root, liars = self._newest_root(remembered.root)
        if root != remembered.root:
            # It has proved itself. Whatever else comes: who revokes a key is not asked twice.
            known = start.look(root)
            # A timestamp that the new root's keys did not sign is forgotten: a thief's high number
            # would stand in the way of every later one (TUF specification 5.3.11).
            self._trust.memory.save(replace(remembered, root=root, timestamp=known.timestamp_data))
        # Under the newest root only: the key that signed a time to come may be the thief's.
        self._check_clock(known, now)
        errors: list[CratesealError] = list(liars.values())
        for fetcher in self._mirrors.signed:
            if fetcher in liars:
                continue
            offered = timestamp if fetcher is first else None
            try:
                return self._view(start, root, fetcher, offered)
            except MachineError:
                raise
            except CratesealError as error:
                errors.append(error)
                self._mirrors.blame(fetcher, error)
        return self._remembered_view(start, root, errors)

    # ---- root

    def _newest_root(self, root: bytes) -> tuple[bytes, dict[MirrorFetcher, CratesealError]]:
        """Return the highest root of all mirrors, and what is wrong with those who made one up."""
        liars: dict[MirrorFetcher, CratesealError] = {}
        version = version_of(root)
        for number in range(version + 1, version + 1 + ROOTS_MAX):
            path = f"{METADATA_DIR}/{number}.root.json"
            asked = [each for each in self._mirrors.signed if each not in liars]
            answers = list(self._pool.map(partial(self._root_at, path), asked))
            offered = [(each, data) for each, data in zip(asked, answers, strict=True) if data]
            found = next_root(root, [(each.base, data) for each, data in offered])
            wrong = dict(found.wrong)
            for fetcher in asked:
                if fetcher.base in wrong:
                    liars[fetcher] = ProofError(
                        "root",
                        fetcher.where(path),
                        f"the root that follows version {number - 1}",
                        wrong[fetcher.base],
                        LOOK_THERE,
                    )
                    self._mirrors.blame(fetcher, liars[fetcher])
            if found.root is None:
                break
            root = found.root
        return root, liars

    def _root_at(self, path: str, fetcher: MirrorFetcher) -> bytes | None:
        try:
            return fetcher.read(path, ROOT_MAX_BYTES, seconds=self._look_seconds)
        except DownloadLengthMismatchError:
            return b""  # something, and no root
        except DownloadError:
            return None

    # ---- one mirror

    def _timestamp(self, fetcher: MirrorFetcher) -> bytes:
        return fetcher.read(TIMESTAMP_PATH, TIMESTAMP_MAX_BYTES, seconds=self._look_seconds)

    def _view(
        self,
        start: Beginning,
        root: bytes,
        fetcher: MirrorFetcher,
        timestamp: Future[bytes] | None,
    ) -> View:
        """Verify the whole top of one mirror's metadata; remember it."""
        look = start.look(root)
        with _telling(fetcher.where(TIMESTAMP_PATH)):
            data = timestamp.result() if timestamp is not None else self._timestamp(fetcher)
            look.take_timestamp(data)
        self._check_clock(look, start.now)
        last = start.last
        if last and last.is_same(look, accept_stale=start.accept_stale, now=start.now):
            look = last.look
        else:
            if not look.recall_snapshot(start.remembered.snapshot):
                self._take(look, look.need_snapshot(), (fetcher,))
            self._take_top(look, (fetcher,))
            self._trust.memory.save(Remembered(root, look.timestamp_data, look.snapshot_data))
        self._mirrors.prefer(fetcher)
        return self._told(look, start, fetcher.base, None)

    def _take_top(self, look: Look, fetchers: Sequence[MirrorFetcher]) -> None:
        """Verify targets and crates; both are fetched at once, their versions are in the snapshot.

        Raises:
            CratesealError: one of them is not to be had, or does not verify.
        """
        needs = []
        with _telling(fetchers[0].where(METADATA_DIR)):
            for role, parent in ((TARGETS, "root"), (DELEGATION, TARGETS)):
                need = look.need(role, parent)
                if need is not None:
                    needs.append(need)
        fetched: dict[Need, Future[bytes]] = {}
        for need in needs:
            if self._cache.metadata(need.kept_as, need.max_bytes) is None:
                read = partial(fetchers[0].read, need.path, need.max_bytes, compressed=True)
                fetched[need] = self._pool.submit(read)
        for need in needs:
            self._take(look, need, fetchers, fetched.get(need))

    def _take(
        self,
        look: Look,
        need: Need,
        fetchers: Sequence[MirrorFetcher],
        fetched: Future[bytes] | None = None,
    ) -> None:
        """Verify one file: what the cache holds, if it is that one, else the mirror's."""
        if fetched is None:
            kept = self._cache.metadata(need.kept_as, need.max_bytes)
            if kept is not None:
                with suppress(RepositoryError):
                    look.take(need, kept)
                    return
        errors = []
        for fetcher in fetchers:
            try:
                with _telling(fetcher.where(need.path)):
                    if fetched is None:
                        data = fetcher.read(need.path, need.max_bytes, compressed=True)
                    else:
                        data, fetched = fetched.result(), None
                    look.take(need, data)
            except CratesealError as error:
                errors.append(error)
                continue
            self._cache.keep_metadata(need.kept_as, data)
            return
        raise gravest(errors)

    # ---- no mirror

    def _remembered_view(
        self, start: Beginning, root: bytes, errors: Sequence[CratesealError]
    ) -> View:
        """Return what is remembered, if it still holds and nobody lied; else raise."""
        worst = gravest(errors)
        if not all(_is_no_lie(each) for each in errors):
            raise worst
        look = start.look(root)
        try:
            # The same steps as with a mirror's: expiry counts as much.
            look.take_timestamp(start.remembered.timestamp or b"")
            if not look.recall_snapshot(start.remembered.snapshot):
                raise worst
            self._take_top(look, self._mirrors.signed)
        except (RepositoryError, CratesealError):
            raise worst from None
        return self._told(look, start, self._mirrors.signed[0].base, in_short(worst))

    # ---- what is told

    def _told(self, look: Look, start: Beginning, mirror: str, away: str | None) -> View:
        state, initial = look.state, self._trust.initial
        dated = look.dated_until()
        expires = look.expires()
        until = self._settings.accept_stale_until
        stale_until = None
        if start.accept_stale and until is not None:
            expires = min(expires, max(dated, until))
            stale_until = until if dated <= start.now else None
        trial = is_trial(look.root_data)
        standing = Standing(
            mirror=mirror,
            root_sha256=initial.sha256,
            how=str(self._trust.how),
            root_version=look.root_version,
            timestamp_version=look.timestamp_version,
            expires=expires,
            signed_at=state.signed_at,
            complete_as_of=state.complete_as_of,
            upstream_confirmed=state.upstream_confirmed,
            upstream=state.upstream,
            mode=state.mode,
            is_trial=trial,
            pins_trial=initial.is_trial and not trial,
            away=away,
            stale_until=stale_until,
            max_upstream_age=self._settings.max_upstream_age,
        )
        return View(look, standing, start.accept_stale)

    def _check_clock(self, look: Look, now: float) -> None:
        signed_at = look.state.signed_at
        if signed_at is not None and now < signed_at - self._settings.clock_tolerance:
            raise clock_error(now, signed_at)


def clock_error(now: float, signed_at: float) -> MachineError:
    """Return what to say of a clock that shows a time before something that was signed."""
    return MachineError(
        f"this machine's clock says {rfc3339(now)}, and what was signed at {rfc3339(signed_at)} is"
        " known already: set the clock; if it is right, the mirror's was wrong: ask its operator"
    )


def _is_no_lie(error: CratesealError) -> bool:
    return isinstance(error, UnreachableError) or isinstance(error.__cause__, BehindError)


@contextmanager
def _telling(where: str) -> Iterator[None]:
    try:
        yield
    except (RepositoryError, DownloadError) as error:
        raise in_plain_words(_SUBJECT, where, error) from error
