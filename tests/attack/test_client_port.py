"""Who else is on this machine: on the port before us, at the door, or with a browser open.

The mirror is honest here; what is attacked is the way from cargo to our proxy.
"""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing, contextmanager, suppress

import pytest

from mirror.client.gate.gate import FIRST_PORT, LAST_PORT
from tests.conftest import need, need_root
from tests.support.arranging import EVIL, EVIL_LINE
from tests.support.hostile import asked, hosting, tell_lies
from tests.support.mirror_folder import answering, from_folder
from tests.support.processes import Process, children_of, is_alive, wait_until
from tests.support.stage import Stage, User, lines, lock_text, sha256, unverified
from tests.support.victims import sealed, sealed_process

LETTERS = "abcdefgh"


@pytest.fixture
def stage(folder):
    return Stage.made(folder / "m")


@pytest.fixture
def mirror(stage):
    with hosting(stage.mirror.data) as url:
        yield {"CRATESEAL_MIRROR": url, "CRATESEAL_ROOT": str(stage.root)}


@pytest.fixture
def user(folder):
    return User(folder / "u")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def bound(port):
    """Return a socket that listens there, or None: somebody does already."""
    with suppress(OSError):
        return socket.create_server(("127.0.0.1", port))


class Squatter:
    """Listens where our proxy would, and takes whatever comes."""

    def __init__(self, port=0):
        # Our proxy may need a moment to end.
        self._server = wait_until(lambda: bound(port))
        self.port = self._server.getsockname()[1]
        self.heard = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                with connection:
                    connection.settimeout(2)
                    self.heard.append(connection.recv(1000))
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")

    def close(self):
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(5)


# ---- the port


def test_a_squatter_on_the_port_that_was_asked_for_hears_nothing_of_cargo(mirror, user):
    with closing(Squatter()) as squatter:
        code, text = sealed(user, **mirror, CRATESEAL_PROXY_PORT=str(squatter.port))
        assert squatter.heard == []
    assert code == 4, text
    assert f"127.0.0.1:{squatter.port}" in text
    assert "user root" in text or "user " in text
    assert user.received() == {}


def test_a_squatter_who_came_between_two_runs_hears_nothing_of_cargo(mirror, user, stage):
    code, text = sealed(user, **mirror)
    assert code == 0, text
    (file,) = user.cache.glob("*/port")
    port = int(file.read_text())
    with closing(Squatter(port)) as squatter:
        # Whoever has that port now: all is asked for anew.
        stage.publish({"alpha": stage.index_file("alpha").read_bytes() + b"\n"})
        code, text = sealed(user, "fetch", **mirror)
        assert squatter.heard == []
    assert code == 0, text
    assert int(file.read_text()) != port
    assert unverified(user.received()) == []


@contextmanager
def impostor(folder, stage):
    """Be a stranger on another of our ports, at our own path, with another alpha."""
    root_id = sha256(stage.root.read_bytes())[:16]
    evil = Stage.made(folder / "evil")
    evil.put_crate("alpha", EVIL)
    evil.publish({"alpha": lines(EVIL_LINE)})
    static = from_folder(evil.www)
    port = next(each for each in range(LAST_PORT, FIRST_PORT, -1) if is_free(each))
    with answering(lambda path: static(path.removeprefix(f"/{root_id}")), port=port) as url:
        evil.for_plain_cargo(f"{url}/{root_id}")
        yield port, f"{url}/{root_id}"


def is_free(port):
    server = bound(port)
    if server:
        server.close()
    return server is not None


def test_a_stranger_on_another_of_our_ports_is_not_taken_for_us(mirror, folder, stage):
    need("cargo-clippy")
    user = User(folder / "u", lock_text({"alpha": sha256(EVIL)}))
    with impostor(folder, stage) as (port, url):
        (user.project / ".cargo").mkdir()
        (user.project / ".cargo/config.toml").write_text(
            '[source.crates-io]\nreplace-with = "x"\n'
            f'[source.x]\nregistry = "sparse+{url}/index/"\n'
        )
        # Clippy starts a second cargo: that one is led there.
        code, text = sealed(user, "clippy", **mirror)
    assert code == 1, text
    assert "FINDING: alpha 1.0.0" in text
    (home,) = user.cache.glob("*/cargo-home")
    (aside,) = home.glob(".crateseal/foreign-1/cache/*")
    assert (aside / "alpha-1.0.0.crate").read_bytes() == EVIL
    assert not list(home.glob(f"registry/*/{aside.name}"))

    # Had that run been killed: whoever gets that port next does not use what lies there.
    (home / "registry/cache").mkdir(parents=True, exist_ok=True)
    aside.rename(home / f"registry/cache/{aside.name}")
    (user.project / ".cargo/config.toml").unlink()
    user.lock.write_text(lock_text())
    code, text = sealed(user, **mirror, CRATESEAL_PROXY_PORT=str(port))
    assert code == 1, text
    assert "somebody who had this port before us" in text
    assert unverified({file: file.read_bytes() for file in home.rglob("registry/cache/*/*")}) == []
    code, text = sealed(user, **mirror, CRATESEAL_PROXY_PORT=str(port))
    assert code == 0, text


# ---- the proxy dies


@contextmanager
def fetching(stage, user, mirror):
    """Run `cargo sealed fetch` while the mirror takes its time over alpha; yield it, held up."""
    slow = {"on": stage.on(stage.crate("alpha")), "lie": "trickle", "every": 0.01}
    tell_lies(stage.mirror.data, slow)
    with sealed_process(user, "fetch", "--locked", **mirror) as runner:
        wait_until(
            lambda: any(line.endswith("alpha-1.0.0.crate") for line in asked(stage.mirror.data))
        )
        try:
            yield runner
        finally:
            if runner.poll() is None:
                runner.kill()


def test_a_proxy_that_is_killed_leaves_cargo_with_an_error_or_with_the_right_bytes(
    mirror, user, stage
):
    with fetching(stage, user, mirror) as runner:
        os.kill(children_of(runner.pid)["proxy"], signal.SIGKILL)
        tell_lies(stage.mirror.data)
        text = runner.communicate(timeout=60)
    assert runner.returncode in {0, 101}, text
    assert unverified(user.received()) == []
    code, text = sealed(user, **mirror)
    assert code == 0, text


def test_nobody_takes_the_port_of_a_proxy_that_was_killed_while_cargo_runs(mirror, user, stage):
    # cargo tries again, so that it runs while somebody tries to take the port.
    with fetching(stage, user, mirror | {"CARGO_NET_RETRY": "5"}) as runner:
        (file,) = user.cache.glob("*/port")
        proxy = children_of(runner.pid)["proxy"]
        os.kill(proxy, signal.SIGKILL)
        wait_until(lambda: not is_alive(proxy))
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            with socket.socket() as thief, pytest.raises(OSError, match="in use"):
                thief.setsockopt(socket.SOL_SOCKET, option, 1)
                thief.bind(("127.0.0.1", int(file.read_text())))
                thief.listen()
        tell_lies(stage.mirror.data)
        runner.communicate(timeout=60)
    assert unverified(user.received()) == []


# ---- the door

KNOCK = """
import os, socket, sys
folder = os.open(sys.argv[1], os.O_RDONLY)
os.setgroups([]); os.setgid(65534); os.setuid(65534)
door = socket.socket(socket.AF_UNIX)
door.settimeout(3)
try:
    door.connect(f"/proc/self/fd/{folder}/{sys.argv[2]}")
    data, fds, _, _ = socket.recv_fds(door, 4096, 4)
    print("got", len(data), len(fds))
except OSError as error:
    print("refused", type(error).__name__)
"""


@pytest.mark.parametrize("mode", [0o700, 0o711])
def test_another_user_at_the_door_is_given_nothing(mirror, user, stage, mode):
    """With mode 0711 the folder lets everybody in: only who asks is looked at then."""
    need_root()
    with fetching(stage, user, mirror):
        (door,) = user.run.glob("crateseal/*.sock")
        door.chmod(0o777)
        # To reach the folder is not what is tested.
        for parent in (user.run, user.folder, user.folder.parent):
            parent.chmod(0o755)
        door.parent.chmod(mode)
        words = [sys.executable, "-c", KNOCK, str(door.parent), door.name]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        assert said in {"got 0 0\n", "refused PermissionError\n", "refused ConnectionResetError\n"}


# ---- the proxy's own page in a browser


@pytest.fixture
def proxy(mirror, user):
    need("cargo")
    port = free_port()
    process = Process("proxy", "--port", port, cwd=user.folder, **user.variables(**mirror))
    try:
        wait_until(lambda: "ready:" in process.out or process.process.poll() is not None)
        assert process.process.poll() is None, process.err
        process.port = port
        process.base = "/" + process.out.split("ready:")[1].split()[0].split("/")[3]
        yield process
    finally:
        process.end()


def ask(proxy, path, *, method="GET", host=None, **headers):
    """Ask the proxy, the path as it stands; return status and body."""
    with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)) as connection:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", host or f"127.0.0.1:{proxy.port}")
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.read()


ALPHA = "/index/al/ph/alpha"


def test_a_web_page_reads_nothing_through_the_proxy(proxy):
    path = proxy.base + ALPHA
    status, good = ask(proxy, path)
    assert (status, b'"alpha"' in good) == (200, True)
    of_a_browser = (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "none"},
        {"host": "evil.example"},
        {"host": f"evil.example:{proxy.port}"},
        {"host": f"127.0.0.1.evil.example:{proxy.port}"},
    )
    for headers in of_a_browser:
        status, body = ask(proxy, path, **headers)
        assert 400 <= status < 500, headers
        assert b'"alpha"' not in body, headers


def test_nothing_but_get_and_head_is_answered(proxy, stage):
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PATCH"):
        status, body = ask(proxy, proxy.base + ALPHA, method=method)
        assert 400 <= status < 600, method
        assert b'"alpha"' not in body, method
    assert not any(line.startswith("P") for line in asked(stage.mirror.data))


TRICKS = (
    "/index/../index/al/ph/alpha",
    "/index/%2e%2e/index/al/ph/alpha",
    "/index/al/ph/..%2f..%2f..%2ftuf%2fmetadata%2ftimestamp.json",
    "/index//al/ph/alpha",
    "/index/al/ph/alpha/",
    "/index/al/ph/%61lpha",
    "/index/al/ph/ALPHA",
    "/index/be/ta/alpha",
    "/index/al/ph/alpha%00",
    "/index\\al\\ph\\alpha",
    "/index/al/ph/" + "a" * 4000,
    "/tuf/metadata/timestamp.json",
    "/crates/alpha/beta-1.0.0.crate",
    "/crates/../crates/alpha/alpha-1.0.0.crate",
    "/crates/alpha/alpha-1.0.0%2f..%2fx.crate",
    "/crates/alpha/alpha-1.0.0.crate%0d%0aX:y",
    "/api/v1/want",
)


def test_a_path_that_is_not_the_one_path_of_something_is_nothing(proxy, stage):
    for trick in TRICKS:
        status, body = ask(proxy, proxy.base + trick)
        assert 400 <= status < 500, trick
        assert b'"alpha"' not in body, trick
    for path in ("/", "/index/al/ph/alpha", "/0123456789abcdef" + ALPHA, "http://x" + ALPHA, "*"):
        status, body = ask(proxy, path)
        assert 400 <= status < 500, path
        assert b'"alpha"' not in body, path
    # Its own first look is all that the mirror saw of this.
    its_own = r"GET /tuf/metadata/(\d+\.)?(root|timestamp|snapshot|targets|crates)\.json"
    assert [line for line in asked(stage.mirror.data) if not re.fullmatch(its_own, line)] == []
