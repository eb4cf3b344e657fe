"""`crateseal demo`: the story is true, short, and leaves nothing behind."""

import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mirror.demo.processes import NoCargoError, clean_environment, find_cargo
from mirror.demo.samples import DATA, digest, load_samples
from mirror.demo.story import run_demo
from tests.conftest import need

DEMO = (sys.executable, "-P", "-m", "mirror", "demo")
PATIENCE_SECONDS = 60


@pytest.fixture
def folder():
    """A folder with a short path: that of a socket must fit into 107 bytes."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        yield Path(path)


def environment(folder, **changes):
    return {**os.environ, "TMPDIR": str(folder), **changes}


def processes_of(folder):
    """Return the command lines of all processes that have to do with a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in words:
            found.append(words[:200])
    return found


def nothing_left(folder):
    assert list(folder.iterdir()) == []
    assert processes_of(folder) == []


def test_the_whole_story_is_told_and_nothing_stays_behind(folder):
    need("cargo")
    ran = subprocess.run(
        DEMO,
        env=environment(folder),
        capture_output=True,
        check=False,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "9 steps, each did what it says" in ran.stdout
    assert "skipped" not in ran.stdout
    assert "hex refused, exit 1" in ran.stdout
    assert "itoa refused, exit 1" in ran.stdout
    assert "\x1b" not in ran.stdout
    assert ran.stderr == ""
    nothing_left(folder)


def test_without_cargo_that_step_is_skipped_and_the_rest_is_told(folder):
    (folder / "bin").mkdir()
    (folder / "tmp").mkdir()
    settings = environment(folder / "tmp", PATH=str(folder / "bin"), LC_ALL="C")
    # What the user has set for a mirror or a proxy is not for the demo's.
    settings |= {"CRATESEAL_MODE": "index", "HTTP_PROXY": "http://127.0.0.1:1"}
    settings |= {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii:strict"}
    ran = subprocess.run(
        DEMO, env=settings, capture_output=True, check=False, text=True, timeout=PATIENCE_SECONDS
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "skipped: there is no cargo here" in ran.stdout
    nothing_left(folder / "tmp")


@pytest.mark.parametrize(
    ("says", "reason"),
    [("cargo 1.65.0", "knows no sparse registries"), ("error: no toolchain", "does not say")],
)
def test_a_cargo_that_cannot_be_used_is_as_good_as_none(folder, says, reason):
    program = folder / "cargo"
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    with pytest.raises(NoCargoError, match=reason):
        find_cargo({"PATH": str(folder)})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_half_way_everything_ends(folder, number):
    with subprocess.Popen(DEMO, env=environment(folder), stdout=subprocess.PIPE) as demo:
        while not demo.stdout.readline().startswith(b"3 "):
            assert demo.poll() is None
        began = time.monotonic()
        demo.send_signal(number)
        rest = demo.stdout.read()
        assert demo.wait(15) == 130, rest
    assert time.monotonic() - began < 10
    assert b"Interrupted" in rest
    nothing_left(folder)


def test_a_step_that_does_not_do_what_it_says_fails_the_demo():
    samples = load_samples()
    # Bytes that are not the ones the index names: the mirror must not hand them out.
    samples["wasi"] = replace(samples["wasi"], data=samples["wasi"].data + b"x")
    out = io.StringIO()
    assert run_demo(out, samples=samples) == 1
    assert "Step 6 failed: expected every package proven" in out.getvalue()
    assert "wasi" in out.getvalue().partition("the mirror's last words")[0]


def test_a_deep_temporary_folder_is_no_obstacle(tmp_path):
    deep = tmp_path / ("x" * 90)
    (deep / "bin").mkdir(parents=True)
    settings = environment(deep, PATH=str(deep / "bin"))
    ran = subprocess.run(
        DEMO, env=settings, capture_output=True, check=False, text=True, timeout=PATIENCE_SECONDS
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert processes_of(deep) == []


def test_the_samples_are_what_their_index_lines_say_and_small():
    samples = load_samples()
    assert len(samples) == 6
    for sample in samples.values():
        assert digest(sample.data).encode() in sample.index
    sizes = [file.stat().st_size for file in DATA.rglob("*") if file.is_file()]
    assert sum(sizes) < 150_000
    notice = (DATA / "NOTICE").read_text()
    assert all(f"{s.crate.name:<16}  {s.crate.version}" in notice for s in samples.values())


def test_the_children_see_nothing_of_the_users_settings():
    given = {"PATH": "/bin", "CARGO_HOME": "/x", "CRATESEAL_DATA": "/y", "https_proxy": "http://p"}
    assert set(clean_environment(given)) == {"PATH", "NO_PROXY", "no_proxy"}
