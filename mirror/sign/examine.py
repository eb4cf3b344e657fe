"""From batches to what a publication would change: audit and verify, one name after another.

Rule: what some bytes bring out refuses those bytes and nothing else; their neighbours go on.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from mirror.core.archive import ArchiveLimits
from mirror.core.audit import audit_index_file, audit_return, baseline
from mirror.core.batch import FetchedCrate, Look, Outcome
from mirror.core.index import IndexEntry, IndexFile, find_entry, parse_index_file
from mirror.core.layout import target_path
from mirror.core.lockfile import LockedCrate
from mirror.core.names import CrateId, CrateName
from mirror.core.policy import WithheldKind
from mirror.core.verify import VerifiedCrate, verify_crate
from mirror.errors import (
    AuditError,
    DeniedError,
    LockMismatchError,
    MalformedMessageError,
    OwnMistakeError,
    RejectedError,
    ReturnedError,
    UnsignedError,
)
from mirror.sign.desk import Desk
from mirror.sign.watch import Watch
from mirror.store.ledger import Quarantined
from mirror.store.memory import Deletion, pack
from mirror.store.spool import BatchReader

log = logging.getLogger(__name__)

DOUBT_SECONDS = 900.0
"""A crate is deleted when two looks that lie so far apart, at least, find it gone."""
DOUBT_ENDS_SECONDS = 2 * 86400.0
"""A first look that is older than this says nothing any more: it may have been back since."""
_NO_FINDING = (UnsignedError, DeniedError)
"""Who asked was wrong, or the operator said no: nothing is wrong with a crate."""


@dataclass(slots=True)
class Verdict:
    """What the signer says of one batch."""

    refused: dict[str, str] = field(default_factory=dict)
    denied: tuple[str, ...] = ()
    unexamined: tuple[str, ...] = ()


class Examiner:
    """Examines batches in the order in which they were offered."""

    def __init__(self, desk: Desk, archive: ArchiveLimits, watch: Watch) -> None:
        self._desk = desk
        self._archive = archive
        self._watch = watch
        self._undecided: dict[CrateName, IndexFile] = {}
        """Mode list: what an index file names depends on the crates behind it in the batch."""

    def add(self, reader: BatchReader) -> Verdict:
        """Examine one batch.

        Raises:
            MalformedMessageError: the batch is torn; nothing of it counts.
        """
        before = self._desk.examined
        self._desk.examined = before.copy()
        try:
            return self._add(reader)
        except MalformedMessageError:
            self._desk.examined = before  # Nothing of such a batch is believed.
            self._undecided = {}
            raise

    def _add(self, reader: BatchReader) -> Verdict:
        batch = reader.batch
        names = {look.name for look in batch.looks}
        names.update(fetched.crate.canonical_name for fetched in batch.crates)
        self._desk.know(names)
        verdict = Verdict()
        self._look_at_all(reader, verdict)
        self._take_crates(reader, verdict)
        for name, file in self._undecided.items():
            self._desk.decide(name, file)
        self._undecided = {}
        done = self._desk.examined
        done.sources.append(batch.source)
        if batch.sweep and not self._watch.is_stopped(batch.sweep.began):
            done.sweep = batch.sweep
        done.confirmed = done.confirmed if batch.confirmed is None else batch.confirmed
        done.says_something |= batch.sweep is not None or not (batch.looks or batch.crates)
        return verdict

    # Index files

    def _look_at_all(self, reader: BatchReader, verdict: Verdict) -> None:
        sweeping = reader.batch.sweeping
        if sweeping:
            self._watch.look_at(sweeping)
        for position, look in enumerate(reader.batch.looks):
            if sweeping and self._watch.stopped:
                verdict.unexamined = tuple(each.name for each in reader.batch.looks[position:])
                return
            before = self._desk.quarantined(look.name)
            error = _refusal(look.name, partial(self._look, look, reader))
            if error:
                verdict.refused[look.name] = str(error)
                if not isinstance(error, _NO_FINDING):
                    finding = self._refuse(look, error, reader)
                    # What stands already has not turned into a finding now.
                    known = before and (before.rule, before.sha256) == (
                        finding.rule,
                        finding.sha256,
                    )
                    if sweeping and not known and not isinstance(error, OwnMistakeError):
                        self._watch.note_finding(look.name, sweeping)

    def _look(self, look: Look, reader: BatchReader) -> None:
        desk, name = self._desk, look.name
        if not desk.rules.is_listed(name):
            raise UnsignedError(name, "a crate on this mirror's list", "none")
        if look.outcome is Outcome.GONE:
            self._gone(look)
        elif look.outcome is Outcome.BYTES:
            data = reader.read(look)  # it has the digest that the look says, or raises
            if desk.doubted_since(name) is not None:
                desk.examined.doubts[name] = None
            if look.sha256 != desk.record_sha256(name):
                self._accept(name, data)
            else:
                self._restore(look, data)
                self._forget_finding(name)

    def _accept(self, name: CrateName, data: bytes) -> None:
        desk = self._desk
        tombstones, deletion = desk.tombstones(name), desk.deletion(name)
        if deletion is not None:
            file = parse_index_file(name, data, desk.index_limits)
            audit_return(file, deletion.since, tombstones)
        before = baseline(name, desk.record(name), desk.past(name), data, desk.index_limits)
        audited = audit_index_file(name, before, data, desk.index_limits, tombstones)
        self._compare_with_list(audited.file)
        if deletion is not None:
            desk.examined.deletions[name] = None
        for remark in audited.remarks:
            log.info("%s: %s", name, remark)
        self._forget_finding(name)
        if desk.rules.listed is None:
            desk.decide(name, audited.file)
        else:
            self._undecided[name] = audited.file

    def _compare_with_list(self, file: IndexFile) -> None:
        """Compare with the checksums of the lock files, before these bytes count for anything."""
        entries = file.by_version()
        for version, locked in (self._desk.rules.listed or {}).get(file.name, {}).items():
            if entry := entries.get(version):
                _refuse_other_than_locked(locked, entry)

    def _restore(self, look: Look, data: bytes) -> None:
        path = target_path(look.name)
        current = self._desk.current(path)
        is_its_own = current is not None and current.sha256 == look.sha256
        if is_its_own and not self._desk.www.is_whole(path, look.sha256):
            # What was signed, and is lost or damaged on our disk: here it is again.
            self._desk.www.restore_target(path, data, at=self._desk.now)

    def _gone(self, look: Look) -> None:
        desk, name = self._desk, look.name
        if desk.record_sha256(name) is None:
            self._forget_finding(name)
            desk.decide(name, None)
            if desk.doubted_since(name) is not None:
                desk.examined.doubts[name] = None
            return
        at = desk.now  # not the look's own word: who took `sync` could claim any
        since = desk.doubted_since(name)
        if since is None or not 0 <= at - since < DOUBT_ENDS_SECONDS:
            desk.examined.doubts[name] = since = at
            log.info("%s: upstream has it no more; it stays until a second look says so", name)
        if at - since < DOUBT_SECONDS:
            desk.examined.doubted[name] = since + DOUBT_SECONDS
            return
        if self._watch.may_delete(desk.published_count, now=desk.now):
            self._record_deletion(Deletion(name, since, at))
        else:
            desk.examined.doubted[name] = at + DOUBT_SECONDS

    def _record_deletion(self, deletion: Deletion) -> None:
        desk, name = self._desk, deletion.name
        file = parse_index_file(name, desk.record(name) or b"", desk.index_limits)
        desk.examined.doubts[name] = None
        desk.examined.deletions[name] = deletion
        desk.examined.past[name] = [entry.line for entry in file.entries]
        desk.examined.tombstones.update(
            (name, entry.crate.version, entry.cksum) for entry in file.entries
        )
        log.warning("%s: upstream deleted it: withdrawn, %d versions", name, len(file.entries))
        for subject in (name, *desk.quarantined_crates(name)):
            self._forget_finding(subject)
        desk.decide(name, None)
        desk.examined.records[name] = None

    def _forget_finding(self, subject: str) -> None:
        if self._desk.quarantined(subject):
            self._desk.examined.findings.pop(subject, None)
            self._desk.examined.released.add(subject)

    def _refuse(self, look: Look, error: RejectedError, reader: BatchReader) -> Quarantined:
        desk, name = self._desk, look.name
        data = b""
        if isinstance(error, AuditError) and look.outcome is Outcome.BYTES:
            data = reader.read(look)
        first_sight = desk.record_sha256(name) is None
        finding = self._note_finding(name, error, first_sight=first_sight, data=data)
        if first_sight:
            desk.decide(name, None)
        return finding

    def _note_finding(
        self, subject: str, error: RejectedError, *, first_sight: bool, data: bytes = b""
    ) -> Quarantined:
        before = self._desk.quarantined(subject)
        since = before.since if before else self._desk.now
        held = isinstance(error, ReturnedError)
        finding = Quarantined(
            subject,
            since,
            error.rule,
            str(error),
            first_sight,
            WithheldKind.HOLD if held else WithheldKind.QUARANTINE,
            hashlib.sha256(data).hexdigest() if data else "",
            pack(data) if data else None,
        )
        if not (before and (before.rule, before.reason) == (finding.rule, finding.reason)):
            verb = "held" if held else "quarantined"
            log.warning("%s %s: %s", verb, subject, finding.reason)
        self._desk.examined.findings[subject] = finding
        self._desk.examined.released.discard(subject)
        return finding

    # Crates

    def _take_crates(self, reader: BatchReader, verdict: Verdict) -> None:
        """Verify all crates of a batch; hashing and unpacking go on in all cores."""
        jobs = [_Job(fetched) for fetched in reader.batch.crates]
        for job in jobs:
            job.refusal = _refusal(str(job.fetched.crate), partial(self._find_entry, job))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for job, refusal in zip(
                jobs, pool.map(partial(self._verify, reader), jobs), strict=True
            ):
                subject = str(job.fetched.crate)
                error = refusal or _refusal(subject, partial(self._take, job))
                if error:
                    verdict.refused[subject] = str(error)
                    if isinstance(error, DeniedError):
                        verdict.denied += (subject,)
                    if not isinstance(error, _NO_FINDING):
                        self._note_finding(subject, error, first_sight=False)

    def _verify(self, reader: BatchReader, job: _Job) -> RejectedError | None:
        """Verify one crate; any thread may."""
        subject = str(job.fetched.crate)
        return job.refusal or _refusal(subject, partial(self._read_and_verify, reader, job))

    def _read_and_verify(self, reader: BatchReader, job: _Job) -> None:
        fetched, entry, limits = job.fetched, job.entry, self._archive
        assert entry
        with reader.open_crate(fetched.file) as stream:
            data = stream.read(limits.file_max_bytes + 1)
        if len(data) < min(fetched.length, limits.file_max_bytes):
            raise MalformedMessageError(fetched.file, f"{fetched.length} bytes", f"{len(data)}")
        key = (fetched.crate.canonical_name, fetched.crate.version, entry.cksum)
        job.verified = verify_crate(entry, data, limits, accepted=key in self._desk.rules.accepted)

    def _take(self, job: _Job) -> None:
        desk, crate, verified = self._desk, job.fetched.crate, job.verified
        assert verified
        job.verified = None  # What is written need not stay in memory.
        desk.examined.crates[crate] = desk.www.stage_crate(verified)
        self._forget_finding(str(crate))

    def _find_entry(self, job: _Job) -> None:
        """Find the line that passed the audit, of a crate that may be held."""
        desk, crate, subject = self._desk, job.fetched.crate, str(job.fetched.crate)
        name = crate.canonical_name
        denial = desk.rules.denial_of(name, crate.version)
        if denial:
            raise DeniedError(subject, "a crate that may be held", f"denied: {denial.reason}")
        if desk.rules.listed is None:
            record = desk.record(name)
            entry = find_entry(record, name, crate.version) if record else None
        else:
            entry = self._listed_entry(crate)
        if entry is None or entry.crate != crate:
            raise UnsignedError(subject, "a signed index line that names it", "none")
        job.entry = entry

    def _listed_entry(self, crate: CrateId) -> IndexEntry | None:
        desk, name = self._desk, crate.canonical_name
        locked = (desk.rules.listed or {}).get(name, {}).get(crate.version)
        if locked is None:
            raise UnsignedError(str(crate), "a crate on this mirror's list", "none")
        if name not in self._undecided:
            record = desk.record(name)
            if record is None:
                return None
            self._undecided[name] = parse_index_file(name, record, desk.index_limits)
        entry = self._undecided[name].by_version().get(crate.version)
        if entry:
            _refuse_other_than_locked(locked, entry)
        return entry


def _refuse_other_than_locked(locked: LockedCrate, entry: IndexEntry) -> None:
    if not locked.admits(entry.cksum):
        raise LockMismatchError(str(entry.crate), f"the lock's {locked.checksum}", entry.cksum)


@dataclass(slots=True)
class _Job:
    """One crate on its way through the batch."""

    fetched: FetchedCrate
    entry: IndexEntry | None = None
    verified: VerifiedCrate | None = None
    refusal: RejectedError | None = None


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
        return OwnMistakeError(subject, "bytes that can be examined", repr(error))
    return None
