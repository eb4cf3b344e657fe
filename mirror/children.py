"""Child processes: started, started again when they die, ended in order.

The parent does nothing else, so that it has little that can fail, and stays small: standard
library only. A child that ends is started again after 1, 2, 4 … 30 s, while the others go on.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mirror.config import ENV_PREFIX, Config
from mirror.errors import CratesealError, UsageError
from mirror.options import CONFIG_VARIABLE, PARENT_FD_VARIABLE

LOG = logging.getLogger("crateseal")

RESTART_FIRST_SECONDS = 1.0
RESTART_MAX_SECONDS = 30.0
HEALTHY_SECONDS = 60.0
"""Who ran so long starts with the shortest wait again."""
STOP_SECONDS = (4.0, 6.0, 9.0)
"""From the first signal: when the first, second and last stage have had their time."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to start. `stage`: its place in the order in which programs are ended, from 0."""

    name: str
    argv: tuple[str, ...]
    stage: int
    environment: Mapping[str, str] = field(default_factory=dict)
    keep_fds: tuple[int, ...] = ()


class ChildFailedError(CratesealError):
    """A child that had to end well did not; it has said why, and ended with this exit code."""

    def __init__(self, name: str, returncode: int) -> None:
        self.exit_code = returncode if returncode > 0 else 1
        super().__init__(f"{name} ended {_in_words(returncode)}; the reason stands above")


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a child gets from its parent besides the settings."""

    environment: Mapping[str, str]
    flags: tuple[str, ...] = ()
    """-v and -q."""


def mirror_program(
    command: str, config: Config, inherited: Inherited, *flags: str, stage: int = 0
) -> Program:
    """Return one of our own commands as a program that gets exactly these settings.

    No file and no variable adds to them: what changes later changes no child that is started again.
    """
    # -P: a folder called `mirror` or `tuf` where the user happens to stand is not imported.
    argv = (sys.executable, "-P", "-m", "mirror", command, *flags, *inherited.flags)
    kept = {
        key: text for key, text in inherited.environment.items() if not key.startswith(ENV_PREFIX)
    }
    given = {**kept, **config.to_environment(), CONFIG_VARIABLE: os.devnull}
    return Program(command, argv, stage, given)


class Lifeline:
    """The pipe whose end tells children that their parent is gone."""

    def __init__(self) -> None:
        self.child_end, self._parent_end = os.pipe()

    def start(self, program: Program) -> subprocess.Popen[bytes]:
        """Start a program in a session of its own, holding the child's end.

        A session of its own: Ctrl-C on the terminal reaches the parent alone, which then ends its
        children in order.
        """
        return subprocess.Popen(
            program.argv,
            stdin=subprocess.DEVNULL,
            env={**program.environment, PARENT_FD_VARIABLE: str(self.child_end)},
            pass_fds=(self.child_end, *program.keep_fds),
            start_new_session=True,
        )

    def close(self) -> None:
        """Let go of both ends."""
        os.close(self.child_end)
        os.close(self._parent_end)


class _Child:
    """One program: it runs, or waits to be started again."""

    def __init__(self, program: Program, lifeline: Lifeline) -> None:
        self.program = program
        self.due: float | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self._lifeline = lifeline
        self._wait = RESTART_FIRST_SECONDS
        self._started = 0.0

    def start(self, now: float) -> None:
        self.due = None
        self._started = now
        try:
            self.process = self._lifeline.start(self.program)
        except OSError as error:  # No memory, no process left: a reason to try again, too.
            self._ended(now, f"could not be started: {error}")

    def reap(self, now: float) -> int | None:
        """Notice that it ended, say so, set the time of its next start; return its exit code."""
        if self.process is None or self.process.poll() is None:
            return None
        code = self.process.returncode
        self.process = None
        self._ended(now, f"ended {_in_words(code)}")
        return code

    def _ended(self, now: float, what: str) -> None:
        if now - self._started >= HEALTHY_SECONDS:
            self._wait = RESTART_FIRST_SECONDS
        self.due = now + self._wait
        LOG.warning("%s %s; started again in %.0f s", self.program.name, what, self._wait)
        self._wait = min(2 * self._wait, RESTART_MAX_SECONDS)

    def kill(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Supervisor:
    """Keeps programs running until a signal says otherwise.

    `clock` is monotonic. `on_tick`, if given, is called with the time twice a second for as long
    as it returns true (`up` looks there whether all is ready).
    """

    def __init__(
        self,
        programs: Sequence[Program],
        *,
        clock: Callable[[], float] = time.monotonic,
        on_tick: Callable[[float], bool] | None = None,
    ) -> None:
        self._lifeline = Lifeline()
        self._children = [_Child(program, self._lifeline) for program in programs]
        self._clock = clock
        self._on_tick = on_tick
        self._signals: list[int] = []
        self._began = 0.0
        self._misused: ChildFailedError | None = None

    def run(self) -> int:
        """Run until SIGINT or SIGTERM; return the exit code: 130 or 0.

        Raises:
            ChildFailedError: at the start, a child cannot work with these settings.
        """
        wake = _wake_on_signals(self._signals)
        self._began = self._clock()
        for child in self._children:
            child.start(self._began)
        try:
            while not self._signals and not self._misused:
                self._keep_running()
                _sleep(wake, self._pause())
            code = self._end(wake)
            if self._misused:
                raise self._misused
            return code
        finally:
            self._kill_all()
            self._lifeline.close()

    def _keep_running(self) -> None:
        now = self._clock()
        for child in self._children:
            code = child.reap(now)
            if code == UsageError.exit_code and now - self._began < HEALTHY_SECONDS:
                # To start it again would not help; later on the others go on without it.
                self._misused = ChildFailedError(child.program.name, code)
            if child.due is not None and child.due <= now:
                child.start(now)
        if self._on_tick is not None and not self._on_tick(now):
            self._on_tick = None

    def _pause(self) -> float:
        if self._misused:
            return 0.0
        if self._on_tick is not None:
            return 0.5
        now = self._clock()
        waits = [child.due - now for child in self._children if child.due is not None]
        return max(0.0, min(waits, default=60.0))

    def _end(self, wake: int) -> int:
        """End one stage after another; a second signal or the last deadline leaves the rest."""
        began = self._clock()
        if self._signals:
            LOG.info("stopping; Ctrl-C again to stop at once")
        for stage, seconds in enumerate(STOP_SECONDS):
            children = [each for each in self._children if each.program.stage == stage]
            for child in children:
                child.kill(signal.SIGTERM)
            self._await(children, wake, began + seconds)
        self._await(self._children, wake, began + STOP_SECONDS[-1])
        return 130 if signal.SIGINT in self._signals else 0

    def _await(self, children: Sequence[_Child], wake: int, deadline: float) -> None:
        while any(child.is_running for child in children) and len(self._signals) < 2:
            left = deadline - self._clock()
            if left <= 0:
                break
            # A child that ends is a wake-up; the half second is for one that was missed.
            _sleep(wake, min(left, 0.5))

    def _kill_all(self) -> None:
        for child in self._children:
            if child.is_running:
                why = "at once, as told" if len(self._signals) > 1 else "it did not end in time"
                LOG.warning("%s was killed: %s", child.program.name, why)
            child.kill(signal.SIGKILL)
        for child in self._children:
            if child.process is not None:
                child.process.wait()


def _wake_on_signals(received: list[int]) -> int:
    """Note SIGINT and SIGTERM in the list; return a descriptor to read at any signal.

    The descriptor closes the gap between looking at the list and going to sleep.
    """
    wake, write_end = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda got, _frame: received.append(got))
    signal.signal(signal.SIGCHLD, lambda _got, _frame: None)
    return wake


def _sleep(wake: int, seconds: float) -> None:
    ready, _, _ = select.select((wake,), (), (), seconds)
    if ready:
        os.read(wake, 4096)


def _in_words(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    return f"by signal {-code} ({signal.Signals(-code).name})"
