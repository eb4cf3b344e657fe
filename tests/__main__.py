"""`python -m tests`: all that must hold before a change goes in, in order, to the first failure.

Two runs of pytest go side by side at the end: the integration tests mostly wait for the processes
that they start. Arguments go to one run: `python -m tests -k config`. Slow suites are left out; the
README has them.
"""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPTS = Path(sys.executable).parent
RAM = Path("/dev/shm")
RAM_BYTES = 8_000_000_000
PYTHON = [sys.executable, "-m"]
PYTEST = [*PYTHON, "pytest", "-m", "not slow"]
INTEGRATION = "tests/integration"
PREFIX = "cs-"
"""Short: the path of a unix socket has 107 bytes, and tests have long names."""


def folder_for_tests():
    """Where tests write: in memory where there is room, as most of their time goes to the disk.

    What must be seen on a real disk, benches and slow suites, is run without this.
    """
    if RAM.is_dir() and os.access(RAM, os.W_OK):
        found = os.statvfs(RAM)
        runs_programs = not found.f_flag & os.ST_NOEXEC
        if runs_programs and found.f_bavail * found.f_frsize >= RAM_BYTES:
            return tempfile.TemporaryDirectory(prefix=PREFIX, dir=RAM)
    return tempfile.TemporaryDirectory(prefix=PREFIX)


def steps(arguments, folder):
    """Commands one after another; those of one step side by side."""
    yield [[*PYTHON, "ruff", "check", "."]]
    yield [[*PYTHON, "ruff", "format", "--check", "."]]
    yield [[*PYTHON, "mypy"]]
    yield [[str(SCRIPTS / "lint-imports")]]
    runs = [arguments] if arguments else [[INTEGRATION], ["tests", f"--ignore={INTEGRATION}"]]
    yield [[*PYTEST, f"--basetemp={folder}/{n}", *words] for n, words in enumerate(runs)]


def shown(command):
    return shlex.join([Path(command[0]).name, *command[1:]])


def run(commands, environment, folder):
    """Run commands side by side, the first one in sight; return the exit code of a failed one."""
    outputs = [None, *(Path(folder) / f"{number}.out" for number in range(1, len(commands)))]
    processes = []
    for command, output in zip(commands, outputs, strict=True):
        print(f"\n$ {shown(command)}", flush=True)
        to = output.open("wb") if output else None
        processes.append(
            subprocess.Popen(
                command, cwd=REPOSITORY, env=environment, stdout=to, stderr=to and subprocess.STDOUT
            )
        )
    failed = 0
    for command, output, process in zip(commands, outputs, processes, strict=True):
        code = process.wait()
        if output:
            print(f"\n$ {shown(command)}\n{output.read_text(errors='replace')}", flush=True)
        if code != 0:
            print(f"\nfailed: {shown(command)} (exit code {code})", flush=True)
            failed = code
    return failed


def main(arguments):
    path = f"{SCRIPTS}{os.pathsep}{os.environ.get('PATH', '')}"
    with folder_for_tests() as folder:
        os.chmod(folder, 0o755)  # Some tests are other users for a while.
        environment = {**os.environ, "PATH": path, "TMPDIR": folder}
        for commands in steps(arguments, folder):
            if code := run(commands, environment, folder):
                return code
    print("\nall of it passed", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
