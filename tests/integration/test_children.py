"""The parent of processes, with stand-ins for its children: small programs that do one thing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.processes import REPOSITORY, is_alive, wait_until

# Each child appends its name to a file when it starts and when it ends in good order.
CHILD = """
import os, sys, time
from mirror import lifeline
name, log, extra = sys.argv[1:]
def note(what):
    with open(log, "a") as file:
        file.write(f"{name} {what} {os.getpid()}\\n")
stop = lifeline.listen(os.environ)
note("starts")
exec(extra)
stop.event.wait()
note("ends")
"""

PARENT = """
import logging, sys
from mirror.children import Program, Supervisor
logging.basicConfig(level=logging.INFO, format="%(message)s")
log, child, *extras = sys.argv[1:]
import os
programs = [
    Program(f"child{n}", (sys.executable, "-c", child, f"child{n}", log, extra), n, os.environ)
    for n, extra in enumerate(extras)
]
sys.exit(Supervisor(programs).run())
"""


class Family:
    """A parent, its children, and what they noted."""

    def __init__(self, folder, *extras):
        self.notes = folder / "notes"
        self.notes.touch()
        self.errors = (folder / "stderr").open("w+")
        argv = [sys.executable, "-c", PARENT, str(self.notes), CHILD, *extras]
        self.parent = subprocess.Popen(argv, cwd=REPOSITORY, stderr=self.errors)

    def lines(self, what):
        found = [line.split() for line in self.notes.read_text().splitlines()]
        return [(name, int(pid)) for name, noted, pid in found if noted == what]

    def wait_for(self, what, count, seconds=20):
        wait_until(lambda: len(self.lines(what)) >= count, seconds)
        return self.lines(what)

    def stderr(self):
        return Path(self.errors.name).read_text()

    def end(self):
        if self.parent.poll() is None:
            self.parent.kill()
        self.parent.wait()
        self.errors.close()
        wait_until(lambda: not any(is_alive(pid) for _, pid in self.lines("starts")), 15)


@pytest.fixture
def start(tmp_path):
    families = []

    def start(*extras):
        families.append(Family(tmp_path, *extras))
        return families[-1]

    yield start
    for family in families:
        family.end()


def test_a_dead_child_is_started_again_and_the_others_go_on(start):
    family = start("", "")
    first, second = sorted(family.wait_for("starts", 2))
    os.kill(first[1], signal.SIGKILL)
    names = [name for name, _ in family.wait_for("starts", 3)]
    assert names[2:] == ["child0"]
    assert is_alive(second[1])
    assert "child0 ended by signal 9 (SIGKILL); started again in 1 s" in family.stderr()


def test_a_child_that_keeps_failing_is_started_ever_more_slowly(start):
    family = start("sys.exit(5)", "")
    family.wait_for("starts", 4)
    assert family.stderr().count("child0 ended with exit code 5; started again in") >= 2
    assert "again in 2 s" in family.stderr()
    assert is_alive(dict(family.lines("starts"))["child1"])


def test_a_child_that_cannot_work_with_its_settings_ends_everything_at_the_start(start):
    family = start("sys.exit(2)", "")
    assert family.parent.wait(15) != 0
    assert "child0 ended with exit code 2; the reason stands above" in family.stderr()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_the_children_in_their_order(start, number, code):
    family = start("", "", "")
    family.wait_for("starts", 3)
    family.parent.send_signal(number)
    assert family.parent.wait(10) == code
    assert [name for name, _ in family.lines("ends")] == ["child0", "child1", "child2"]


def test_a_child_that_does_not_end_is_killed_within_ten_seconds(start):
    family = start("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)", "")
    stubborn = dict(family.wait_for("starts", 2))["child0"]
    began = time.monotonic()
    family.parent.send_signal(signal.SIGINT)
    assert family.parent.wait(10) == 130
    assert time.monotonic() - began < 10
    assert not is_alive(stubborn)
    assert [name for name, _ in family.lines("ends")] == ["child1"]
    assert "child0 was killed: it did not end in time" in family.stderr()


def test_a_second_signal_ends_everything_at_once(start):
    family = start("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)", "")
    pids = [pid for _, pid in family.wait_for("starts", 2)]
    began = time.monotonic()
    family.parent.send_signal(signal.SIGINT)
    wait_until(lambda: "Ctrl-C again to stop at once" in family.stderr(), 5)
    family.parent.send_signal(signal.SIGINT)
    assert family.parent.wait(3) == 130
    assert time.monotonic() - began < 3
    assert not any(is_alive(pid) for pid in pids)


def test_a_killed_parent_takes_its_children_along(start):
    family = start("", "", "")
    pids = [pid for _, pid in family.wait_for("starts", 3)]
    family.parent.kill()
    wait_until(lambda: not any(is_alive(pid) for pid in pids), 5)
    assert len(family.lines("ends")) == 3


def test_ctrl_c_on_the_terminal_reaches_the_parent_alone(start):
    family = start("", "")
    for _, pid in family.wait_for("starts", 2):
        assert os.getsid(pid) == pid


def test_a_program_that_is_not_there_stops_nobody(start):
    family = start("os.execv('/nowhere', ['x'])", "")
    family.wait_for("starts", 3)
    assert "child0 ended with exit code 1" in family.stderr()
