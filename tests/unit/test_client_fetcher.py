"""What the far side fetches: with limits, from where it was told, or not at all."""

import gzip
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    SlowRetrievalError,
)

from mirror.client.fetch.fetcher import (
    BadAnswerError,
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
def talking(*parts, pause=0.0, sent=None, heard=None, tls=None):
    """A host that says these bytes to whoever comes, and then no more; yield its URL."""

    def serve():
        with suppress(OSError):
            connection, _ = listener.accept()
            if tls is not None:
                connection = tls.wrap_socket(connection, server_side=True)
            with connection:
                request = connection.recv(65_536)
                if heard is not None:
                    heard.append(request)
                for part in parts:
                    connection.sendall(part)
                    if sent is not None:
                        sent.append(len(part))
                    time.sleep(pause)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def read(url, max_bytes=100, limits=QUICK):
    fetcher = HttpFetcher(url, limits)
    try:
        return fetcher.read("a", max_bytes)
    finally:
        fetcher.close()


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
        assert fetcher.where("index/a") == f"{fetcher.base}index/a"
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


def test_an_answer_that_breaks_off_in_a_chunk_is_no_answer():
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"
    with talking(head) as url, pytest.raises(MirrorAwayError, match="broke off"):
        read(url)


# ---- time


@pytest.mark.parametrize(
    "drip",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"a: b\r\n"),
        (b"", b"H"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n"),
    ],
    ids=["body", "chunks", "headers", "status line", "continue", "trailers"],
)
def test_a_trickle_of_any_part_of_an_answer_ends_at_the_deadline_of_the_whole(drip):
    hurried = replace(QUICK, total_seconds=0.4)
    start = time.monotonic()
    with talking(drip[0], *[drip[1]] * 90, pause=0.05) as url, pytest.raises(SlowRetrievalError):
        read(url, 10_000, hurried)
    assert time.monotonic() - start < 1.5


def test_a_mirror_that_takes_no_connection_is_away():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        # What fills the queue of connections; the next is not answered.
        port = listener.getsockname()[1]
        full = [socket.socket() for _ in range(3)]
        for each in full:
            each.setblocking(False)
            with suppress(BlockingIOError):
                each.connect(("127.0.0.1", port))
        with pytest.raises(MirrorAwayError, match="no connection in time"):
            read(f"http://127.0.0.1:{port}")
        for each in full:
            each.close()


# ---- bytes


@pytest.mark.parametrize(
    "flood",
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n" * 9_000),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 9_000),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65_536),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"10000\r\n" + b"x" * 65_536 + b"\r\n",
        ),
    ],
    ids=["trailers", "continue", "body", "chunks"],
)
def test_an_answer_without_end_is_read_no_further_than_what_was_asked_for(flood):
    patient = replace(QUICK, total_seconds=30.0)
    sent = []
    with (
        talking(flood[0], *[flood[1]] * 400, sent=sent) as url,
        pytest.raises(DownloadLengthMismatchError),
    ):
        read(url, 100_000, patient)
    assert sum(sent) < 12_000_000  # what fits into two sockets, and no more


def test_headers_without_end_are_no_answer():
    flood = [b"a: b\r\n" * 1_000] * 100
    with talking(b"HTTP/1.1 200 OK\r\n", *flood) as url, pytest.raises(DownloadError):
        read(url)


def test_a_length_that_is_said_to_be_too_large_is_not_waited_for():
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"
    with talking(head) as url, pytest.raises(DownloadLengthMismatchError):
        read(url)


@pytest.mark.parametrize("status", [201, 204, 206, 304])
def test_an_answer_that_nobody_asked_for_is_refused(status):
    with (
        fetching(lambda _path: (status, {}, b"")) as fetcher,
        pytest.raises(BadAnswerError, match=f"got an answer {status}"),
    ):
        fetcher.read("a", 10)


# ---- compression


def packed(data):
    return gzip.compress(data, mtime=0)


def coded(coding, body):
    return lambda _path: (200, {"Content-Encoding": coding}, body)


def test_what_may_come_compressed_is_unpacked():
    text = b"a line of an index file\n" * 1_000
    with fetching(coded("gzip", packed(text))) as fetcher:
        assert fetcher.read("a", len(text), compressed=True) == text


def test_what_cannot_be_compressed_may_be_longer_on_the_way():
    data = os.urandom(50_000)
    body = gzip.compress(data, 0)
    assert len(body) > len(data)
    with fetching(coded("gzip", body)) as fetcher:
        assert fetcher.read("a", len(data), compressed=True) == data


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (packed(b"one") + packed(b"two"), "one gzip member"),
        (packed(b"one") + b"more", "one gzip member"),
        (packed(b"one")[:-1], "cut short"),
        (b"", "cut short"),
        (b"plain", "bytes that are none"),
        (zlib.compress(b"one"), "bytes that are none"),
    ],
)
def test_compressed_is_one_whole_gzip_member_and_nothing_else(body, words):
    with fetching(coded("gzip", body)) as fetcher, pytest.raises(BadAnswerError, match=words):
        fetcher.read("a", 1_000, compressed=True)


def test_a_bomb_is_unpacked_no_further_than_what_was_asked_for():
    bomb = packed(b"\0" * 100_000_000)
    tracemalloc.start()
    try:
        with (
            fetching(coded("gzip", bomb)) as fetcher,
            pytest.raises(DownloadLengthMismatchError, match="when unpacked"),
        ):
            fetcher.read("a", 1_000_000, compressed=True)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("coding", ["gzip, gzip", "br", "deflate", "zstd", "x-gzip", "gzip;q=1"])
def test_no_other_coding_is_taken(coding):
    with (
        fetching(coded(coding, packed(packed(b"one")))) as fetcher,
        pytest.raises(BadAnswerError, match="coding"),
    ):
        fetcher.read("a", 1_000, compressed=True)


def test_what_was_packed_twice_is_unpacked_once():
    inner = packed(b"one")
    with fetching(coded("gzip", packed(inner))) as fetcher:
        assert fetcher.read("a", 1_000, compressed=True) == inner


def test_what_must_come_as_it_is_is_refused_when_compressed():
    with (
        fetching(coded("gzip", packed(b"one"))) as fetcher,
        pytest.raises(BadAnswerError, match="no compression"),
    ):
        fetcher.read("a", 1_000)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"compressed": True}, b"gzip"),
        ({"compressed": False}, b"identity"),
        ({"compressed": True, "as_it_is": True}, b"identity"),
    ],
)
def test_files_are_asked_for_compressed_unless_they_are_wanted_as_they_are(asked, said):
    heard = []
    as_it_is = asked.pop("as_it_is", False)
    with talking(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", heard=heard) as url:
        fetcher = HttpFetcher(url, QUICK, as_it_is=as_it_is)
        assert fetcher.read("a", 10, **asked) == b"ok"
        fetcher.close()
    assert b"\r\nAccept-Encoding: " + said + b"\r\n" in heard[0]


# ---- connections


def test_a_connection_is_kept_and_one_that_the_mirror_closed_is_opened_anew():
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    opened = []

    def serve(listener):
        for answers in (2, 1):  # then it closes, as after a time without requests
            connection, _ = listener.accept()
            opened.append(connection)
            with connection:
                for _ in range(answers):
                    while not connection.recv(65_536).endswith(b"\r\n\r\n"):
                        pass
                    connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        fetcher = HttpFetcher(f"http://127.0.0.1:{listener.getsockname()[1]}", QUICK)
        for _ in range(3):
            assert fetcher.read("a", 10) == b"ok"
            time.sleep(0.02)
        fetcher.close()
        thread.join()
    assert len(opened) == 2


def test_no_more_connections_are_open_than_the_limit_says():
    lock, now, most = threading.Lock(), [0], [0]

    def answer(_path):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02)
        with lock:
            now[0] -= 1
        return 200, {}, b"ok"

    with (
        fetching(answer, replace(QUICK, connections=3)) as fetcher,
        ThreadPoolExecutor(12) as pool,
    ):
        assert set(pool.map(lambda _: fetcher.read("a", 10), range(24))) == {b"ok"}
    assert most[0] == 3


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
        "import sys; from mirror.client.fetch.fetcher import *;"
        "sys.stdout.buffer.write(HttpFetcher(sys.argv[1], FetchLimits()).read('a', 10))"
    )
    variables = ("HTTP_PROXY", "http_proxy", "ALL_PROXY")
    environment = {**os.environ, **dict.fromkeys(variables, "http://127.0.0.1:1")}
    with answering(lambda _path: (200, {}, b"ok")) as url:
        argv = [sys.executable, "-c", script, url]
        assert subprocess.check_output(argv, env=environment) == b"ok"


ASKING = (
    "import sys; from mirror.client.fetch.fetcher import *;"
    "sys.stdout.buffer.write(HttpFetcher(sys.argv[1], FetchLimits(tries=1)).read('a', 10))"
)


def ask(url, **environment):
    """Fetch in a process of its own: who is asked stands in its environment."""
    kept = {name: text for name, text in os.environ.items() if "proxy" not in name.lower()}
    argv = [sys.executable, "-c", ASKING, url]
    return subprocess.run(argv, env=kept | environment, capture_output=True, check=False)


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy", "ALL_PROXY"])
def test_a_mirror_elsewhere_is_asked_through_the_proxy_that_the_environment_names(variable):
    heard = []
    with talking(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", heard=heard) as url:
        proxy = url.replace("http://", "http://me:p%40ss@")
        assert ask("http://mirror.example:8080/x", **{variable: proxy}).stdout == b"ok"
    assert heard[0].startswith(b"GET http://mirror.example:8080/x/a HTTP/1.1\r\n")
    assert b"\r\nHost: mirror.example:8080\r\n" in heard[0]
    assert b"\r\nProxy-Authorization: Basic bWU6cEBzcw==\r\n" in heard[0]


def certificate(folder):
    """Write a certificate for 127.0.0.1, which only who is told to trusts; return its path."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mirror")])
    now = datetime.now(UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    encoding, nothing = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, nothing)
    (folder / "cert.pem").write_bytes(cert.public_bytes(encoding))
    (folder / "both.pem").write_bytes(private + cert.public_bytes(encoding))
    return folder / "cert.pem"


def test_a_mirror_with_tls_is_known_by_a_certificate_of_those_that_the_system_trusts(tmp_path):
    trusted = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    with talking(answer, tls=context) as url:
        good = ask(url.replace("http", "https"), SSL_CERT_FILE=str(trusted))
    assert good.stdout == b"ok", good.stderr
    with talking(answer, tls=context) as url:
        bad = ask(url.replace("http", "https"))
    assert bad.stdout == b""
    assert b"certificate verify failed" in bad.stderr


def test_a_proxy_only_connects_us_to_a_mirror_with_tls():
    heard = []
    with talking(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", heard=heard) as url:
        ran = ask("https://mirror.example/", https_proxy=url.replace("//", "//me:pw@"))
    assert heard[0].startswith(b"CONNECT mirror.example:443 HTTP/1.")
    assert b"Proxy-Authorization: Basic bWU6cHc=" in heard[0]
    assert b"MirrorAwayError" in ran.stderr


def test_who_is_named_in_no_proxy_is_asked_directly():
    ran = ask("http://mirror.invalid/", http_proxy="http://127.0.0.1:9", no_proxy=".invalid")
    assert b"Connection refused" not in ran.stderr
    assert b"MirrorAwayError: http://mirror.invalid/a: no connection" in ran.stderr


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "https://127.0.0.1:9"])
def test_a_proxy_of_a_kind_that_cannot_be_used_is_a_usage_error(proxy):
    ran = ask("http://mirror.example/", http_proxy=proxy)
    assert b"UsageError" in ran.stderr
    assert b"NO_PROXY" in ran.stderr


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
    "text",
    [
        *("", "x", "file:///etc", "http://", "http://a b/", "http://a/?q", "http://a:99999/"),
        *("http://user:password@a/", "http://a/\u00e9/", "http://a/\u202e/", "http://a/?"),
    ],
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
    assert fetcher.where("index/a") == f"{tmp_path}/index/a"


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
