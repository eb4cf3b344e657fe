"""Sentence 3 on running processes: who talks to a network cannot sign, who serves cannot write.

`sync`, `sign` and `serve` run as three users, the signer in an empty network namespace.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import httpx
import pytest

from tests.conftest import need, need_root
from tests.fakes.upstream import FakeUpstream
from tests.support.nginx import free_port
from tests.support.processes import wait_until
from tests.support.users import SHARED_GROUP, as_user, run_as

SYNC, SIGN, SERVE = 61001, 61002, 61003
BOTH = (SHARED_GROUP,)

CAN_READ = """
import os, sys
found = []
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        try:
            open(os.path.join(folder, name), "rb").close()
        except OSError:
            continue
        found.append(name)
print(len(found), *found[:3])
"""
CAN_WRITE = """
import os, sys
found = []
for folder, folders, names in os.walk(sys.argv[1]):
    try:
        path = os.path.join(folder, "written")
        open(path, "xb").close()
        os.unlink(path)
        found.append(folder)
    except OSError:
        pass
    for name in names:
        try:
            os.close(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            continue
        found.append(os.path.join(folder, name))
print(len(found), *found[:3])
"""
CAN_CONNECT = """
import socket
for address in (("127.0.0.1", PORT), ("192.0.2.1", 443)):
    try:
        socket.create_connection(address, 2).close()
    except OSError as error:
        print("no")
    else:
        print("YES")
"""


@pytest.fixture
def data():
    need_root()
    for program in ("unshare", "setpriv", "mount"):
        need(program)
    parent = Path(tempfile.mkdtemp(prefix="three-users-"))
    parent.chmod(0o755)
    data = parent / "data"
    # As deploy/ makes it: each folder with the one user that writes there.
    for folder, owner, mode in (
        (data, 0, 0o1775),
        (data / "run", 0, 0o1775),
        (data / "spool", SYNC, 0o755),
        (data / "www", SIGN, 0o755),
        (data / "staging", SIGN, 0o700),
        (data / "keys", SIGN, 0o700),
        (data / "offline-keys", SIGN, 0o700),
    ):
        folder.mkdir()
        os.chown(folder, owner, SHARED_GROUP)
        folder.chmod(mode)
    yield data
    shutil.rmtree(parent)


@pytest.fixture
def upstream():
    with FakeUpstream() as upstream:
        yield upstream


@pytest.fixture
def ring(data, upstream):
    port = free_port()
    common = ["-m", "mirror"]
    follow = ["--data", data, "--upstream", upstream.source]
    made = subprocess.run(
        as_user(SIGN, *common, "init", "--trial", *follow, groups=BOTH),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert made.returncode == 0, made.stderr
    commands = [
        as_user(SIGN, *common, "sign", *follow, groups=BOTH, network=False),
        as_user(SYNC, *common, "sync", *follow, groups=BOTH),
        as_user(SERVE, *common, "serve", "--data", data, "--port", port),
    ]
    processes = [subprocess.Popen(command) for command in commands]
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(
            lambda: all((data / "run" / f"{name}.sock").exists() for name in ("sync", "sign"))
        )
        wait_until(lambda: _answers(url))
        yield url
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(20)


def _answers(url):
    try:
        return httpx.get(f"{url}/healthz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def test_the_ring_works_and_nobody_can_do_what_is_not_theirs(ring, data, upstream):
    got = httpx.get(f"{ring}/index/it/oa/itoa", timeout=20)
    assert (got.status_code, got.content) == (200, upstream.read("/index/it/oa/itoa"))
    crate = "/crates/itoa/itoa-1.0.18.crate"
    assert httpx.get(f"{ring}{crate}", timeout=20).content == upstream.read(crate)

    for user, groups in ((SYNC, BOTH), (SERVE, ())):
        assert run_as(user, CAN_READ, data / "keys", groups=groups).startswith("0")
        assert run_as(user, CAN_READ, data / "offline-keys", groups=groups).startswith("0")
        assert run_as(user, CAN_WRITE, data / "www", groups=groups).startswith("0")
    assert run_as(SERVE, CAN_WRITE, data).startswith("0")
    # The control: the same lines find what the signer itself may read and write.
    assert not run_as(SIGN, CAN_READ, data / "keys", groups=BOTH).startswith("0")
    assert not run_as(SIGN, CAN_WRITE, data / "www", groups=BOTH).startswith("0")


def test_the_signer_has_no_network(data):
    with FakeUpstream() as upstream:
        port = upstream.url.rpartition(":")[2]
        code = CAN_CONNECT.replace("PORT", port)
        done = subprocess.run(
            as_user(SIGN, "-c", code, groups=BOTH, network=False),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout.split() == ["no", "no"]
