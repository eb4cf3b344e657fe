"""Verified bytes from a mirror: an index file or a crate, or an error that names what is wrong.

Rule: what is returned here has been checked against signed metadata by a stock python-tuf
`Updater`. It keeps its files in a private folder, which lives as long as the look at the mirror.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import TargetFile
from tuf.ngclient import Updater, UpdaterConfig

from mirror.client.fetcher import MirrorFetcher, one_line
from mirror.client.trust import TrustedRoot
from mirror.core.index import IndexEntry
from mirror.core.layout import (
    METADATA_DIR,
    STATE_FIELD,
    crate_file,
    note_path,
    target_file,
    target_path,
)
from mirror.core.names import CrateName
from mirror.errors import NotHeldError, ProofError, UnreachableError, UsageError

INDEX_MAX_BYTES = 64_000_000
CRATE_MAX_BYTES = 256_000_000
SNAPSHOT_MAX_BYTES = 16_000_000
"""65,536 bins; python-tuf's own default is 2 MB, and counts only where nothing signed says more."""

_TOP_LEVEL = ("root", "timestamp", "snapshot")

_LOOK_THERE = "do not build from it; run `crateseal check` on the mirror"

# What python-tuf refuses, the most special first: what a good file would have had, and what to do.
_REFUSALS: tuple[tuple[type[RepositoryError], str, str], ...] = (
    (
        ExpiredMetadataError,
        "metadata that has not expired",
        (
            "the mirror's signer has not run in time, or somebody shows you an old state:"
            " see `crateseal status` on the mirror, and this machine's clock"
        ),
    ),
    (UnsignedMetadataError, "enough signatures of the keys that are trusted", _LOOK_THERE),
    (BadVersionNumberError, "the version that was signed", _LOOK_THERE),
    (LengthOrHashMismatchError, "the bytes that were signed", _LOOK_THERE),
    (RepositoryError, "metadata that verifies", _LOOK_THERE),
)


class Repository:
    """One look at a mirror: its metadata as of one refresh, its files verified one by one."""

    def __init__(self, updater: Updater, fetcher: MirrorFetcher, folder: Path) -> None:
        self._updater = updater
        self._fetcher = fetcher
        self._folder = folder
        self._named: set[str] = set()

    @classmethod
    def open(cls, fetcher: MirrorFetcher, root: TrustedRoot, folder: Path) -> Repository:
        """Verify root, timestamp, snapshot and targets. `folder` is made, and private to this look.

        Raises:
            UsageError: the trusted root is none.
            ProofError: something of the mirror's does not verify.
            UnreachableError: the mirror gave no answer.
        """
        os.mkdir(folder, 0o700)
        try:
            updater = Updater(
                metadata_dir=str(folder),
                metadata_base_url=fetcher.base + METADATA_DIR,
                fetcher=fetcher,
                config=UpdaterConfig(snapshot_max_length=SNAPSHOT_MAX_BYTES),
                bootstrap=root.data,
            )
        except RepositoryError as error:
            raise UsageError(f"the trusted root is no TUF root: {one_line(str(error))}") from error
        with in_plain_words("the mirror", fetcher):
            updater.refresh()
        repository = cls(updater, fetcher, folder)
        repository._check_roles_name_themselves("the mirror")
        return repository

    @property
    def is_trial(self) -> bool:
        """Whether the root says that it was made for a first try."""
        return bool(self._signed("root").get(STATE_FIELD, {}).get("trial"))

    @property
    def timestamp_version(self) -> int:
        """The version of the timestamp that was looked at."""
        return int(self._signed("timestamp")["version"])

    @property
    def base(self) -> str:
        """Where the mirror's root is, a URL or a folder; ends with a slash."""
        return self._fetcher.base

    def holds(self, name: CrateName) -> bool:
        """Whether signed metadata names an index file of this crate.

        Raises:
            ProofError: metadata on the way does not verify.
            UnreachableError: the mirror gave no answer.
        """
        with in_plain_words(name, self._fetcher):
            return self._updater.get_targetinfo(target_path(name)) is not None

    def index_file(self, name: CrateName) -> bytes:
        """Return a crate's index file.

        Raises:
            NotHeldError: the mirror holds none, and says so in signed metadata.
            ProofError: the file, or metadata on the way to it, does not verify.
            UnreachableError: the mirror gave no answer.
        """
        data = self._target(name, target_path(name))
        if data is None:
            raise self._not_held(name)
        return data

    def refuse_withheld(self, entry: IndexEntry) -> None:
        """Make sure that the operator does not deny this version.

        Raises:
            NotHeldError: it is denied, in a signed note.
            ProofError: that note, or metadata on the way to it, does not verify.
            UnreachableError: the mirror gave no answer.
        """
        if not entry.yanked:
            return  # The line of a denied version is always yanked.
        name = entry.crate.canonical_name
        note = self._target(name, note_path(name))
        reason = None if note is None else _reason(note, entry.crate.version)
        if reason is not None:
            where = self._fetcher.base + note_path(name)
            raise NotHeldError(
                str(entry.crate), where, "the crate file", f"withheld: {reason}", "ask its operator"
            )

    def _not_held(self, name: CrateName) -> NotHeldError:
        where = self._fetcher.base + target_path(name)
        note = self._target(name, note_path(name))
        if note is not None:
            return NotHeldError(
                name, where, "its index file", f"withheld: {_reason(note)}", "ask its operator"
            )
        return NotHeldError(
            name,
            where,
            "its index file",
            "signed metadata without it",
            "the mirror has not fetched it (or its source has no such crate):"
            " let cargo ask for it once, then verify again",
        )

    def _target(self, subject: str, path: str) -> bytes | None:
        with in_plain_words(subject, self._fetcher):
            info = self._updater.get_targetinfo(path)
            self._check_roles_name_themselves(subject)
            return None if info is None else self._verified(subject, info)

    def _verified(self, subject: str, info: TargetFile) -> bytes:
        sha256 = info.hashes.get("sha256")
        if sha256 is None or not 0 <= info.length <= INDEX_MAX_BYTES:
            raise ProofError(
                subject,
                info.path,
                f"a signed sha256 and at most {INDEX_MAX_BYTES} bytes",
                f"{info.length} bytes, hashes {sorted(info.hashes)}",
                _LOOK_THERE,
            )
        data = self._fetcher.read(target_file(info.path, sha256), info.length)
        try:
            info.verify_length_and_hashes(data)
        except LengthOrHashMismatchError as error:
            others = ", and every other hash that was signed" if len(info.hashes) > 1 else ""
            raise ProofError(
                subject,
                self._fetcher.asked,
                f"the signed sha256 {sha256}, {info.length} bytes{others}",
                f"{hashlib.sha256(data).hexdigest()}, {len(data)} bytes",
                _LOOK_THERE,
            ) from error
        return data

    def _check_roles_name_themselves(self, subject: str) -> None:
        # All bins share a key, so only this (beside unique versions) tells one from another: a host
        # without keys must not answer bin A with bin B.
        for file in sorted(os.listdir(self._folder)):
            role = file.removesuffix(".json")
            if role == file or role in _TOP_LEVEL or role in self._named:
                continue
            said = self._signed(role).get("x-role")
            if said != role:
                raise ProofError(
                    subject,
                    f"{self._fetcher.base}{METADATA_DIR}/*.{file}",
                    f"metadata of the role {role}",
                    f"metadata signed for the role {said!r}",
                    _LOOK_THERE,
                )
            self._named.add(role)

    def _signed(self, role: str) -> dict[str, Any]:
        # The updater leaves here what it has verified, and nothing else.
        fields: dict[str, Any] = json.loads((self._folder / f"{role}.json").read_bytes())
        return dict(fields["signed"])


def crate_bytes(entry: IndexEntry, fetchers: tuple[MirrorFetcher, ...]) -> bytes:
    """Return a crate file if it has the sha256 that its signed index line names.

    `fetchers` are asked in turn while one says that it does not have the file.

    Raises:
        ProofError: its bytes are others.
        NotHeldError: none of them has it.
        UnreachableError: the last one asked gave no answer.
    """
    subject, path = str(entry.crate), crate_file(entry.crate)
    for fetcher in fetchers:
        with in_plain_words(subject, fetcher):
            try:
                data = fetcher.read(path, CRATE_MAX_BYTES)
            except DownloadHTTPError as error:
                refused, where = one_line(str(error)), fetcher.asked
                continue
        got = hashlib.sha256(data).hexdigest()
        if got != entry.cksum:
            raise ProofError(
                subject,
                fetcher.asked,
                f"sha256 {entry.cksum} (signed)",
                got,
                "do not use this file; delete it on the mirror, which then fetches it anew",
            )
        return data
    raise NotHeldError(
        subject,
        where,
        "the crate file",
        refused.removeprefix(f"{where}: "),
        "let cargo ask the mirror for it once, or see there why it cannot have it",
    )


@contextmanager
def in_plain_words(subject: str, fetcher: MirrorFetcher) -> Iterator[None]:
    """Turn python-tuf's errors into ours: which file, what is wrong with it, what to do."""
    try:
        yield
    except RepositoryError as error:
        expected, advice = next(
            (expected, advice) for kind, expected, advice in _REFUSALS if isinstance(error, kind)
        )
        raise ProofError(subject, fetcher.asked, expected, _chain(error), advice) from error
    except DownloadHTTPError as error:
        raise ProofError(
            subject,
            fetcher.asked,
            "a file that signed metadata names",
            f"{error.status_code}",
            "is this the right URL or folder? if so, run `crateseal check` on the mirror",
        ) from error
    except DownloadLengthMismatchError as error:
        raise ProofError(
            subject, fetcher.asked, "a file of its signed length", "a longer one", _LOOK_THERE
        ) from error
    except DownloadError as error:
        raise UnreachableError(f"{_chain(error)}; is the mirror running?") from error


def _chain(error: BaseException) -> str:
    """Return what an error says, and what the one behind it says where that adds something."""
    text, cause = one_line(str(error)), error.__cause__
    if cause is not None and str(cause) and str(cause) not in text:
        text += f" ({one_line(str(cause))})"
    return text


def _reason(note: bytes, version: str | None = None) -> str | None:
    """Return why a crate, or one version of it, is withheld; None: the note is about others.

    A note is an open map, so nothing of its shape is believed.
    """
    try:
        entries = json.loads(note)["entries"]
        about = [each for each in entries if version is None or version in (each["versions"] or ())]
        return "; ".join(one_line(f"{each['kind']}: {each['reason']}") for each in about) or None
    except (ValueError, LookupError, TypeError):
        return "no reason that can be read"
