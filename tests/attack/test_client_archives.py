"""Crates that are signed and hostile all the same: what their archives do to a vendor folder."""

import pytest

from tests.support.bad_archives import Matrix
from tests.support.hostile import hosting
from tests.support.stage import Stage, User, files_below, line, lines, lock_text, sha256
from tests.support.victims import vendor

ALPHA = Matrix("alpha")
BAD = {
    name: bad
    for group in (ALPHA.paths(), ALPHA.links(), ALPHA.crossings())
    for name, bad in group.items()
    if name
    in {"absolute", "up and out", "a symlink out", "a hard link out", "a file through a link"}
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_signed_archive_that_climbs_out_leaves_nothing_anywhere(folder, bad):
    stage = Stage.made(folder / "m")
    stage.put_crate("alpha", bad.data)
    stage.publish({"alpha": lines(line("alpha", "1.0.0", sha256(bad.data)))})
    user = User(folder / "u", lock_text({"alpha": sha256(bad.data)}))
    with hosting(stage.mirror.data) as url:
        before = set(files_below(folder))
        code, text = vendor(user, CRATESEAL_MIRROR=url, CRATESEAL_ROOT=str(stage.root))
    assert code == 1, text
    assert "alpha 1.0.0" in text
    assert bad.word in text
    others = {user.folder / "vendor" / f"{name}-1.0.0" for name in ("beta", "delta")}
    new = set(files_below(folder)) - before
    left = {file for file in new if not {user.cache, *others} & set(file.parents)}
    assert {file.name for file in left} <= {"asked.log", "vendor.out", ".crateseal-incomplete"}
