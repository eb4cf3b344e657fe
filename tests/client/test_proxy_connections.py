"""The proxy's connections, over real sockets: protocols, and what strangers may take of it."""

import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager

import h2.config
import h2.connection
import httpx
import pytest

from mirror.client.proxy.connections import ConnectionLimits
from tests.conftest import need, need_root
from tests.fakes.source import FakeSource
from tests.support.crates import index_file
from tests.support.processes import wait_until
from tests.support.proxying import Served, read_all

SERDE = index_file("serde", "1.0.0")
PATH = "index/se/rd/serde"


@pytest.fixture
def source():
    return FakeSource({"serde": SERDE})


@pytest.fixture
def served(source):
    with Served(source) as served:
        yield served


def curl(*words):
    return subprocess.run(
        [need("curl"), "-sS", *words], capture_output=True, text=True, check=False
    )


def request(served, path=f"/{PATH}", method="GET", **headers):
    own = {"Host": served.place.host, "Connection": "close"} | headers
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in own.items())]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize("how", ["--http1.1", "--http2", "--http2-prior-knowledge"])
def test_every_way_to_speak_http_on_loopback_is_understood(served, how):
    found = curl(how, "-w", "%{http_code} %{http_version}", served.url(PATH))
    assert found.stdout == SERDE.decode() + f"200 {'1.1' if how == '--http1.1' else '2'}"


def test_one_connection_answers_more_requests_than_a_server_likes_to(served):
    with httpx.Client(http1=False, http2=True, trust_env=False) as client:
        for _ in range(1_200):
            assert client.get(served.url(PATH)).content == SERDE


def test_bodies_larger_than_any_window_arrive_whole():
    data = bytes(range(256)) * 20_000
    with Served(FakeSource(crates={"big 1.0.0": data})) as served:
        url = served.url("crates/big/big-1.0.0.crate")
        for http2 in (False, True):
            with httpx.Client(http1=not http2, http2=http2, trust_env=False) as client:
                assert client.get(url).content == data


@pytest.mark.parametrize("how", ["--http1.1", "--http2"])
def test_who_takes_us_for_a_proxy_reads_why_that_fails(served, source, how):
    found = curl(how, "-x", f"http://{served.place.host}", "http://index.crates.io/config.json")
    assert "cargo tried to fetch http://index.crates.io/config.json past the mirror" in found.stdout
    (refusal,) = source.tally.since().refused
    assert refusal.subject == "http://index.crates.io/config.json"


def test_who_wants_a_tunnel_gets_none_and_it_is_counted(served, source):
    found = curl("-x", f"http://{served.place.host}", "https://index.crates.io/config.json")
    assert found.returncode != 0
    assert "403" in found.stderr
    (refusal,) = source.tally.since().refused
    assert refusal.subject == "index.crates.io:443"


@pytest.mark.parametrize(
    "headers", [{"Host": "localhost"}, {"Origin": "http://evil"}, {"Sec-Fetch-Site": "none"}]
)
def test_strangers_are_refused_over_the_wire(served, source, headers):
    path = f"/{served.place.root_id}/{PATH}"
    assert served.raw(request(served, path, **headers)).startswith(b"HTTP/1.1 403 ")
    assert served.raw(request(served, path)).endswith(SERDE)


def test_another_user_of_this_machine_is_turned_away(served, source):
    need_root()
    asks = (
        "import os, socket, sys; port, data = int(sys.argv[1]), sys.argv[2].encode()\n"
        "os.setuid(int(sys.argv[3])); peer = socket.socket(); peer.connect(('127.0.0.1', port))\n"
        "peer.sendall(data); print(peer.makefile('rb').read().decode())"
    )
    data = request(served, f"/{served.place.root_id}/{PATH}").decode()
    for uid, status in (("65534", "403 Forbidden"), ("0", "200")):
        command = [sys.executable, "-c", asks, str(served.place.port), data, uid]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        assert done.stdout.startswith(f"HTTP/1.1 {status}")
        assert ("another user's proxy" in done.stdout) == (uid != "0")
    assert len(source.called("index_file")) == 1


def test_a_host_of_http2_is_looked_at_too(served):
    with httpx.Client(http1=False, http2=True, trust_env=False) as client:
        assert client.get(served.url(PATH), headers={"Host": "evil.example"}).status_code == 403


@pytest.mark.parametrize("size", [10, 900_000])
def test_a_request_with_a_body_is_answered_all_the_same(served, tmp_path, size):
    body = tmp_path / "body"
    body.write_bytes(b"x" * size)
    found = curl("-H", "Expect:", "--data-binary", f"@{body}", served.url(PATH))
    assert (found.returncode, found.stdout) == (0, "crateseal: GET and HEAD only\n")


@pytest.mark.parametrize(
    "garbage",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nxxx",
    ],
)
def test_what_is_no_request_is_answered_too(served, garbage):
    with served.connect() as connection:
        connection.sendall(garbage)
        assert connection.recv(12) in {b"HTTP/1.1 400", b"HTTP/1.1 403"}


def test_endless_headers_are_cut_off(served):
    with served.connect() as connection, pytest.raises(OSError):
        connection.sendall(b"GET / HTTP/1.1\r\n")
        for _ in range(10_000):
            connection.sendall(b"A: " + b"x" * 1_000 + b"\r\n")


def test_a_request_that_trickles_in_has_no_more_time_than_an_idle_one(source):
    with (
        Served(source, ConnectionLimits(idle_seconds=0.3)) as served,
        connected(served, 3) as three,
    ):
        slow, silent, half = three
        slow.sendall(b"GET / HTTP/1.1\r\nA: ")
        half.sendall(b"PRI * HTTP/2.0\r\n\r\n")
        began = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() < began + 3:
                slow.sendall(b"x")
                time.sleep(0.05)
        for connection in (silent, half):
            read_all(connection)
        assert time.monotonic() < began + 3


def test_idle_connections_make_room_for_who_asks(source):
    limits = ConnectionLimits(connections=5)
    with Served(source, limits) as served, connected(served, 20) as idle:
        assert served.raw(request(served, f"/{served.place.root_id}/{PATH}")).endswith(SERDE)
        assert read_all(idle[0]) == b""


def test_where_no_connection_is_idle_a_new_one_is_told_to_come_again(slow):
    source, opened = slow
    with Served(source, ConnectionLimits(connections=2)) as served, connected(served, 2) as busy:
        one = request(served, f"/{served.place.root_id}/{PATH}")
        for connection in busy:
            connection.sendall(one)
        wait_until(lambda: source.called("index_file"))
        time.sleep(0.1)
        for _ in range(20):
            assert served.raw(one).startswith(b"HTTP/1.1 503 ")
        opened.set()
        for connection in busy:
            assert read_all(connection).endswith(SERDE)


def test_open_requests_are_answered_before_the_end(slow):
    source, opened = slow
    served = Served(source)
    with served, connected(served, 1) as (connection,):
        connection.sendall(request(served, f"/{served.place.root_id}/{PATH}"))
        wait_until(lambda: source.called("index_file"))
        threading.Timer(0.2, opened.set).start()
        served.__exit__()
        assert read_all(connection).endswith(SERDE)


@pytest.fixture
def slow():
    """A source that answers when the event is set."""
    opened = threading.Event()
    yield FakeSource({"serde": lambda: opened.wait(10) and SERDE}), opened
    opened.set()


@contextmanager
def connected(served, number):
    with ExitStack() as stack:
        yield [stack.enter_context(served.connect()) for _ in range(number)]


@pytest.mark.parametrize(
    "headers",
    [
        [(":method", "CONNECT"), (":authority", "index.crates.io:443")],
        [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", "/\u00e9")],
    ],
)
def test_what_the_server_itself_stumbles_over_ends_one_connection_alone(served, headers, caplog):
    client = h2.connection.H2Connection(h2.config.H2Configuration(validate_outbound_headers=False))
    client.initiate_connection()
    client.send_headers(1, headers, end_stream=True)
    served.raw(client.data_to_send())
    assert httpx.get(served.url(PATH), trust_env=False).content == SERDE
    assert "Traceback" not in caplog.text
