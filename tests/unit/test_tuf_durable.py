"""Files that people and the signer rely on: whole or not there, and whose they are."""

import errno
import os

import pytest

from tests.conftest import need_root
from tuf_repo import durable, strict


def no_links(source, path):
    """As on FAT, exFAT and many a network folder."""
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), source, None, path)


@pytest.mark.parametrize("link", [os.link, no_links])
def test_a_new_file_takes_no_others_place_with_or_without_hard_links(tmp_path, link):
    path = tmp_path / "file"
    durable.write_new(path, b"first", 0o600, link)
    with pytest.raises(FileExistsError):
        durable.write_new(path, b"second", 0o600, link)
    assert path.read_bytes() == b"first"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_that_fails_for_another_reason_leaves_nothing(tmp_path):
    def fails(_source, _path):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        durable.write_new(tmp_path / "file", b"data", 0o600, fails)
    assert os.listdir(tmp_path) == []


def test_a_replaced_file_is_the_old_one_where_the_disk_fails(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(TypeError):
        durable.replace(path, None)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_that_root_makes_is_that_of_its_parents_owner(tmp_path):
    need_root()
    os.chown(tmp_path, 12345, 12346)
    durable.make_folder(tmp_path / "folder")
    durable.make_folder(tmp_path / "folder")
    assert (tmp_path / "folder").stat().st_uid == 12345


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"a": 1, "a": 1}', "'a' twice"),
        (b'{"a": [{"b": 1, "b": 2}]}', "'b' twice"),
        (b"[NaN]", "NaN"),
        (b"[1.5]", "the fraction 1.5"),
        (b"[9007199254740992]", "the number 9007199254740992"),
        (b'"\\ud800"', "something else"),
        (b'"\xff"', "something else"),
        (b"{", "something else"),
        (b"[" * 100_000, "something else"),
    ],
)
def test_json_that_two_readers_read_differently_is_refused(data, said):
    with pytest.raises(ValueError, match=said) as caught:
        strict.load(data)
    assert caught.value.__context__ is None


def test_other_json_is_read():
    value = {"a": [1, -1, True, None, "é"], "b": {}}
    assert strict.load('{"a": [1, -1, true, null, "é"], "b": {}}'.encode()) == value
