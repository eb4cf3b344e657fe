"""A mirror's folder served so that plain cargo can fetch from it, and our clients from the same."""

import os
from contextlib import contextmanager

from mirror.core.layout import config_json
from tests.support.crates import index_file
from tests.support.mirror_folder import MirrorFolder, answering, from_folder
from tests.support.processes import crateseal

PAIR = (("alpha", "1.0.0"), ("beta", "0.2.0"))


@contextmanager
def serving(folder):
    """Yield a mirror of alpha and beta, with the URL where it answers as `url`."""
    mirror = MirrorFolder(folder)
    mirror.hold(*PAIR)
    static = from_folder(mirror.www)
    indexes = {f"/index/{name[:2]}/{name[2:4]}/{name}": (name, version) for name, version in PAIR}

    def answer(path):
        if path == "/index/config.json":
            return 200, {}, config_json(mirror.url)
        if path in indexes:
            return 200, {}, index_file(*indexes[path])
        return static(path)

    with answering(answer) as mirror.url:
        yield mirror


def homes_of(folder):
    """Return the environment of a user whose home is this folder."""
    return {
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "XDG_RUNTIME_DIR": None,
        "CARGO_HOME": str(folder / "cargo"),
    }


def client(folder, *words, cwd, **more):
    """Run `crateseal …` as a user whose home is this folder."""
    return crateseal(*words, cwd=cwd, **(homes_of(folder) | more))


def make_program(folder):
    """Make a program that prints what alpha and beta answer, with a lock of both."""
    os.makedirs(folder / "src")
    (folder / "Cargo.toml").write_text(
        '[package]\nname = "program"\nversion = "0.1.0"\nedition = "2021"\n\n'
        '[dependencies]\nalpha = "1"\nbeta = "0.2"\n'
    )
    (folder / "src/main.rs").write_text(
        'fn main() { println!("{} {}", alpha::answer(), beta::answer()); }\n'
    )
    return folder
