"""Cargo.lock, of all versions and from strangers."""

import pytest

from mirror.errors import UsageError
from mirror.store.lockfile import read_lock
from tests.support.mirror_folder import CRATES_IO, locked


def lock_of(tmp_path, text):
    path = tmp_path / "Cargo.lock"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_lock(path)


def test_packages_of_crates_io_are_told_from_others(tmp_path):
    lock = lock_of(
        tmp_path,
        locked("a", "1.0.0", "1" * 64)
        + locked("b", "1.0.0+x", "2" * 64, source="sparse+https://index.crates.io/")
        + locked("c", "1.0.0", "3" * 64, source="registry+https://example.org/index")
        + '[[package]]\nname = "own"\nversion = "0.0.0"\n',
    )
    assert [str(each) for each in lock.crates] == ["a 1.0.0", "b 1.0.0+x"]
    assert lock.crates[1].checksum == "2" * 64
    assert lock.not_covered == ("c 1.0.0 (registry+https://example.org/index)",)
    assert lock.local == 1


def test_a_lock_of_version_1_keeps_its_checksums_in_a_table(tmp_path):
    package = f'[[package]]\nname = "a"\nversion = "1.0.0"\nsource = "{CRATES_IO}"\n'
    table = f'[metadata]\n"checksum a 1.0.0 ({CRATES_IO})" = "{"1" * 64}"\n'
    assert lock_of(tmp_path, package + table).crates[0].checksum == "1" * 64


def test_a_lock_that_names_nothing_is_a_lock(tmp_path):
    assert lock_of(tmp_path, "version = 4\n").crates == ()


@pytest.mark.parametrize(
    "text",
    [
        "no toml",
        b"\xff\xfe",
        "package = 3",
        "package = [3]",
        "[[package]]\n",
        '[[package]]\nname = "a"\n',
        '[[package]]\nname = 1\nversion = "1.0.0"\n',
        '[[package]]\nname = "../a"\nversion = "1.0.0"\n',
        '[[package]]\nname = "a"\nversion = "1/../0"\n',
        "a = " + "[" * 10_000,
    ],
)
def test_what_is_no_lock_file_is_refused(tmp_path, text):
    with pytest.raises(UsageError, match="not a lock file"):
        lock_of(tmp_path, text)


@pytest.mark.parametrize("checksum", ["", "checksum = 3\n", "[metadata]\n"])
def test_a_package_without_a_checksum_is_kept_as_such(tmp_path, checksum):
    package = f'[[package]]\nname = "a"\nversion = "1.0.0"\nsource = "{CRATES_IO}"\n'
    assert lock_of(tmp_path, package + checksum).crates[0].checksum is None


def test_a_lock_that_is_not_there_says_how_to_name_one(tmp_path):
    with pytest.raises(UsageError, match="--lock"):
        read_lock(tmp_path / "Cargo.lock")
