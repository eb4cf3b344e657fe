"""Files of a repository, each verified by what is signed before it is handed on or kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from tuf.api.exceptions import LengthOrHashMismatchError, RepositoryError

from mirror.client.source.cache import Cache
from mirror.client.source.flights import Flights
from mirror.client.source.look import Need, TargetInfo
from mirror.client.source.mirrors import Mirrors
from mirror.client.source.refreshing import View
from mirror.client.source.words import LOOK_THERE, in_plain_words
from mirror.core.index import IndexEntry
from mirror.core.layout import crate_file, target_file
from mirror.errors import ProofError


class SignedFiles:
    """Metadata below the top, targets and crates: from the cache, else from the mirrors.

    Thread-safe; what several threads want at a time is fetched once.
    """

    def __init__(
        self,
        mirrors: Mirrors,
        cache: Cache,
        clock: Callable[[], float],
        *,
        target_max_bytes: int,
        crate_max_bytes: int,
    ) -> None:
        self._mirrors = mirrors
        self._cache = cache
        self._clock = clock
        self._target_max_bytes = target_max_bytes
        self._crate_max_bytes = crate_max_bytes
        self._flights = Flights()

    def info(self, view: View, subject: str, path: str) -> TargetInfo | None:
        """Return what is signed of a target; what has to be verified first is fetched.

        Raises:
            CratesealError: something on the way does not verify, or is not to be had.
        """
        while True:
            try:
                found = view.look.find(path, self._clock())
            except RepositoryError as error:
                where = view.standing.mirror + path
                raise in_plain_words(subject, where, error) from error
            if not isinstance(found, Need):
                return found
            self._flights.join((view.look, found.role), partial(self._load, view, subject, found))

    def target(self, subject: str, info: TargetInfo) -> bytes:
        """Return a target's bytes.

        Raises:
            CratesealError: no mirror has those that were signed.
        """
        sha256 = self.sha256_of(subject, info)
        return self._flights.join(
            ("target", sha256), lambda: self._target_bytes(subject, info, sha256)
        )

    def crate(self, entry: IndexEntry) -> bytes:
        """Return the crate file whose sha256 this signed line names.

        Raises:
            CratesealError: no mirror has it.
        """
        return self._flights.join(("crate", entry.cksum), lambda: self._crate_bytes(entry))

    def has(self, sha256: str | None) -> bool:
        """Whether something is kept under this sha256: a hint."""
        return sha256 is not None and self._cache.has_blob(sha256)

    def sha256_of(self, subject: str, info: TargetInfo) -> str:
        """Return a target's signed sha256.

        Raises:
            ProofError: it was signed without one, or as too long.
        """
        sha256 = info.sha256
        if sha256 is None or not 0 <= info.length <= self._target_max_bytes:
            raise ProofError(
                subject,
                info.path,
                f"a signed sha256 and at most {self._target_max_bytes} bytes",
                f"{info.length} bytes, hashes {sorted(info.hashes)}",
                LOOK_THERE,
            )
        return sha256

    def _load(self, view: View, subject: str, need: Need) -> None:
        """Verify a role's metadata: what the cache holds if it is that one, else a mirror's."""
        kept = self._cache.metadata(need.kept_as, need.max_bytes)
        if kept is not None:
            with suppress(RepositoryError):
                view.look.take(need, kept)
                return

        def take(data: bytes, _where: str) -> bytes:
            view.look.take(need, data)
            return data

        data = self._mirrors.signed_file(subject, need.path, need.max_bytes, take)
        self._cache.keep_metadata(need.kept_as, data)

    def _target_bytes(self, subject: str, info: TargetInfo, sha256: str) -> bytes:
        kept = self._cache.blob(sha256, info.length)
        if kept is not None:
            with suppress(LengthOrHashMismatchError):
                info.check(kept)
                return kept

        def check(data: bytes, where: str) -> bytes:
            try:
                info.check(data)
            except LengthOrHashMismatchError as error:
                raise _other_bytes(subject, where, info, data) from error
            return data

        path = target_file(info.path, sha256)
        data = self._mirrors.signed_file(subject, path, info.length, check)
        self._cache.keep_blob(sha256, data)
        return data

    def _crate_bytes(self, entry: IndexEntry) -> bytes:
        most = self._crate_max_bytes
        kept = self._cache.blob(entry.cksum, most)
        if kept is not None:
            return kept

        def check(data: bytes, where: str) -> bytes:
            got = hashlib.sha256(data).hexdigest()
            if got != entry.cksum:
                raise ProofError(
                    str(entry.crate),
                    where,
                    f"sha256 {entry.cksum} (signed)",
                    got,
                    "do not use this file; delete it on the mirror, which then fetches it anew",
                )
            return data

        data = self._mirrors.crate_file(str(entry.crate), crate_file(entry.crate), most, check)
        self._cache.keep_blob(entry.cksum, data)
        return data


def _other_bytes(subject: str, where: str, info: TargetInfo, data: bytes) -> ProofError:
    others = ", and every other hash that was signed" if len(info.hashes) > 1 else ""
    return ProofError(
        subject,
        where,
        f"the signed sha256 {info.sha256}, {info.length} bytes{others}",
        f"{hashlib.sha256(data).hexdigest()}, {len(data)} bytes",
        LOOK_THERE,
    )
