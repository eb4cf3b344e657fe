"""All of a data folder, as `tuf-repo check --data` looks at it: targets, counter, extra files."""

import os
import shutil

import pytest

from tests.fakes.tuf import NOW, Repository, target
from tuf_repo.check import check_data, folder_reader
from tuf_repo.core.numbers import Reservation
from tuf_repo.folder import DataFolder

CHANGES = {f"index/1/{letter}": target(5) for letter in "abcdefgh"}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    base = tmp_path_factory.mktemp("original") / "data"
    base.mkdir()
    repository = Repository(base)
    repository.init()
    repository.publish(repository.open(), CHANGES)
    changes = {path: repository.put(path, path.encode()) for path in CHANGES}
    repository.publish(repository.open(), changes)
    return base


@pytest.fixture
def data(original, tmp_path):
    shutil.copytree(original, tmp_path / "data")
    return DataFolder(tmp_path / "data")


def all_found(folder, kept=None):
    return [str(finding) for finding in check_data(folder, now=NOW, kept=kept)]


def target_file(folder, path):
    parent, _, name = path.rpartition("/")
    (file,) = (folder.targets / parent).glob(f"*.{name}")
    return file


def test_a_sound_data_folder_has_no_findings(data):
    assert all_found(data) == []


def test_every_wrong_target_is_named(data):
    target_file(data, "index/1/a").unlink()
    target_file(data, "index/1/b").write_bytes(b"index/1/B")
    target_file(data, "index/1/c").write_bytes(b"longer than it was")
    file = target_file(data, "index/1/d")
    file.unlink()
    file.mkdir()
    file = target_file(data, "index/1/e")
    file.unlink()
    file.symlink_to("elsewhere")
    file = target_file(data, "index/1/f")
    file.unlink()
    os.mkfifo(file)
    words = {each.split(":")[0]: each for each in all_found(data)}
    assert sorted(words) == [f"index/1/{letter}" for letter in "abcdef"]
    assert words["index/1/a"] == "index/1/a: expected a file of 9 bytes, got none"
    assert "expected sha256" in words["index/1/b"]
    assert words["index/1/c"] == "index/1/c: expected 9 bytes, got 10"
    assert words["index/1/d"].endswith("got Is a directory")
    assert "a file that can be read" in words["index/1/e"]
    assert words["index/1/f"].endswith("got none")


def test_a_target_path_leads_nowhere_else(data):
    read = folder_reader(data.targets)
    (data.targets / "index" / f"{'0' * 64}.x").write_bytes(b"x")
    assert read("index/x", target(0)) == b"x"[:1]
    assert read("index/1/../x", target(0)) is None
    assert read("/index/x", target(0)) is None
    assert read("index/1/a/b", target(0)) is None


def test_files_that_do_not_belong_there_are_named(data):
    for name in ("notes.txt", ".tmp", "7.root.json", "8.other.json", "09.crates.json"):
        (data.metadata / name).write_bytes(b"{}")
    assert sorted(each.split(":")[0] for each in all_found(data)) == [
        ".tmp",
        "09.crates.json",
        "7.root.json",
        "8.other.json",
        "notes.txt",
    ]


def test_what_an_earlier_publication_left_is_extra_where_it_is_known_what_is_kept(data):
    before = {path.name for path in data.metadata.iterdir()}
    assert all_found(data) == []
    assert all_found(data, before) == []
    left = sorted(each.split(":")[0] for each in all_found(data, kept=()))
    assert left == sorted(before - Repository(data.path).open().current_files())
    assert len(left) == 2 * (4 + 1)  # the bins and the snapshot of two publications


def test_nothing_is_called_extra_while_it_is_unknown_what_is_named(data):
    (data.metadata / "notes.txt").write_bytes(b"{}")
    (data.metadata / "timestamp.json").unlink()
    assert [each.split(":")[0] for each in all_found(data)] == ["timestamp.json"]


def test_a_counter_that_went_back_is_found(data):
    storage = Repository(data.path).storage
    storage.write_reservation(Reservation(Repository(data.path).open().timestamp_version, 0))
    (words,) = all_found(data)
    assert words.startswith("timestamp.json: expected a number that is reserved")
    (data.state / "counter.json").unlink()
    assert all_found(data) == []  # the next start counts on from the metadata


def test_a_counter_that_does_not_read_is_found(data):
    (data.state / "counter.json").write_bytes(b"{")
    (words,) = all_found(data)
    assert "counter.json" in words
