"""Who is attacked: `crateseal verify`, a real cargo behind `cargo sealed`, and `crateseal vendor`.

Each is a process (cargo's proxy is one more) with folders of its own; what it printed and what it
left on disk is what an attack is judged by.
"""

import multiprocessing
import os
import re
import resource
import shutil
import subprocess
import sys

from mirror.cli import main
from tests.conftest import need
from tests.support.processes import environment

CARGO_SEALED = "import sys; from mirror.client.sealed.cargo import main; sys.exit(main())"
"""What the entry point `cargo-sealed` does."""
MEMORY_MAX_BYTES = 3_000_000_000
"""Less than what a bomb unpacks to."""
HURRIED = {"CRATESEAL_CONNECT_TIMEOUT": "5s", "CRATESEAL_MAX_WAIT": "5s"}


def command(user, *words, **more):
    """Run a command of `crateseal` in a process of its own; return exit code and all it printed.

    It is forked from a process that has imported what it needs, which is most of its time.
    """
    out = user.folder / f"{words[0]}.out"
    variables = environment(**user.variables(**HURRIED, **more))
    process = forks().Process(target=_run, args=(words, variables, user.project, out))
    process.start()
    process.join(60)
    process.kill()
    return process.exitcode, out.read_text()


def forks():
    """Return the way to make such processes; there is one that they come from in each test run."""
    context = multiprocessing.get_context("forkserver")
    modules = ("verify", "vendor", "trusting", "store")
    names = ("mirror.cli", "tomlkit", *(f"mirror.client.{name}" for name in modules))
    context.set_forkserver_preload(list(names))
    return context


def _run(words, variables, folder, out):
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX_BYTES, MEMORY_MAX_BYTES))
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for fd in (1, 2):
        os.dup2(file, fd)
    sys.exit(main([str(word) for word in words]))


def trust(user, root, *urls):
    code, text = command(user, "trust", *urls, "--root", root)
    assert code == 0, text


def verify(user, *words, **more):
    return command(user, "verify", "--lock", user.lock, *words, **more)


def vendor(user, **more):
    return command(user, "vendor", user.folder / "vendor", "--lock", user.lock, **more)


def sealed(user, *words, **more):
    """Run `cargo sealed WORDS`, or `cargo sealed fetch --locked`, in the user's project."""
    with sealed_process(user, *(words or ("fetch", "--locked")), **more) as process:
        try:
            text, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    return process.returncode, text


def sealed_process(user, *words, **more):
    """Start `cargo sealed WORDS` in the user's project; all it prints is its output."""
    need("cargo")
    return subprocess.Popen(
        [sys.executable, "-c", CARGO_SEALED, "sealed", *words],
        cwd=user.project,
        env=environment(**user.variables(**HURRIED, **more)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


VICTIMS = {"verify": verify, "sealed": sealed, "vendor": vendor}


def proven(text):
    """Return the names of the packages that a report of `verify` calls proven."""
    return {found[1] for found in re.finditer(r"^proven +(\S+) ", text, re.MULTILINE)}


def share_trust(user, others):
    """Give others what one user trusts and remembers; their caches stay empty."""
    for other in others:
        shutil.copytree(user.config, other.config, symlinks=True)
