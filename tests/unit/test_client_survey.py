"""What a run learns of the checkout while cargo works: nothing is hidden by being hard to read."""

import os
from pathlib import Path

import pytest

from mirror.client.home.overlay import Purpose, enter
from mirror.client.sealed.cargo_words import Words
from mirror.client.sealed.survey import Run, survey
from tests.support.laptop import package

GIT = 'name = "evil"\nversion = "1.0.0"\nsource = "git+https://example.org/evil#0"\n'


@pytest.fixture
def run(tmp_path):
    """Cargo is to build the package in `project`."""
    (tmp_path / "cache").mkdir(mode=0o700)
    overlay = enter(tmp_path / "cache", Purpose(str(tmp_path / "home"), None, 8471))
    yield Run(Words(None, (), "build", ()), package(tmp_path / "project"), {}, overlay)
    overlay.leave()


def seen(run, before=None):
    found = survey(run, before)
    found.close()
    return found


def test_a_lock_that_only_cargo_can_read_is_not_covered(run):
    lock = run.folder / "Cargo.lock"
    assert seen(run).not_covered == ()
    lock.write_text(f"version = 4\nx = {{\n}}\n[[package]]\n{GIT}")
    assert seen(run).not_covered == (f"{lock}: a lock that cannot be read here",)


def test_a_lock_too_large_or_no_plain_file_is_not_covered(run):
    lock = run.folder / "Cargo.lock"
    lock.write_text(f"version = 4\n[[package]]\n{GIT}")
    os.truncate(lock, 64_000_001)
    assert seen(run).not_covered == (f"{lock}: a lock that cannot be read here",)
    lock.unlink()
    os.mkfifo(lock)
    assert seen(run).not_covered == (f"{lock}: a lock that cannot be read here",)


def test_a_lock_that_becomes_unreadable_while_cargo_runs_is_not_covered(run):
    before = survey(run)
    (run.folder / "Cargo.lock").write_text("[[package")
    after = survey(run, before)
    after.close()
    assert len(after.not_covered) == 1


def test_a_lock_of_many_registries_does_not_use_up_the_descriptors(run):
    packages = (
        f'[[package]]\nname = "a{n}"\nversion = "1.0.0"\nsource = "sparse+https://{n}.example/"\n'
        for n in range(2000)
    )
    (run.folder / "Cargo.lock").write_text("version = 4\n" + "".join(packages))
    before = len(os.listdir("/proc/self/fd"))
    found = survey(run)
    opened = len(os.listdir("/proc/self/fd")) - before
    found.close()
    assert opened <= 64
    assert "2000 registries, too many to tell from other runs' own" in found.not_covered
    assert len(found.folders) == 4000
    assert Path(f"/proc/self/fd/{found.claims[0]}").exists() is False
