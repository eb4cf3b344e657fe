"""Cargo as our child: in our process group, with our streams; signals and its end passed through.

Light imports only: this is on the way of each build.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from types import FrameType

from mirror.errors import UsageError

_TO_THE_GROUP = (signal.SIGINT, signal.SIGQUIT)
"""A terminal sends these to cargo, too: it is in our group. Whoever else sends them does not."""
_PASSED_ON = (signal.SIGTERM, signal.SIGHUP)
_PYTHONS_OWN = (signal.SIGPIPE, signal.SIGXFSZ)
"""Python ignores these, and what is ignored stays so in a child."""

Wait = Callable[[int], None]
"""Waits for something to happen; a descriptor given to it is readable when a child may be done."""


def run(program: str, arguments: Sequence[str], environment: Mapping[str, str], wait: Wait) -> int:
    """Start a program, wait for its end; return its wait status.

    Raises:
        UsageError: there is no such program.
    """
    woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    child = _Child()
    handlers = {
        signal.SIGCHLD: _nothing,
        **dict.fromkeys(_TO_THE_GROUP, child.pass_on_unless_told),
        **dict.fromkeys(_PASSED_ON, child.pass_on),
    }
    # What whoever started us ignores (nohup), stays ignored.
    ignored = {each for each in handlers if signal.getsignal(each) is signal.SIG_IGN}
    previous = {
        each: signal.signal(each, handler)
        for each, handler in handlers.items()
        if each not in ignored or each is signal.SIGCHLD
    }
    try:
        child.start(program, arguments, environment)
        while (status := child.ended()) is None:
            wait(woken)
        return status
    finally:
        signal.set_wakeup_fd(before)
        for each, handler in previous.items():
            signal.signal(each, handler)
        os.close(woken)
        os.close(wake)


def replace_us(program: str, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Become a program; return only if it is not there.

    Raises:
        UsageError: there is no such program.
    """
    for each in _PYTHONS_OWN:
        signal.signal(each, signal.SIG_DFL)
    try:
        os.execvpe(program, [program, *arguments], dict(environment))  # noqa: S606
    except OSError as error:
        raise _missing(program, error) from error


def end_like(status: int) -> int:
    """Return the exit code of a wait status; after a signal, die of the same."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number not in {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return 128 + number
    return os.waitstatus_to_exitcode(status)


class _Child:
    def __init__(self) -> None:
        self._pid = 0
        self._pending: list[int] = []

    def start(self, program: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        try:
            # Unlike subprocess it leaves descriptors open that are to be inherited: make's
            # jobserver, when a build script calls us.
            self._pid = os.posix_spawnp(
                program, [program, *arguments], environment, setsigdef=_PYTHONS_OWN
            )
        except OSError as error:
            raise _missing(program, error) from error
        for number in self._pending:
            os.kill(self._pid, number)

    def pass_on(self, number: int, _frame: FrameType | None) -> None:
        if self._pid:
            with contextlib.suppress(ProcessLookupError):  # it ended a moment ago
                os.kill(self._pid, number)
        else:
            self._pending.append(number)

    def pass_on_unless_told(self, number: int, frame: FrameType | None) -> None:
        if not _is_in_foreground():
            self.pass_on(number, frame)

    def ended(self) -> int | None:
        """Return the wait status; None: it runs."""
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if not pid:
            return None
        self._pid = 0  # It may be another process's number from now on.
        return status


def _is_in_foreground() -> bool:
    """Whether what is typed at the terminal is sent to our group."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    pass


def _missing(program: str, error: OSError) -> UsageError:
    return UsageError(f"{program}: cannot be started: {error.strerror}; is cargo in PATH?")
