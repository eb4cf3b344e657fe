"""Whose port it is: real sockets in a run folder, and runners that come and go."""

import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from mirror.client.gate import gate as gates
from mirror.client.gate.gate import Terms, Wanted, acquire, gate_variable, greet, inherited
from mirror.client.sealed.keeper import STARTS_MAX, Keeper
from mirror.errors import BusyError, MachineError
from tests.support.laptop import free_port

TERMS = Terms("0123456789abcdef")


@pytest.fixture
def run(tmp_path):
    # Longer than the address of a socket may be.
    folder = tmp_path / ("long" * 40) / "run"
    folder.mkdir(parents=True, mode=0o700)
    return folder


@pytest.fixture
def wanted(run):
    return Wanted(run, TERMS, remembered=free_port())


@pytest.fixture
def holder(wanted):
    with closing(acquire(wanted)) as gate:
        yield gate


@pytest.fixture
def at_the_door(holder):
    """Answer all who come to the holder's door; collects their leases."""
    leases, ended = Leases(), threading.Event()
    leases.stop = lambda: (ended.set(), thread.join())

    def answer():
        while not ended.is_set():
            if select.select([holder.door], [], [], 0.02)[0]:
                leases.append(greet(holder.door, TERMS.hello(), holder.listener))

    thread = threading.Thread(target=answer)
    thread.start()
    yield leases
    leases.stop()
    for each in filter(None, leases):
        each.close()


class Leases(list):
    """Those of all who came."""


def connects(port):
    with socket.create_connection(("127.0.0.1", port), timeout=5) as peer:
        return peer.getpeername()[1] == port


def test_who_comes_first_holds_the_port_and_the_door(holder, wanted):
    assert holder.port == wanted.remembered
    assert holder.door is not None
    assert holder.lease is None
    assert connects(holder.port)


@pytest.mark.usefixtures("at_the_door")
def test_who_comes_later_gets_a_duplicate_of_the_socket(holder, wanted):
    with closing(acquire(wanted)) as later:
        assert later.door is None
        assert later.holder == os.getpid()
        assert later.listener.getsockname() == holder.listener.getsockname()
        holder.listener.close()
        assert connects(later.port)  # It is held still.


@pytest.mark.usefixtures("at_the_door")
def test_what_cargo_starts_does_not_keep_the_port(wanted):
    with closing(acquire(wanted)) as later:
        assert not later.listener.get_inheritable()
        assert not later.lease.get_inheritable()


@pytest.mark.usefixtures("at_the_door")
@pytest.mark.parametrize("terms", [Terms("f" * 16), Terms(TERMS.root_id, strict_absence=True)])
def test_who_wants_something_else_gets_another_port_or_an_error(holder, wanted, terms):
    other = wanted._replace(terms=terms, remembered=holder.port)
    with closing(acquire(other)) as gate:
        assert gate.port != holder.port
    with pytest.raises(BusyError, match=f"process {os.getpid()}: a proxy of another root"):
        acquire(other._replace(port=holder.port))


def test_a_stranger_on_a_port_is_passed_by_or_named(wanted):
    with socket.create_server(("127.0.0.1", wanted.remembered)):
        with closing(acquire(wanted)) as gate:
            assert gate.port != wanted.remembered
        with pytest.raises(BusyError, match="another program of user") as caught:
            acquire(wanted._replace(port=wanted.remembered))
    assert caught.value.exit_code == 4


def test_a_stranger_on_all_addresses_counts_too(wanted):
    everywhere = socket.create_server(("0.0.0.0", wanted.remembered))
    with everywhere, closing(acquire(wanted)) as gate:
        assert gate.port != wanted.remembered


def test_a_door_that_nobody_is_behind_any_more_is_replaced(wanted):
    acquire(wanted).close()
    with closing(acquire(wanted)) as gate:
        assert gate.port == wanted.remembered
        assert gate.door is not None


def test_when_the_holder_ends_one_of_the_others_takes_over(holder, wanted, at_the_door):
    second, third = acquire(wanted), acquire(wanted)
    at_the_door.stop()
    for each in (holder.door, *at_the_door):
        each.close()
    assert second.lease.recv(1) == third.lease.recv(1) == b""
    taken = acquire(wanted, held=(second.port, second.listener))
    assert taken.door is not None
    answering = threading.Thread(target=answer_once, args=(taken,))
    answering.start()
    joined = acquire(wanted, held=(third.port, third.listener))
    answering.join()
    assert joined.door is None
    holder.listener.close()
    assert connects(taken.port)
    for each in (second, third, taken, joined):
        each.close()


def answer_once(gate):
    select.select([gate.door], [], [], 5)
    greet(gate.door, TERMS.hello(), gate.listener).close()


def test_of_many_at_once_one_is_the_holder(wanted):
    def come(_number):
        gate = acquire(wanted)
        if gate.door is None:
            return gate
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and len(leases) < 7:
            if select.select([gate.door], [], [], 0.1)[0]:
                leases.append(greet(gate.door, TERMS.hello(), gate.listener))
        return gate

    leases = []
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(come, range(8)))
    assert sum(each.door is not None for each in found) == 1
    assert {each.port for each in found} == {wanted.remembered}
    for each in (*found, *leases):
        each.close()


def test_another_user_at_the_door_gets_nothing(holder, run):
    if os.geteuid() != 0:
        pytest.skip("to be another user needs root")
    code = (
        "import os, socket, sys; d = os.open(sys.argv[1], os.O_RDONLY); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.settimeout(5)\n"
        "s.connect(f'/proc/self/fd/{d}/' + sys.argv[2]); print(s.recv(1))"
    )
    # As root opened it for them: else they would not come as far as the door.
    os.chmod(run / f"{holder.port}.sock", 0o777)
    run.chmod(0o711)
    words = [sys.executable, "-c", code, str(run), f"{holder.port}.sock"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    select.select([holder.door], [], [], 10)
    assert greet(holder.door, TERMS.hello(), holder.listener) is None
    assert process.communicate(timeout=10)[0] == "b''\n"


def test_a_proxy_finds_what_it_is_handed(holder):
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        text = gate_variable(holder, (theirs,))
        numbers = [os.dup(int(each)) for each in text.split(",")]
        gate, (lease,) = inherited(",".join(map(str, numbers)))
        assert gate.port == holder.port
        assert gate.door.getsockname() == holder.door.getsockname()
        lease.close()
        gate.close()


def test_a_run_folder_that_is_a_link_is_refused(tmp_path, run):
    (tmp_path / "link").symlink_to(run)
    with pytest.raises(MachineError):
        acquire(Wanted(tmp_path / "link", TERMS))


def test_only_ports_of_ours_are_remembered(tmp_path):
    file = tmp_path / "port"
    assert gates.remembered_port(file) is None
    gates.remember_port(file, 9999)
    assert gates.remembered_port(file) is None
    gates.remember_port(file, 8480)
    assert gates.remembered_port(file) == 8480
    file.write_text("22\n")
    assert gates.remembered_port(file) is None


# ---- the keeper


@pytest.fixture
def wake():
    reading, writing = os.pipe()
    yield reading
    os.close(reading)
    os.close(writing)


def answer_to(cargo):
    text = cargo.recv(4096).decode()
    cargo.close()
    return text


def keeper_of(holder, wanted, start):
    return Keeper(holder, wanted, start, {"lock": "/a/Cargo.lock"}, "/proxy.log")


def test_no_proxy_is_started_before_the_first_connection(holder, wanted, wake):
    started = []
    keeper = keeper_of(holder, wanted, lambda *handed: started.append(handed))
    keeper.turn(wake, 0.05)
    assert not started
    with socket.create_connection(("127.0.0.1", holder.port)):
        keeper.turn(wake, 5)
    assert len(started) == 1
    keeper.close()


def test_a_lease_that_began_before_the_proxy_is_handed_on_with_what_it_said(holder, wanted, wake):
    handed = []

    def start(_gate, leases):
        handed.extend(os.dup(each.fileno()) for each in leases)

    keeper = keeper_of(holder, wanted, start)
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(acquire, wanted)
        keeper.turn(wake, 5)
        other = coming.result()
    other.lease.sendall(b'{"prefetch":["serde"]}\n')
    with socket.create_connection(("127.0.0.1", holder.port)):
        keeper.turn(wake, 5)
    own, others = (socket.socket(fileno=each) for each in handed)
    assert json.loads(own.recv(99)) == {"lock": "/a/Cargo.lock"}
    assert others.recv(99) == b'{"prefetch":["serde"]}\n'
    for each in (own, others, other, keeper):
        each.close()


def test_who_is_left_when_the_holder_ends_starts_the_proxy_itself(holder, wanted, wake):
    first = keeper_of(holder, wanted, lambda *_handed: None)
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(acquire, wanted)
        first.turn(wake, 5)
        joined = coming.result()
    started = []
    second = keeper_of(joined, wanted, lambda *handed: started.append(handed))
    first.close()
    with socket.create_connection(("127.0.0.1", joined.port)):
        second.turn(wake, 5)
        assert second.gate.door is not None
        second.turn(wake, 5)
    assert len(started) == 1
    assert second.lost == 0
    second.close()


def test_a_report_is_asked_for_only_of_a_proxy_that_serves(holder, wanted, wake):
    theirs = []
    keeper = keeper_of(
        holder, wanted, lambda _gate, leases: theirs.append(os.dup(leases[0].fileno()))
    )
    assert keeper.report() is None
    with socket.create_connection(("127.0.0.1", holder.port)):
        keeper.turn(wake, 5)
    assert keeper.report() is None
    with closing(socket.socket(fileno=theirs[0])) as proxy:
        proxy.sendall(b'{"serving":true}\n')
        keeper.turn(wake, 5)
        proxy.sendall(b'{"format":1,"crates":7')
        proxy.sendall(b"}\n")
        assert keeper.report() == {"format": 1, "crates": 7}
        assert proxy.recv(999).endswith(b'{"report":true}\n')
    keeper.close()


def test_a_proxy_that_ends_each_time_is_given_up_and_cargo_is_told(holder, wanted, wake):
    started = []
    keeper = keeper_of(holder, wanted, lambda *handed: started.append(handed))
    with socket.create_connection(("127.0.0.1", holder.port)) as cargo:
        cargo.sendall(b"GET / HTTP/1.1\r\n\r\n")
        deadline = time.monotonic() + 10
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(answer_to, cargo)
            while not answer.done() and time.monotonic() < deadline:
                keeper.turn(wake, 0.1)
            text = answer.result()
    assert len(started) == STARTS_MAX
    assert text.startswith("HTTP/1.1 403 ")
    assert "the proxy was started 5 times and ended each time; see /proxy.log" in text
    keeper.close()
