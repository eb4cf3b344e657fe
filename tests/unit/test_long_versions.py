"""Versions as long as crates.io has them, and no longer than our files' names can be."""

import pytest

from mirror.core.names import CRATE_MAX_CHARS, CrateId, CrateVersion
from mirror.core.verify import VerifiedCrate
from mirror.errors import InvalidVersionError
from mirror.store.www import Www
from tuf_repo.disk import PosixDisk

REAL = "0.8.1+" + "d" * 141


def test_the_longest_version_there_is_can_be_held():
    assert len(REAL) == 147
    assert CrateId("rraaaaaaaaaaaaaaah", REAL).version == REAL


@pytest.mark.parametrize("name", ["a", "n" * 64])
def test_the_longest_crate_there_may_be_has_file_names_that_a_disk_takes(tmp_path, name):
    short = min(CRATE_MAX_CHARS - len(name), 170)
    crate = CrateId(name, "1.0.0+" + "d" * (short - 6))
    www = Www(tmp_path / "www", tmp_path, PosixDisk(tmp_path))
    staged = www.stage_crate(VerifiedCrate(crate, "0" * 64, b"x"))
    www.promote_crate(staged)


def test_a_longer_one_is_refused():
    with pytest.raises(InvalidVersionError):
        CrateId("n" * 64, REAL)
    with pytest.raises(InvalidVersionError):
        CrateVersion("1.0.0+" + "d" * 200)
