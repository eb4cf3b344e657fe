"""Several mirrors of one repository: each file from the first that has a good one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError

from mirror.client.fetch.fetcher import (
    DiskFetcher,
    HttpFetcher,
    MirrorFetcher,
    checked_url,
    one_line,
)
from mirror.client.source.words import gravest, in_plain_words, in_short
from mirror.client.trust.store import Trust, fetch_limits
from mirror.core.layout import STATUS_JSON
from mirror.errors import CratesealError, MachineError, NotHeldError, UsageError

if TYPE_CHECKING:
    from mirror.client.home.settings import ClientSettings

T = TypeVar("T")
REFUSALS = (RepositoryError, DownloadError, CratesealError)
"""What a file that is not there, or does not verify, is refused with."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A file, and how it is asked for."""

    subject: str
    path: str
    max_bytes: int
    compressed: bool


class Mirrors:
    """The mirrors of one repository, in the user's order. Thread-safe.

    Attributes:
        signed: those that metadata and index files are read from: with a folder, that alone.
        servers: those that can be asked for what they lack.
    """

    def __init__(self, fetchers: Sequence[MirrorFetcher]) -> None:
        folders = tuple(each for each in fetchers if isinstance(each, DiskFetcher))
        self.signed: tuple[MirrorFetcher, ...] = folders or tuple(fetchers)
        self.servers = tuple(each for each in fetchers if isinstance(each, HttpFetcher))
        self._all = tuple(fetchers)
        self._first: MirrorFetcher | None = None
        self._failed: dict[MirrorFetcher, str] = {}
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Forget what was wrong: a new look begins."""
        with self._lock:
            self._failed.clear()

    def prefer(self, fetcher: MirrorFetcher) -> None:
        """From now on ask this one first."""
        self._first = fetcher

    def blame(self, fetcher: MirrorFetcher, error: CratesealError) -> None:
        """Remember what was wrong with a mirror, the first of it; it is asked last from now on."""
        with self._lock:
            self._failed.setdefault(fetcher, in_short(error))

    def blamed(self) -> tuple[tuple[str, str], ...]:
        """Return what was wrong since the look began: address and words."""
        with self._lock:
            return tuple((fetcher.base, what) for fetcher, what in self._failed.items())

    def signed_file(
        self, subject: str, path: str, max_bytes: int, check: Callable[[bytes, str], T]
    ) -> T:
        """Return what `check(data, where)` makes of metadata or a target.

        Raises:
            CratesealError: what was wrong with it, the worst of all mirrors.
        """
        wanted = _Wanted(subject, path, max_bytes, compressed=True)
        return self._file(self.signed, wanted, check)

    def crate_file(
        self, subject: str, path: str, max_bytes: int, check: Callable[[bytes, str], T]
    ) -> T:
        """Return what `check(data, where)` makes of a crate, which lies in any of the mirrors.

        Raises:
            CratesealError: as `signed_file`.
        """
        wanted = _Wanted(subject, path, max_bytes, compressed=False)
        return self._file(self._all, wanted, check)

    def close(self) -> None:
        """Let go of connections."""
        for each in self._all:
            each.close()

    def _file(
        self, fetchers: Iterable[MirrorFetcher], wanted: _Wanted, check: Callable[[bytes, str], T]
    ) -> T:
        errors: list[tuple[MirrorFetcher, CratesealError]] = []
        for fetcher in self._in_order(fetchers):
            where = fetcher.where(wanted.path)
            try:
                data = fetcher.read(wanted.path, wanted.max_bytes, compressed=wanted.compressed)
                result = check(data, where)
            except MachineError:
                raise
            except REFUSALS as error:
                words = _not_held if _is_lack(wanted, error) else in_plain_words
                errors.append((fetcher, words(wanted.subject, where, error)))
                continue
            for blamed, wrong in errors:
                if not isinstance(wrong, NotHeldError):
                    self.blame(blamed, wrong)
            return result
        raise gravest([error for _, error in errors])

    def _in_order(self, fetchers: Iterable[MirrorFetcher]) -> list[MirrorFetcher]:
        # A stable sort: what failed comes last, so that each file does not wait for it anew.
        return sorted(fetchers, key=lambda each: (each in self._failed, each is not self._first))


def fetchers_of(
    trust: Trust, settings: ClientSettings, *, as_it_is: bool = False
) -> list[MirrorFetcher]:
    """Return what fetches from this trust's mirrors, or folder and server, in their order."""
    # Some more than are fetched ahead of time, so that a look has its own.
    limits = replace(fetch_limits(settings), connections=settings.fetch_jobs + 8)
    fetchers: list[MirrorFetcher] = []
    urls = trust.mirrors
    if trust.www is not None:
        fetchers.append(DiskFetcher(trust.www))
        urls = urls or _public_url(trust.www)
    return [*fetchers, *(HttpFetcher(url, limits, as_it_is=as_it_is) for url in urls)]


def _public_url(www: Path) -> tuple[str, ...]:
    """Return where the mirror of a folder answers, as its signer wrote it down."""
    try:
        return (checked_url(json.loads((www / STATUS_JSON).read_bytes())["public_url"]),)
    except (OSError, ValueError, LookupError, TypeError, UsageError):
        return ()


def _is_lack(wanted: _Wanted, error: Exception) -> bool:
    # No publication promises that a crate's file is there; what is signed is there, or a finding.
    return not wanted.compressed and isinstance(error, DownloadHTTPError)


def _not_held(subject: str, where: str, error: Exception) -> CratesealError:
    return NotHeldError(
        subject,
        where,
        "the crate file",
        one_line(str(error)).removeprefix(f"{where}: "),
        "let cargo ask the mirror for it once, or see there why it cannot have it",
    )
