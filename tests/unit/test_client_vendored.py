"""`crateseal verify --vendor`: every way to change a vendored folder is found, and named."""

import os
import shutil
from dataclasses import replace
from hashlib import sha256

import pytest

from mirror.client.commands.directory_source import (
    CHECKSUM_FILE,
    checksum_file,
    parse_checksum_file,
)
from mirror.client.commands.vendor import vendor
from mirror.client.commands.vendored import check_vendor
from mirror.core.lockfile import parse_lock
from mirror.errors import AbsentError, UnreachableError, UsageError, WithheldError
from tests.fakes.holding import HoldingSource
from tests.support.bad_archives import Matrix, manifest, packed
from tests.support.crates import crate_bytes
from tests.support.mirror_folder import locked

PAIR = (("alpha", "1.0.0"), ("beta", "0.2.0"))
SUMS = {crate: sha256(crate_bytes(*crate)).hexdigest() for crate in PAIR}


@pytest.fixture
def source():
    source = HoldingSource()
    for crate in PAIR:
        source.hold(*crate)
    return source


@pytest.fixture
def lock():
    text = "\n".join(locked(*crate, cksum) for crate, cksum in SUMS.items())
    return parse_lock("Cargo.lock", f"version = 4\n\n{text}".encode())


@pytest.fixture
def folder(source, lock, tmp_path):
    assert vendor(tmp_path / "vendor", lock, source).exit_code == 0
    return tmp_path / "vendor"


def findings(folder, source, lock=None):
    """Return (package, file below the folder, expected, got) of everything that is wrong."""
    return [
        (each.package, os.path.relpath(error.where, folder), error.expected, error.got)
        for each in check_vendor(folder, lock, source)
        for error in each.errors
    ]


def test_what_vendor_wrote_is_proven(folder, source, lock):
    for with_lock in (lock, None):
        checked = list(check_vendor(folder, with_lock, source))
        assert [each.package for each in checked] == ["alpha 1.0.0", "beta 0.2.0"]
        assert all(each.is_proven and each.files == 2 for each in checked)
        assert [each.note for each in checked] == ["", ""]


def test_a_folder_of_cargo_vendor_is_known_by_what_is_in_it(folder, source, lock):
    os.rename(folder / "alpha-1.0.0", folder / "alpha")
    os.rename(folder / "beta-0.2.0", folder / "whatever")
    assert findings(folder, source, lock) == []


def change(file, data=b"changed"):
    def at(folder):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(data)

    return file, at


def link(file, target):
    def at(folder):
        (folder / file).unlink(missing_ok=True)
        (folder / file).symlink_to(target)

    return file, at


def fifo(file):
    return file, lambda folder: os.mkfifo(folder / file)


def remove(file):
    return file, lambda folder: (folder / file).unlink()


CHANGES = {
    "a changed file": change("src/lib.rs"),
    "a build script that nobody lists": change("build.rs", b"fn main() {}"),
    "a program that nobody lists": change("src/bin/x.rs"),
    "a hidden file": change(".cargo/config.toml"),
    "an ignored file": change("target/x"),
    "a file of git with other contents": change(".gitignore"),
    "a patch's leftover": change("src/lib.rs.orig"),
    "a removed file": remove("src/lib.rs"),
    "a file that is a link to the same": link("src/lib.rs", "lib.rs.real"),
    "a link more": link("src/more.rs", "lib.rs"),
    "a link out": link("src/out", "/etc"),
    "a fifo": fifo("pipe"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_each_change_is_a_finding_that_names_package_and_file(what, folder, source, lock):
    file, at = CHANGES[what]
    at(folder / "alpha-1.0.0")
    ((package, named, _, _),) = findings(folder, source, lock)
    assert (package, named) == ("alpha 1.0.0", f"alpha-1.0.0/{file}")


@pytest.mark.parametrize("what", ["a changed file", "a build script that nobody lists"])
def test_a_checksum_file_that_was_changed_with_it_does_not_help(what, folder, source, lock):
    file, at = CHANGES[what]
    package = folder / "alpha-1.0.0"
    at(package)
    said = parse_checksum_file((package / CHECKSUM_FILE).read_bytes())
    said.files[file] = sha256((package / file).read_bytes()).hexdigest()
    (package / CHECKSUM_FILE).write_bytes(checksum_file(said.package, said.files))
    assert [each[1] for each in findings(folder, source, lock)] == [f"alpha-1.0.0/{file}"]


def test_a_lock_that_was_changed_with_it_does_not_help(folder, source, lock):
    evil = packed(Matrix("alpha").good())
    cksum = sha256(evil).hexdigest()
    (package := folder / "alpha-1.0.0") and shutil.rmtree(package)
    (package / "src").mkdir(parents=True)
    (package / "Cargo.toml").write_bytes(manifest("alpha"))
    (package / "src/lib.rs").write_bytes(b"//\n")
    files = {"Cargo.toml": sha256(manifest("alpha")).hexdigest()}
    (package / CHECKSUM_FILE).write_bytes(checksum_file(cksum, files))
    first, second = lock.crates
    lock = replace(lock, crates=(replace(first, checksum=cksum), second))
    ((name, file, expected, got),) = findings(folder, source, lock)
    assert (name, file) == ("alpha 1.0.0", f"alpha-1.0.0/{CHECKSUM_FILE}")
    assert SUMS[PAIR[0]] in expected
    assert got == cksum


def test_a_lock_with_another_checksum_is_a_finding(folder, source, lock):
    first, second = lock.crates
    lock = replace(lock, crates=(replace(first, checksum="0" * 64), second))
    (found,) = findings(folder, source, lock)
    assert "0" * 64 in found[2]


def test_packages_of_the_lock_that_are_not_there_are_findings(folder, source, lock):
    shutil.rmtree(folder / "beta-0.2.0")
    assert [each[0] for each in findings(folder, source, lock)] == ["beta 0.2.0"]
    assert findings(folder, source) == []


def test_a_package_that_the_lock_does_not_name_is_looked_at_all_the_same(folder, source, lock):
    lock = replace(lock, crates=lock.crates[:1])
    (folder / "beta-0.2.0/build.rs").write_text("fn main() {}")
    beta = list(check_vendor(folder, lock, source))[1]
    assert beta.note == "the lock does not name it"
    assert len(beta.errors) == 1


def test_what_some_cargo_vendor_left_out_may_be_missing_and_nothing_else(source, tmp_path):
    demo = Matrix("demo")
    paths = (".gitignore", "Cargo.toml.orig", ".github/ci.yml", "target/a", "kept", CHECKSUM_FILE)
    tail = b"".join(demo.file(path, b"x") for path in paths)
    cksum = source.hold("demo", "1.0.0", packed(demo.good(tail)))
    text = f"version = 4\n\n{locked('demo', '1.0.0', cksum)}".encode()
    lock = parse_lock("Cargo.lock", text)
    assert vendor(tmp_path / "v", lock, source).exit_code == 0
    for path in paths[1:4]:
        (tmp_path / "v/demo-1.0.0" / path).unlink()
    assert findings(tmp_path / "v", source, lock) == []
    (tmp_path / "v/demo-1.0.0/.gitignore").write_bytes(b"x")  # as the crate has it
    assert findings(tmp_path / "v", source, lock) == []
    (tmp_path / "v/demo-1.0.0/kept").unlink()
    assert [each[1] for each in findings(tmp_path / "v", source, lock)] == ["demo-1.0.0/kept"]


def test_links_that_an_older_cargo_unpacked_from_the_crate_are_right_if_they_are_the_same(
    source, tmp_path
):
    demo = Matrix("demo")
    data = packed(demo.good(demo.link("l", "src/lib.rs")))
    cksum = source.hold("demo", "1.0.0", data)
    package = tmp_path / "demo"
    (package / "src").mkdir(parents=True)
    (package / "Cargo.toml").write_bytes(manifest("demo"))
    (package / "src/lib.rs").write_bytes(b"//\n")
    (package / CHECKSUM_FILE).write_bytes(checksum_file(cksum, {}))
    (package / "l").symlink_to("src/lib.rs")
    assert findings(tmp_path, source) == []
    (package / "l").unlink()
    (package / "l").symlink_to("src")
    assert [each[1] for each in findings(tmp_path, source)] == ["demo/l"]


def broken_checksum_file(package):
    (package / CHECKSUM_FILE).write_text("{")


def no_checksum_file(package):
    (package / CHECKSUM_FILE).unlink()


def linked_checksum_file(package):
    os.rename(package / CHECKSUM_FILE, package / "real")
    (package / CHECKSUM_FILE).symlink_to("real")


def linked_manifest(package):
    os.rename(package / "Cargo.toml", package / "real")
    (package / "Cargo.toml").symlink_to("real")


def manifest_of_no_crate(package):
    (package / "Cargo.toml").write_text("[package]\nname = '../x'\nversion = '1.0.0'\n")


def linked_package(package):
    os.rename(package, package.parent.parent / "real")
    package.symlink_to(package.parent.parent / "real")


def deeply_nested_checksum_file(package):
    (package / CHECKSUM_FILE).write_text("[" * 100_000)


UNREADABLE = (
    broken_checksum_file, no_checksum_file, linked_checksum_file, linked_manifest,
    manifest_of_no_crate, linked_package, deeply_nested_checksum_file,
)  # fmt: skip


@pytest.mark.parametrize("spoil", UNREADABLE)
def test_a_package_that_does_not_say_what_it_is_is_a_finding(spoil, folder, source):
    spoil(folder / "alpha-1.0.0")
    checked = list(check_vendor(folder, None, source))
    assert [bool(each.errors) for each in checked] == [True, False]
    assert checked[0].package == "alpha-1.0.0"


def test_a_manifest_that_names_another_crate_is_compared_with_that(folder, source):
    (folder / "alpha-1.0.0/Cargo.toml").write_bytes(manifest("beta", "0.2.0"))
    (found,) = findings(folder, source)
    assert found[0] == "beta 0.2.0"


def test_a_manifest_that_only_cargo_can_read_is_known_by_its_folders_name(folder, source):
    unread = manifest("alpha") + b"[package.metadata]\nx = { a = 1,\n b = 2 }\n"
    (folder / "alpha-1.0.0/Cargo.toml").write_bytes(unread)
    ((package, file, _, _),) = findings(folder, source)
    assert (package, file) == ("alpha 1.0.0", "alpha-1.0.0/Cargo.toml")
    os.rename(folder / "alpha-1.0.0", folder / "alpha")
    ((package, file, _, _),) = findings(folder, source)
    assert (package, file) == ("alpha", "alpha")


def test_what_cargo_does_not_read_as_a_package_is_not_looked_at(folder, source, lock):
    (folder / "README.md").write_text("mine")
    (folder / "docs").mkdir()
    (folder / ".git").mkdir()
    (folder / ".git/Cargo.toml").write_text("")
    assert findings(folder, source, lock) == []


def from_git(folder, lock):
    (folder / "other").mkdir()
    (folder / "other/Cargo.toml").write_bytes(manifest("other"))
    (folder / "other" / CHECKSUM_FILE).write_text('{"files":{},"package":null}')
    return replace(lock, not_covered=("other 1.0.0 (git+https://x/y#1)",))


def test_a_package_of_git_is_not_covered_where_the_lock_says_so(folder, source, lock):
    covered = {
        each.package: each.not_covered
        for each in check_vendor(folder, from_git(folder, lock), source)
    }
    assert covered == {"alpha 1.0.0": "", "beta 0.2.0": "", "other 1.0.0": covered["other 1.0.0"]}
    assert "not from crates.io" in covered["other 1.0.0"]


def test_a_package_without_a_checksum_is_a_finding_where_no_lock_says_where_it_is_from(
    folder, source, lock
):
    from_git(folder, lock)
    assert [each[0] for each in findings(folder, source, lock)] == ["other 1.0.0"]


def test_what_the_mirror_lacks_refuses_or_does_not_answer_is_told(folder, source, lock):
    source.deny("alpha", "1.0.0")
    ((error,), ()) = [each.errors for each in check_vendor(folder, lock, source)]
    assert isinstance(error, WithheldError)
    ((error,), (_,)) = [each.errors for each in check_vendor(folder, lock, HoldingSource())]
    assert isinstance(error, AbsentError)
    source.errors |= {each.crate: UnreachableError("no answer") for each in lock.crates}
    assert {each.exit_code for each in check_vendor(folder, lock, source)} == {3}


def test_an_archive_that_is_unsafe_to_read_is_a_finding(folder, source):
    bad = Matrix("alpha").all()["a symlink out"].data
    source = HoldingSource()
    cksum = source.hold("alpha", "1.0.0", bad)
    source.hold(*PAIR[1])
    said = parse_checksum_file((folder / "alpha-1.0.0" / CHECKSUM_FILE).read_bytes())
    (folder / "alpha-1.0.0" / CHECKSUM_FILE).write_bytes(checksum_file(cksum, said.files))
    ((package, file, expected, _),) = findings(folder, source)
    assert (package, file) == ("alpha 1.0.0", "alpha-1.0.0")
    assert "links that stay under" in expected


def test_what_is_no_folder_is_wrong_usage(source, tmp_path):
    for path in (tmp_path / "none", tmp_path / "file"):
        (tmp_path / "file").write_text("")
        with pytest.raises(UsageError):
            list(check_vendor(path, None, source))


def test_names_that_are_no_text_are_shown_somehow(folder, source):
    with open(os.fsencode(folder / "alpha-1.0.0") + b"/\xff\xfe", "w"):
        pass
    ((_, file, _, _),) = findings(folder, source)
    file.encode()
