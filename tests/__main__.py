"""`python -m tests`: all that must hold before a change goes in, in order, to the first failure.

Arguments go to pytest: `python -m tests -k config`. Slow suites are left out; the README has them.
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


def folder_for_tests():
    """Where tests write: in memory where there is room, as most of their time goes to the disk.

    What must be seen on a real disk, benches and slow suites, is run without this.
    """
    if RAM.is_dir() and os.access(RAM, os.W_OK):
        found = os.statvfs(RAM)
        runs_programs = not found.f_flag & os.ST_NOEXEC
        if runs_programs and found.f_bavail * found.f_frsize >= RAM_BYTES:
            return tempfile.TemporaryDirectory(prefix="crateseal-tests-", dir=RAM)
    return tempfile.TemporaryDirectory(prefix="crateseal-tests-")


def steps(arguments):
    python = [sys.executable, "-m"]
    yield [*python, "ruff", "check", "."]
    yield [*python, "ruff", "format", "--check", "."]
    yield [*python, "mypy"]
    yield [str(SCRIPTS / "lint-imports")]
    yield [*python, "pytest", "-m", "not slow", *arguments]


def main(arguments):
    with folder_for_tests() as folder:
        return run(arguments, folder)


def run(arguments, folder):
    path = f"{SCRIPTS}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, "PATH": path, "TMPDIR": folder}
    for command in steps(arguments):
        shown = [Path(command[0]).name, *command[1:]]
        print(f"\n$ {shlex.join(shown)}", flush=True)
        code = subprocess.run(command, cwd=REPOSITORY, env=environment, check=False).returncode
        if code != 0:
            print(f"\nfailed: {shlex.join(shown)} (exit code {code})", flush=True)
            return code
    print("\nall of it passed", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
