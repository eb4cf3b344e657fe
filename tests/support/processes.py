"""The real processes: `crateseal …` as a person would start it, and what it takes to watch it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

REPOSITORY = Path(__file__).parents[2]
CRATESEAL = [sys.executable, "-m", "mirror"]


def environment(**more):
    """Return this process's environment without settings of ours, and with these; None: without."""
    kept = {key: text for key, text in os.environ.items() if not key.startswith("CRATESEAL_")}
    whole = {**kept, "PYTHONPATH": str(REPOSITORY), "NO_COLOR": "1", **more}
    return {key: text for key, text in whole.items() if text is not None}


def crateseal(*arguments, cwd, timeout=60, **more):
    """Run a command to its end; return what subprocess returns, with text."""
    return subprocess.run(
        [*CRATESEAL, *map(str, arguments)],
        cwd=cwd,
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def wait_until(is_so, seconds=30, every=0.02):
    """Return the first true answer of `is_so`; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (answer := is_so()):
        assert time.monotonic() < deadline, f"it never came about: {is_so}"
        time.sleep(every)
    return answer


def is_alive(pid):
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_of(pid):
    """Return command -> pid of a process's children, e.g. `{"sign": 4711}`."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            words = (entry / "cmdline").read_bytes().decode().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == pid and "mirror" in words:
            found[words[words.index("mirror") + 1]] = int(entry.name)
    return found


class Process:
    """A command that goes on until it is told to end, its output in files."""

    def __init__(self, *arguments, cwd, **more):
        self._out = (cwd / f"{arguments[0]}.out").open("w")
        self._err = (cwd / f"{arguments[0]}.err").open("w")
        self.process = subprocess.Popen(
            [*CRATESEAL, *map(str, arguments)],
            cwd=cwd,
            env=environment(**more),
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
        )
        self.pid = self.process.pid

    @property
    def out(self):
        return Path(self._out.name).read_text()

    @property
    def err(self):
        return Path(self._err.name).read_text()

    def children(self):
        return children_of(self.pid)

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, seconds=15):
        return self.process.wait(seconds)

    def end(self):
        """Whatever happened: leave no process behind."""
        children = self.children()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pid in children.values():
            wait_until(lambda pid=pid: not is_alive(pid), 20)
        self._out.close()
        self._err.close()


class Up(Process):
    """`crateseal up` on a free port, in the folder `cwd`."""

    def __init__(self, *arguments, cwd, **more):
        super().__init__("up", "--port", "0", *arguments, cwd=cwd, **more)
        self.data = cwd / "crateseal-data"

    def wait_until_ready(self):
        """Return when the first steps are printed; remember the URL they name."""
        wait_until(lambda: "Stop: " in self.out or self.process.poll() is not None)
        assert self.process.poll() is None, self.err
        words = self.out.split()
        self.url = words[words.index("ready:") + 1]
        return self

    def get(self, path):
        return httpx.get(f"{self.url}{path}", timeout=15)

    def stop(self):
        """Ctrl-C; return the exit code."""
        self.signal(signal.SIGINT)
        return self.wait()
