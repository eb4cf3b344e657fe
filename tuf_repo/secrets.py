"""Passphrases and PINs: typed on the terminal without echo, or read from a file descriptor.

Rule: never from the command line or the environment, where other processes and logs see them.
"""

from __future__ import annotations

import os
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from tuf_repo.errors import KeyFileError
from tuf_repo.keyfiles import Ask

SECRET_MAX_BYTES = 1024
PASSPHRASE_MIN_BYTES = 8
TERMINAL = "/dev/tty"


def asker(fd: int | None) -> Ask:
    """Return what asks for a secret: one line of a descriptor for each question, or the terminal.

    The line's end is no part of the secret. What is returned raises `KeyFileError` where there is
    nobody to ask, and where the answer is empty or longer than 1,024 bytes.
    """
    return ask_terminal if fd is None else partial(_ask_fd, fd)


def new_passphrase(fd: int | None, what: str) -> bytes:
    """Ask for a passphrase to encrypt a key with; on the terminal twice.

    Raises:
        KeyFileError: it is short, or was not typed the same way twice, or there is nobody to ask.
    """
    ask = asker(fd)
    passphrase = ask(f"new passphrase for {what}")
    if len(passphrase) < PASSPHRASE_MIN_BYTES:
        raise KeyFileError(
            "passphrase", f"at least {PASSPHRASE_MIN_BYTES} characters", f"{len(passphrase)}"
        )
    if fd is None and ask("the same again") != passphrase:
        raise KeyFileError("passphrase", "the same twice", "two different ones")
    return passphrase


def ask_terminal(what: str) -> bytes:
    """Ask on the terminal that this process belongs to, wherever its input and output go.

    Raises:
        KeyFileError: there is none, or nothing was typed.
    """
    try:
        fd = os.open(TERMINAL, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        raise KeyFileError(what, "a terminal to ask on, or --passphrase-fd", "neither") from None
    try:
        with _no_echo(fd):
            os.write(fd, f"{what}: ".encode())
            try:
                return _line(fd, what)
            finally:
                os.write(fd, b"\n")
    except (OSError, termios.error):
        raise KeyFileError(what, "an answer", "a terminal that went away") from None
    finally:
        os.close(fd)


@contextmanager
def _no_echo(fd: int) -> Iterator[None]:
    before = termios.tcgetattr(fd)
    silent = list(before)
    silent[3] = before[3] & ~termios.ECHO
    try:
        # FLUSH: what was typed before the question is no answer to it.
        termios.tcsetattr(fd, termios.TCSAFLUSH, silent)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSAFLUSH, before)


def _ask_fd(fd: int, what: str) -> bytes:
    try:
        return _line(fd, what)
    except OSError as error:
        problem = error.strerror or "an error"
    raise KeyFileError(what, f"a line on file descriptor {fd}", problem)


def _line(fd: int, what: str) -> bytes:
    """Read up to the end of a line and not a byte further: the next line is the next answer."""
    line = bytearray()
    while (byte := os.read(fd, 1)) not in {b"", b"\n"}:
        line += byte
        if len(line) > SECRET_MAX_BYTES:
            raise KeyFileError(what, f"at most {SECRET_MAX_BYTES} bytes", "more")
    secret = bytes(line).removesuffix(b"\r")
    if not secret:
        raise KeyFileError(what, "an answer", "an empty line or none")
    return secret
