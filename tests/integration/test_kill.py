"""`kill -9` of each of the four processes at any moment, then on: nothing lost, nothing false.

A handful of moments here; 200 of them with `pytest -m slow tests/integration/test_kill.py`. The
seed is in the test's name, so a failing moment can be looked at again.
"""

import os
import random
import signal
import threading
import time
from contextlib import closing

import httpx
import pytest

from mirror.sign.check import Checker
from mirror.store.ledger import LedgerReader
from tests.fakes.upstream import FakeUpstream
from tests.support.crates import crate_bytes, index_file
from tests.support.processes import Up, is_alive, wait_until

NAMES = [f"crate{number:03}" for number in range(400)]


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    with FakeUpstream(tmp_path_factory.mktemp("upstream")) as upstream:
        for name in NAMES:
            upstream.put(f"/index/cr/at/{name}", index_file(name, "1.0.0"))
            upstream.put(f"/crates/{name}/{name}-1.0.0.crate", crate_bytes(name, "1.0.0"))
        yield upstream


class Clients(threading.Thread):
    """Ask for new names as fast as answers come, and remember what was answered."""

    def __init__(self, url, rng, answered):
        super().__init__(daemon=True)
        self._url = url
        self._rng = rng
        self._answered = answered
        self.stop = threading.Event()
        self.wrong = []

    def run(self):
        with httpx.Client(timeout=15) as client:
            while not self.stop.is_set():
                name = self._rng.choice(NAMES)
                for path in (f"/index/cr/at/{name}", f"/crates/{name}/{name}-1.0.0.crate"):
                    try:
                        answer = client.get(f"{self._url}{path}")
                    except httpx.TransportError:
                        continue  # the server itself was killed
                    if answer.status_code == 200:
                        self._answered.add(path)
                    elif answer.status_code != 503:
                        self.wrong.append((path, answer.status_code, answer.text))


def kill_at_moments(count, seed, upstream, folder):
    rng = random.Random(seed)
    answered = set()
    up = None
    try:
        for moment in range(count):
            if up is None:
                up = Up("--upstream", upstream.source, cwd=folder).wait_until_ready()
            clients = Clients(up.url, rng, answered)
            clients.start()
            time.sleep(rng.random() * 0.6)
            victim = rng.choice(["up", "sync", "sign", "serve"])
            children = up.children()
            if victim == "up":
                up.signal(signal.SIGKILL)
                up.wait()
                for pid in children.values():
                    wait_until(lambda pid=pid: not is_alive(pid))
            elif victim in children:
                os.kill(children[victim], signal.SIGKILL)
                _wait_for_successor(up, victim, children[victim])
            clients.stop.set()
            clients.join(20)
            assert clients.wrong == [], f"moment {moment}, {victim}"
            if victim == "up":
                up.end()
                up = Up("--upstream", upstream.source, cwd=folder).wait_until_ready()
            _nothing_is_lost(up, answered, upstream, f"moment {moment}, {victim}")
        assert up is None or up.stop() == 130
    finally:
        if up is not None:
            up.end()
    assert answered


def _wait_for_successor(up, name, pid):
    wait_until(lambda: up.children().get(name) not in {pid, None})


def _nothing_is_lost(up, answered, upstream, where):
    with httpx.Client(timeout=15) as client:
        for path in sorted(answered):
            answer = _patiently(client, f"{up.url}{path}")
            assert answer.status_code == 200, (where, path, answer.text)
            assert answer.content == upstream.read(path), (where, path)
    wait_until((up.data / "run/sign.sock").exists)
    with closing(LedgerReader(up.data / "ledger.sqlite3")) as ledger:
        # A publication under way is no finding: what is still there at a second look is one.
        for _ in range(20):
            findings = list(Checker(up.data / "www", ledger, now=time.time()).findings())
            if not findings:
                return
            time.sleep(0.3)
    raise AssertionError((where, findings))


def _patiently(client, url):
    """Ask as cargo does: again, while the answer is 503."""
    deadline = time.monotonic() + 40
    while True:
        answer = client.get(url)
        if answer.status_code != 503 or time.monotonic() > deadline:
            return answer
        time.sleep(0.2)


@pytest.mark.timeout(180)
def test_a_handful_of_kills_loses_nothing(tmp_path, upstream):
    kill_at_moments(8, 1, upstream, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(10))
def test_two_hundred_kills_lose_nothing(tmp_path, upstream, seed):
    kill_at_moments(20, 100 + seed, upstream, tmp_path)
