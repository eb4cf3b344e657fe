"""The overlay: whose it is, what is in it, and what cargo left there that is not ours."""

import hashlib
import os
import tomllib
from pathlib import Path

import pytest

from mirror.client.home.overlay import Purpose, configure, enter, to_include, toml_text, users_home
from mirror.client.sealed.aftermath import admitted_by, changed_crates, judge, left_behind
from mirror.client.sealed.cargo_words import Words
from mirror.client.sealed.light_lock import Package
from mirror.client.sealed.ports import take_port
from mirror.client.sealed.survey import Run, survey
from mirror.client.sealed.traces import has_port, look
from mirror.core.cargo_folders import registry_folders
from mirror.errors import MachineError
from tests.support.crates import crate_bytes

ROOT_ID = "0123456789abcdef"
CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"
OTHER = "sparse+https://corp.example/index/"
PORT = 8471


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home/.cargo").mkdir(parents=True)
    return tmp_path / "home/.cargo"


@pytest.fixture
def cache(tmp_path):
    (tmp_path / "cache").mkdir(mode=0o700)
    return tmp_path / "cache"


@pytest.fixture
def enter_it(cache, home):
    """Enter the overlay of this home; each is left at the end."""
    entered = []

    def enter_it(home=home, include=None, port=PORT):
        entered.append(enter(cache, Purpose(str(home), include, port)))
        enter_it.told = take_port(entered[-1], ROOT_ID)
        return entered[-1]

    def leave(overlay):
        entered.remove(overlay)
        overlay.leave()

    enter_it.leave = leave
    yield enter_it
    for each in entered:
        each.leave()


@pytest.fixture
def overlay(enter_it):
    return enter_it()


# ---- whose it is


def test_runs_that_need_the_same_share_an_overlay_and_others_have_their_own(enter_it, tmp_path):
    first = enter_it()
    assert first.folder.name == "cargo-home"
    assert enter_it().folder == first.folder
    assert enter_it(include="/a/config.toml").folder.name == "cargo-home-2"
    assert enter_it(port=8472).folder.name == "cargo-home-3"
    assert enter_it().folder == first.folder


def test_an_overlay_that_nobody_uses_takes_another_port_but_no_other_home(cache, home, tmp_path):
    enter(cache, Purpose(str(home), None, PORT)).leave()
    again = enter(cache, Purpose(str(home), None, 8472))
    assert again.folder.name == "cargo-home"
    again.leave()
    (tmp_path / "other").mkdir()
    other = enter(cache, Purpose(str(tmp_path / "other"), None, PORT))
    assert other.folder.name == "cargo-home-2"
    other.leave()


def test_the_overlay_of_a_home_that_is_gone_is_used_again(cache, tmp_path):
    for number in range(3):
        home = tmp_path / f"job-{number}"
        home.mkdir()
        overlay = enter(cache, Purpose(str(home), None, PORT))
        assert overlay.folder.name == "cargo-home"
        overlay.leave()
        home.rmdir()


def test_inside_an_overlay_the_users_home_is_the_one_it_is_for(overlay, home, tmp_path):
    assert users_home({"CARGO_HOME": str(overlay.folder)}, tmp_path) == home
    assert users_home({"CARGO_HOME": "own"}, tmp_path) == tmp_path / "own"
    assert users_home({"HOME": "/home/ana"}, tmp_path) == Path("/home/ana/.cargo")


def test_an_overlay_that_is_a_link_is_refused(cache, home, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (cache / "cargo-home").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MachineError):
        enter(cache, Purpose(str(home), None, PORT))


# ---- what is in it


def test_the_users_configuration_is_included_where_cargo_does_not_meet_it(home, tmp_path):
    assert to_include(home, tmp_path) is None
    (home / "config.toml").write_text("")
    assert to_include(home, tmp_path / "work") == home / "config.toml"
    assert to_include(home, home.parent / "work/project") is None


def test_its_configuration_is_toml_whatever_the_users_home_is_called(enter_it, tmp_path):
    home = tmp_path / 'a "strange" \x7f \\ höme'
    home.mkdir()
    overlay = enter_it(home, include=str(home / "config.toml"))
    configure(overlay, "name", OTHER)
    said = tomllib.loads((overlay.folder / "config.toml").read_text())
    assert said == {
        "include": [str(home / "config.toml")],
        "source": {"crates-io": {"replace-with": "name"}},
        "registries": {"name": {"index": OTHER}},
    }
    assert os.readlink(overlay.folder / "bin") == str(home / "bin")


@pytest.mark.parametrize("place", ["config", ".cargo", "../.cargo"])
def test_configuration_that_somebody_else_put_there_is_named(overlay, place):
    (overlay.folder / place).mkdir()
    with pytest.raises(MachineError, match="cargo reads it; remove it"):
        configure(overlay, "name", OTHER)


def test_a_path_that_toml_cannot_hold_is_named():
    with pytest.raises(MachineError):
        toml_text(os.fsdecode(b"/\xff"))


# ---- what cargo left there


def put(overlay, source, *crates, data=b""):
    """Leave crates as cargo would; return the folder's name."""
    folder = min(registry_folders(source))
    for name, version in crates:
        for path in (f"cache/{folder}/{name}-{version}.crate", f"src/{folder}/{name}-{version}/x"):
            file = overlay.folder / "registry" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data or crate_bytes(name, version))
    return folder


def ours(port):
    return f"sparse+http://127.0.0.1:{port}/{ROOT_ID}/index/"


def package(name, source=CRATES_IO, checksum=None):
    return Package(name, "1.0.0", source, checksum)


def crate_at(overlay, port):
    folder = min(registry_folders(ours(port)))
    return overlay.folder / f"registry/cache/{folder}/aaaa-1.0.0.crate"


def test_our_folder_is_that_of_the_port_we_hold_whoever_else_uses_our_path(overlay):
    for port in (PORT, 8480, 9471):
        put(overlay, ours(port), ("aaaa", "1.0.0"))
    assert look(overlay, ROOT_ID).folders == {
        min(registry_folders(ours(port))) for port in (8480, 9471)
    }


def test_the_folders_of_a_port_that_was_ours_wait_where_no_cargo_looks(enter_it):
    overlay = enter_it(port=8480)
    put(overlay, ours(8480), ("aaaa", "1.0.0"))
    enter_it.leave(overlay)
    overlay = enter_it()
    assert enter_it.told == []
    assert not crate_at(overlay, 8480).exists()
    before = look(overlay, ROOT_ID)
    assert not before.entries
    # A stranger took that port, and a checkout led a cargo there.
    folder = put(overlay, ours(8480), ("aaaa", "1.0.0"), data=b"evil")
    nothing = admitted_by([], frozenset())
    (finding,), _ = judge(overlay, before, look(overlay, ROOT_ID), nothing)
    assert finding.where == f"registry folder {folder}"
    enter_it.leave(overlay)
    overlay = enter_it(port=8480)
    assert enter_it.told == []
    assert crate_at(overlay, 8480).read_bytes() == crate_bytes("aaaa", "1.0.0")


def test_what_lies_at_a_port_before_we_have_it_is_a_strangers(enter_it):
    overlay = enter_it()
    put(overlay, ours(PORT), ("bbbb", "1.0.0"))
    folder = put(overlay, ours(8490), ("aaaa", "1.0.0"))
    enter_it.leave(overlay)
    overlay = enter_it(port=8490)
    (finding,) = enter_it.told
    assert finding.subject == "aaaa 1.0.0"
    assert "had this port before us" in finding.got
    assert not crate_at(overlay, 8490).exists()
    assert (overlay.folder / f".crateseal/foreign-1/cache/{folder}/aaaa-1.0.0.crate").exists()
    assert not look(overlay, ROOT_ID).entries
    enter_it.leave(overlay)
    enter_it(port=8490)
    assert enter_it.told == []


def test_what_says_whose_the_folders_are_is_believed_only_if_it_is_a_port(enter_it):
    overlay = enter_it()
    assert has_port(overlay)
    for said in ("", "x", "8471\n", "0" * 99):
        (overlay.folder / ".crateseal/ports/now").write_text(said)
        assert not has_port(overlay)


def test_what_came_from_elsewhere_is_a_finding_and_is_moved_away(overlay):
    before = look(overlay, ROOT_ID)
    folder = put(overlay, "sparse+https://index.crates.io/", ("aaaa", "1.0.0"), ("b-2", "1.0.0"))
    found, not_covered = judge(
        overlay, before, look(overlay, ROOT_ID), admitted_by([package("aaaa")], frozenset())
    )
    (finding,) = found
    assert finding.subject == "aaaa 1.0.0, b-2 1.0.0"
    assert finding.where == f"registry folder {folder}"
    assert (overlay.folder / f".crateseal/foreign-1/cache/{folder}/aaaa-1.0.0.crate").exists()
    assert not look(overlay, ROOT_ID).entries
    assert not_covered == []


def test_while_another_run_goes_on_nothing_is_moved_and_the_next_one_alone_tells(enter_it):
    overlay, other = enter_it(), enter_it()
    before = look(overlay, ROOT_ID)
    put(overlay, "sparse+https://index.crates.io/", ("aaaa", "1.0.0"))
    (finding,), _ = judge(overlay, before, look(overlay, ROOT_ID), admitted_by([], frozenset()))
    assert "another one goes on" in finding.advice
    assert left_behind(other, look(other, ROOT_ID))[0] == []
    enter_it.leave(other)
    (finding,), seen = left_behind(overlay, look(overlay, ROOT_ID))
    assert "an earlier run" in finding.got
    assert not seen.entries
    assert not look(overlay, ROOT_ID).entries


def run_in(overlay, folder):
    return Run(Words(None, (), "build", ()), folder, {}, overlay)


def project_of(folder, source):
    folder.mkdir()
    (folder / "Cargo.toml").write_text('[package]\nname = "p"\n')
    (folder / "Cargo.lock").write_text(
        f'version = 4\n\n[[package]]\nname = "aaaa"\nversion = "1.0.0"\nsource = "{source}"\n'
    )
    return folder


def test_a_registry_that_the_lock_names_is_not_covered_and_no_finding(overlay, tmp_path):
    before = look(overlay, ROOT_ID)
    seen = survey(run_in(overlay, project_of(tmp_path / "p", OTHER)))
    put(overlay, OTHER, ("aaaa", "1.0.0"), ("tool", "1.0.0"))
    admitted = admitted_by(seen.packages, seen.folders)
    found, not_covered = judge(overlay, before, look(overlay, ROOT_ID), admitted)
    assert found == []
    assert seen.not_covered == (f"aaaa 1.0.0 ({OTHER})",)
    (more,) = not_covered
    assert more.startswith("tool 1.0.0 (registry corp.example-")
    seen.close()
    # A later run of another project that takes nothing from there has nothing to tell.
    after = look(overlay, ROOT_ID)
    assert left_behind(overlay, after)[0] == []
    assert judge(overlay, after, after, admitted_by([], frozenset())) == ([], [])


def test_a_crate_of_crates_io_in_another_registrys_folder_is_a_finding(overlay):
    before = look(overlay, ROOT_ID)
    folder = put(overlay, OTHER, ("aaaa", "1.0.0"), ("mine", "1.0.0"))
    admitted = admitted_by([package("aaaa"), package("mine", OTHER)], frozenset({folder}))
    (finding,), not_covered = judge(overlay, before, look(overlay, ROOT_ID), admitted)
    assert finding.subject == "aaaa 1.0.0"
    assert not_covered == []


def test_what_another_run_takes_from_its_own_registry_is_not_ours_to_tell(enter_it, tmp_path):
    overlay, other = enter_it(), enter_it()
    before = look(overlay, ROOT_ID)
    theirs = survey(run_in(other, project_of(tmp_path / "p", OTHER)))
    put(overlay, OTHER, ("aaaa", "1.0.0"))
    nothing = admitted_by([], frozenset())
    assert judge(overlay, before, look(overlay, ROOT_ID), nothing) == ([], [])
    now = look(overlay, ROOT_ID)
    put(overlay, OTHER, ("bbbb", "1.0.0"))
    assert judge(overlay, now, look(overlay, ROOT_ID), nothing) == ([], [])  # It goes on.
    theirs.close()
    now = look(overlay, ROOT_ID)
    put(overlay, OTHER, ("cccc", "1.0.0"))
    (finding,), _ = judge(overlay, now, look(overlay, ROOT_ID), nothing)
    assert finding.subject == "cccc 1.0.0"


def test_a_git_repository_that_the_lock_does_not_name_is_not_covered(overlay):
    before = look(overlay, ROOT_ID)
    for name in ("known-0123", "unknown-0123"):
        (overlay.folder / "git/db" / name).mkdir(parents=True)
    admitted = admitted_by([package("x", "git+https://example.org/known.git?rev=1#2")], frozenset())
    found, not_covered = judge(overlay, before, look(overlay, ROOT_ID), admitted)
    assert found == []
    assert not_covered == ["unknown-0123 (a git repository that the lock does not name)"]


def test_crates_are_compared_with_the_lock_in_our_folders_only(overlay):
    good = package("aaaa", checksum=hashlib.sha256(crate_bytes("aaaa", "1.0.0")).hexdigest())
    bad = package("bbbb", checksum="0" * 64)
    strange = Package("../../x", "1.0.0", CRATES_IO, "0" * 64)
    put(overlay, ours(PORT), ("aaaa", "1.0.0"), ("bbbb", "1.0.0"))
    put(overlay, OTHER, ("cccc", "1.0.0"))
    lock = [good, bad, strange, package("cccc", checksum="0" * 64), package("dddd")]
    (finding,) = changed_crates(overlay, ROOT_ID, lock)
    assert finding.subject == "bbbb 1.0.0"
    assert finding.where.endswith("/bbbb-1.0.0.crate")


def test_what_a_run_of_the_same_number_left_half_written_is_not_in_the_way(overlay):
    # In containers that share a cache all runs may have the same process id.
    for name in ("config.toml", "bin"):
        (overlay.folder / f"{name}.{os.getpid()}").mkdir()
    configure(overlay, "n", ours(PORT))
    assert (overlay.folder / "bin").is_symlink()
