"""One publication after another: examine what was offered, stage, commit, answer, swap the links.

The order is the design. One rename, inside `Publisher.commit`, is the commit. Before it nothing is
visible, after it nothing may be lost: the links under `index/` that a crash leaves behind are set
right at the next start (recover.py).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from mirror.core.archive import ArchiveLimits
from mirror.core.batch import Settled
from mirror.core.index import IndexLimits, parse_index_file
from mirror.core.layout import (
    INDEX,
    METADATA_DIR,
    TARGETS_DIR,
    crate_file,
    name_of_target,
)
from mirror.core.lockfile import LockedCrate
from mirror.core.names import CrateName
from mirror.errors import MalformedMessageError, RejectedError, UsageError
from mirror.sign import record
from mirror.sign.desk import Desk, Examined
from mirror.sign.examine import Examiner
from mirror.sign.parts import Parts
from mirror.sign.rules import Listed, Rules, lists_of, load_rules
from mirror.sign.state import EXTRA, signed_state
from mirror.sign.watch import Watch
from mirror.store.ledger import Retired
from mirror.store.spool import open_batch
from tuf_repo.core.update import Changes, Counts
from tuf_repo.publisher import Publisher
from tuf_repo.staging import Staged
from tuf_repo.succession import Succession

log = logging.getLogger(__name__)

_PRUNE_AT_ONCE = 1_000


class Signer:
    """The signer's verbs. One thread calls them, one after another."""

    def __init__(self, parts: Parts) -> None:
        """Raise UsageError where a lock file of mode list cannot be used."""
        self._config = parts.config
        self._parts = parts
        self._disk = parts.disk
        self._www = parts.www
        self._ledger = parts.ledger
        self._publisher = parts.publisher
        self._links: dict[str, str | None] = {}
        """Index paths whose links are to be swapped: path -> sha256, or None to unlink."""
        self.rules: Rules = load_rules(parts.ledger.memory, self._first_list())
        self._list_trouble = ""
        self._watch = Watch(parts.config.findings_percent)
        self._marked = parts.ledger.memory.marked_names()

    def _first_list(self) -> Listed | None:
        """Return what is listed; where nobody says which lock files, what is published.

        So that a crate can be denied by who has nothing at hand but the data folder.
        """
        if self._config.mode != "list" or self._config.lock:
            return lists_of(self._config)
        listed: dict[CrateName, dict[str, LockedCrate]] = {}
        for path, target in self._publisher.targets():
            data = self._www.read_target(path, target.sha256)
            if path.startswith(f"{INDEX}/") and data is not None:
                name = name_of_target(path)
                file = parse_index_file(name, data, IndexLimits())
                listed[name] = {
                    entry.crate.version: LockedCrate(entry.crate, entry.cksum)
                    for entry in file.entries
                }
        return listed

    @property
    def trouble(self) -> str:
        """What a person should look at; empty: nothing."""
        return (
            self._other_signer() or self._list_trouble or self._watch.stopped or self._watch.slowed
        )

    def _other_signer(self) -> str:
        number = self._publisher.other_signer_at
        if not number:
            return ""
        return (
            f"another signer has used our keys: timestamp {number:,} was seen, our last is"
            f" {self._publisher.timestamp_version:,}; nothing is signed here until you have ended"
            " the other one and run `crateseal recover`"
        )

    def desk(self, *, now: float) -> Desk:
        """Begin a publication."""
        return Desk(self._parts, self.rules, self._marked, now=now)

    def reload_rules(self) -> None:
        """Take note of what the operator decided, or of a lock file that changed."""
        listed, self._list_trouble = self.rules.listed, ""
        try:
            listed = lists_of(self._config) if self._config.lock else listed
        except UsageError as error:
            stays = "what was listed before stays in force"
            log.error("%s; %s", error, stays)  # noqa: TRY400 - one line; nothing to trace
            # Public: without the paths of this machine.
            self._list_trouble = f"a lock file cannot be used; {stays}; the log says more"
        self.rules = load_rules(self._ledger.memory, listed)

    def settle(self, batches: Iterable[int], *, now: float) -> list[Settled]:
        """Deal with these batches in one publication; when this returns it is committed.

        Raises:
            OSError: the disk; nothing has changed, and the same call may be made again.
        """
        config, desk = self._config, self.desk(now=now)
        archive = ArchiveLimits(
            config.crate_max_bytes, config.unpacked_max_bytes, config.crate_max_entries
        )
        examiner = Examiner(desk, archive, self._watch)
        with self.publishing(desk):
            answers = [
                _examine(examiner, self._publisher, config.spool, number) for number in batches
            ]
        version = self._publisher.timestamp_version
        return [
            replace(
                answer,
                timestamp=version,
                doubted=desk.examined.doubted,
                stopped=self._watch.stopped if answer.unexamined else "",
            )
            for answer in answers
        ]

    @contextmanager
    def publishing(self, desk: Desk) -> Iterator[None]:
        """Stand around work at the desk: at the end, what it came to is published and learned.

        Raises:
            OSError: the disk; nothing has changed, and the same may be done again.
        """
        before = self._publisher.timestamp_version
        changes: Changes = {}
        try:
            yield
            done = desk.examined
            old = {path: desk.published(path) for path in done.changes}
            changes = {path: new for path, new in done.changes.items() if new != old[path]}
            if changes or done.says_something:
                self._publish(changes, old, done, now=desk.now)
            elif done.crates or done.records or done.deletions:
                with self._ledger.transaction():
                    self._remember(done, before, now=desk.now)
                    if done.deletions:
                        self._ledger.append(
                            before, {"event": "learn", "at": desk.now} | record.lives(done)
                        )
                self._disk.sync()
        finally:
            committed = self._publisher.timestamp_version != before
            self._www.settle_fresh(record.named_files(changes) if committed else ())
        self._learn(done)

    def apply_rules(self, *, now: float) -> None:
        """Publish what the rules make of everything: at the start, and when a list changed."""
        memory, desk = self._ledger.memory, self.desk(now=now)
        names = memory.recorded_names() | {item.name for item in memory.deletions()}
        names |= set(self.rules.denials)
        if self.rules.listed is not None:
            names |= set(self.rules.listed)
            names |= {name_of_target(path) for path, _ in self._publisher.targets()}
        digest = self._publisher.extra.get(EXTRA, {}).get("policy")
        desk.examined.says_something = digest != self.rules.digest
        desk.know(names)
        desk.examined.released.update(self._unlisted_findings())
        with self.publishing(desk):
            for name in sorted(names):
                with _said():
                    desk.decide_again(name)

    def mark(self, name: CrateName) -> None:
        """Take note that more is remembered of a name than what is published."""
        self._marked.add(name)

    def _unlisted_findings(self) -> Iterator[str]:
        """Yield what stands of crates that are on no list any more: nobody follows them."""
        for item in self._ledger.quarantined():
            name, _, version = item.subject.partition(" ")
            listed = (self.rules.listed or {}).get(CrateName(name.lower()), {})
            if self.rules.listed is not None and not (version in listed if version else listed):
                yield item.subject

    def renew(self, *, now: float) -> bool:
        """Sign anew what is due; return whether something was."""
        if not self._publisher.due(now):
            return False
        self._publish({}, {}, Examined(), now=now)
        return True

    def succeed(self, succession: Succession, *, now: float) -> None:
        """Publish what a ceremony brought."""
        self._publish({}, {}, Examined(), now=now, succession=succession)

    def recover(self, *, now: float) -> None:
        """Publish far beyond every number that was used, here or elsewhere."""
        self._publisher.recover()
        self._publish({}, {}, Examined(), now=now)

    def _publish(
        self,
        changes: Changes,
        old: Changes,
        done: Examined,
        *,
        now: float,
        succession: Succession | None = None,
    ) -> None:
        publisher = self._publisher

        def extra(held: Counts) -> Mapping[str, Any]:
            return signed_state(
                self._config,
                publisher.extra,
                policy=self.rules.digest,
                held=held,
                sweep=done.sweep,
                lacks_listed=not self._all_listed_are_held(done),
                confirmed=done.confirmed,
                now=now,
            )

        staged = publisher.stage(changes, extra, now=now, succession=succession)
        try:
            self._retire(staged, changes, old, done, now=now)
            publisher.commit(staged)
        finally:
            # A commit may be done and not reported: what the timestamp says counts.
            if publisher.timestamp_version == staged.timestamp_version:
                self._links.update(record.links(changes))
            else:
                publisher.abandon(staged)
                self._ledger.settle_at(publisher.timestamp_version, at=now)
        if changes:
            log.info("published %d: %s", publisher.timestamp_version, record.summary(changes))

    def _all_listed_are_held(self, done: Examined) -> bool:
        if self.rules.listed is None:
            return True
        held = {file for file, _ in self._ledger.crates()} - done.dropped
        return all(
            locked.crate in done.crates
            or (crate_file(locked.crate) in held)
            or self.rules.denial_of(name, locked.crate.version)
            for name, versions in self.rules.listed.items()
            for locked in versions.values()
        )

    def _retire(
        self, staged: Staged, changes: Changes, old: Changes, done: Examined, *, now: float
    ) -> None:
        """Write the rows that belong to this publication; its commit makes them durable."""
        number = staged.timestamp_version
        files = [
            Retired(file, target.sha256)
            for path in changes
            if (target := old[path])
            for file in record.target_files(path, target.sha256)
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
            self._remember(done, number, now=now)
            self._ledger.append(
                number,
                {
                    "event": "publish",
                    "number": number,
                    "at": now,
                    "sources": sorted(set(done.sources)),
                    "targets": {p: t.sha256 if t else None for p, t in changes.items()},
                }
                | record.ceremony(staged)
                | record.lives(done),
            )

    def _remember(self, done: Examined, number: int, *, now: float) -> None:
        """Write what the next audits go by: with the publication, as it decides what they see."""
        memory = self._ledger.memory
        memory.put_records(done.records, number=number)
        memory.put_deletions(done.deletions, number=number)
        memory.put_tombstones(done.tombstones, at=now)
        for name, lines in done.past.items():
            memory.put_past(name, lines)

    def _learn(self, done: Examined) -> None:
        """Advance the ledger: what the audit learned counts from now on."""
        for file in done.dropped:
            self._www.remove(file)
        for crate in done.crates.values():
            with suppress(FileNotFoundError):  # the same crate twice in one publication
                self._www.promote_crate(crate)
        with self._ledger.transaction():
            for file in done.dropped:
                self._ledger.drop_crate(file)
            for crate in done.crates.values():
                self._ledger.hold_crate(crate_file(crate.crate), crate.sha256, crate.length)
            for finding in done.findings.values():
                self._ledger.quarantine(finding)
            for subject in done.released:
                self._ledger.release(subject)
            self._ledger.memory.put_doubts(done.doubts)
            self._ledger.memory.drop_older(done.records.keys() | done.deletions.keys())
        self._marked |= done.records.keys() | done.deletions.keys() | done.doubts.keys()

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


def _examine(examiner: Examiner, publisher: Publisher, spool: Path, number: int) -> Settled:
    try:
        with open_batch(spool, number) as reader:
            if reader.batch.seen:
                publisher.judge(reader.batch.seen.encode())
            verdict = examiner.add(reader)
            return Settled(
                number,
                0,
                refused=verdict.refused,
                denied=verdict.denied,
                unexamined=verdict.unexamined,
            )
    except MalformedMessageError as error:
        # Nothing of it is believed; `sync` drops it and fetches again.
        log.warning("batch %d refused: %s", number, error)
        return Settled(number, 0, refused_whole=str(error))


@contextmanager
def _said() -> Iterator[None]:
    """Let one crate's trouble be a line in the log: it must not keep the others waiting."""
    try:
        yield
    except RejectedError as error:
        log.error("%s; run `crateseal check`", error)  # noqa: TRY400 - one line; nothing to trace
