import errno
import os
import re
import subprocess
import sys

import pytest

from mirror import cli, errors, exits
from mirror.children import ChildFailedError
from mirror.seam import SIGN_SOCKET, SYNC_SOCKET
from mirror.up import SIGN_SOCKET as UPS_SIGN_SOCKET
from mirror.up import SYNC_SOCKET as UPS_SYNC_SOCKET
from tests.support.processes import CRATESEAL, crateseal, environment
from tuf_repo import errors as repository_errors

COMMANDS = ["demo", "up", "init", "sync", "sign", "serve", "status", "check"]
FAR_SIDE = ["trust", "verify", "proxy", "vendor", "cargo-config"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.FindingError("x"), 1),
        (errors.RejectedError("a", "b", "c"), 1),
        (errors.UsageError("x"), 2),
        (errors.UpstreamUnreachableError("x"), 3),
        (errors.UnreachableError("x"), 3),
        (errors.BusyError("x"), 4),
        (errors.MachineError("x"), 5),
        (OSError(errno.ENOSPC, "No space left on device", "/a"), 5),
        (PermissionError(errno.EACCES, "Permission denied", "/a"), 5),
        (OSError(errno.EROFS, "Read-only file system", "/a"), 5),
        (repository_errors.MetadataError("a", "b", "c"), 1),
        (repository_errors.ClockError("a", "b", "c"), 5),
        (repository_errors.KeyFileError("a", "b", "c"), 5),
        (repository_errors.StaleStateError("a", "b", "c"), 4),
        (ChildFailedError("init", 5), 5),
        (ChildFailedError("init", -9), 1),
        (TypeError("x"), 70),
    ],
)
def test_each_kind_of_error_has_its_exit_code_and_takes_one_line(error, code):
    assert exits.exit_code_of(error) == code
    assert "\n" not in exits.in_one_line(error)


def test_an_error_of_the_machine_says_what_where_and_what_next():
    error = OSError(errno.ENOSPC, "No space left on device", "/srv/x")
    assert exits.in_one_line(error) == (
        "/srv/x: No space left on device; make room on this disk and run it again"
    )


def test_a_mistake_of_ours_is_called_one():
    assert "a mistake of ours: KeyError: 'x'" in exits.in_one_line(KeyError("x"))


def test_the_parent_looks_for_the_sockets_that_there_are():
    assert (UPS_SYNC_SOCKET, UPS_SIGN_SOCKET) == (SYNC_SOCKET, SIGN_SOCKET)


@pytest.mark.parametrize("command", COMMANDS + FAR_SIDE)
def test_every_command_says_on_its_first_lines_what_it_does(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert re.match(rf"usage: crateseal {command} (\S+ )?\[options\]\n\n[A-Z].*\.\n", text)
    assert "examples:\n  crateseal " in text


def test_the_general_help_lists_the_commands_there_are(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert all(re.search(rf"\n    {command}\s", text) for command in COMMANDS + FAR_SIDE)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "no command given; `crateseal demo` is a good first one"),
        (["stauts"], "unknown command 'stauts'; did you mean status?"),
        (["--data", "x", "status"], "unknown option '--data'; options follow the command"),
        (["status", "--jsn"], "status: unknown argument '--jsn'; did you mean --json?"),
        (["status", "extra"], "status: unknown argument 'extra'; leave it out"),
        (["serve", "--port"], "argument --port: expected one argument; see `crateseal serve"),
        (["status", "--port", "1"], "status: unknown argument '--port'"),
        (["verify", "--config", "x"], "verify: unknown argument '--config'"),
        (["trust", "--port", "1"], "trust: unknown argument '--port'"),
        (["vendor"], "the following arguments are required: DIR; see `crateseal vendor"),
        (["proxy", "--port", "0"], "--port: expected a whole number from 1 to 65535"),
        (["serve", "--port", "x"], "--port: expected a whole number from 0 to 65535"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(argv, message, capsys):
    assert cli.main(argv) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("crateseal: ")
    assert message in line


@pytest.mark.parametrize("command", ["status", "check", "sign"])
def test_where_there_is_no_mirror_it_is_exit_2(tmp_path, command):
    found = crateseal(command, "--data", tmp_path, cwd=tmp_path)
    assert found.returncode == 2
    assert found.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_traceback_comes_with_vv_only(tmp_path):
    plain = crateseal("status", "-v", cwd=tmp_path)
    assert "Traceback" not in plain.stderr
    loud = crateseal("status", "-vv", cwd=tmp_path)
    assert "Traceback" in loud.stderr
    assert loud.stderr.splitlines()[-1].startswith("crateseal: ")
    assert (plain.returncode, loud.returncode) == (2, 2)


def test_a_reader_who_has_enough_is_no_error(tmp_path):
    assert crateseal("init", "--trial", cwd=tmp_path).returncode == 0
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as closed:
        found = subprocess.run(
            [*CRATESEAL, "status"],
            cwd=tmp_path,
            env=environment(),
            stdout=closed,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (found.returncode, found.stderr) == (0, b"")


def test_help_and_the_parent_of_up_load_no_room():
    heavy = ("tuf", "httpx", "uvicorn", "fastapi", "rich", "asyncio", "ssl", "mirror.sign")
    code = f"import sys, mirror.cli, mirror.up; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, check=True, text=True
    )
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("command", ["up", "sync"])
def test_a_names_file_that_is_not_there_is_said_before_anything_is_made(tmp_path, command):
    done = crateseal(command, "--mode", "index", "--names", "nowhere.txt", cwd=tmp_path)
    assert done.returncode == 2
    assert "nowhere.txt: no such file" in done.stderr
    assert list(tmp_path.iterdir()) == []
