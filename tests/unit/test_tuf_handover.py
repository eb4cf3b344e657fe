"""What `finish` leaves for the signer: all of it, or a mark that says so."""

import os
import shutil

import pytest

from tests.conftest import need_root
from tests.fakes.disk import Crash, CrashingDisk, crash_points
from tuf_repo.errors import CeremonyError
from tuf_repo.folder import FINISHING
from tuf_repo.handover import hand_over

FILES = {"3.crates.json": b"crates" * 9, "3.targets.json": b"targets" * 9, "2.root.json": b"r" * 99}
OTHERS = {**FILES, "3.crates.json": b"of another draft"}


def lying(folder):
    """What the signer would take."""
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*")}


def test_files_that_lie_there_are_all_of_them_wherever_finish_was_stopped(tmp_path):
    counting = []
    hand_over(
        tmp_path / "whole",
        FILES,
        lambda folder: counting.append(CrashingDisk(folder)) or counting[0],
    )
    assert lying(tmp_path / "whole") == FILES
    assert counting[0].changes == 8
    seen = set()
    for stop_at, mode in crash_points(counting[0].changes):
        folder = tmp_path / "stopped" / "ceremony"
        with pytest.raises(Crash):
            hand_over(
                folder,
                FILES,
                lambda there, n=stop_at, m=mode: CrashingDisk(there, stop_at=n, mode=m, seed=n),
            )
        where = f"{mode}, change {stop_at}"
        is_marked = (folder / FINISHING).exists()
        assert is_marked or lying(folder) in ({}, FILES), where
        seen.add((is_marked, len(lying(folder))))
        if lying(folder) not in ({}, FILES):
            with pytest.raises(CeremonyError, match="run that one again"):
                hand_over(folder, OTHERS)
        hand_over(folder, FILES)
        assert lying(folder) == FILES, where
        assert sorted(os.listdir(folder)) == sorted(FILES), where
        shutil.rmtree(tmp_path / "stopped")
    assert {(False, 0), (True, 0), (True, 1), (True, 2), (True, 3), (False, 3)} <= seen


def test_half_of_a_file_that_a_power_cut_left_is_written_anew_by_the_same_finish_only(tmp_path):
    folder = tmp_path / "ceremony"
    with pytest.raises(Crash):
        hand_over(folder, FILES, lambda there: CrashingDisk(there, stop_at=4, mode="done"))
    (folder / "3.crates.json").write_bytes(b"cra")
    with pytest.raises(
        CeremonyError, match=r"3\.crates\.json, which a `finish` that was cut short"
    ):
        hand_over(folder, OTHERS)
    hand_over(folder, FILES)
    assert lying(folder) == FILES


def test_the_same_twice_is_the_same(tmp_path):
    for _ in range(2):
        hand_over(tmp_path / "ceremony", FILES)
        assert lying(tmp_path / "ceremony") == FILES


def test_what_the_signer_has_not_taken_stays(tmp_path):
    hand_over(tmp_path / "ceremony", FILES)
    with pytest.raises(CeremonyError, match="which the signer has not taken"):
        hand_over(tmp_path / "ceremony", OTHERS)
    assert lying(tmp_path / "ceremony") == FILES


def test_root_gives_the_files_to_the_signers_user_and_follows_no_link_of_theirs(tmp_path):
    need_root()
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    secret = elsewhere / "secret"
    for folder in (data, elsewhere):
        folder.mkdir()
    secret.write_bytes(b"of root")
    os.chown(data, 12345, 12346)
    hand_over(data / "ceremony", FILES)
    for path in (data / "ceremony", *(data / "ceremony").iterdir()):
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12346)
    shutil.rmtree(data / "ceremony")
    # A link for the folder is refused, one for a file is replaced: nothing of root's is given away.
    (data / "ceremony").symlink_to(elsewhere)
    with pytest.raises(OSError, match="ceremony"):
        hand_over(data / "ceremony", FILES)
    assert os.listdir(elsewhere) == ["secret"]
    (data / "ceremony").unlink()
    (data / "ceremony").mkdir()
    for name in (*FILES, *(f".{name}.tmp" for name in FILES)):
        (data / "ceremony" / name).symlink_to(secret)
    with pytest.raises(CeremonyError):
        hand_over(data / "ceremony", FILES)
    for name in FILES:
        (data / "ceremony" / name).unlink()
    hand_over(data / "ceremony", FILES)
    assert (secret.read_bytes(), secret.stat().st_uid) == (b"of root", 0)
