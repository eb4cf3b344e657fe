"""Verified bytes of one repository, whichever of its mirrors they come from.

Rule: every byte that leaves this module has verified, from the trusted root's keys down to the line
of an index file that names a crate's sha256; what does not verify is an error that says what,
where, what was expected, what came, and what to do. Blocking, and safe to use from many threads.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mirror.client.fetch.fetcher import MirrorFetcher
from mirror.client.source.cache import Cache, open_cache, own_cache
from mirror.client.source.look import TargetInfo
from mirror.client.source.mirrors import Mirrors, fetchers_of
from mirror.client.source.notes import reason_of
from mirror.client.source.refreshing import TIMESTAMP_PATH, Refresher, View, clock_error
from mirror.client.source.signed_files import SignedFiles
from mirror.client.source.standing import Standing, Tally
from mirror.client.source.want import Wants
from mirror.client.source.words import absent, expired, no_index_file
from mirror.client.trust.store import Trust, resolve_trust
from mirror.core.index import IndexEntry, find_entry, hinted_dependencies
from mirror.core.layout import note_path, target_path
from mirror.core.names import CrateId, CrateName
from mirror.errors import (
    AbsentError,
    CratesealError,
    MalformedIndexError,
    ProofError,
    UnreachableError,
    WithheldError,
)

if TYPE_CHECKING:
    from mirror.client.home.settings import ClientSettings

_AGAIN_SECONDS = 5.0
"""What has expired is asked for anew no more often than this."""
_AHEAD_SECONDS = 30.0
"""For so long the answer to a want of `prefetch` is good for one that asks for that name."""
_LOOK_JOBS = 4
"""What a look has in flight: the next roots and a timestamp, or two roles."""
_FOLLOW_MAX = 2_000
"""Names that one prefetch may follow dependencies to."""


@dataclass(frozen=True, slots=True)
class Verified:
    """An index file that has verified."""

    data: bytes
    sha256: str


class Source:
    """Index files and crates of one repository, verified. Nothing is asked before the first use.

    Every method but `close` may raise
        ExpiredError: what was signed is too old, and no mirror has newer;
        ProofError: what every mirror gave does not verify;
        UnreachableError: no mirror gave an answer;
        MachineError: this machine's clock is before something that was signed.

    Attributes:
        tally: what was handed on, what was refused, which absences were not proved.
    """

    def __init__(
        self,
        trust: Trust,
        cache: Cache,
        fetchers: Sequence[MirrorFetcher],
        settings: ClientSettings,
        clock: Callable[[], float],
    ) -> None:
        self.tally = Tally()
        self._settings = settings
        self._clock = clock
        self._mirrors = Mirrors(fetchers)
        self._pool = ThreadPoolExecutor(settings.fetch_jobs, thread_name_prefix="fetch")
        self._files = SignedFiles(
            self._mirrors,
            cache,
            clock,
            target_max_bytes=settings.index_max_bytes,
            crate_max_bytes=settings.crate_max_bytes,
        )
        # A look must not wait behind all that is fetched ahead of time.
        self._looks = ThreadPoolExecutor(_LOOK_JOBS, thread_name_prefix="look")
        self._refresher = Refresher(trust, self._mirrors, cache, settings, self._looks)
        self._wants = Wants(self._mirrors.servers, self.refresh)
        self._refreshing = threading.Lock()
        self._following = threading.Lock()
        self._followed: set[CrateName] = set()
        self._followed_in: View | None = None
        self._view: View | None = None
        self._looked_at = 0.0
        self._retried_at = -_AGAIN_SECONDS
        self._asked_ahead: dict[CrateName, tuple[float, bool]] = {}

    # ---- the look

    def refresh(self, max_age: float | None = None) -> Standing:
        """Look at the mirrors; nothing is done where the last look is younger than `max_age`.

        After an error the last good look still stands, until it expires. Nothing else refreshes by
        itself, but the first use, an absence (which asks the mirror first), and expiry.
        """
        asked_at = time.monotonic()
        with self._refreshing:
            # Whoever waited for another's refresh, which began after he asked, has his answer.
            if self._view is None or not self._is_young(asked_at, max_age):
                began = time.monotonic()
                self._view = self._refresher.refresh(self._view, self._clock())
                self._looked_at = began
            return self._told(self._view)

    def standing(self) -> Standing:
        """Return what the last good look says (`refresh` at first use)."""
        return self._told(self._view) if self._view is not None else self.refresh(math.inf)

    def close(self) -> None:
        """Let go of threads and connections."""
        self._mirrors.close()  # first, so that nobody waits for an answer any more
        self._pool.shutdown(cancel_futures=True)
        self._looks.shutdown(cancel_futures=True)

    def _is_young(self, asked_at: float, max_age: float | None) -> bool:
        if self._looked_at >= asked_at:
            return True
        return max_age is not None and time.monotonic() - self._looked_at < max_age

    def _told(self, view: View) -> Standing:
        return replace(view.standing, others=self._mirrors.blamed())

    def _current(self) -> View:
        """Return the view that answers now.

        Raises:
            CratesealError: there is none that has not expired, or the clock was set back.
        """
        view = self._view
        if view is None:
            self.refresh(math.inf)
            view = self._view
            assert view is not None
        now = self._clock()
        if now >= view.standing.expires:
            view = self._renewed(view, now)
        signed_at = view.standing.signed_at
        if signed_at is not None and now < signed_at - self._settings.clock_tolerance:
            raise clock_error(now, signed_at)
        return view

    def _renewed(self, view: View, now: float) -> View:
        again = time.monotonic()
        reason: CratesealError | None = None
        if again - self._retried_at >= _AGAIN_SECONDS:
            self._retried_at = again
            try:
                self.refresh()
            except (ProofError, UnreachableError) as error:
                reason = error
            if self._view is not None and now < self._view.standing.expires:
                return self._view
        raise expired(view.standing.mirror + TIMESTAMP_PATH, view.standing.expires) from reason

    # ---- what people ask for

    def index_file(self, name: CrateName) -> Verified:
        """Return a crate's index file.

        Raises:
            WithheldError: the operator withholds the crate, in a signed note.
            AbsentError: signed metadata does not name it; `proved` says what that means.
        """
        with self._counting(name):
            verified = self._index_file(name)
        self.tally.index_file()
        return verified

    def digest(self, name: CrateName) -> str:
        """Return the signed sha256 of an index file without fetching it; raises as `index_file`."""
        with self._counting(name):
            info = self._info_of(name)
            return self._files.sha256_of(name, info)

    def entry(self, crate: CrateId) -> IndexEntry:
        """Return the signed line of one version (it may be yanked or denied).

        Raises:
            WithheldError, AbsentError: as `index_file`; also where the file has no such line.
        """
        with self._counting(str(crate)):
            return self._entry(crate)

    def crate(self, crate: CrateId) -> bytes:
        """Return a crate file: the bytes whose sha256 its signed line names.

        Raises:
            WithheldError, AbsentError: as `entry`; also where the operator denies this version.
            NotHeldError: no mirror has the file.
        """
        with self._counting(str(crate)):
            entry = self._entry(crate)
            self._refuse_withheld(entry)
            data = self._files.crate(entry)
        self.tally.crate()
        return data

    def prefetch(self, names: Iterable[CrateName], *, follow: bool = False) -> None:
        """Fetch what these names need in parallel, and keep it; `follow`: their dependencies, too.

        Blocks until all is there. What cannot be had is told when it is asked for; nothing is
        raised but for the look as a whole.
        """
        view = self._current()
        names = set(names)
        missing = {
            name for name, held in zip(names, self._warmed(view, names), strict=True) if not held
        }
        if missing and view.standing.complete_as_of is None and not follow:
            pending = self._wants.bring(missing)
            now = time.monotonic()
            self._asked_ahead.update({name: (now, name in pending) for name in missing})
            self._warmed(self._current(), missing)
        while follow and names:
            # Each name once for a look, whoever asks: one that was followed has brought its own.
            names = self._dependencies(view, self._not_followed(view, names))
            self._warmed(view, names)

    def prefetch_crates(self, crates: Iterable[CrateId]) -> None:
        """Fetch crate files in parallel, and keep them; otherwise as `prefetch`."""
        self._current()
        list(self._pool.map(self._warm_crate, crates))

    # ---- index files

    def _index_file(self, name: CrateName) -> Verified:
        info = self._info_of(name)
        return Verified(self._files.target(name, info), self._files.sha256_of(name, info))

    def _info_of(self, name: CrateName) -> TargetInfo:
        view = self._current()
        path = target_path(name)
        info = self._files.info(view, name, path)
        if info is not None:
            return info
        self._refuse_noted(view, name)
        if view.standing.complete_as_of is not None:
            raise absent(view.standing.mirror + path, name, proved=True)
        is_pending = self._brought(name)
        view = self._current()
        info = self._files.info(view, name, path)
        if info is not None:
            return info
        self._refuse_noted(view, name)
        if is_pending:
            raise UnreachableError(
                f"{view.standing.mirror}{path}: the mirror is still fetching its index file;"
                " verify again in a while"
            )
        proved = view.standing.complete_as_of is not None
        if not proved:
            self.tally.unproved(name)
        raise absent(view.standing.mirror + path, name, proved=proved)

    def _brought(self, name: CrateName) -> bool:
        """Ask the mirror for what it lacks; return whether it is still at it."""
        at, is_pending = self._asked_ahead.pop(name, (-_AHEAD_SECONDS, False))
        if time.monotonic() - at < _AHEAD_SECONDS:
            return is_pending
        return name in self._wants.bring([name])

    # ---- single versions

    def _entry(self, crate: CrateId) -> IndexEntry:
        name = crate.canonical_name
        file = self._index_file(name)
        where = self.standing().mirror + target_path(name)
        try:
            entry = find_entry(file.data, name, crate.version)
        except MalformedIndexError as error:
            raise no_index_file(str(crate), where, error) from error
        if entry is None:
            raise AbsentError(
                str(crate),
                where,
                f"a line for version {crate.version}",
                "a signed index file without it",
                "the mirror may be behind its source: let cargo ask for it, then verify again",
                proved=False,
            )
        return entry

    # ---- notes

    def _refuse_withheld(self, entry: IndexEntry) -> None:
        if not entry.yanked:
            return  # The line of a denied version is always yanked: no second bin for the others.
        self._refuse_noted(self._current(), entry.crate.canonical_name, entry.crate)

    def _refuse_noted(self, view: View, name: CrateName, crate: CrateId | None = None) -> None:
        """Raise if a signed note withholds the crate, or this version of it."""
        subject = str(crate or name)
        info = self._files.info(view, subject, note_path(name))
        if info is None:
            return
        note = self._files.target(subject, info)
        reason = reason_of(note, crate.version if crate else None)
        if crate is None or reason is not None:
            what = "the crate file" if crate else "its index file"
            where = view.standing.mirror + note_path(name)
            raise WithheldError(subject, where, what, str(reason))

    # ---- ahead of time

    def _warmed(self, view: View, names: Iterable[CrateName]) -> list[bool]:
        return list(self._pool.map(lambda name: self._warm(view, name), names))

    def _warm(self, view: View, name: CrateName) -> bool:
        """Fetch an index file; return whether signed metadata names it, as far as can be told."""
        try:
            info = self._files.info(view, name, target_path(name))
            if info is not None and not self._files.has(info.sha256):
                self._files.target(name, info)
        except CratesealError:
            return True
        return info is not None

    def _warm_crate(self, crate: CrateId) -> None:
        with suppress(CratesealError):
            entry = self._entry(crate)
            if not self._files.has(entry.cksum):
                self._files.crate(entry)

    def _not_followed(self, view: View, names: set[CrateName]) -> set[CrateName]:
        """Return those of the names that nobody has followed yet; they count as followed now."""
        with self._following:
            if self._followed_in is not view:
                self._followed_in, self._followed = view, set()
            new = names - self._followed if len(self._followed) < _FOLLOW_MAX else set()
            self._followed |= new
            return new

    def _dependencies(self, view: View, names: Iterable[CrateName]) -> set[CrateName]:
        found: set[CrateName] = set()
        for name in names:
            with suppress(CratesealError):
                info = self._files.info(view, name, target_path(name))
                if info is not None:
                    found.update(hinted_dependencies(name, self._files.target(name, info)))
        return found

    @contextmanager
    def _counting(self, subject: str) -> Iterator[None]:
        try:
            yield
        except AbsentError:
            raise
        except CratesealError as error:
            self.tally.refused(subject, error)
            raise


@contextmanager
def open_source(
    settings: ClientSettings,
    clock: Callable[[], float],
    *,
    trust: Trust | None = None,
    afresh: bool = False,
) -> Iterator[Source]:
    """Yield a source for what the settings name (`store.resolve_trust`), or for this trust.

    `afresh`: nothing comes from the cache of before, and nothing compressed, so that each file is
    looked at as the mirror has it now.

    Raises:
        UsageError: the settings name no repository that is trusted, or several.
        MachineError: a folder of ours is not ours alone.
    """
    trust = trust or resolve_trust(settings)
    folder = settings.cache_dir / trust.root_id
    with own_cache() if afresh else open_cache(folder, settings.cache_max_bytes) as cache:
        source = Source(
            trust, cache, fetchers_of(trust, settings, as_it_is=afresh), settings, clock
        )
        try:
            yield source
        finally:
            source.close()
