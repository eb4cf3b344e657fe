"""Endless data and slow retrieval, of the attacks that the TUF specification names (1.5.2).

A hostile host on a real socket, stock python-tuf with our fetcher against it; each once more with
the limit taken away.
"""

import io
import shutil
import socketserver
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest
from tuf.api.exceptions import DownloadError, DownloadLengthMismatchError, SlowRetrievalError
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from mirror.client.fetch.fetcher import FetchLimits, HttpFetcher
from tests.fakes.tuf import Repository, set_clock

CHUNK = b" " * 65_536
PATIENT = FetchLimits(connect_seconds=5.0, stall_seconds=5.0, total_seconds=60.0)
TIMESTAMP, TARGET = "timestamp.json", "serde"
SERDE = "index/se/rd/serde"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    base = tmp_path_factory.mktemp("original") / "data"
    base.mkdir()
    repository = Repository(base)
    repository.init()
    repository.publish(repository.open(), {SERDE: repository.put(SERDE, b"a line\n")})
    return repository


class Hostile(socketserver.StreamRequestHandler):
    """Answers from the folder; what the attack is on gets `server.attack` instead of bytes."""

    def handle(self):
        path = self.rfile.readline().split()[1].decode()
        while self.rfile.readline().strip():
            pass
        file = self.server.folder / path.lstrip("/")
        if path.endswith(self.server.attacked):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            with suppress(BrokenPipeError, ConnectionResetError):
                self.server.attack(self)
        elif file.is_file():
            data = file.read_bytes()
            head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n"
            self.wfile.write(head.encode() + data)
        else:
            self.wfile.write(
                b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            )

    def send(self, data):
        self.wfile.write(data)
        self.server.sent += len(data)


def endless(connection):
    """Blanks without end; the test ends them, should nobody else do."""
    while connection.server.sent < 64_000_000 and not connection.server.stopped.is_set():
        connection.send(CHUNK)


def trickle(connection):
    """A blank every 20 ms: never a pause that looks like a dead connection."""
    while not connection.server.stopped.wait(0.02):
        connection.send(b" ")


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A hostile host."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, repository, attack, attacked):
        super().__init__(("127.0.0.1", 0), Hostile)
        self.folder = repository.base / "www" / "tuf"
        self.attack, self.attacked = attack, attacked
        self.sent = 0
        self.stopped = threading.Event()


@contextmanager
def attacked(repository, attack, on):
    with Server(repository, attack, on) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.stopped.set()
            server.shutdown()
            thread.join()


class Ours(FetcherInterface):
    """Our fetcher in the place of python-tuf's own."""

    def __init__(self, fetcher):
        self._fetcher = fetcher

    def download_bytes(self, url, max_length):
        return self._fetcher.read(url.removeprefix(self._fetcher.base), max_length)

    @contextmanager
    def download_file(self, url, max_length):
        yield io.BytesIO(self.download_bytes(url, max_length))

    def _fetch(self, url):
        raise NotImplementedError


def ask(repository, server, cache, *, limits=PATIENT, config=None):
    """Look serde up and fetch it, as our client does."""
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    fetcher = HttpFetcher(url, limits)
    try:
        client = Updater(
            str(cache),
            f"{url}/metadata/",
            target_dir=str(cache),
            target_base_url=f"{url}/targets/",
            fetcher=Ours(fetcher),
            config=config,
            bootstrap=(repository.metadata / "1.root.json").read_bytes(),
        )
        set_clock(client, repository.now)
        return client.download_target(client.get_targetinfo(SERDE))
    finally:
        fetcher.close()


# --- endless data


@pytest.mark.parametrize("on", [TIMESTAMP, ".snapshot.json", TARGET])
def test_data_without_end_ends_at_the_length_that_is_known(repository, tmp_path, on):
    with (
        attacked(repository, endless, on) as server,
        pytest.raises(DownloadLengthMismatchError),
    ):
        ask(repository, server, tmp_path / "c")
    assert server.sent < 16_000_000  # what fits into two sockets, and no more


def test_without_a_limit_a_client_would_swallow_all_of_it(repository, tmp_path):
    """The control: as many bytes as the host likes to send."""
    unlimited = UpdaterConfig(timestamp_max_length=2**30)
    with attacked(repository, endless, TIMESTAMP) as server, pytest.raises(Exception) as caught:
        ask(repository, server, tmp_path / "c", config=unlimited)
    assert not isinstance(caught.value, DownloadError)
    assert server.sent >= 64_000_000


# --- slow retrieval


@pytest.mark.parametrize("on", [TIMESTAMP, TARGET])
def test_a_trickle_ends_when_the_time_for_one_answer_is_over(repository, tmp_path, on):
    hurried = replace(PATIENT, total_seconds=0.3)
    config = UpdaterConfig(timestamp_max_length=10_000)
    # The target is seven bytes long: it would be there in time, were it not for its length.
    on_target = on == TARGET
    expected = DownloadLengthMismatchError if on_target else SlowRetrievalError
    start = time.monotonic()
    with attacked(repository, trickle, on) as server, pytest.raises(expected):
        ask(repository, server, tmp_path / "c", limits=hurried, config=config)
    assert time.monotonic() - start < 3


def test_without_that_time_a_trickle_would_hold_a_client_for_as_long_as_the_host_likes(
    repository, tmp_path
):
    """The control: five times that time, and it reads on still."""
    ended = threading.Event()

    def patient():
        try:
            ask(repository, server, tmp_path / "c")
        except Exception:  # noqa: BLE001 - whatever it is, it comes when the host lets go
            ended.set()

    with attacked(repository, trickle, TIMESTAMP) as server:
        client = threading.Thread(target=patient)
        client.start()
        assert not ended.wait(1.5)
        assert server.sent > 10
    client.join(10)
    assert ended.is_set()
