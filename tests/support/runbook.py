"""Runs the commands of a runbook as they are written, each in the home of whom it names."""

import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time

from tests.support.ceremony import REPOSITORY

_LINE = re.compile(r"^(?P<who>[a-z]+)\$ (?P<command>.+)$", re.MULTILINE)
_CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ASKS = (
    (b"new passphrase for ", b"a long passphrase\n"),
    (b"the same again", b"a long passphrase\n"),
    (b"passphrase for ", b"a long passphrase\n"),
    (b"[y/N] ", b"y\n"),
)


def commands(text):
    """Who types what, in order."""
    return [
        (found["who"], found["command"])
        for block in _CONSOLE.findall(text)
        for found in _LINE.finditer(block)
    ]


class Stage:
    """Homes for everybody, a folder that files travel in, and the two programs on the PATH."""

    def __init__(self, base):
        self.base = base
        self._bin = base / "bin"
        self._bin.mkdir(parents=True)
        self.stick = base / "stick"
        self.stick.mkdir()
        for name, module in (("tuf-repo", "tuf_repo"), ("crateseal", "mirror")):
            script = self._bin / name
            script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m {module} "$@"\n')
            script.chmod(0o755)

    def home(self, who):
        home = self.base / "homes" / who
        home.mkdir(parents=True, exist_ok=True)
        return home

    def environment(self, who):
        kept = {key: text for key, text in os.environ.items() if not key.startswith("CRATESEAL_")}
        return {
            **kept,
            "PATH": f"{self._bin}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            "HOME": str(self.home(who)),
            "STICK": str(self.stick),
            "NO_COLOR": "1",
        }

    def run(self, *typed, seconds=60):
        """Type commands, pairs of who and what, all at once; return what each said."""
        terminals = [Terminal(self, who, command) for who, command in typed]
        deadline = time.monotonic() + seconds
        try:
            while is_open := [each for each in terminals if each.is_open]:
                assert time.monotonic() < deadline, [(each.command, each.said) for each in is_open]
                for each in select.select(is_open, [], [], 1)[0]:
                    each.read()
        finally:
            codes = [each.end() for each in terminals]
        for each, code in zip(terminals, codes, strict=True):
            assert code == 0, f"{each.command}\nexit {code}\n{each.said.decode()}"
        return [each.said.decode(errors="replace") for each in terminals]

    def start(self, who, *words):
        """Start a command that goes on until it is told to end."""
        with (self.home(who) / "log").open("ab") as log:
            return subprocess.Popen(
                words,
                cwd=self.home(who),
                env=self.environment(who),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )


class Terminal:
    """Somebody's terminal, with one command typed; questions are answered as they come."""

    def __init__(self, stage, who, command):
        self.command = f"{who}$ {command}"
        self.said = b""
        self.is_open = True
        self._answered = 0
        home, environment = stage.home(who), stage.environment(who)
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.chdir(home)
            os.execvpe("bash", ["bash", "-c", command], environment)

    def fileno(self):
        return self._fd

    def read(self):
        try:
            some = os.read(self._fd, 65536)
        except OSError:  # The last process that had it open has gone.
            some = b""
        self.is_open = bool(some)
        self.said += some
        question = self.said[self._answered :]
        for asked, answer in _ASKS:
            if asked in question and question.endswith((b": ", b"[y/N] ")):
                os.write(self._fd, answer)
                self._answered = len(self.said)
                break

    def end(self):
        """Wait for the command, and only then close its terminal: that would hang up on it."""
        if self.is_open:
            os.kill(self._pid, signal.SIGKILL)
        _, status = os.waitpid(self._pid, 0)
        os.close(self._fd)
        return os.waitstatus_to_exitcode(status)


def stop(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    finally:
        process.kill()
        process.wait()
