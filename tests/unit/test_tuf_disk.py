import os
import resource

import pytest

from tests.fakes.disk import Crash, CrashingDisk, Mode, crash_points, is_leftover
from tuf_repo.disk import PosixDisk


@pytest.fixture(params=[PosixDisk, CrashingDisk])
def disk(request, tmp_path):
    return request.param(tmp_path)


def test_write_new_makes_the_folder_and_refuses_a_file_that_is_there(disk, tmp_path):
    path = tmp_path / "a" / "b"
    disk.write_new(path, b"one", mode=0o600)
    assert path.read_bytes() == b"one"
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        disk.write_new(path, b"two")
    assert path.read_bytes() == b"one"


def test_replace_puts_a_whole_new_file_in_place(disk, tmp_path):
    path = tmp_path / "file"
    disk.replace(path, b"one")
    reader = path.open("rb")
    disk.replace(path, b"two")
    assert (reader.read(), path.read_bytes()) == (b"one", b"two")
    reader.close()
    assert os.listdir(tmp_path) == ["file"]


def test_rename_goes_over_what_is_there_and_makes_the_folder(disk, tmp_path):
    source, path = tmp_path / "source", tmp_path / "new" / "path"
    disk.write_new(source, b"one")
    disk.rename(source, path)
    disk.write_new(source, b"two")
    disk.rename(source, path)
    assert path.read_bytes() == b"two"
    assert not source.exists()


def test_link_over_makes_one_file_of_two_names(disk, tmp_path):
    first, second, path = tmp_path / "first", tmp_path / "second", tmp_path / "new" / "path"
    disk.write_new(first, b"one")
    disk.write_new(second, b"two")
    for source in (first, second, second):
        disk.link_over(source, path)
        assert path.samefile(source)
    assert os.listdir(path.parent) == ["path"]


def test_remove_and_set_mtime_and_sync(disk, tmp_path):
    path = tmp_path / "file"
    disk.write_new(path, b"one")
    disk.set_mtime(path, 1_000_000_000)
    disk.sync()
    assert path.stat().st_mtime == 1_000_000_000
    disk.remove(path)
    disk.remove(path)
    assert not path.exists()


def test_a_write_that_fails_half_way_leaves_no_file(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            PosixDisk(tmp_path).write_new(tmp_path / "file", b"x" * 1_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []


def work(disk, root):
    disk.write_new(root / "kept", b"kept")
    disk.sync()
    disk.replace(root / "kept", b"replaced")
    disk.write_new(root / "source", b"source")
    disk.link_over(root / "source", root / "link")
    disk.rename(root / "source", root / "moved")
    disk.remove(root / "kept")


def left(tmp_path, stop_at, mode, seed=0):
    root = tmp_path / f"{stop_at}-{mode}-{seed}".replace(" ", "-")
    root.mkdir()
    disk = CrashingDisk(root, stop_at=stop_at, mode=mode, seed=seed)
    with pytest.raises(Crash):
        work(disk, root)
    with pytest.raises(Crash):
        disk.sync()
    assert not (root.parent / f".{root.name}.before").exists() or mode not in (
        Mode.POWER_LOST,
        Mode.POWER_TORN,
        Mode.POWER_MIXED,
    )
    return {path.name: path.read_bytes() for path in root.iterdir()}


def test_a_killed_process_loses_tears_or_finishes_one_change(tmp_path):
    assert left(tmp_path, 3, Mode.LOST) == {"kept": b"replaced"}
    assert left(tmp_path, 3, Mode.TORN) == {"kept": b"replaced", "source": b"sou"}
    assert left(tmp_path, 3, Mode.DONE) == {"kept": b"replaced", "source": b"source"}
    assert left(tmp_path, 2, Mode.TORN) == {"kept": b"kept", ".kept.tmp": b"repl"}


def test_a_power_cut_takes_what_was_not_synced(tmp_path):
    assert left(tmp_path, 1, Mode.POWER_LOST) == {}
    assert left(tmp_path, 1, Mode.POWER_TORN) == {"kept": b"ke"}
    assert left(tmp_path, 6, Mode.POWER_LOST) == {"kept": b"kept"}
    torn = {"kept": b"repl", "link": b"sou", "moved": b"sou"}
    assert left(tmp_path, 6, Mode.POWER_TORN) == torn
    outcomes = {
        tuple(sorted(left(tmp_path, 6, Mode.POWER_MIXED, seed).items())) for seed in range(40)
    }
    assert len(outcomes) > 6


def test_what_comes_back_after_a_power_cut_is_the_file_itself(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    disk = CrashingDisk(root, stop_at=4, mode=Mode.POWER_LOST)
    disk.write_new(root / "file", b"one")
    disk.link_over(root / "file", root / "link")
    disk.sync()
    disk.remove(root / "link")
    with pytest.raises(Crash):
        disk.sync()
    assert (root / "link").samefile(root / "file")


def test_a_run_without_a_stop_counts_its_changes(tmp_path):
    disk = CrashingDisk(tmp_path)
    work(disk, tmp_path)
    assert disk.changes == 7
    assert len(crash_points(7)) == 7 * len(Mode)
    assert [path.name for path, _ in disk.written] == ["kept", "kept", "source"]
    assert not any(map(is_leftover, tmp_path.iterdir()))
