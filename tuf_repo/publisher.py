"""The online entry: stage a publication, commit it.

`stage` signs and writes everything under names no client is told of yet; `commit` is one rename.
What is dropped in between, by a crash or by `abandon`, leaves at most files that nothing names, and
numbers that stay used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from tuf.api.metadata import Timestamp

from tuf_repo import loading, succession, verify
from tuf_repo.core import check, update
from tuf_repo.core.numbers import LIMIT
from tuf_repo.core.roles import ROOT, SNAPSHOT, TIMESTAMP, Policy
from tuf_repo.core.update import Changes, Counts, Json, State, Target
from tuf_repo.counting import Known, NumberSource, start_numbers
from tuf_repo.errors import (
    CeremonyError,
    OtherSignerError,
    RepositoryError,
    StaleStateError,
    TargetError,
)
from tuf_repo.keys import OnlineSigners
from tuf_repo.loading import BinReader, Trust
from tuf_repo.signing import canonical
from tuf_repo.staging import Extra, Ground, Stage, Staged, discard
from tuf_repo.storage import TIMESTAMP_FILE, Storage, parse_file_name
from tuf_repo.succession import Files, Succession


class Keys(Protocol):
    """Where online signers come from."""

    def signers_for(self, trust: Trust) -> OnlineSigners:
        """Return the signers that this trust names; KeyFileError where one is not at hand."""


class Publisher:
    """Publishes one repository. One at a time: the caller holds a lock for it.

    After any error from `commit` but a `StaleStateError`, what `timestamp_version` says is what
    clients see; after a `StaleStateError`, open the repository again.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - made in two places: `open`, and trial.py
        self,
        storage: Storage,
        keys: Keys,
        trust: Trust,
        state: State,
        numbers: NumberSource,
        policy: Policy,
    ) -> None:
        self._storage = storage
        self._keys = keys
        self._signers: OnlineSigners | None = None
        seen = storage.read_seen()
        # Below what is committed: a power cut kept it, though a recovery had gone beyond.
        self._seen = seen if seen >= state.timestamp_version else 0
        self._recovering = False
        self._trust = trust
        self._state = state
        self._numbers = numbers
        self._policy = policy
        self._reader = BinReader(storage, policy.bins_kept)
        self._next_due: int | None = None

    @classmethod
    def open(  # noqa: PLR0913 - what comes from outside is an argument, each by its name
        cls,
        storage: Storage,
        keys: Keys,
        *,
        now: float,
        policy: Policy,
        entropy: Callable[[], int],
        wait: Callable[[float], object],
    ) -> Publisher:
        """Recover what a crash left, load and verify the committed state, start the counter.

        Args:
            storage: the repository's files.
            keys: the online keys at hand. One that is lost is an error when something is to be
                signed, not before: a ceremony may bring another.
            now: seconds since 1970.
            policy: durations.
            entropy: gives a random number from 0, below 2**32.
            wait: sleeps for so many seconds.

        Raises:
            MetadataError: the committed state does not verify.
            KeyFileError: the keys it names are not kept apart.
            ClockError: the clock stands before the last signature.
            CounterError: the counter's file does not read.
        """
        storage.recover()
        storage.clear_setup()  # A crash may have left the mark of a set-up that did end.
        promoting = storage.promotes_from(storage.timestamp_version())
        trust, state = loading.load(storage, promoting=promoting)
        known = Known(highest_number(state), state.signed_at)
        numbers = start_numbers(
            storage, known, now=now, policy=policy, entropy=entropy(), wait=wait
        )
        return cls(storage, keys, trust, state, numbers, policy)

    @property
    def timestamp_version(self) -> int:
        """Version of the committed timestamp."""
        return self._state.timestamp_version

    @property
    def snapshot_version(self) -> int:
        """Version of the committed snapshot."""
        return self._state.snapshot.version if self._state.snapshot else 0

    @property
    def signed_at(self) -> int:
        """When the committed timestamp was signed."""
        return self._state.signed_at

    @property
    def extra(self) -> Mapping[str, Any]:
        """The extra signed fields of the committed timestamp, our own apart."""
        return self._state.extra

    @property
    def trust(self) -> Trust:
        """The offline roles that the committed state was published under."""
        return self._trust

    def past_keys(self) -> set[str]:
        """Return the keyids of all online keys that a root, or a role above the bins, has named.

        As far as its files still lie there: what was superseded is pruned some day.
        """
        return loading.online_keyids(self._storage, self._trust.delegation)

    @property
    def root_version(self) -> int:
        """Version of the newest root."""
        return self._trust.root.version

    @property
    def root_extra(self) -> Mapping[str, Any]:
        """The extra signed fields of the newest root."""
        return self._trust.root.unrecognized_fields

    @property
    def expires(self) -> Mapping[str, int]:
        """When each role expires, in seconds since 1970; for `bins`, the first of them."""
        return {
            **self._trust.expires,
            "bins": min((facts.expires for facts in self._state.bins.values()), default=0),
            SNAPSHOT: self._state.snapshot_expires,
            TIMESTAMP: self._state.timestamp_expires,
        }

    def lookup(self, path: str) -> Target | None:
        """Return what the committed state says of a target path."""
        fields = self._bin_targets(self._trust.layout.bin_of(path)).get(path)
        return update.target_from(fields) if fields else None

    def lookup_all(self, paths: Iterable[str]) -> Iterator[tuple[str, Target | None]]:
        """Look up many paths, each bin read once; in the order of the bins."""
        bin_of = self._trust.layout.bin_of
        for name, path in sorted((bin_of(path), path) for path in paths):
            fields = self._bin_targets(name).get(path)
            yield path, update.target_from(fields) if fields else None

    def targets(self) -> Iterator[tuple[str, Target]]:
        """Yield every target of the committed state, one bin in memory at a time."""
        for path, fields in self._reader.stream(self._state.bins.items()):
            yield path, update.target_from(fields)

    def counts(self) -> Counts:
        """How many targets the committed state has, by the first part of their paths."""
        return self._state.counts()

    def current_files(self) -> set[str]:
        """The files of the metadata folder that the committed state names, all roots among them."""
        names = ((file, parse_file_name(file)) for file in self._storage.files())
        # Every one: clients may have seen it, and each is a step of their way.
        roots = {file for file, name in names if name and name[0] == ROOT}
        return self._state.file_names() | roots | {TIMESTAMP_FILE}

    def due(self, now: float) -> bool:
        """Whether something is to be signed though nothing changed."""
        if self._next_due is None:
            self._next_due = update.next_due(self._state, self._trust.layout, self._policy)
        return now >= self._next_due

    def require_signers(self) -> OnlineSigners:
        """Return the signers for the committed trust.

        Raises:
            KeyFileError: one is not at hand.
        """
        if self._signers is None:
            self._signers = self._keys.signers_for(self._trust)
        return self._signers

    def succession(self, files: Files, *, now: float) -> Succession | None:
        """Verify what a ceremony brought (succession.py); None where all of it is in force.

        Raises:
            CeremonyError: a file is not part of a ceremony, or breaks a rule of ours.
            MetadataError: a file does not verify.
            KeyFileError: keys are not kept apart, or an online key is not at hand.
        """
        found = succession.verify_next(self._trust, self._storage, files, now=now)
        if found is not None:
            self._refuse_numbers_of_ours(found)
            self._keys.signers_for(found.trust)
        return found

    def stage(
        self,
        changes: Changes,
        extra: Extra,
        *,
        now: float,
        succession: Succession | None = None,
    ) -> Staged:
        """Sign and write the next publication, and check each of its files with stock code.

        1. Nobody else signs; the clock has passed the last signature; the changes can be published.
        2. Numbers are reserved, durably, before the first signature.
        3. What a ceremony brought.
        4. Bins: those that change, and those due. Each is signed, checked and written at once.
        5. Snapshot, if a bin is new or its own time has come; then timestamp.
        6. What must hold between the two publications is checked.

        Raises:
            TargetError: a change or extra field that clients could not read.
            KeyFileError: an online key is not at hand.
            OtherSignerError: somebody else signs with our keys.
            ClockError: the clock stands before the last signature.
            CounterError: the numbers are used up.
            MetadataError: something we produced, or build upon, does not verify.
            OSError: the disk; what was written is removed again.
        """
        self._refuse_other_signer(succession)  # 1.
        now = self._numbers.ready(now)
        trust = succession.trust if succession else self._trust
        signers = self._keys.signers_for(trust) if succession else self.require_signers()
        check.refuse(check.change_findings(changes, trust.paths), TargetError)
        grouped = update.group_by_bin(changes, trust.layout)
        if self._recovering or (succession and succession.renews_bins):
            # After a lost history, too: clients may have seen higher numbers of any of them.
            due = set(trust.layout.names())
        else:
            due = update.bins_due(self._state, trust.layout, now, self._policy)
        numbers, now = self._numbers.take(len(grouped.keys() | due) + 2, now)  # 2.
        ground = Ground(
            self._storage, self._reader, self._policy, self._state, self._trust, signers
        )
        stage = Stage(ground, succession, numbers, now)
        try:
            stage.offline_roles()  # 3.
            bins = stage.bins(grouped, due)  # 4.
            state = stage.top(bins, extra)  # 5.
            return stage.staged(state)  # 6.
        except (OSError, RepositoryError):
            stage.discard()
            raise

    def commit(self, staged: Staged) -> None:
        """Make a staged publication the one that clients see; durable when this returns.

        What else it needs (targets) has been written through the same file system before.

        Raises:
            StaleStateError: it was not built upon what is committed now.
            OSError: the disk. `timestamp_version` tells whether clients see it.
        """
        if staged.base_version != self._state.timestamp_version:
            raise StaleStateError(
                TIMESTAMP_FILE, f"version {staged.base_version}", str(self.timestamp_version)
            )
        try:
            self._storage.promote(staged.timestamp_version, staged.base_version)
            self._storage.settle()
        finally:
            # Done or not, reported or not: what lies there is what clients see.
            if self._storage.timestamp_version() == staged.timestamp_version:
                self._take_over(staged)

    def abandon(self, staged: Staged) -> None:
        """Remove the files of a staged publication; its numbers stay used.

        Does nothing to one that clients see already.
        """
        if self._storage.timestamp_version() != staged.timestamp_version:
            discard(self._storage, list(staged.written), staged.timestamp_version)

    def judge(self, timestamp: bytes) -> None:
        """Look at a timestamp that is served somewhere as ours.

        One that our key signed, with a higher number than we have used, or with ours and another
        content, was made by another signer: from now on, durably, nothing is signed until
        `recover`. What our key did not sign says nothing; how signatures are spelled, or what else
        stands beside them, neither: whoever serves it may write there.

        Raises:
            OSError: the disk.
        """
        try:
            seen = verify.timestamp(TIMESTAMP_FILE, timestamp, self._trust.root, None)
        except RepositoryError:
            return
        number, ours = seen.version, self.timestamp_version
        if number > max(ours, self._seen) or (
            number == ours and not self._seen and not self._is_ours(seen)
        ):
            self._storage.write_seen(number)
            self._seen = number

    def _is_ours(self, stamp: Timestamp) -> bool:
        data = self._storage.read(TIMESTAMP_FILE)
        committed = verify.timestamp(TIMESTAMP_FILE, data, self._trust.root, None)
        return canonical(committed.to_dict()) == canonical(stamp.to_dict())

    @property
    def other_signer_at(self) -> int:
        """The highest number that another signer was seen to have used; 0 for none."""
        return self._seen

    def recover(self) -> None:
        """Go on after a restored backup or a second signer, far beyond all that either has used.

        In force with the next publication, which is the caller's to make and signs all bins anew; a
        crash before it leaves all as it was. The other signer must have ended before.

        Raises:
            CounterError: no numbers are left there.
        """
        self._numbers.jump(max(self._seen, self.timestamp_version))
        self._recovering = True

    def _take_over(self, staged: Staged) -> None:
        self._state = staged.state
        self._next_due = None
        self._signers = staged.signers
        forgets = False
        if staged.succession:
            self._trust = staged.succession.trust
            forgets = staged.succession.forgets_history
        if self._seen and (self._recovering or forgets):
            self._storage.forget_seen()
            self._seen = 0
        self._recovering = False

    def _refuse_other_signer(self, succession: Succession | None) -> None:
        forgets = succession is not None and succession.forgets_history
        if self._seen and not (self._recovering or forgets):
            raise OtherSignerError(
                TIMESTAMP_FILE,
                f"no other signer with our keys ({self.timestamp_version} is our last number)",
                f"{self._seen}; end the other one, then recover",
            )

    def _refuse_numbers_of_ours(self, found: Succession) -> None:
        """Offline files count for themselves, below all that the counter has handed out."""
        lowest = min((number for _, number in check.online_numbers(self._state)), default=LIMIT)
        for file in found.files:
            name = parse_file_name(file)
            if name and name[1] >= lowest:
                raise CeremonyError(file, f"a version below {lowest}", str(name[1]))

    def _bin_targets(self, name: str) -> Mapping[str, Json]:
        facts = self._state.bins.get(name)
        return self._reader.targets(name, facts) if facts else {}


def highest_number(state: State) -> int:
    """The highest number that a publication uses."""
    fixed = (facts.version for facts in state.fixed.values())
    return max(*(number for _, number in check.online_numbers(state)), *fixed)
