"""What the far side fetches: with limits, from where it was told, or not at all."""

import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    SlowRetrievalError,
)

from mirror.client.fetcher import (
    DiskFetcher,
    FetchLimits,
    HttpFetcher,
    MirrorAwayError,
    checked_url,
    one_line,
)
from mirror.errors import UsageError
from tests.support.mirror_folder import answering

QUICK = FetchLimits(connect_seconds=0.5, stall_seconds=0.3, total_seconds=5.0)


@contextmanager
def fetching(answer, limits=QUICK, **outside):
    with answering(answer) as url:
        fetcher = HttpFetcher(url, limits, **outside)
        try:
            yield fetcher
        finally:
            fetcher.close()


def test_bytes_come_as_they_are_and_a_plus_stands_literally():
    asked = []

    def answer(path):
        asked.append(path)
        return 200, {}, b"\x1f\x8b raw"

    with fetching(answer) as fetcher:
        assert fetcher.read("crates/wasi/wasi-0.11.0+x.crate", 100) == b"\x1f\x8b raw"
        assert fetcher.asked.endswith("/crates/wasi/wasi-0.11.0+x.crate")
    assert asked == ["/crates/wasi/wasi-0.11.0+x.crate"]


def test_more_than_was_signed_for_is_not_read():
    with fetching(lambda _path: (200, {}, b"x" * 11)) as fetcher:
        assert fetcher.read("a", 11) == b"x" * 11
        with pytest.raises(DownloadLengthMismatchError):
            fetcher.read("a", 10)


def test_a_redirect_is_not_followed():
    answer = (302, {"Location": "http://elsewhere.example/"}, b"")
    with (
        fetching(lambda _path: answer) as fetcher,
        pytest.raises(MirrorAwayError, match=r"leads to 'http://elsewhere.example/'"),
    ):
        fetcher.read("a", 10)


@pytest.mark.parametrize("status", [404, 403])
def test_a_refusal_keeps_its_status_and_its_reason(status):
    with (
        fetching(lambda _path: (status, {}, b"denied:\x1b[2J\nbad")) as fetcher,
        pytest.raises(DownloadHTTPError, match=r"denied: \[2J bad") as caught,
    ):
        fetcher.read("a", 10)
    assert caught.value.status_code == status


@pytest.mark.parametrize("status", [429, 500, 502])
def test_a_mirror_that_fails_is_away(status):
    with fetching(lambda _path: (status, {}, b"")) as fetcher, pytest.raises(MirrorAwayError):
        fetcher.read("a", 10)


def test_a_mirror_that_is_still_fetching_is_asked_again_when_it_says():
    answers = [(503, {"Retry-After": "2"}, b""), (503, {"Retry-After": "900"}, b"")]
    pauses = []
    with fetching(
        lambda _path: answers.pop(0) if answers else (200, {}, b"ok"),
        FetchLimits(total_seconds=60.0),
        sleep=pauses.append,
    ) as fetcher:
        assert fetcher.read("a", 10) == b"ok"
    assert pauses == [2.0, 10.0]


def test_a_mirror_that_never_gets_there_is_away():
    pauses = []
    with (
        fetching(lambda _: (503, {"Retry-After": "1"}, b"busy"), sleep=pauses.append) as fetcher,
        pytest.raises(MirrorAwayError, match="503: busy"),
    ):
        fetcher.read("a", 10)
    assert pauses == [1.0] * 3


def test_an_answer_that_breaks_off_is_no_answer():
    with (
        fetching(lambda _path: (200, {"Content-Length": "50"}, b"half")) as fetcher,
        pytest.raises(DownloadError),
    ):
        fetcher.read("a", 100)


def test_an_answer_that_takes_too_long_altogether_is_given_up():
    ticks = iter(range(0, 1000, 3))
    with (
        fetching(lambda _: (200, {}, b"x" * 200_000), clock=lambda: next(ticks)) as fetcher,
        pytest.raises(SlowRetrievalError),
    ):
        fetcher.read("a", 1_000_000)


def test_a_mirror_that_says_nothing_is_away():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fetcher = HttpFetcher(f"http://127.0.0.1:{listener.getsockname()[1]}", QUICK)
        with pytest.raises(MirrorAwayError, match="no answer in time"):
            fetcher.read("a", 10)
        fetcher.close()


def test_what_is_no_http_is_no_answer():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-hello\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        fetcher = HttpFetcher(f"http://127.0.0.1:{listener.getsockname()[1]}", QUICK)
        with pytest.raises(MirrorAwayError, match="broke off"):
            fetcher.read("a", 10)
        fetcher.close()
        thread.join()


def test_loopback_never_goes_through_a_proxy():
    # httpx reads the environment itself, so this needs a process of its own.
    script = (
        "import sys; from mirror.client.fetcher import *;"
        "sys.stdout.buffer.write(HttpFetcher(sys.argv[1], FetchLimits()).read('a', 10))"
    )
    variables = ("HTTP_PROXY", "http_proxy", "ALL_PROXY")
    environment = {**os.environ, **dict.fromkeys(variables, "http://127.0.0.1:1")}
    with answering(lambda _path: (200, {}, b"ok")) as url:
        argv = [sys.executable, "-c", script, url]
        assert subprocess.check_output(argv, env=environment) == b"ok"


def test_what_is_asked_for_is_sent_once_and_the_answer_is_read():
    paths = []

    def answer(path):
        paths.append(path)
        return 200, {}, b'{"pending": ["a"]}'

    with fetching(answer) as fetcher:
        assert fetcher.post("api/v1/want", {"names": ["a"]}) == {"pending": ["a"]}
    assert paths == ["/api/v1/want"]


@pytest.mark.parametrize(
    "answer",
    [
        (200, {}, b"<html>"),
        (200, {}, b"[" * 100_000),
        (200, {}, b" " * 8_000_001),
        (200, {"Content-Length": "50"}, b"{}"),
        (404, {}, b"{}"),
        (503, {"Retry-After": "5"}, b"{}"),
    ],
)
def test_without_a_good_answer_to_what_is_asked_for_there_is_none(answer):
    with fetching(lambda _path: answer) as fetcher:
        assert fetcher.post("api/v1/want", {}) is None


@pytest.mark.parametrize(
    "text", ["", "x", "file:///etc", "http://", "http://a b/", "http://a/?q", "http://a:99999/"]
)
def test_what_is_no_url_of_a_mirror_is_refused(text):
    with pytest.raises(UsageError, match="expected a URL"):
        checked_url(text)


def test_a_mirror_below_a_path_keeps_it():
    assert checked_url("https://a.example/crates//") == "https://a.example/crates/"


def test_text_from_outside_is_shown_as_one_harmless_line():
    assert one_line("a\r\n\tb \x1b[31m\x00\u202e") == "a b  [31m  "


# ---- from disk


def test_files_of_a_folder_are_read(tmp_path):
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "a").write_bytes(b"ok")
    fetcher = DiskFetcher(tmp_path)
    assert fetcher.read("index/a", 10) == b"ok"
    assert fetcher.asked == f"{tmp_path}/index/a"


@pytest.mark.parametrize("path", ["nowhere", "file/below", "."])
def test_what_is_no_file_is_not_there(tmp_path, path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DownloadHTTPError) as caught:
        DiskFetcher(tmp_path).read(path, 10)
    assert caught.value.status_code == 404


def test_no_path_leaves_the_folder(tmp_path):
    (tmp_path / "secret").write_bytes(b"s")
    (tmp_path / "www").mkdir()
    with pytest.raises(DownloadError, match="not a path of a mirror"):
        DiskFetcher(tmp_path / "www").read("../secret", 10)
