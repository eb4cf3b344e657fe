"""`crateseal vendor`: what it writes, what it keeps, what it never touches."""

import fcntl
import io
import json
import os
import tomllib
from hashlib import sha256
from pathlib import Path

import pytest

from mirror.client.commands.bar import counting
from mirror.client.commands.directory_source import (
    CHECKSUM_FILE,
    checksum_file,
    parse_checksum_file,
)
from mirror.client.commands.vendor import VendorOptions, config_lines, tell, vendor
from mirror.client.commands.vendor_folder import INCOMPLETE, TMP
from mirror.core.lockfile import parse_lock
from mirror.core.names import CrateId
from mirror.errors import BusyError, ProofError, UnreachableError, UsageError
from tests.fakes.holding import HoldingSource
from tests.support.bad_archives import Matrix, packed
from tests.support.crates import crate_bytes
from tests.support.mirror_folder import locked

PAIR = (("alpha", "1.0.0"), ("beta", "0.2.0"))
NAMES = ["alpha-1.0.0", "beta-0.2.0"]


@pytest.fixture
def source():
    source = HoldingSource()
    for crate in PAIR:
        source.hold(*crate)
    return source


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "vendor"


def lock_of(*crates, extra="", **sums):
    packages = [
        locked(name, version, sums.get(name) or sha256(crate_bytes(name, version)).hexdigest())
        for name, version in crates
    ]
    return parse_lock("Cargo.lock", ("version = 4\n\n" + "\n".join(packages) + extra).encode())


def shown(folder):
    """Return what a `ls` of the folder shows."""
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def hidden(folder):
    return sorted(name for name in os.listdir(folder) if name.startswith("."))


def snapshot(folder):
    return {
        str(path.relative_to(folder)): (path.lstat().st_ino, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def told(vendored, folder, lock, warnings=()):
    out = io.StringIO()
    tell(vendored, VendorOptions(folder), lock, warnings, out)
    return out.getvalue()


def test_each_package_is_a_folder_with_its_files_and_their_checksums(source, folder):
    vendored = vendor(folder, lock_of(*PAIR), source)
    assert vendored.exit_code == 0
    assert shown(folder) == NAMES
    assert hidden(folder) == []
    for (name, version), each in zip(PAIR, NAMES, strict=True):
        said = json.loads((folder / each / CHECKSUM_FILE).read_bytes())
        assert said["package"] == sha256(crate_bytes(name, version)).hexdigest()
        assert said["files"] == {
            path: sha256((folder / each / path).read_bytes()).hexdigest()
            for path in ("Cargo.toml", "src/lib.rs")
        }


def test_a_second_run_keeps_everything_as_it_is(source, folder):
    vendor(folder, lock_of(*PAIR), source)
    before = snapshot(folder)
    vendored = vendor(folder, lock_of(*PAIR), source)
    assert snapshot(folder) == before
    assert [each.files for each in vendored.outcomes] == [None, None]


def test_what_the_lock_no_longer_names_is_removed(source, folder):
    vendor(folder, lock_of(*PAIR), source)
    source.hold("alpha", "1.1.0")
    vendored = vendor(folder, lock_of(("alpha", "1.1.0")), source)
    assert shown(folder) == ["alpha-1.1.0"]
    assert list(vendored.removed) == NAMES


def test_what_cargo_vendor_made_is_replaced(source, folder):
    vendor(folder, lock_of(*PAIR), source)
    for each in NAMES:
        os.rename(folder / each, folder / each.partition("-")[0])
    vendored = vendor(folder, lock_of(*PAIR), source)
    assert shown(folder) == NAMES
    assert list(vendored.removed) == ["alpha", "beta"]


def foreign_file(folder):
    (folder / "README.md").write_text("mine")


def foreign_folder(folder):
    (folder / "mine/src").mkdir(parents=True)
    (folder / "mine/Cargo.toml").write_text("[package]\n")


def edited_package(folder):
    (folder / "old-1.0.0").mkdir()
    (folder / "old-1.0.0/Cargo.toml").write_text("edited")
    files = {"Cargo.toml": sha256(b"as it was").hexdigest()}
    (folder / "old-1.0.0" / CHECKSUM_FILE).write_bytes(checksum_file("0" * 64, files))


def package_with_a_file_more(folder):
    (folder / "old-1.0.0").mkdir()
    (folder / "old-1.0.0/notes.txt").write_text("mine")
    (folder / "old-1.0.0" / CHECKSUM_FILE).write_bytes(checksum_file("0" * 64, {}))


def package_of_git(folder):
    (folder / "from-git").mkdir()
    (folder / "from-git" / CHECKSUM_FILE).write_text('{"files":{},"package":null}')


def link_to_a_package(folder):
    real = folder.parent / "real"
    real.mkdir()
    (real / CHECKSUM_FILE).write_bytes(checksum_file("0" * 64, {}))
    (folder / "old-1.0.0").symlink_to(real)


def file_in_a_packages_place(folder):
    (folder / "alpha-1.0.0").write_text("mine")


def link_in_a_packages_place(folder):
    (folder.parent / "elsewhere").mkdir()
    (folder / "alpha-1.0.0").symlink_to(folder.parent / "elsewhere")


FOREIGN = (
    foreign_file, foreign_folder, edited_package, package_with_a_file_more, package_of_git,
    link_to_a_package,     file_in_a_packages_place, link_in_a_packages_place,
)  # fmt: skip


@pytest.mark.parametrize("put", FOREIGN)
def test_what_is_not_ours_is_never_removed_and_stops_it_before_anything_is_done(
    put, source, folder
):
    folder.mkdir()
    put(folder)
    before = shown(folder), snapshot(folder)
    with pytest.raises(UsageError, match="move it away"):
        vendor(folder, lock_of(*PAIR), source)
    assert (shown(folder), snapshot(folder)) == before
    assert hidden(folder) == []


def test_hidden_files_are_left_alone_as_cargo_leaves_them(source, folder):
    (folder / ".git").mkdir(parents=True)
    (folder / ".gitattributes").write_text("* -text\n")
    assert vendor(folder, lock_of(*PAIR), source).exit_code == 0
    assert hidden(folder) == [".git", ".gitattributes"]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_destination_that_is_no_folder_is_refused(kind, source, folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    if kind == "file":
        folder.write_text("mine")
    else:
        folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="not a folder" if kind == "file" else "a link to"):
        vendor(folder, lock_of(*PAIR), source)
    assert os.listdir(tmp_path / "elsewhere") == []


def test_a_package_that_was_edited_is_a_finding_and_keeps_the_edit(source, folder):
    vendor(folder, lock_of(*PAIR), source)
    file = folder / "alpha-1.0.0/src/lib.rs"
    file.write_text("// my change")
    vendored = vendor(folder, lock_of(*PAIR), source)
    assert vendored.exit_code == 1
    (failed,) = vendored.failed
    assert isinstance(failed.error, ProofError)
    assert failed.error.where == str(file)
    assert file.read_text() == "// my change"


def test_a_package_that_is_whole_but_another_is_replaced(source, folder):
    # E.g. one that was written for a lock with another crate of that name and version.
    other = HoldingSource()
    data = packed(Matrix("alpha").good())
    cksum = other.hold("alpha", "1.0.0", data)
    vendor(folder, lock_of(PAIR[0], alpha=cksum), other)
    before = (folder / "alpha-1.0.0/src/lib.rs").read_bytes()
    vendored = vendor(folder, lock_of(*PAIR), source)
    assert vendored.exit_code == 0
    assert (folder / "alpha-1.0.0/src/lib.rs").read_bytes() != before


def test_a_checksum_file_that_was_made_to_fit_other_files_does_not_keep_them(source, folder):
    vendor(folder, lock_of(*PAIR), source)
    package = folder / "alpha-1.0.0"
    said = parse_checksum_file((package / CHECKSUM_FILE).read_bytes())
    (package / "build.rs").write_text("fn main() {}")
    said.files["build.rs"] = sha256(b"fn main() {}").hexdigest()
    (package / CHECKSUM_FILE).write_bytes(checksum_file(said.package, said.files))
    assert vendor(folder, lock_of(*PAIR), source).exit_code == 0
    assert not (package / "build.rs").exists()


def test_a_finding_names_its_package_and_the_others_go_on(source, folder):
    source.deny("alpha", "1.0.0")
    vendored = vendor(folder, lock_of(*PAIR), source)
    assert vendored.exit_code == 1
    assert shown(folder) == ["beta-0.2.0"]
    assert "alpha 1.0.0" in (folder / INCOMPLETE).read_text()
    assert "beta" not in (folder / INCOMPLETE).read_text()
    text = told(vendored, folder, lock_of(*PAIR))
    assert "alpha 1.0.0" in text
    assert "deny: bad" in text
    assert "INCOMPLETE" in text
    assert "[source" not in text


def test_nothing_is_removed_while_something_is_missing(source, folder):
    vendor(folder, lock_of(*PAIR), source)
    vendored = vendor(folder, lock_of(("alpha", "1.0.0"), ("gamma", "1.0.0")), source)
    assert vendored.exit_code == 1
    assert shown(folder) == NAMES


def test_the_next_run_that_finds_everything_takes_the_mark_back(source, folder):
    lock = lock_of(*PAIR, ("gamma", "1.0.0"))
    assert vendor(folder, lock, source).exit_code == 1
    source.hold("gamma", "1.0.0")
    assert vendor(folder, lock, source).exit_code == 0
    assert hidden(folder) == []
    assert shown(folder) == [*NAMES, "gamma-1.0.0"]


def test_the_locks_checksum_is_compared(source, folder):
    vendored = vendor(folder, lock_of(*PAIR, alpha="0" * 64), source)
    assert vendored.exit_code == 1
    assert vendored.failed[0].error.where == "the lock file"
    assert shown(folder) == ["beta-0.2.0"]


def test_a_lock_that_spells_a_name_otherwise_means_another_package(source, folder):
    lock = lock_of(("Alpha", "1.0.0"), Alpha=sha256(crate_bytes(*PAIR[0])).hexdigest())
    assert vendor(folder, lock, source).exit_code == 1
    assert shown(folder) == []


def test_an_unsafe_archive_is_a_finding_and_leaves_nothing(source, folder):
    bad = Matrix("alpha").all()["a symlink out"].data
    cksum = HoldingSource().hold("alpha", "1.0.0", bad)
    source = HoldingSource()
    source.hold("alpha", "1.0.0", bad)
    vendored = vendor(folder, lock_of(PAIR[0], alpha=cksum), source)
    assert vendored.exit_code == 1
    assert "alpha 1.0.0" in str(vendored.failed[0].error)
    assert shown(folder) == []


def test_a_mirror_that_gives_no_answer_is_exit_code_3(source, folder):
    source.errors |= {CrateId(*each): UnreachableError("no answer") for each in PAIR}
    assert vendor(folder, lock_of(*PAIR), source).exit_code == 3


def test_files_of_git_and_of_cargo_are_left_out(source, folder):
    demo = Matrix("demo")
    left_out = (".gitignore", "a/.gitattributes", ".git/config", CHECKSUM_FILE, "a/.cargo-ok")
    tail = b"".join(demo.file(path, b"x") for path in left_out)
    cksum = source.hold("demo", "1.0.0", packed(demo.good(tail)))
    assert vendor(folder, lock_of(("demo", "1.0.0"), demo=cksum), source).exit_code == 0
    package = folder / "demo-1.0.0"
    assert sorted(os.listdir(package)) == [CHECKSUM_FILE, "Cargo.toml", "src"]
    assert parse_checksum_file((package / CHECKSUM_FILE).read_bytes()).package == cksum
    assert vendor(folder, lock_of(("demo", "1.0.0"), demo=cksum), source).outcomes[0].files is None


class Stop(BaseException):
    """Ends a run as a signal would."""


@pytest.mark.parametrize("at", range(4))
def test_a_run_that_is_cut_short_leaves_no_half_package_and_the_next_one_completes(
    at, source, folder
):
    lock = lock_of(*PAIR, ("gamma", "1.0.0"), ("delta", "1.0.0"))
    source.hold("gamma", "1.0.0")
    source.hold("delta", "1.0.0")
    steps = 0

    def step():
        nonlocal steps
        steps += 1
        if steps > at:
            raise Stop

    with pytest.raises(Stop):
        vendor(folder, lock, source, step)
    assert shown(folder) == []
    assert INCOMPLETE in hidden(folder)
    assert vendor(folder, lock, source).exit_code == 0
    assert len(shown(folder)) == 4
    assert hidden(folder) == []


def test_what_a_killed_run_left_is_cleared_away(source, folder):
    (folder / TMP / "alpha-1.0.0").mkdir(parents=True)
    (folder / TMP / "alpha-1.0.0/half").write_text("")
    assert vendor(folder, lock_of(*PAIR), source).exit_code == 0
    assert shown(folder) == NAMES
    assert not (folder / "alpha-1.0.0/half").exists()
    assert hidden(folder) == []


def test_two_runs_at_once_do_not_meet(source, folder):
    folder.mkdir()
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(BusyError):
            vendor(folder, lock_of(*PAIR), source)
    finally:
        os.close(fd)


def test_packages_from_elsewhere_are_said_to_need_their_own_source(source, folder):
    extra = '\n[[package]]\nname = "other"\nversion = "1.0.0"\nsource = "git+https://x/y#1"\n'
    lock = lock_of(*PAIR, extra=extra)
    vendored = vendor(folder, lock, source)
    assert vendored.exit_code == 0
    assert "not covered other 1.0.0 (git+https://x/y#1)" in told(vendored, folder, lock)


def test_the_lines_for_cargos_config_are_toml_that_names_the_folder():
    for name in ("vendor", 'odd "name" \\ of 1'):
        lines = tomllib.loads(config_lines(Path("/p") / name, Path("/p/Cargo.lock")))
        assert lines["source"]["crateseal-vendored"]["directory"] == name
        assert lines["source"]["crates-io"]["replace-with"] == "crateseal-vendored"
    lines = tomllib.loads(config_lines(Path("/elsewhere"), Path("/p/Cargo.lock")))
    assert lines["source"]["crateseal-vendored"]["directory"] == "/elsewhere"


def test_warnings_are_told(source, folder):
    vendored = vendor(folder, lock_of(*PAIR), source)
    assert "This is a TRIAL" in told(vendored, folder, lock_of(*PAIR), ("This is a TRIAL root",))


class Screen(io.StringIO):
    """Text for a terminal."""

    def isatty(self):
        return True


def test_progress_is_a_bar_on_a_terminal_a_line_now_and_then_elsewhere_and_nothing_if_quiet():
    times = iter([0.0, 1.0, 6.0, 6.0, 7.0])
    out = io.StringIO()
    with counting("vendoring", 2_000, out, lambda: next(times)) as step:
        for _ in range(3):
            step()
    assert out.getvalue() == "vendoring: 2 of 2,000\n"
    screen = Screen()
    with counting("vendoring", 3, screen, lambda: 0.0) as step:
        step()
    assert "vendoring" in screen.getvalue()
    with counting("vendoring", 3, None, lambda: 0.0) as step:
        step()
