"""What a machine can do to a mirror: a full disk, a wrong clock, a folder that is not ours."""

import subprocess
import time

import pytest

from mirror.config import Config
from mirror.sign.opening import init_repository
from tests.conftest import need_root
from tests.fakes.upstream import FakeUpstream
from tests.support.crates import index_file
from tests.support.processes import Up, crateseal, wait_until

NAMES = [f"crate{number:02}" for number in range(20)]


@pytest.fixture
def upstream(tmp_path):
    with FakeUpstream(tmp_path / "upstream") as upstream:
        for name in NAMES:
            upstream.put(f"/index/cr/at/{name}", index_file(name, "1.0.0"))
        yield upstream


@pytest.fixture
def small_disk(tmp_path):
    need_root()
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(path):
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(16_384))


def test_a_full_disk_is_said_and_what_is_held_is_served_until_there_is_room(small_disk, upstream):
    up = Up("--upstream", upstream.source, cwd=small_disk).wait_until_ready()
    try:
        assert up.get("/index/cr/at/crate01").status_code == 200
        fill(small_disk / "filler")
        answer = up.get("/index/cr/at/crate02")
        assert answer.status_code == 503
        assert "No space left" in answer.text
        assert up.get("/index/cr/at/crate01").status_code == 200
        wait_until(lambda: "No space left" in up.err)
        (small_disk / "filler").unlink()
        wait_until(lambda: up.get("/index/cr/at/crate02").status_code == 200, 60, every=0.5)
        assert up.stop() == 130
    finally:
        up.end()
    assert crateseal("check", cwd=small_disk).returncode == 0


def test_a_clock_before_the_last_signature_signs_nothing_and_is_one_line(tmp_path):
    data = tmp_path / "data"
    tomorrow = time.time() + 86_400
    init_repository(Config(data=data), lambda: tomorrow)
    before = sorted((data / "www").rglob("*"))
    done = crateseal("sign", "--data", data, cwd=tmp_path)
    assert done.returncode == 5
    assert done.stderr.count("\n") == 1, done.stderr
    assert "clock" in done.stderr
    assert sorted((data / "www").rglob("*")) == before


@pytest.mark.parametrize("command", ["up", "sign", "sync", "serve", "status", "check"])
def test_a_folder_that_is_not_ours_is_left_as_it_is(tmp_path, command):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.jpg").write_bytes(b"a cat")
    arguments = ["--port", "0"] if command in {"up", "serve"} else []
    done = crateseal(command, "--data", folder, *arguments, cwd=tmp_path, timeout=30)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert [path.name for path in folder.iterdir()] == ["cat.jpg"]
