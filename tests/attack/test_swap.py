"""A host without keys answers one bin with another's file; stock clients must refuse every one.

All bins share a key, and a bin's file does not name its bin in a field that stock clients look at.
So what stands between a swap and "no such crate" is the number alone: snapshot and file must agree
on it.
"""

import itertools
import shutil

import pytest

from tests.fakes.disk import Crash, CrashingDisk, Mode
from tests.fakes.tuf import REFUSALS, Repository, answer, target
from tests.support.forging import publish_with_numbers_per_bin
from tuf_repo.check import check_repository
from tuf_repo.core import update
from tuf_repo.core.bins import BinLayout
from tuf_repo.disk import PosixDisk
from tuf_repo.storage import parse_file_name

PATHS = [f"index/1/{letter}" for letter in "abcdefghijklmnop"]


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """Generations of publications, some stopped or dropped half-way; no file was removed."""
    base = tmp_path_factory.mktemp("history") / "data"
    base.mkdir()
    repository = Repository(base)
    repository.init()
    snapshots = []
    for generation in range(6):
        changes = {path: target(generation + 1) for path in PATHS[generation::2]}
        stop_at = 4 + generation
        disk = CrashingDisk(base, stop_at=stop_at, mode=list(Mode)[generation % 3])
        with pytest.raises(Crash):
            repository.publish(repository.use(disk).open(), changes)
        publisher = repository.use(PosixDisk(base)).open()
        publisher.stage({PATHS[generation]: None}, {}, now=repository.now)  # left lying there
        repository.publish(publisher, changes)
        snapshots.append((repository.metadata / "timestamp.json").read_bytes())
    return repository, snapshots


def bin_files(repository):
    """Every bin's file that ever was, orphans too: name -> (role, number)."""
    names = {file: parse_file_name(file) for file in repository.folder().files()}
    return {f: n for f, n in names.items() if n and n[0].startswith("crates-")}


def named_bins(repository):
    """Bin -> file, as the committed snapshot has it."""
    return {
        parse_file_name(file)[0]: file
        for file in repository.open().current_files()
        if "crates-" in file
    }


def test_no_two_files_of_different_bins_ever_have_one_number(history):
    repository, _ = history
    numbers = [number for _, number in bin_files(repository).values()]
    assert len(numbers) > 25
    assert len(numbers) == len(set(numbers))


def test_every_swap_of_every_generation_is_refused(history, tmp_path):
    repository, generations = history
    tried = 0
    latest = (repository.metadata / "timestamp.json").read_bytes()
    for stamp in generations:
        (repository.metadata / "timestamp.json").write_bytes(stamp)
        named = named_bins(repository)
        for path in PATHS[:4]:
            right = named[BinLayout("crates", repository.bits).bin_of(path)]
            assert not isinstance(answer(repository, tmp_path / "c", {}, path), Exception)
            for wrong in bin_files(repository).keys() - {right}:
                got = answer(repository, tmp_path / "c", {right: wrong}, path)
                assert isinstance(got, REFUSALS), f"{wrong} passed for {right}"
                tried += 1
    (repository.metadata / "timestamp.json").write_bytes(latest)
    assert tried > 600


def test_targets_and_the_delegation_cannot_stand_for_each_other(history, tmp_path):
    repository, _ = history
    for right, wrong in itertools.permutations(["1.targets.json", "2.crates.json"]):
        got = answer(repository, tmp_path / "c", {right: wrong}, PATHS[0])
        assert isinstance(got, REFUSALS)


def test_with_numbers_per_bin_every_swap_would_succeed(history, tmp_path):
    """The control: this host and these clients, and the one rule that is missing."""
    base = tmp_path / "data"
    shutil.copytree(history[0].base, base)
    repository = Repository(base)
    publish_with_numbers_per_bin(repository)
    layout = BinLayout("crates", repository.bits)
    believed = 0
    for path in PATHS:
        role = layout.bin_of(path)
        right = update.file_name(role, 10**9)
        assert answer(repository, tmp_path / "c", {}, path) is not None
        for other in set(layout.names()) - {role}:
            swap = {right: update.file_name(other, 10**9)}
            assert answer(repository, tmp_path / "c", swap, path) is None  # "no such crate"
            believed += 1
    assert believed == 3 * len(PATHS)


def test_our_check_refuses_a_bin_signed_for_another_name(history, tmp_path):
    """What stock clients overlook, `x-role` shows to `check` and to our own."""
    base = tmp_path / "data"
    shutil.copytree(history[0].base, base)
    repository = Repository(base)
    publish_with_numbers_per_bin(repository)
    first, second = (
        repository.metadata / update.file_name(f"crates-{number}", 10**9) for number in (0, 1)
    )
    first.write_bytes(second.read_bytes())
    found = [str(finding) for finding in check_repository(repository.folder(), now=repository.now)]
    assert any("x-role crates-0, got 'crates-1'" in text for text in found)
