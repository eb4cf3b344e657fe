"""Run the real programs as users of their own, each with the barriers a deployment gives it.

Python, its packages and this checkout may lie where only root may go; a private mount namespace
shows them to every user under one folder. Needs root, `unshare`, `mount` and `setpriv`.
"""

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SHARED_GROUP = 61000
"""Who may put files beside those of others in the data folder: `sync` and `sign`."""


def as_user(uid, *command, groups=(), network=True):
    """Return the argument list that runs `python -m …` (or `-c …`) as this user."""
    shown = {
        "base": Path(sys.base_prefix),
        "packages": Path(sysconfig.get_path("purelib")),
        "checkout": REPOSITORY,
    }
    python = f"/mnt/base/bin/python3.{sys.version_info.minor}"
    lines = ["set -e", "mount -t tmpfs -o mode=755 tmpfs /mnt"]
    for name, path in shown.items():
        lines.append(f"mkdir /mnt/{name}")
        lines.append(f"mount --bind {shlex.quote(str(path))} /mnt/{name}")
    kept = f"--groups {','.join(map(str, groups))}" if groups else "--clear-groups"
    words = " ".join(shlex.quote(str(word)) for word in command)
    lines.append("cd /")
    lines.append(
        f"exec setpriv --reuid {uid} --regid {groups[0] if groups else uid} {kept}"
        f" --no-new-privs --inh-caps=-all --bounding-set=-all"
        f" env LD_LIBRARY_PATH=/mnt/base/lib PYTHONPATH=/mnt/checkout:/mnt/packages"
        f" PYTHONDONTWRITEBYTECODE=1 {python} {words}"
    )
    namespaces = ["--mount"] if network else ["--mount", "--net"]
    return ["unshare", *namespaces, "sh", "-c", "\n".join(lines)]


def run_as(uid, code, *arguments, groups=()):
    """Run a few lines of Python as this user; return what they print."""
    done = subprocess.run(
        as_user(uid, "-c", code, *arguments, groups=groups),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
