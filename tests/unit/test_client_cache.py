"""The client's cache: nothing in it is believed, and nothing in it makes anything fail."""

import fcntl
import hashlib
import os
import subprocess
import sys

import pytest

from mirror.client.source.cache import Cache, open_cache, own_cache
from mirror.errors import MachineError

DATA = b"a line of an index file\n" * 100
SHA256 = hashlib.sha256(DATA).hexdigest()
LARGE = 1_000_000


@pytest.fixture
def cache(tmp_path):
    with open_cache(tmp_path / "cache" / "root", LARGE) as cache:
        yield cache


def place(cache):
    return cache.folder / "blobs" / SHA256[:2] / SHA256


def open_files():
    return len(os.listdir("/proc/self/fd"))


def test_what_is_kept_is_there(cache):
    assert cache.blob(SHA256, LARGE) is None
    assert not cache.has_blob(SHA256)
    cache.keep_blob(SHA256, DATA)
    assert cache.blob(SHA256, LARGE) == DATA
    assert cache.has_blob(SHA256)
    cache.keep_metadata("crates-0.json", b"{}")
    assert cache.metadata("crates-0.json", 2) == b"{}"
    assert cache.metadata("crates-0.json", 1) is None


def test_what_is_kept_is_there_the_next_time_and_is_for_this_user_alone(tmp_path):
    folder = tmp_path / "cache" / "root"
    for _ in range(2):
        with open_cache(folder, LARGE) as cache:
            cache.keep_blob(SHA256, DATA)
    with open_cache(folder, LARGE) as cache:
        assert cache.blob(SHA256, LARGE) == DATA
        for path in (folder, folder / "blobs", place(cache).parent):
            assert path.stat().st_mode & 0o777 == 0o700
        assert place(cache).stat().st_mode & 0o777 == 0o600


# ---- somebody edits it


def a_changed_byte(place, _elsewhere):
    place.write_bytes(b"b" + DATA[1:])


def a_shorter_file(place, _elsewhere):
    place.write_bytes(DATA[:-1])


def a_link_to_something_else(place, elsewhere):
    place.unlink()
    place.symlink_to(elsewhere)


def a_fifo(place, _elsewhere):
    place.unlink()
    os.mkfifo(place)


def a_folder(place, _elsewhere):
    place.unlink()
    (place / "in" / "it").mkdir(parents=True)


def a_giant(place, _elsewhere):
    os.truncate(place, 2**40)


def nothing(place, _elsewhere):
    place.unlink()


EDITS = [
    a_changed_byte,
    a_shorter_file,
    a_link_to_something_else,
    a_fifo,
    a_folder,
    a_giant,
    nothing,
]


@pytest.mark.parametrize("edit", EDITS)
def test_what_somebody_put_there_is_never_handed_out_and_leaves_nothing_open(cache, tmp_path, edit):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"the user's")
    cache.keep_blob(SHA256, DATA)
    edit(place(cache), elsewhere)
    before = open_files()
    for _ in range(3):
        assert cache.blob(SHA256, LARGE) is None
        cache.keep_blob(SHA256, DATA)
        if edit is a_folder:
            continue  # A folder with something in it stays: the file is fetched each time.
        assert cache.blob(SHA256, LARGE) == DATA
        place(cache).unlink()
    assert open_files() == before
    assert elsewhere.read_bytes() == b"the user's"
    assert [each for each in place(cache).parent.iterdir() if each.name.endswith(".tmp")] == []


def test_a_fifo_is_no_metadata_either(cache):
    cache.keep_metadata("a.json", b"{}")
    a_fifo(cache.folder / "metadata" / "a.json", None)
    assert cache.metadata("a.json", LARGE) is None


def test_a_file_with_the_right_bytes_behind_a_link_is_not_followed_to(cache, tmp_path):
    (tmp_path / "elsewhere").write_bytes(DATA)
    cache.keep_blob(SHA256, DATA)
    a_link_to_something_else(place(cache), tmp_path / "elsewhere")
    assert cache.blob(SHA256, LARGE) is None


@pytest.mark.parametrize("level", ["blobs", SHA256[:2]])
def test_a_folder_of_ours_that_became_a_link_is_neither_read_nor_written_through(
    cache, tmp_path, level
):
    cache.keep_blob(SHA256, DATA)
    elsewhere = tmp_path / "elsewhere"
    link = next(each for each in place(cache).parents if each.name == level)
    link.rename(elsewhere)
    link.symlink_to(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    assert cache.blob(SHA256, LARGE) is None
    other = hashlib.sha256(b"other").hexdigest()
    cache.keep_blob(SHA256, DATA)
    cache.keep_blob(other, b"other")
    assert sorted(elsewhere.rglob("*")) == before
    assert cache.blob(SHA256, LARGE) == DATA


def test_a_cache_whose_folder_is_gone_or_full_of_others_things_costs_requests_and_no_error(
    tmp_path,
):
    cache = Cache(tmp_path / "nowhere", LARGE)
    cache.keep_blob(SHA256, DATA)
    cache.keep_metadata("a.json", DATA)
    cache.prune()
    assert cache.blob(SHA256, LARGE) is None
    assert cache.metadata("a.json", LARGE) is None


def test_a_file_that_is_cut_short_for_want_of_room_is_not_kept(tmp_path):
    script = (
        "import resource, sys, signal; from pathlib import Path\n"
        "from mirror.client.source.cache import Cache\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "Cache(Path(sys.argv[1]), 10**6).keep_blob(sys.argv[2], sys.argv[2].encode() * 100)\n"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path, SHA256], check=True)
    assert list((tmp_path / "blobs" / SHA256[:2]).iterdir()) == []


# ---- one process at a time


def test_a_second_process_reads_what_the_first_kept_and_writes_for_itself_alone(tmp_path):
    folder = tmp_path / "cache" / "root"
    other = hashlib.sha256(b"other").hexdigest()
    with open_cache(folder, LARGE) as first:
        first.keep_blob(SHA256, DATA)
        with open_cache(folder, LARGE) as second:
            assert second.folder != folder
            assert second.blob(SHA256, LARGE) == DATA
            second.keep_blob(other, b"other")
            assert second.blob(other, LARGE) == b"other"
        assert not second.folder.exists()
        assert first.blob(other, LARGE) is None
    with open_cache(folder, LARGE) as third:
        assert third.folder == folder


def test_who_has_the_cache_holds_its_lock(tmp_path):
    folder = tmp_path / "cache" / "root"
    with (
        open_cache(folder, LARGE),
        (folder / "lock").open("rb") as file,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_a_lock_that_is_none_leaves_a_cache_of_ones_own(tmp_path, kind):
    folder = tmp_path / "cache" / "root"
    with open_cache(folder, LARGE):
        pass
    (folder / "lock").unlink()
    if kind == "link":
        (folder / "lock").symlink_to(tmp_path / "made")
    else:
        (folder / "lock").mkdir()
    with open_cache(folder, LARGE) as cache:
        cache.keep_blob(SHA256, DATA)
        assert cache.blob(SHA256, LARGE) == DATA
        assert cache.folder != folder
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("wrong", ["open to others", "a link"])
def test_a_folder_that_is_not_ours_alone_is_refused(tmp_path, wrong):
    folder = tmp_path / "cache"
    (tmp_path / "real").mkdir(mode=0o700)
    if wrong == "a link":
        folder.symlink_to(tmp_path / "real")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    with pytest.raises(MachineError, match=str(folder)), open_cache(folder / "root", LARGE):
        pass


def test_ones_own_cache_is_gone_afterwards():
    with own_cache() as cache:
        cache.keep_blob(SHA256, DATA)
        assert cache.folder.stat().st_mode & 0o777 == 0o700
    assert not cache.folder.exists()


# ---- its size


def test_the_oldest_files_go_when_there_is_too_much(tmp_path):
    cache = Cache(tmp_path, 2_000)
    blobs = [bytes([number]) * 500 for number in range(6)]
    for number, data in enumerate(blobs):
        sha256 = hashlib.sha256(data).hexdigest()
        cache.keep_blob(sha256, data)
        file = tmp_path / "blobs" / sha256[:2] / sha256
        if file.exists():
            os.utime(file, (number, number))
    cache.prune()
    kept = [cache.blob(hashlib.sha256(data).hexdigest(), LARGE) is not None for data in blobs]
    assert kept == [False, False, True, True, True, True]


def test_a_cache_is_within_its_size_when_it_is_closed(tmp_path):
    folder = tmp_path / "cache" / "root"
    with open_cache(folder, 3_000) as cache:
        for number in range(10):
            data = bytes([number]) * 500
            cache.keep_blob(hashlib.sha256(data).hexdigest(), data)
    sizes = [file.stat().st_size for file in (folder / "blobs").rglob("*") if file.is_file()]
    assert sum(sizes) == 3_000


def test_what_a_link_leads_to_is_not_pruned(cache, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "the user's").write_bytes(b"x" * 2 * LARGE)
    cache.keep_blob(SHA256, DATA)
    (cache.folder / "blobs" / "zz").symlink_to(elsewhere)
    (cache.folder / "blobs" / SHA256[:2] / "a").symlink_to(elsewhere / "the user's")
    cache.prune()
    assert (elsewhere / "the user's").exists()
    assert cache.blob(SHA256, LARGE) == DATA
