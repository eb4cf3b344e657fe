"""The real server process, with no sync and no signer beside it."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.fakes.www import CACHE, COMPLETE, FakeWww, index_line
from tests.support.processes import wait_until
from tests.support.serve_alone import listening, serving, start

CRATE = os.urandom(40_000)
BIG = os.urandom(3_000_000)
PATH = "/index/se/rd/serde"
CARGO = {
    "User-Agent": "cargo/1.95.0",
    "Accept-Encoding": "gzip",
    "Connection": "Upgrade, HTTP2-Settings",
    "Upgrade": "h2c",
    "HTTP2-Settings": "AAMAAABkAAQAoAAAAAIAAAAA",
}


def make_www(data, state):
    www = FakeWww(data / "www", state=state)
    www.put_index("serde", index_line("serde", "1.0.0", CRATE), index_line("serde", "2.0.0", BIG))
    www.put_crate("serde", "1.0.0", CRATE)
    www.put_crate("serde", "2.0.0", BIG)
    www.publish()
    www.link_index()
    return www


@pytest.fixture
def www(tmp_path):
    return make_www(tmp_path, COMPLETE)


def ready(url):
    return wait_until(lambda: _status(url + "/healthz") == 200)


def _status(url):
    try:
        return httpx.get(url, timeout=10).status_code
    except httpx.HTTPError:
        return None


def exchange(url, *pieces, pause=0.05):
    """Write these bytes on one connection; return all that comes back until it ends or is idle."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=2) as sock:
        for piece in pieces:
            sock.sendall(piece)
            time.sleep(pause)
        received = b""
        while True:
            try:
                data = sock.recv(65536)
            except TimeoutError:
                return received
            if not data:
                return received
            received += data


def test_without_its_line_in_the_bin_an_index_file_is_404(www):
    www.drop("index/se/rd/serde")
    www.publish()
    with serving(www.root.parent) as (_, url):
        ready(url)
        assert _status(url + PATH) == 404
        assert _status(url + "/crates/serde/serde-1.0.0.crate") == 404


def test_in_mode_cache_it_is_503_and_never_the_file(tmp_path):
    www = make_www(tmp_path, CACHE)
    www.drop("index/se/rd/serde")
    www.publish()
    with serving(tmp_path) as (_, url):
        ready(url)
        for path in (PATH, "/crates/serde/serde-1.0.0.crate"):
            answer = httpx.get(url + path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert len(answer.content) < 200


def test_a_publication_is_seen_at_the_next_request(www):
    with serving(www.root.parent) as (_, url):
        ready(url)
        for version in range(3, 10):
            www.put_index("serde", index_line("serde", f"{version}.0.0"))
            www.publish()
            assert httpx.get(url + PATH).json()["vers"] == f"{version}.0.0"


def test_cargos_offer_of_http2_is_met_without_a_word(www, tmp_path):
    log = tmp_path / "log"
    with log.open("wb") as stderr, serving(www.root.parent, stderr=stderr) as (_, url):
        ready(url)
        with httpx.Client() as client:
            for path in (PATH, "/crates/serde/serde-1.0.0.crate", "/index/config.json"):
                answer = client.get(url + path, headers=CARGO)
                assert (answer.status_code, answer.http_version) == (200, "HTTP/1.1")
                assert "server" not in answer.headers
    assert log.read_bytes() == b""


def test_malformed_requests_are_answered_and_fill_no_log(www, tmp_path):
    log = tmp_path / "log"
    with log.open("wb") as stderr, serving(www.root.parent, stderr=stderr) as (_, url):
        ready(url)
        for _ in range(20):
            assert b"400 Bad Request" in exchange(url, b"\x16\x03\x01 no HTTP\r\n\r\n", pause=0)
    assert log.read_bytes() == b""


def test_without_a_mirror_it_says_so_once_and_serves_when_there_is_one(tmp_path):
    log = tmp_path / "log"
    with log.open("wb") as stderr, serving(tmp_path, stderr=stderr) as (_, url):
        ready(url)
        answer = httpx.get(url + "/readyz")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        make_www(tmp_path, COMPLETE)
        assert _status(url + "/readyz") == 200
    text = log.read_text()
    assert text.count("\n") == 1
    assert f"until there is a mirror in {tmp_path}: `crateseal up` makes one" in text


def test_a_connection_is_used_again_and_again(www):
    request = f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    last = f"GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    with serving(www.root.parent) as (_, url):
        ready(url)
        assert exchange(url, request, request, last).count(b"HTTP/1.1 200") == 3
        assert exchange(url, request + request + last).count(b"HTTP/1.1 200") == 3


def test_a_big_crate_comes_whole_to_a_slow_reader(www):
    with serving(www.root.parent) as (_, url):
        ready(url)
        with httpx.stream("GET", url + "/crates/serde/serde-2.0.0.crate") as answer:
            received = b""
            for piece in answer.iter_raw(300_000):
                received += piece
                time.sleep(0.01)
        assert received == BIG


@pytest.mark.parametrize(
    "target",
    [
        b"/index/../../secret",
        b"/index/%2e%2e/%2e%2e/secret",
        b"/index/..%2f..%2fsecret",
        b"/crates/serde/../../../secret",
        b"/tuf/metadata/../../../secret",
        b"/tuf/metadata/..%00/1.root.json",
        b"/tuf/targets/%2e%2e/%2e%2e/%2e%2e/secret",
        b"//secret",
        b"/\xff\xfe",
        b"/%ff%fe",
        b"/index/%f0%9f%a6%80",
        b"secret",
        b"*",
        b"http://x/../secret",
        b"http://x",
        b"/" + b"a" * 70_000,
    ],
)
def test_whatever_stands_in_the_request_line_gets_an_answer_and_no_secret(www, target):
    (www.root.parent / "secret").write_bytes(b"s3cr3t")
    with serving(www.root.parent) as (_, url):
        ready(url)
        head = b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer = exchange(url, head)
        assert answer[9:12] in {b"404", b"400"} or (target == b"http://x" and b" 200 " in answer)
        assert b"s3cr3t" not in answer


def test_told_to_end_it_answers_those_who_wait_and_those_who_come(tmp_path):
    make_www(tmp_path, CACHE)
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as silent, serving(tmp_path) as (process, url):
        silent.bind(str(tmp_path / "run/sync.sock"))
        silent.listen(9)
        ready(url)
        with ThreadPoolExecutor() as pool, httpx.Client() as idle:
            idle.get(url + PATH)
            waiting = pool.submit(httpx.get, url + "/index/to/ki/tokio", timeout=20)
            with _asked_for(silent, b"tokio"):
                process.send_signal(signal.SIGTERM)
                answer = waiting.result()
                last = idle.get(url + PATH)  # on a connection that was idle at the end
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert (last.status_code, last.headers["connection"]) == (200, "close")
        assert process.wait(30) == 0


def _asked_for(silent, name):
    """Return the connection of the want for a name; the hints on the way get no answer."""
    while True:
        question, _ = silent.accept()
        if name in question.recv(65536):
            return question
        question.close()


def test_one_server_follows_another_on_the_same_socket_and_nobody_is_refused(www):
    """As `up` does it: the parent holds the socket, servers come and go."""
    failures, count, done = [], [0], threading.Event()

    def keep_asking(url):
        while not done.is_set():
            try:
                answer = httpx.get(url + PATH, timeout=10)
                count[0] += answer.status_code == 200
            except httpx.HTTPError as error:
                failures.append(error)

    with listening() as (sock, url), ThreadPoolExecutor() as pool:
        process = start(sock, www.root.parent)
        ready(url)
        asking = [pool.submit(keep_asking, url) for _ in range(3)]
        for _ in range(2):
            time.sleep(0.3)
            process.terminate()
            process.wait(10)
            process = start(sock, www.root.parent)
            wait_until(lambda: _status(url + "/healthz") == 200)
        done.set()
        for each in asking:
            each.result()
        process.terminate()
        process.wait(10)
    assert failures == []
    assert count[0] > 10


def test_it_needs_nothing_but_to_read_www(www):
    """Nothing is written, and nothing outside of www/ and run/sync.sock is opened."""
    data = www.root.parent
    for hidden in ("keys", "ledger.sqlite3", "spool"):
        (data / hidden).write_bytes(b"not for servers")
    before = _tree(data)
    with serving(data) as (process, url):
        ready(url)
        for path in (PATH, "/", "/api/v1/status", "/crates/serde/serde-2.0.0.crate", "/readyz"):
            assert _status(url + path) == 200
        names = subprocess.run(
            ["ls", "-l", f"/proc/{process.pid}/fd"], capture_output=True, text=True, check=False
        ).stdout
        maps = Path(f"/proc/{process.pid}/maps").read_text()
    for hidden in ("keys", "ledger", "spool"):
        assert str(data / hidden) not in names + maps
    assert "/tuf/api/" not in maps
    assert _tree(data) == before


def _tree(folder):
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in folder.rglob("*")
        if not stat.S_ISDIR(path.lstat().st_mode)
    }


def test_head_and_body_go_out_in_one_write(www, tmp_path):
    """Else Nagle and a delayed acknowledgement can cost 40 ms a crate."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    log = tmp_path / "strace"
    log.touch()
    with serving(www.root.parent) as (process, url), httpx.Client() as client:
        ready(url)
        traced = "trace=write,writev,sendto,sendmsg"
        command = [strace, "-f", "-o", log, "-e", traced, "-p", str(process.pid)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as tracer:
            try:
                # Answers before strace is attached leave no line.
                wait_until(lambda: client.get(url + PATH) and b"HTTP/1.1 200" in log.read_bytes())
                client.get(url + "/crates/serde/serde-1.0.0.crate")
            finally:
                tracer.terminate()
    lines = [line for line in log.read_text().splitlines() if "HTTP/1.1 200" in line]
    assert int(lines[-1].rpartition("=")[2]) > len(CRATE)


def test_a_small_answer_does_not_wait_for_an_acknowledgement(www):
    with serving(www.root.parent) as (_, url), httpx.Client() as client:
        ready(url)
        times = []
        for _ in range(20):
            began = time.perf_counter()
            client.get(url + "/crates/serde/serde-1.0.0.crate")
            times.append(time.perf_counter() - began)
        assert sorted(times)[10] < 0.03
