"""`crateseal check`: everything under the web root against what is signed, from the root down.

Rule: a file is named and right, or it is a finding. Nothing is repaired here.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mirror.core.index import IndexLimits, parse_index_file
from mirror.core.layout import (
    CONFIG_JSON,
    INDEX,
    METADATA_DIR,
    STATUS_JSON,
    config_json,
    note_path,
    target_file,
    target_path,
)
from mirror.core.names import CrateName
from mirror.errors import RejectedError
from mirror.seam import Verb
from mirror.sign.holdings import Holdings
from mirror.sign.recover import SMALL_FILES
from mirror.store.ledger import LedgerReader
from mirror.store.roots import root_to_pin
from mirror.store.www import GZIP_HEADER
from tuf_repo.check import RepositoryCheck
from tuf_repo.core.update import Target
from tuf_repo.storage import MetadataFolder

_LOOKS_AGAIN = 3
_BETWEEN_LOOKS_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Finding:
    """One file that is not as it should be."""

    path: str
    """Relative to the web root."""
    problem: str


def steady_findings(
    look: Callable[[], Iterable[Finding]], pause: Callable[[float], object]
) -> list[Finding]:
    """Look again at a mirror that is at work: what stands at every look is a finding.

    A publication under way is seen half, and differently each time.
    """
    findings = list(look())
    for _ in range(_LOOKS_AGAIN):
        if not findings:
            break
        pause(_BETWEEN_LOOKS_SECONDS)
        again = set(look())
        findings = [finding for finding in findings if finding in again]
    return findings


class Checker:
    """One look at everything. Make a new one for the next."""

    def __init__(self, www: Path, ledger: LedgerReader, *, now: float) -> None:
        self._www = www
        self._ledger = ledger
        self._now = now
        self._targets: dict[str, Target] = {}
        self._named = set(SMALL_FILES)

    def findings(self) -> Iterator[Finding]:
        """Yield every finding: metadata, targets, links, crates, kept files, and what is extra."""
        yield from self._metadata()
        yield from self._small_files()
        for path, target in self._targets.items():
            yield from self._target(path, target)
        yield from self._decisions()
        yield from self._crates()
        yield from self._kept()
        yield from self._extra()

    def _metadata(self) -> Iterator[Finding]:
        folder = self._www / METADATA_DIR
        repository = RepositoryCheck(MetadataFolder(folder), now=self._now)
        for found in repository.findings():
            problem = f"expected {found.expected}, got {found.got}"
            yield Finding(f"{METADATA_DIR}/{found.file}", problem)
        self._targets.update(repository.targets())
        newest, stamp = self._ledger.newest_number(), repository.timestamp
        if stamp and newest is not None and stamp.version < newest:
            problem = f"expected version {newest}, the last committed, got {stamp.version}"
            yield Finding(f"{METADATA_DIR}/timestamp.json", problem)
        self._named.update(f"{METADATA_DIR}/{name}" for name in repository.files)

    def _small_files(self) -> Iterator[Finding]:
        """The two unsigned files must at least agree with each other and with the root."""
        if self._ledger.newest_number() is None:
            return  # No signer has run yet that could have written them.
        status, config = self._read(STATUS_JSON), self._read(CONFIG_JSON)
        yield from (found for found in (status, config) if isinstance(found, Finding))
        if isinstance(status, Finding):
            return
        try:
            _, root = root_to_pin(self._www)
            fields = json.loads(status)
            url, fingerprint = str(fields["public_url"]), fields["root_sha256"]
        except OSError:
            return  # The findings on the metadata said so.
        except (ValueError, KeyError, TypeError) as error:
            yield Finding(STATUS_JSON, f"expected the signer's heartbeat, got {error!r}")
            return
        if fingerprint != hashlib.sha256(root).hexdigest():
            yield Finding(STATUS_JSON, "names another root than the one that lies here")
        if config != config_json(url):
            yield Finding(CONFIG_JSON, f"is not the one for {url}")

    def _target(self, path: str, target: Target) -> Iterator[Finding]:
        files = [target_file(path, target.sha256)]
        if path.startswith(f"{INDEX}/"):
            files.append(path)
        for file in files:
            yield from self._plain(file, target.sha256, target.length)
            yield from self._gzipped(f"{file}.gz", target.sha256)

    def _plain(self, file: str, sha256: str, length: int | None) -> Iterator[Finding]:
        self._named.add(file)
        data = self._read(file)
        if isinstance(data, Finding):
            yield data
        elif length is not None and len(data) != length:
            yield Finding(file, f"expected {length} bytes, got {len(data)}")
        elif (got := hashlib.sha256(data).hexdigest()) != sha256:
            yield Finding(file, f"expected sha256 {sha256}, got {got}")

    def _gzipped(self, file: str, sha256: str) -> Iterator[Finding]:
        self._named.add(file)
        data = self._read(file)
        if isinstance(data, Finding):
            yield data
            return
        inflate = zlib.decompressobj(31)
        try:
            plain = inflate.decompress(data)
        except zlib.error as error:
            yield Finding(file, f"expected a gzip member, got {error}")
            return
        if data[: len(GZIP_HEADER)] != GZIP_HEADER:
            yield Finding(file, "its gzip header is not the one we write")
        elif not inflate.eof or inflate.unused_data:
            yield Finding(file, "expected one whole gzip member and nothing after it")
        elif hashlib.sha256(plain).hexdigest() != sha256:
            yield Finding(file, f"does not inflate to the target with sha256 {sha256}")

    def _decisions(self) -> Iterator[Finding]:
        """What is denied must not be published; what differs from upstream, only by decision."""
        memory = self._ledger.memory
        denied: dict[CrateName, set[str | None]] = defaultdict(set)
        for decided in memory.decisions():
            if decided.verb == Verb.DENY:
                denied[decided.name].add(decided.version)
        for name, versions in denied.items():
            if note_path(name) not in self._targets:
                yield Finding(note_path(name), "missing, though the operator denies it")
            if None in versions and target_path(name) in self._targets:
                yield Finding(target_path(name), "published, though the operator denies it")
        for name in sorted(denied.keys() | memory.recorded_names()):
            yield from self._cut(name, denied[name])

    def _cut(self, name: CrateName, denied: set[str | None]) -> Iterator[Finding]:
        published, record = self._index_file_of(name), self._ledger.memory.record(name)
        upstream = set((record or published or b"").split(b"\n"))
        try:
            entries = parse_index_file(name, published, IndexLimits()).entries if published else ()
        except RejectedError as error:
            yield Finding(target_path(name), str(error))
            return
        for entry in entries:
            is_denied = entry.crate.version in denied
            if is_denied and not entry.yanked:
                yield Finding(target_path(name), f"{entry.crate} is denied, and not yanked")
            elif not is_denied and entry.line not in upstream:
                yield Finding(target_path(name), f"{entry.crate}: not the line upstream gave")

    def _crates(self) -> Iterator[Finding]:
        holdings = Holdings(self._ledger.memory, self._index_file_of)
        for file, sha256 in self._ledger.crates():
            yield from self._plain(file, sha256, None)
            may_be = holdings.cksums_of(file)
            if sha256 not in may_be:
                says = ", ".join(sorted(may_be)) or "nothing of it"
                yield Finding(file, f"the signed index says {says}")

    def _index_file_of(self, name: CrateName) -> bytes | None:
        path = target_path(name)
        target = self._targets.get(path)
        data = self._read(target_file(path, target.sha256)) if target else None
        return data if isinstance(data, bytes) else None

    def _kept(self) -> Iterator[Finding]:
        for kept in self._ledger.retired():
            if kept.file in self._named:
                continue
            if kept.file.endswith(".gz"):
                yield from self._gzipped(kept.file, kept.sha256)
            else:
                yield from self._plain(kept.file, kept.sha256, None)

    def _extra(self) -> Iterator[Finding]:
        for folder, folders, names in os.walk(self._www):
            for name in names + folders:
                full = os.path.join(folder, name)
                file = os.path.relpath(full, self._www)
                with suppress(FileNotFoundError):  # gone meanwhile
                    mode = os.lstat(full).st_mode
                    if not stat.S_ISDIR(mode) and file not in self._named:
                        yield Finding(file, "an extra file: nothing signed names it")

    def _read(self, file: str) -> bytes | Finding:
        full = self._www / file
        try:
            if not stat.S_ISREG(os.lstat(full).st_mode):
                return Finding(file, "expected a regular file, got something else")
            return full.read_bytes()
        except FileNotFoundError:
            return Finding(file, "missing")
        except OSError as error:
            return Finding(file, f"cannot be read: {error.strerror}")
