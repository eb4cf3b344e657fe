"""Somebody edits the client's cache between two runs: he gains nothing, and loses us a request.

Cargo's own cache lies in there, too, and cargo never looks at a file of it twice: that is found.
"""

import fcntl
import os
import shutil
import time

import pytest

from mirror.client.source.source import open_source
from mirror.core.names import CrateId, CrateName
from mirror.errors import MachineError
from tests.support.hostile import hosting
from tests.support.stage import (
    GOOD_CRATES,
    GOOD_INDEX,
    HELD,
    PACKAGES,
    Stage,
    User,
    lock_text,
    small_crate,
    unverified,
)
from tests.support.victims import sealed, verify

SECRET = b"nobody of ours reads or writes this\n"


@pytest.fixture
def stage(folder):
    return Stage.made(folder / "m")


@pytest.fixture
def settings(stage, folder):
    (folder / "secret").write_bytes(SECRET)
    with hosting(stage.mirror.data) as url:
        yield User(folder / "u").settings(
            CRATESEAL_MIRROR=url,
            CRATESEAL_ROOT=str(stage.root),
            CRATESEAL_CACHE_DIR=str(folder / "cache"),
        )


def everything(settings, clock=time.time):
    """Return all that a source of these settings says: index files and crates."""
    with open_source(settings, clock) as source:
        index = {name: source.index_file(CrateName(name)).data for name in PACKAGES}
        crates = {held: source.crate(CrateId(*held)) for held in HELD}
    return index, crates


HONEST = (GOOD_INDEX, GOOD_CRATES)


# ---- what stands in the place of each file


def garbage(path, _folder):
    path.write_bytes(b"evil\n")


def nothing(path, _folder):
    path.write_bytes(b"")


def half(path, _folder):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def one_bit(path, _folder):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def another(path, _folder):
    """Another file's bytes, which verified once."""
    siblings = sorted(each for each in path.parent.parent.rglob("*") if each.is_file())
    shutil.copyfile(siblings[(siblings.index(path) + 1) % len(siblings)], path.with_name(".x"))
    path.with_name(".x").rename(path)


def link_to_a_secret(path, folder):
    path.unlink()
    path.symlink_to(folder / "secret")


def link_to_its_own_bytes(path, folder):
    """Even what would verify is not read through a link: it may be another one a moment later."""
    kept = folder / f"kept-{path.name}"
    path.rename(kept)
    path.symlink_to(kept)


def link_to_nowhere(path, folder):
    path.unlink()
    path.symlink_to(folder / "not-there")


def fifo(path, _folder):
    path.unlink()
    os.mkfifo(path)


def a_folder(path, _folder):
    path.unlink()
    (path / "full").mkdir(parents=True)


def giant(path, _folder):
    os.truncate(path, 2**40)


SPOILS = (
    garbage,
    nothing,
    half,
    one_bit,
    another,
    link_to_a_secret,
    link_to_its_own_bytes,
    link_to_nowhere,
    fifo,
    a_folder,
    giant,
)


def files_of(settings):
    (own,) = (each for each in settings.cache_dir.iterdir() if len(each.name) == 16)
    return [
        file
        for part in ("metadata", "blobs")
        for file in sorted((own / part).rglob("*"))
        if file.is_file()
    ]


@pytest.mark.parametrize("spoil", SPOILS)
def test_whatever_stands_in_the_cache_what_is_handed_on_is_what_was_signed(settings, folder, spoil):
    assert everything(settings) == HONEST
    files = files_of(settings)
    assert len(files) >= 10
    for file in files:
        spoil(file, folder)
    assert everything(settings) == HONEST
    # What was no file of ours is one again, so nothing was read through a link.
    assert not [file for file in files if file.is_symlink() or file.is_fifo()]
    assert (folder / "secret").read_bytes() == SECRET
    assert not (folder / "not-there").exists()


@pytest.mark.parametrize("part", ["metadata", "blobs", "lock"])
def test_a_folder_of_the_cache_that_leads_elsewhere_is_not_followed(settings, folder, part):
    assert everything(settings) == HONEST
    (own,) = (each for each in settings.cache_dir.iterdir() if len(each.name) == 16)
    elsewhere = folder / "elsewhere"
    (own / part).rename(elsewhere)
    (own / part).symlink_to(elsewhere)
    for file in elsewhere.rglob("*"):
        if file.is_file():
            file.write_bytes(b"evil\n")  # So that whoever goes there would mend it.
    before = snapshot(elsewhere)
    assert everything(settings) == HONEST
    assert snapshot(elsewhere) == before


def snapshot(path):
    """Return what lies there, with its times of writing."""
    return {
        str(each): (each.lstat().st_mtime_ns, each.lstat().st_size)
        for each in (path, *path.rglob("*"))
    }


@pytest.mark.parametrize("which", ["cache_dir", "root_id"])
def test_a_cache_that_is_a_link_is_refused(settings, folder, which):
    assert everything(settings) == HONEST
    path = settings.cache_dir
    if which == "root_id":
        (path,) = (each for each in path.iterdir() if len(each.name) == 16)
    path.rename(folder / "elsewhere")
    path.symlink_to(folder / "elsewhere")
    with pytest.raises(MachineError, match="link"):
        everything(settings)


def test_a_cache_that_others_can_enter_is_refused(settings):
    assert everything(settings) == HONEST
    settings.cache_dir.chmod(0o777)
    with pytest.raises(MachineError, match="others can enter"):
        everything(settings)


# ---- cargo's own cache


def test_a_crate_that_was_changed_in_cargos_cache_is_found(folder, stage):
    user = User(folder / "u")
    with hosting(stage.mirror.data) as url:
        known = {"CRATESEAL_MIRROR": url, "CRATESEAL_ROOT": str(stage.root)}
        code, text = sealed(user, **known)
        assert code == 0, text
        (crate,) = user.cache.glob("*/cargo-home/registry/cache/*/alpha-1.0.0.crate")
        crate.write_bytes(small_crate("alpha", "1.0.0", "evil"))
        (source,) = user.cache.glob("*/cargo-home/registry/src/*/beta-1.0.0/src/lib.rs")
        source.write_text("// evil\n")
        (index,) = user.cache.glob("*/cargo-home/registry/index/*/.cache/de/lt/delta")
        index.write_bytes(index.read_bytes().replace(b'"features":{}', b'"features":{"evil":[]}'))
        code, text = verify(user, "--cache", **known)
        assert code == 1, text
        assert str(crate) in text
        assert str(index) in text
        assert str(source) in text
        for words in (("--offline",), ()):
            code, text = sealed(user, "fetch", *words, **known, CI=None if words else "true")
            assert code == 1, text
            assert "alpha-1.0.0.crate" in text


@pytest.fixture
def known(stage):
    with hosting(stage.mirror.data) as url:
        yield {"CRATESEAL_MIRROR": url, "CRATESEAL_ROOT": str(stage.root)}


@pytest.fixture
def user(folder, known):
    """Somebody who has fetched all, and in whose cargo's cache all was changed that can be."""
    user = User(folder / "u")
    code, text = sealed(user, **known)
    assert code == 0, text
    (home,) = user.cache.glob("*/cargo-home")
    (source,) = home.glob("registry/src/*/beta-1.0.0/src/lib.rs")
    source.write_text("pub fn evil() {}\n")
    (cache,) = home.glob("registry/cache/*")
    (cache / "beta-1.1.0.crate").write_bytes(small_crate("beta", "1.1.0", "evil"))
    (index,) = home.glob("registry/index/*/.cache/de/lt/delta")
    index.write_bytes(index.read_bytes().replace(b'"features":{}', b'"features":{"evil":[]}'))
    assert len(unverified(user.received())) == 3
    return user


def test_a_build_machine_uses_nothing_of_cargos_cache_that_the_lock_does_not_vouch_for(user, known):
    code, text = sealed(user, "build", "--locked", **known, CI="true")
    assert code == 0, text
    assert unverified(user.received()) == []
    code, text = sealed(user, "build", "--locked", **known, CI="true")
    assert code == 0, text
    assert "Compiling" not in text  # What was unpacked again is not built again.


def says_offline(user):
    (user.project / ".cargo").mkdir()
    (user.project / ".cargo/config.toml").write_text("[net]\noffline = true\n")
    return ("build",)


OFFLINE = {
    "--offline": lambda _: ("build", "--offline"),
    "--config": lambda _: ("build", "--config", "net.offline=true"),
    "a configuration": says_offline,
}


@pytest.mark.parametrize("how", OFFLINE)
def test_offline_what_was_unpacked_is_unpacked_again(user, known, how):
    code, text = sealed(user, *OFFLINE[how](user), **known)
    assert code == 0, text
    assert not [each for each in unverified(user.received()) if "/src/" in each]


def test_offline_a_crate_that_no_lock_names_is_out_of_reach_and_then_there_again(user, known):
    user.lock.unlink()
    code, text = sealed(user, "build", "--offline", **known)
    assert code == 101, text
    assert "no lock says what is in the 4 crates" in text
    assert not list(user.cache.glob("*/cargo-home/registry/src/*/*"))
    assert len(list(user.cache.glob("*/cargo-home/registry/cache/*/*.crate"))) == 4
    user.lock.write_text(lock_text())
    code, text = sealed(user, "build", "--offline", **known)
    assert code == 0, text
    assert "no lock" not in text


def test_while_another_run_goes_on_it_is_said_that_sources_were_not_looked_at(user, known):
    (path,) = user.cache.glob("*/cargo-home/.crateseal/lock")
    with path.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        _, text = sealed(user, **known, CI="true")
    assert "another run uses the same overlay" in text


def test_what_no_file_can_be_called_and_what_is_no_file_is_a_finding(folder, stage):
    user = User(folder / "u", lock_text())
    with hosting(stage.mirror.data) as url:
        known = {"CRATESEAL_MIRROR": url, "CRATESEAL_ROOT": str(stage.root)}
        assert sealed(user, **known)[0] == 0
        (crate,) = user.cache.glob("*/cargo-home/registry/cache/*/alpha-1.0.0.crate")
        crate.unlink()
        os.mkfifo(crate)
        code, text = sealed(user, "fetch", "--offline", **known)
        assert code == 1, text
        assert "got no regular file" in text
        crate.unlink()
        user.lock.write_text(
            lock_text().replace('"delta"\nversion = "1', '"del\\u0000ta"\nversion = "1')
        )
        code, text = sealed(user, "fetch", "--offline", **known)
        assert code == 1, text
        assert "got what can be no file's name" in text
        assert "\0" not in text
