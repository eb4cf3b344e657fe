"""Trying for a while: the port and the locks wait like this."""

import socket

import pytest

from mirror import listener, locks
from mirror.errors import BusyError
from mirror.waiting import try_for


def test_the_first_thing_that_an_attempt_gives_ends_the_wait():
    gifts, pauses = iter([None, None, "", "late"]), []
    assert try_for(lambda: next(gifts), 10.0, 0.5, pauses.append) == ""
    assert pauses == [0.5, 0.5]


def test_after_its_time_it_is_over_and_the_last_attempt_comes_after_the_last_pause():
    attempts = []
    assert try_for(lambda: attempts.append(1), 1.0, 0.5, lambda _seconds: False) is None
    assert len(attempts) == 3


def test_without_time_there_is_one_attempt_and_no_pause():
    assert try_for(lambda: None, 0.0, 0.5, lambda _seconds: pytest.fail("paused")) is None


def test_a_pause_that_says_so_ends_the_wait():
    pauses = []
    assert try_for(lambda: None, 10.0, 0.5, lambda seconds: not pauses.append(seconds)) is None
    assert len(pauses) == 1


def test_a_lock_has_one_holder_and_the_next_waits_for_it(tmp_path):
    path, pauses = tmp_path / "run/a.lock", []
    with locks.hold(path, "somebody", pause=pauses.append):
        assert locks.is_held(path)
        with (
            pytest.raises(BusyError, match="somebody is running on this folder already"),
            locks.hold(path, "somebody", wait_seconds=1.0, pause=pauses.append),
        ):
            pass
    assert sum(pauses) == pytest.approx(1.0, abs=0.11)
    assert not locks.is_held(path)


def test_a_lock_that_is_let_go_of_meanwhile_is_had(tmp_path):
    first = locks.hold(tmp_path / "lock", "somebody")
    first.__enter__()
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        first.__exit__(None, None, None)

    with locks.hold(tmp_path / "lock", "somebody", pause=pause):
        assert len(pauses) == 1


def test_a_port_that_comes_free_meanwhile_is_had():
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    with listener.listen("127.0.0.1", port, pause=lambda _seconds: taken.close()) as sock:
        assert sock.getsockname()[1] == port


def test_a_port_that_stays_taken_is_busy():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BusyError, match="another program listens there"):
            listener.listen("127.0.0.1", port, wait_seconds=1.0, pause=lambda _seconds: None)
