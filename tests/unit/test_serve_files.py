import asyncio
import gzip
import os
import resource
import threading

import pytest

from mirror.serve.files import SMALL_MAX_BYTES, Dress, Files, Opened

PLAIN = Dress(((b"content-type", b"text/plain"),))


def test_only_regular_files_are_opened(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "real").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "way").symlink_to(tmp_path / "folder")
    (tmp_path / "folder/in").write_bytes(b"y")
    files = Files(tmp_path)
    for path in ("folder", "fifo", "link", "way/in", "", ".", "..", "../x", "/etc/passwd", "a\0b"):
        assert files.read(path) is None
        assert files.get(path, PLAIN) is None
    assert (files.read("real"), files.read("folder/in")) == (b"x", b"y")


def test_the_root_itself_may_be_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file").write_bytes(b"x")
    (tmp_path / "root").symlink_to(tmp_path / "real")
    assert Files(tmp_path / "root").read("file") == b"x"


def test_a_file_is_read_again_once_it_is_another(tmp_path):
    files = Files(tmp_path)
    (tmp_path / "file").write_bytes(b"one")
    first = files.get("file", PLAIN)
    assert files.get("file", PLAIN) is first
    (tmp_path / "new").write_bytes(b"two")
    os.replace(tmp_path / "new", tmp_path / "file")
    second = files.get("file", PLAIN)
    assert (second.body["body"], second.tag == first.tag) == (b"two", False)
    (tmp_path / "file").unlink()
    assert files.get("file", PLAIN) is None


def test_only_so_much_is_kept_and_the_oldest_goes(tmp_path):
    for name in "abc":
        (tmp_path / name).write_bytes(b"x" * 10_000)
    files = Files(tmp_path, kept_max_bytes=25_000)
    kept = {name: files.get(name, PLAIN) for name in "abc"}
    assert files.get("c", PLAIN) is kept["c"]
    assert files.get("a", PLAIN) is not kept["a"]


@pytest.mark.parametrize("more", [0, 1])
def test_what_is_big_is_left_on_the_disk(tmp_path, more):
    (tmp_path / "file").write_bytes(b"x" * (SMALL_MAX_BYTES + more))
    stored = Files(tmp_path).get("file", PLAIN)
    assert (stored.body is None, stored.length) == (more == 1, SMALL_MAX_BYTES + more)


def test_a_descriptor_closes_when_the_last_thread_has_read_it(tmp_path):
    """Closed under the thread's hands its number could be another file's: a client would get it."""
    (tmp_path / "file").write_bytes(b"these bytes")
    begun, go_on, read = threading.Event(), threading.Event(), []

    def slow(fd, length, offset):
        begun.set()
        assert go_on.wait(30)
        return os.pread(fd, length, offset)

    fd = os.open(tmp_path / "file", os.O_RDONLY)
    file = Opened(fd, slow)
    thread = threading.Thread(target=lambda: read.append(file.read(5, 6)))
    thread.start()
    assert begun.wait(30)
    file.close()  # as a request does that was cancelled
    os.fstat(fd)
    go_on.set()
    thread.join()
    assert read == [b"bytes"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert file.read(5, 0) == b""


def test_a_process_out_of_descriptors_does_not_say_that_a_file_is_absent(tmp_path):
    (tmp_path / "file").write_bytes(b"here")
    files = Files(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            files.read("file")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert files.read("file") == b"here"
    assert files.read("other") is None


def test_what_was_packed_once_is_kept_until_the_file_is_another(tmp_path):
    files = Files(tmp_path)
    (tmp_path / "file").write_bytes(b"one" * 1_000)
    first = asyncio.run(files.get_packed("file", PLAIN, "1"))
    assert asyncio.run(files.get_packed("file", PLAIN, "1")) is first
    assert gzip.decompress(first.body["body"]) == b"one" * 1_000
    (tmp_path / "new").write_bytes(b"two")
    os.replace(tmp_path / "new", tmp_path / "file")
    assert gzip.decompress(asyncio.run(files.get_packed("file", PLAIN, "2")).body["body"]) == b"two"
    (tmp_path / "file").unlink()
    assert asyncio.run(files.get_packed("file", PLAIN, "2")) is None
