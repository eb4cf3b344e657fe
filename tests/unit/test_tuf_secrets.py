import fcntl
import os
import pty
import subprocess
import sys
import termios
import textwrap
import time
from contextlib import contextmanager

import pytest

from tuf_repo.errors import KeyFileError
from tuf_repo.secrets import asker, new_passphrase

# --- a file descriptor


@contextmanager
def pipe(data):
    read, write = os.pipe()
    os.write(write, data)
    os.close(write)
    try:
        yield read
    finally:
        os.close(read)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_a_passphrase_is_one_line_of_a_descriptor(end):
    with pipe(b"correct horse " + end) as fd:
        assert asker(fd)("passphrase") == b"correct horse "


def test_each_question_takes_one_line_and_not_a_byte_more():
    with pipe(b"one\ntwo\nrest") as fd:
        ask = asker(fd)
        assert (ask("passphrase"), ask("pin")) == (b"one", b"two")
        assert os.read(fd, 10) == b"rest"


def test_bytes_of_any_kind_are_a_passphrase():
    with pipe(b"\xff\x00\xfe\n") as fd:
        assert asker(fd)("passphrase") == b"\xff\x00\xfe"


@pytest.mark.parametrize("data", [b"", b"\n", b"\r\n"])
def test_no_answer_is_refused(data):
    with pipe(data) as fd, pytest.raises(KeyFileError, match="passphrase: expected an answer"):
        asker(fd)("passphrase")


def test_a_long_answer_is_refused_and_not_repeated():
    with pipe(b"secret" * 500) as fd, pytest.raises(KeyFileError, match="at most 1024") as caught:
        asker(fd)("passphrase")
    assert "secret" not in str(caught.value)


def test_a_descriptor_that_is_not_open_is_named():
    read, write = os.pipe()
    os.close(read)
    os.close(write)
    with pytest.raises(KeyFileError, match=f"file descriptor {read}, got Bad file descriptor"):
        asker(read)("passphrase")


def test_a_new_passphrase_has_eight_characters_and_is_not_repeated_from_a_descriptor():
    with pipe(b"12345678\n") as fd:
        assert new_passphrase(fd, "alice.pem") == b"12345678"
    with pipe(b"1234567\n") as fd, pytest.raises(KeyFileError, match="at least 8") as caught:
        new_passphrase(fd, "alice.pem")
    assert "1234567" not in str(caught.value)


# --- a terminal

ASK = """
    import sys
    from tuf_repo.errors import KeyFileError
    from tuf_repo.secrets import asker, new_passphrase
    try:
        answer = new_passphrase(None, "it") if sys.argv[1:] else asker(None)("passphrase for it")
    except KeyFileError as error:
        answer = str(error).encode()
    sys.stdout.buffer.write(answer)
"""


def asking(*arguments, **options):
    command = [sys.executable, "-c", textwrap.dedent(ASK), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, **options)


class Terminal:
    """A real terminal: what a person types goes in, what the screen shows comes out."""

    def __init__(self):
        self.hand, self.line = pty.openpty()
        self.screen = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.hand)
        os.close(self.line)

    def own(self):
        """Make this the terminal of the process that calls it, which leads a new session."""
        fcntl.ioctl(self.line, termios.TIOCSCTTY, 0)

    def run(self, *arguments):
        # Input and output go elsewhere: the question goes to the terminal all the same.
        return asking(
            *arguments, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=self.own
        )

    def wait_for(self, text):
        deadline = time.monotonic() + 20
        while text not in self.screen:
            assert time.monotonic() < deadline, self.screen
            self.screen += os.read(self.hand, 1000)

    def type(self, text):
        os.write(self.hand, text)


def test_a_terminal_is_asked_without_echo():
    with Terminal() as terminal:
        process = terminal.run()
        terminal.wait_for(b"passphrase for it: ")
        terminal.type(b"correct horse\n")
        assert process.communicate(timeout=20)[0] == b"correct horse"
        terminal.wait_for(b"passphrase for it: \r\n")
        assert b"correct" not in terminal.screen
        # And echoes again afterwards.
        terminal.type(b"visible")
        terminal.wait_for(b"visible")


@pytest.mark.parametrize(
    ("second", "answer"),
    [
        (b"correct horse", b"correct horse"),
        (b"correct hose", b"passphrase: expected the same twice, got two different ones"),
    ],
)
def test_a_new_passphrase_is_typed_twice(second, answer):
    with Terminal() as terminal:
        process = terminal.run("new")
        terminal.wait_for(b"new passphrase for it: ")
        terminal.type(b"correct horse\n")
        terminal.wait_for(b"the same again: ")
        terminal.type(second + b"\n")
        assert process.communicate(timeout=20)[0] == answer
        assert b"correct" not in terminal.screen


def test_without_terminal_and_descriptor_nothing_is_asked():
    process = asking(stdin=subprocess.PIPE, start_new_session=True)
    said, _ = process.communicate(b"correct horse\n", timeout=20)
    assert said == (
        b"passphrase for it: expected a terminal to ask on, or --passphrase-fd, got neither"
    )
