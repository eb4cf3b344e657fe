"""The proxy that `cargo sealed` starts: its sockets, its leases, its reports."""

import json
import socket
import subprocess
import sys

import httpx
import pytest

from mirror.client.gate.gate import GATE_VARIABLE, Terms, Wanted, acquire, gate_variable
from mirror.client.home.remembered import root_id_of
from tests.support.hostile import asked, hosting
from tests.support.processes import CRATESEAL, environment, wait_until
from tests.support.stage import Stage, User


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return Stage.made(tmp_path_factory.mktemp("original") / "mirror")


@pytest.fixture
def stage(original, tmp_path):
    return original.copied(tmp_path / "mirror")


@pytest.fixture
def user(tmp_path):
    return User(tmp_path / "user")


@pytest.fixture
def mirror(stage):
    with hosting(stage.mirror.data) as url:
        yield url


def trusting(user, stage, mirror):
    return user.variables(CRATESEAL_MIRROR=mirror, CRATESEAL_ROOT=str(stage.root))


def get(url):
    return httpx.get(url, trust_env=False, timeout=20)


class Sealed:
    """What a runner does for its proxy, without cargo."""

    def __init__(self, user, variables, root_id):
        self.wanted = Wanted(user.run, Terms(root_id))
        self.gate = acquire(self.wanted)
        self.wanted = self.wanted._replace(remembered=self.gate.port)
        self.lease, theirs = socket.socketpair()
        self.lease.settimeout(15)
        self.url = f"http://127.0.0.1:{self.gate.port}/{root_id}/"
        gate = {GATE_VARIABLE: gate_variable(self.gate, (theirs,))}
        handed = (self.gate.listener, self.gate.door, theirs)
        self.process = subprocess.Popen(
            [*CRATESEAL, "proxy"],
            env=environment(**variables, **gate),
            pass_fds=[each.fileno() for each in handed],
            stderr=subprocess.PIPE,
            text=True,
        )
        for each in (theirs, self.gate.door):
            each.close()
        self._lines = self.lease.makefile("r")

    def tell(self, **said):
        self.lease.sendall(json.dumps(said).encode() + b"\n")

    def hear(self, lines=None):
        return json.loads((lines or self._lines).readline())

    def let_go(self):
        self._lines.close()
        self.lease.close()

    def end(self):
        self.let_go()
        self.gate.listener.close()
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def sealed(user, stage, mirror):
    root_id = root_id_of(stage.root.read_bytes())
    sealed = Sealed(user, trusting(user, stage, mirror), root_id)
    yield sealed
    sealed.end()


def test_it_says_that_it_serves_and_what_it_refused_since_the_lease_began(sealed, stage, mirror):
    stage.put_crate("beta", b"something else")
    assert get(f"{sealed.url}crates/alpha/alpha-1.0.0.crate").status_code == 200
    assert get(f"{sealed.url}crates/beta/beta-1.0.0.crate").status_code == 403
    assert get(f"{sealed.url}index/no/-s/no-such").status_code == 404
    assert sealed.hear() == {"serving": True}
    sealed.tell(report=True)
    report = sealed.hear()
    assert (report["format"], report["mirror"], report["crates"]) == (1, f"{mirror}/", 1)
    assert report["unproved"] == ["no-such"]
    (refused,) = report["refused"]
    assert refused["subject"] == "beta 1.0.0"
    assert refused["where"].endswith("/crates/beta/beta-1.0.0.crate")


def test_a_later_lease_has_a_report_of_its_own(sealed, user):
    assert get(f"{sealed.url}crates/alpha/alpha-1.0.0.crate").status_code == 200
    later = acquire(sealed.wanted)
    assert later.door is None
    lines = later.lease.makefile("r")
    assert sealed.hear(lines) == {"serving": True}
    later.lease.sendall(b'{"report":true}\n')
    assert sealed.hear(lines)["crates"] == 0
    sealed.let_go()
    # It is still needed.
    assert get(f"{sealed.url}index/al/ph/alpha").status_code == 200
    lines.close()
    later.close()
    assert sealed.process.wait(10) == 0


def test_it_ends_with_its_last_lease(sealed):
    assert sealed.hear() == {"serving": True}
    sealed.let_go()
    assert sealed.process.wait(10) == 0
    again = acquire(sealed.wanted, held=(sealed.gate.port, sealed.gate.listener))
    assert again.lease is None
    again.door.close()


def test_what_a_lock_names_is_fetched_before_cargo_asks(sealed, stage, user):
    sealed.tell(lock=str(user.lock))
    wait_until(lambda: sum("/tuf/targets/" in line for line in asked(stage.mirror.data)) == 3)


def test_names_are_fetched_ahead_and_nonsense_is_ignored(sealed, stage):
    sealed.tell(nonsense=1)
    sealed.tell(lock="/nowhere")
    sealed.lease.sendall(b"[]\nnot json\n")
    sealed.tell(prefetch=["alpha", "../../etc", 7])
    wait_until(
        lambda: any("/tuf/targets/index/al/ph/" in line for line in asked(stage.mirror.data))
    )
    sealed.hear()
    sealed.tell(report=True)
    assert sealed.hear()["index_files"] == 0


def test_python_starts_no_proxy_from_descriptors_that_are_none(user, stage, mirror, tmp_path):
    variables = trusting(user, stage, mirror)
    done = subprocess.run(
        [sys.executable, "-m", "mirror", "proxy"],
        env=environment(**variables, **{GATE_VARIABLE: "nonsense"}),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "CRATESEAL_GATE" in done.stderr) == (2, True)
