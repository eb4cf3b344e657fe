"""What a stranger can do with one connection, and with many, to the running server."""

import resource
import socket
from pathlib import Path

import httpx
import pytest

from tests.fakes.upstream import FakeUpstream
from tests.support.crates import index_file
from tests.support.processes import Up


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strange")
    with FakeUpstream(folder / "upstream") as upstream:
        upstream.put("/index/de/mo/demo", index_file("demo", "1.0.0"))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))  # what the mirror starts with
        try:
            up = Up("--upstream", upstream.source, cwd=folder).wait_until_ready()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert up.get("/index/de/mo/demo").status_code == 200
        yield up
        up.end()


def connect(up):
    host, port = up.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), 10)


def send(raw, begin, more):
    raw.sendall(begin)
    for _ in range(2_000):  # 120 MB, if nobody hangs up
        raw.sendall(more)


def resident_mb(up):
    status = Path(f"/proc/{up.children()['serve']}/status").read_text()
    return next(int(ln.split()[1]) for ln in status.splitlines() if ln.startswith("VmRSS")) / 1000


ENDLESS = {
    "headers": (b"GET / HTTP/1.1\r\n", b"A: b\r\n" * 10_000),
    "one header": (b"GET / HTTP/1.1\r\nA: ", b"b" * 60_000),
    "a path": (b"GET /", b"b" * 60_000),
    "trailers": (
        b"POST /api/v1/want HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        b"A: b\r\n" * 10_000,
    ),
}


@pytest.mark.parametrize(("begin", "more"), ENDLESS.values(), ids=ENDLESS)
def test_an_endless_head_is_cut_off_and_costs_no_memory(up, begin, more):
    before = resident_mb(up)
    with connect(up) as raw, pytest.raises(ConnectionError):
        send(raw, begin, more)
    assert resident_mb(up) < before + 20
    assert up.get("/index/de/mo/demo").status_code == 200


def test_many_silent_connections_keep_nobody_out(up):
    silent = [connect(up) for _ in range(400)]
    try:
        answer = httpx.get(f"{up.url}/index/de/mo/demo", timeout=10)
        assert answer.status_code == 200
        assert up.get("/tuf/metadata/1.root.json").status_code == 200
    finally:
        for raw in silent:
            raw.close()


def test_many_requests_in_one_packet_are_all_answered(up):
    request = b"GET /index/de/mo/demo HTTP/1.1\r\nHost: x\r\n\r\n"
    last = request.replace(b"Host", b"Connection: close\r\nHost")
    with connect(up) as raw:
        raw.sendall(request * 500 + last)
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert answer.count(b"HTTP/1.1 200 OK") == 501
