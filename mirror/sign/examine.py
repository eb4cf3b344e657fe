"""From batches to what a publication would change: parse, audit, verify, one name after another.

Rule: nothing here is visible to anybody. Targets and crates are written under names that no
committed metadata knows; what was learned is handed on as values, for the ledger, after the commit.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from mirror.core.archive import ArchiveLimits
from mirror.core.audit import audit_index_file
from mirror.core.batch import FetchedCrate, Look, Outcome, Sweep
from mirror.core.index import IndexLimits, find_entry
from mirror.core.layout import note_path, target_path
from mirror.core.names import CrateName
from mirror.core.times import rfc3339
from mirror.core.verify import verify_crate
from mirror.errors import (
    CksumMismatchError,
    MalformedMessageError,
    RejectedError,
    UnsignedError,
    VersionVanishedError,
)
from mirror.store.ledger import Quarantined
from mirror.store.spool import BatchReader
from mirror.store.www import StagedCrate, Www
from tuf_repo.core.update import Target

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What an index file and a crate may be at most."""

    index: IndexLimits
    archive: ArchiveLimits


@dataclass(slots=True)
class Examined:
    """What the batches of one publication come to."""

    changes: dict[str, Target | None] = field(default_factory=dict)
    crates: list[StagedCrate] = field(default_factory=list)
    findings: dict[str, Quarantined] = field(default_factory=dict)
    released: set[str] = field(default_factory=set)
    sweep: Sweep | None = None
    confirmed: float | None = None
    sources: list[str] = field(default_factory=list)
    says_something: bool = False
    """A sweep ended, or something was confirmed: a timestamp is due though no target changed."""

    def copy(self) -> Examined:
        """Return a copy that can be filled without this one changing."""
        return replace(
            self,
            changes=dict(self.changes),
            crates=list(self.crates),
            findings=dict(self.findings),
            released=set(self.released),
            sources=list(self.sources),
        )


class Examiner:
    """Examines batches in the order in which they were offered."""

    def __init__(
        self,
        www: Www,
        lookup_all: Callable[[Iterable[str]], Iterable[tuple[str, Target | None]]],
        quarantined: Mapping[str, Quarantined],
        limits: Limits,
        *,
        now: float,
    ) -> None:
        self._www = www
        self._lookup_all = lookup_all
        self._known: dict[str, Target | None] = {}
        self._quarantined = quarantined
        self._limits = limits
        self._now = now
        self.examined = Examined()

    def add(self, reader: BatchReader) -> dict[str, str]:
        """Examine one batch; return what it refused, with reasons.

        Raises:
            MalformedMessageError: the batch is torn; nothing of it counts.
        """
        before = self.examined
        self.examined = before.copy()
        try:
            return self._add(reader)
        except MalformedMessageError:
            self.examined = before  # Nothing of such a batch is believed.
            raise

    def _add(self, reader: BatchReader) -> dict[str, str]:
        batch = reader.batch
        names = {look.name for look in batch.looks}
        names.update(fetched.crate.canonical_name for fetched in batch.crates)
        # All at once, so that each bin is read once.
        self._known.update(
            self._lookup_all([p for n in names for p in (target_path(n), note_path(n))])
        )
        refused: dict[str, str] = {}
        for look in batch.looks:
            error = _refusal(look.name, partial(self._look, look, reader))
            if error:
                self._refuse(look.name, error)
                refused[look.name] = str(error)
        for fetched in batch.crates:
            subject = str(fetched.crate)
            error = _refusal(subject, partial(self._crate, fetched, reader))
            if error:
                refused[subject] = str(error)
                if not isinstance(error, UnsignedError):  # then whoever asked was wrong: no finding
                    self._note_finding(subject, error, first_sight=False)
        done = self.examined
        done.sources.append(batch.source)
        done.sweep = batch.sweep or done.sweep
        done.confirmed = done.confirmed if batch.confirmed is None else batch.confirmed
        done.says_something |= batch.sweep is not None or not (batch.looks or batch.crates)
        return refused

    def published(self, path: str) -> Target | None:
        """Return what the committed publication says of a path that a batch was about."""
        return self._known[path]

    def _current(self, path: str) -> Target | None:
        changes = self.examined.changes
        return changes[path] if path in changes else self._known[path]

    def _look(self, look: Look, reader: BatchReader) -> None:
        path = target_path(look.name)
        current = self._current(path)
        if look.outcome is Outcome.GONE:
            if current:
                raise VersionVanishedError(
                    look.name, "the crate that was published", "no such crate"
                )
            self._release(look.name)
        elif look.outcome is Outcome.BYTES:
            data = reader.read(look)
            if current is None or hashlib.sha256(data).hexdigest() != current.sha256:
                self._accept(look.name, path, current, data)
            elif self._www.read_target(path, current.sha256) is None:
                # What was signed, and is lost or damaged on our disk: here it is again.
                self._www.restore_target(path, data, at=self._now)
            self._release(look.name)

    def _accept(self, name: CrateName, path: str, current: Target | None, data: bytes) -> None:
        accepted = None
        if current:
            accepted = self._www.read_target(path, current.sha256)
            if accepted is None:
                # Without the bytes we signed there is nothing to compare with.
                raise CksumMismatchError(
                    path, f"sha256 {current.sha256} on our disk", "other bytes"
                )
        audit_index_file(name, accepted, data, self._limits.index)
        sha256 = self._www.put_target(path, data, at=self._now)
        self.examined.changes[path] = Target(len(data), sha256)

    def _release(self, name: CrateName) -> None:
        self.examined.findings.pop(name, None)
        if name in self._quarantined:
            self.examined.released.add(name)
        if self._current(note_path(name)):
            self.examined.changes[note_path(name)] = None

    def _refuse(self, name: CrateName, error: RejectedError) -> None:
        first_sight = self._current(target_path(name)) is None
        finding = self._note_finding(name, error, first_sight=first_sight)
        if first_sight:
            path, note = note_path(name), _note(name, finding)
            current = self._current(path)
            if current is None or hashlib.sha256(note).hexdigest() != current.sha256:
                sha256 = self._www.put_target(path, note, at=self._now)
                self.examined.changes[path] = Target(len(note), sha256)

    def _note_finding(
        self, subject: str, error: RejectedError, *, first_sight: bool
    ) -> Quarantined:
        before = self._quarantined.get(subject)
        since = before.since if before else self._now
        finding = Quarantined(subject, since, error.rule, str(error), first_sight)
        self.examined.findings[subject] = finding
        self.examined.released.discard(subject)
        return finding

    def _crate(self, fetched: FetchedCrate, reader: BatchReader) -> None:
        name = fetched.crate.canonical_name
        path = target_path(name)
        current = self._current(path)
        file = self._www.read_target(path, current.sha256) if current else None
        entry = find_entry(file, name, fetched.crate.version) if file else None
        if entry is None or entry.crate != fetched.crate:
            raise UnsignedError(str(fetched.crate), "a signed index line that names it", "none")
        with reader.open_crate(fetched.file) as stream:
            data = stream.read(self._limits.archive.file_max_bytes + 1)
        if len(data) < min(fetched.length, self._limits.archive.file_max_bytes):
            raise MalformedMessageError(fetched.file, f"{fetched.length} bytes", f"{len(data)}")
        crate = verify_crate(entry, data, self._limits.archive)
        self.examined.crates.append(self._www.stage_crate(crate))
        self.examined.findings.pop(str(crate.crate), None)
        self.examined.released.add(str(crate.crate))


def _refusal(subject: str, examine: Callable[[], None]) -> RejectedError | None:
    """Run one examination; return why it refused, None if it did not.

    A mistake of ours that some bytes bring out refuses those bytes: their neighbours go on, and
    the same bytes do not stop the next start too.
    """
    try:
        examine()
    except RejectedError as error:
        return error
    except (OSError, MalformedMessageError):
        raise
    except Exception as error:
        log.exception("%s: a mistake of ours; these bytes are refused", subject)
        return RejectedError(subject, "bytes that can be examined", repr(error))
    return None


def _note(name: CrateName, finding: Quarantined) -> bytes:
    entry: dict[str, Any] = {
        "kind": "quarantine",
        "rule": finding.rule,
        "reason": finding.reason,
        "since": rfc3339(finding.since),
        "until": None,
        "versions": None,
        "upstream_yanked": [],
    }
    return json.dumps({"name": name, "entries": [entry]}, indent=1).encode() + b"\n"
