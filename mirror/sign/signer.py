"""One publication after another: examine what was offered, stage, commit, answer, swap the links.

The order is the design. One rename, inside `Publisher.commit`, is the commit. Before it nothing is
visible, after it nothing may be lost: the links under `index/` that a crash leaves behind are set
right at the next start (recover.py).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mirror.config import Config
from mirror.core.archive import ArchiveLimits
from mirror.core.batch import Settled
from mirror.core.index import IndexLimits
from mirror.core.layout import INDEX, METADATA_DIR, TARGETS_DIR, crate_file, target_file
from mirror.errors import MalformedMessageError
from mirror.sign.examine import Examined, Examiner, Limits
from mirror.sign.state import signed_state
from mirror.store.ledger import Ledger, Retired
from mirror.store.spool import open_batch
from mirror.store.www import Www
from tuf_repo.core.update import Changes, Counts
from tuf_repo.disk import Disk
from tuf_repo.publisher import Publisher, Staged

log = logging.getLogger(__name__)

_PRUNE_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Parts:
    """What the signer works with; built in worker.py."""

    config: Config
    disk: Disk
    www: Www
    ledger: Ledger
    publisher: Publisher


class Signer:
    """The signer's verbs. One thread calls them, one after another."""

    def __init__(self, parts: Parts) -> None:
        self._config = parts.config
        self._disk = parts.disk
        self._www = parts.www
        self._ledger = parts.ledger
        self._publisher = parts.publisher
        self._links: dict[str, str | None] = {}
        """Index paths whose links are to be swapped: path -> sha256, or None to unlink."""

    def settle(self, batches: Iterable[int], *, now: float) -> list[Settled]:
        """Deal with these batches in one publication; when this returns it is committed.

        Raises:
            OSError: the disk; nothing has changed, and the same call may be made again.
        """
        config = self._config
        limits = Limits(
            IndexLimits(file_max_bytes=config.index_max_bytes),
            ArchiveLimits(
                config.crate_max_bytes, config.unpacked_max_bytes, config.crate_max_entries
            ),
        )
        quarantined = {item.subject: item for item in self._ledger.quarantined()}
        examiner = Examiner(self._www, self._publisher.lookup_all, quarantined, limits, now=now)
        before = self._publisher.timestamp_version
        changes: Changes = {}
        try:
            answers = [_examine(examiner, config.spool, number) for number in batches]
            done = examiner.examined
            old = {path: examiner.published(path) for path in done.changes}
            changes = {path: new for path, new in done.changes.items() if new != old[path]}
            if changes or done.says_something:
                self._publish(changes, old, done, now=now)
            elif done.crates:
                self._disk.sync()
        finally:
            committed = self._publisher.timestamp_version != before
            self._www.settle_fresh(_named_files(changes) if committed else ())
        self._learn(done)
        version = self._publisher.timestamp_version
        return [replace(answer, timestamp=version) for answer in answers]

    def renew(self, *, now: float) -> bool:
        """Sign anew what is due; return whether something was."""
        if not self._publisher.due(now):
            return False
        self._publish({}, {}, Examined(), now=now)
        return True

    def _publish(self, changes: Changes, old: Changes, done: Examined, *, now: float) -> None:
        publisher = self._publisher

        def extra(held: Counts) -> Mapping[str, Any]:
            return signed_state(
                self._config,
                publisher.extra,
                held=held,
                sweep=done.sweep,
                confirmed=done.confirmed,
                now=now,
            )

        staged = publisher.stage(changes, extra, now=now)
        try:
            self._retire(staged, changes, old, done, now=now)
            publisher.commit(staged)
        finally:
            # A commit may be done and not reported: what the timestamp says counts.
            if publisher.timestamp_version == staged.timestamp_version:
                self._links.update(_links(changes))
            else:
                publisher.abandon(staged)
                self._ledger.settle_at(publisher.timestamp_version, at=now)
        log.info("published %d: %d changed", publisher.timestamp_version, len(changes))

    def _retire(
        self, staged: Staged, changes: Changes, old: Changes, done: Examined, *, now: float
    ) -> None:
        """Write the rows that belong to this publication; its commit makes them durable."""
        number = staged.timestamp_version
        files = [
            Retired(file, target.sha256)
            for path in changes
            if (target := old[path])
            for file in _target_files(path, target.sha256)
        ]
        metadata = self._config.www / METADATA_DIR
        files += [
            Retired(
                f"{METADATA_DIR}/{name}",
                hashlib.sha256((metadata / name).read_bytes()).hexdigest(),
            )
            for name in staged.superseded
        ]
        with self._ledger.transaction():
            self._ledger.retire(files, number=number, at=now)
            self._ledger.append(
                number,
                {
                    "event": "publish",
                    "number": number,
                    "at": now,
                    "sources": sorted(set(done.sources)),
                    "targets": {p: t.sha256 if t else None for p, t in changes.items()},
                },
            )

    def _learn(self, done: Examined) -> None:
        """Advance the ledger: what the audit learned counts from now on."""
        for crate in done.crates:
            with suppress(FileNotFoundError):  # the same crate twice in one publication
                self._www.promote_crate(crate)
        with self._ledger.transaction():
            for crate in done.crates:
                self._ledger.hold_crate(crate_file(crate.crate), crate.sha256, crate.length)
            for finding in done.findings.values():
                log.warning("quarantined %s: %s", finding.subject, finding.reason)
                self._ledger.quarantine(finding)
            for subject in done.released:
                self._ledger.release(subject)

    def swap_links(self) -> None:
        """Make the links under `index/` what the commit says, then write that down."""
        if not self._links:
            return
        for path, sha256 in self._links.items():
            if sha256 is None:
                self._www.unlink_index(path)
            else:
                self._www.link_index(path, sha256)
        self._disk.sync()
        self.write_at()
        self._links.clear()

    def write_at(self) -> None:
        """Note the number up to which the links are right."""
        text = str(self._publisher.timestamp_version).encode()
        self._disk.replace(self._config.staging / "at", text)

    def prune(self, *, now: float) -> int:
        """Remove files whose grace has ended, some at a time; return how many."""
        files = self._ledger.retired_before(now - self._config.grace, _PRUNE_AT_ONCE)
        current = self._publisher.current_files() if files else set()
        # Files first: rows whose files are gone are dropped at the next prune, or by recover.py.
        for file in files:
            if not self._is_named(file, current):
                self._www.remove(file)
        with self._ledger.transaction():
            self._ledger.revive(files)
        return len(files)

    def _is_named(self, file: str, current: set[str]) -> bool:
        if file.startswith(METADATA_DIR):
            return file.rpartition("/")[2] in current
        folder, _, base = file.removeprefix(f"{TARGETS_DIR}/").rpartition("/")
        sha256, _, name = base.removesuffix(".gz").partition(".")
        target = self._publisher.lookup(f"{folder}/{name}")
        return target is not None and target.sha256 == sha256


def _examine(examiner: Examiner, spool: Path, number: int) -> Settled:
    try:
        with open_batch(spool, number) as reader:
            return Settled(number, 0, refused=examiner.add(reader))
    except MalformedMessageError as error:
        # Nothing of it is believed; `sync` drops it and fetches again.
        log.warning("batch %d refused: %s", number, error)
        return Settled(number, 0, refused_whole=str(error))


def _links(changes: Changes) -> dict[str, str | None]:
    index = ((path, t) for path, t in changes.items() if path.startswith(f"{INDEX}/"))
    return {path: target.sha256 if target else None for path, target in index}


def _named_files(changes: Changes) -> Iterable[str]:
    return [f for path, t in changes.items() if t for f in _target_files(path, t.sha256)]


def _target_files(path: str, sha256: str) -> tuple[str, str]:
    file = target_file(path, sha256)
    return file, f"{file}.gz"
