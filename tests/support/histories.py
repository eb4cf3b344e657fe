"""Histories of a repository, every file kept that was signed: those too that a crash lost.

`World` publishes as we do, `PerBin` as is common elsewhere: each bin counts for itself. Both are
driven by the same stories, and attacked by the same host.
"""

import json
import shutil
from collections import defaultdict

import pytest

from tests.fakes.disk import Crash, CrashingDisk, Mode
from tests.fakes.tuf import REFUSALS, Repository, answer
from tests.support.forging import Keys, committed, described, signed_part
from tuf_repo.core import update
from tuf_repo.core.bins import BinLayout
from tuf_repo.core.roles import Policy
from tuf_repo.disk import PosixDisk
from tuf_repo.storage import parse_file_name

BITS = 2
PATHS = [f"index/1/{letter}" for letter in "abcdefghij"]


class KeepingDisk:
    """Any disk; what is written to a metadata folder is kept, whatever becomes of it there."""

    def __init__(self, disk, kept):
        self._disk = disk
        self._kept = kept

    def write_new(self, path, data, *, mode=0o644):
        name = parse_file_name(path.name)
        if name and name[0] != "root":  # Roots are numbered by themselves.
            self._kept[name[1]].add(data)
        self._disk.write_new(path, data, mode=mode)

    def __getattr__(self, name):
        return getattr(self._disk, name)


class World:
    """One repository through starts, crashes and restores; `kept`: number -> contents signed."""

    def __init__(self, base, kept=None):
        self.base = base
        self.kept = defaultdict(set) if kept is None else kept
        self.repository = Repository(base, bits=BITS, policy=Policy(block=50))
        self.publisher = None

    def begin(self):
        self.base.mkdir()
        self.repository.use(self._keeping(PosixDisk(self.base))).init()
        return self.start()

    def start(self, *, entropy=0, later=0):
        """A new process, so many seconds later, that drew this random number."""
        self.repository.now += later
        self.repository.entropy = entropy
        self.repository.use(self._keeping(PosixDisk(self.base)))
        self.publisher = self.repository.open()
        return self

    def publish(self, changes):
        self.repository.publish(self.publisher, changes)

    def crash_before_the_timestamp(self, changes):
        """Stop when all bins and the snapshot are there, at the rename that would commit them."""
        rehearsal = self.base.with_name(f"{self.base.name}.rehearsal")
        shutil.copytree(self.base, rehearsal)
        copy = Repository(rehearsal, policy=self.repository.policy, now=self.repository.now)
        disk = CrashingDisk(rehearsal)
        copy.publish(copy.use(disk).open(), changes)
        shutil.rmtree(rehearsal)
        commit = next(n for n, words in enumerate(disk.log) if words.endswith("to timestamp.json"))
        disk = CrashingDisk(self.base, stop_at=commit, mode=Mode.LOST)
        with pytest.raises(Crash):
            self.repository.publish(self.repository.use(self._keeping(disk)).open(), changes)

    def copied(self, base):
        """A copy of the whole folder, as a backup has it; what was ever signed is one record."""
        shutil.copytree(self.base, base)
        other = type(self)(base, self.kept)
        other.repository.now = self.repository.now
        return other

    def _keeping(self, disk):
        return KeepingDisk(disk, self.kept)


class PerBin(World):
    """The common way: a bin's next version is its last one and one more."""

    def start(self, *, entropy=0, later=0):
        self.repository.now += later
        self.disk = self._keeping(PosixDisk(self.base))
        return self

    def publish(self, changes):
        self._stage(changes)
        stamp = self.base / "staged"
        stamp.rename(self.repository.metadata / "timestamp.json")

    def crash_before_the_timestamp(self, changes):
        self._stage(changes)
        (self.base / "staged").unlink()

    def _stage(self, changes):
        repository, keys = self.repository, Keys(self.repository)
        now, policy, folder = repository.now, repository.policy, repository.metadata
        files = committed(repository)
        versions = {role: int(file.split(".")[0]) for role, file in files.items()}
        for name, change in update.group_by_bin(changes, BinLayout("crates", BITS)).items():
            old = signed_part(folder / files[name])["targets"]
            versions[name] += 1
            targets = update.apply_changes(old, change)
            signed = update.next_bin(name, versions[name], targets, now, policy)
            self._write(update.file_name(name, versions[name]), keys.sign(name, signed))
        fixed = {
            role: described(folder / files[role], versions[role]) for role in ("targets", "crates")
        }
        bins = {
            name: update.BinFacts(version, 0, b"", ())
            for name, version in versions.items()
            if name.startswith("crates-")
        }
        number = versions["snapshot"] + 1
        fields = update.next_snapshot(number, fixed, bins, now, policy)
        snapshot = update.file_name("snapshot", number)
        self._write(snapshot, keys.sign("snapshot", fields))
        stamp = update.next_timestamp(number, described(folder / snapshot, number), {}, now, policy)
        (self.base / "staged").write_bytes(keys.sign("timestamp", stamp))

    def _write(self, file, data):
        # What an orphan left under that name is in the way, and is written over.
        (self.repository.metadata / file).unlink(missing_ok=True)
        self.disk.write_new(self.repository.metadata / file, data)


def successes(world, cache, *, thorough=False):
    """Attack what is committed; return what was believed though it is not what is published.

    For each path the host answers its bin's file with every other content of the same number, of
    whatever bin and generation. `thorough`: for one path of each bin, with every content there is.
    """
    repository = world.repository
    files = committed(repository)
    believed = []
    bin_of = BinLayout("crates", BITS).bin_of
    one_each = {bin_of(path): path for path in PATHS}.values()
    for path in one_each if thorough else PATHS:
        role = bin_of(path)
        file = files[role]
        genuine = (repository.metadata / file).read_bytes()
        fields = json.loads(genuine)["signed"]["targets"].get(path)
        truth = fields["length"] if fields else None
        same_number = world.kept[int(file.split(".")[0])]
        every = set().union(*world.kept.values()) if thorough else same_number
        for wrong in every - {genuine}:
            got = answer(repository, cache, {file: wrong}, path)
            if not isinstance(got, REFUSALS) and (got and got.length) != truth:
                believed.append((path, got and got.length, truth))
    return believed
