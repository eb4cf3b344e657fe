"""A real cargo that knows crates.io only as a mirror."""

import subprocess

from tests.conftest import need
from tests.support.processes import environment


def make_project(folder, dependencies, lock=None):
    """Make a library that depends on these (name -> requirement); return its folder."""
    (folder / "src").mkdir(parents=True)
    (folder / "src/lib.rs").write_text("")
    lines = ['[package]\nname = "project"\nversion = "0.1.0"\nedition = "2021"\n\n[dependencies]']
    lines += [f'{name} = "{requirement}"' for name, requirement in dependencies.items()]
    (folder / "Cargo.toml").write_text("\n".join(lines) + "\n")
    if lock is not None:
        (folder / "Cargo.lock").write_text(lock)
    return folder


def use_mirror(project, url):
    """Let cargo take everything in this project from a mirror."""
    (project / ".cargo").mkdir(exist_ok=True)
    (project / ".cargo/config.toml").write_text(
        '[source.crates-io]\nreplace-with = "m"\n'
        f'[source.m]\nregistry = "sparse+{url}/index/"\n'
        # Who waits, or must ask twice, fails.
        "[net]\nretry = 0\n[http]\ntimeout = 5\n"
    )


def cargo(project, home, *words, timeout=60):
    """Run cargo in a project, with a home of its own; return what subprocess returns."""
    return subprocess.run(
        [need("cargo"), *words],
        cwd=project,
        env=environment(CARGO_HOME=str(home)),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
