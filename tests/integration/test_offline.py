"""`--offline` opens no connection to elsewhere: seen in the system calls of all the processes."""

import os
import re
import signal
import subprocess
import time

import httpx
import pytest

from tests.conftest import need
from tests.fakes.upstream import FakeUpstream
from tests.support.crates import crate_bytes, index_file
from tests.support.nginx import free_port
from tests.support.processes import CRATESEAL, Up, children_of, crateseal, environment, wait_until

INDEX = "/index/fi/ne/fine"
CRATE = "/crates/fine/fine-1.0.0.crate"
LACKING = ("/index/ot/he/other", "/crates/other/other-1.0.0.crate", "/crates/fine/fine-1.1.0.crate")
_INTERNET = re.compile(r"AF_INET6?, sin6?_port=htons\((\d+)\).*?\"([^\"]+)\"")


@pytest.fixture
def held(tmp_path):
    """A folder with a mirror that holds one crate, and the trap its upstream is from now on."""
    with FakeUpstream(tmp_path / "upstream") as upstream:
        upstream.put(INDEX, index_file("fine", "1.0.0", "1.1.0"))
        upstream.put(CRATE, crate_bytes("fine", "1.0.0"))
        upstream.put("/index/ot/he/other", index_file("other", "1.0.0"))
        up = Up("--upstream", upstream.source, cwd=tmp_path)
        try:
            assert up.wait_until_ready().get(CRATE).status_code == 200
            assert up.stop() == 130
        finally:
            up.end()
        upstream.requests.clear()
        yield tmp_path, upstream


def connections(log):
    """Return every (address, port) that a process connected or sent to, beyond unix sockets."""
    return {(found[2], int(found[1])) for found in _INTERNET.finditer(log.read_text())}


def test_offline_nothing_is_connected_to_and_what_is_held_is_served(held):
    here, upstream = held
    strace = need("strace")
    log, port = here / "strace", free_port()
    traced = (strace, "-f", "-o", log, "-e", "trace=connect,sendto,sendmsg,sendmmsg")
    # A name as upstream: a look-up would be seen too.
    options = ("--offline", "--upstream", "sparse+https://index.upstream.test/", "--port", port)
    hurry = ("--max-age", "1s", "--recheck-every", "1s")
    with subprocess.Popen(
        [*map(str, (*traced, *CRATESEAL, "up", *options, *hurry))],
        cwd=here,
        env=environment(HTTPS_PROXY=upstream.url, HTTP_PROXY=upstream.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until(lambda: _is_ready(url), 60)
            for _ in range(3):
                assert httpx.get(url + INDEX).content == upstream.read(INDEX)
                assert httpx.get(url + CRATE).content == upstream.read(CRATE)
                for path in LACKING:
                    answer = httpx.get(url + path)
                    assert (answer.status_code, answer.text.count("\n")) == (404, 1)
                    assert "offline" in answer.text
                want = httpx.post(url + "/api/v1/want", json={"names": ["other"]})
                assert want.json()["absent"] == ["other"]
                time.sleep(1.2)
        finally:
            # strace keeps signals from itself, as long as what it traces runs.
            os.kill(children_of(process.pid)["up"], signal.SIGINT)
            out, err = process.communicate(timeout=60)
    assert "Your mirror is ready" in out
    assert "Traceback" not in err
    assert connections(log) <= {("127.0.0.1", port)}  # `up` asks its own server whether it is there
    assert "AF_UNIX" in log.read_text()  # the trace saw the processes talk to each other
    assert upstream.total == 0


def _is_ready(url):
    try:
        return httpx.get(url + "/readyz", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def test_the_trace_would_show_a_connection(tmp_path):
    """What the test above relies on."""
    log = tmp_path / "log"
    code = "import socket; s = socket.socket(); s.settimeout(1); s.connect_ex(('127.0.0.1', 9))"
    command = [need("strace"), "-f", "-o", log, "-e", "trace=connect", "python3", "-c", code]
    subprocess.run(command, check=True)
    assert connections(log) == {("127.0.0.1", 9)}


def test_one_look_offline_ends_at_once_with_0(held):
    here, upstream = held
    began = time.monotonic()
    found = crateseal("sync", "--once", "--offline", cwd=here)
    assert (found.returncode, upstream.total) == (0, 0), found.stderr
    assert time.monotonic() - began < 10


def test_one_look_offline_in_mode_index_reads_no_names_either(tmp_path):
    with FakeUpstream(tmp_path / "upstream") as upstream:
        upstream.put("/names.txt", b"fine\n")
        assert (
            crateseal(
                "init", "--trial", "--mode", "index", "--bin-bits", "5", cwd=tmp_path
            ).returncode
            == 0
        )
        names = f"{upstream.url}/names.txt"
        options = ("--offline", "--mode", "index", "--names", names, "--upstream", upstream.source)
        found = crateseal("sync", "--once", *options, cwd=tmp_path)
        assert (found.returncode, upstream.total) == (0, 0), found.stderr
