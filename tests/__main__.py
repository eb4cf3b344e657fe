"""`python -m tests`: all that must hold before a change goes in, in order, to the first failure.

Arguments go to pytest: `python -m tests -k config`. Slow suites are left out; the README has them.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPTS = Path(sys.executable).parent


def steps(arguments):
    python = [sys.executable, "-m"]
    yield [*python, "ruff", "check", "."]
    yield [*python, "ruff", "format", "--check", "."]
    yield [*python, "mypy"]
    yield [str(SCRIPTS / "lint-imports")]
    yield [*python, "pytest", "-m", "not slow", *arguments]


def main(arguments):
    environment = {**os.environ, "PATH": f"{SCRIPTS}{os.pathsep}{os.environ.get('PATH', '')}"}
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
