"""`crateseal verify --cache` with a real cargo, which compiles what was changed."""

import json
import shutil

import pytest

from tests.support.cargo import cargo, use_mirror
from tests.support.crates import crate_bytes
from tests.support.registry_of_folder import client, make_program, serving
from tests.support.tar import Entry


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("mirror")) as mirror:
        yield mirror


@pytest.fixture(scope="module")
def built(mirror, tmp_path_factory):
    """A user's home, with a program that cargo has built from the mirror."""
    home = tmp_path_factory.mktemp("built")
    program = make_program(home / "program")
    use_mirror(program, mirror.url)
    assert run(home).stdout == "42 42\n"
    return home


@pytest.fixture
def home(built, tmp_path):
    shutil.copytree(built, tmp_path / "home")
    return tmp_path / "home"


def run(home, *words):
    """Build from scratch, and run."""
    shutil.rmtree(home / "program/target", ignore_errors=True)
    return cargo(home / "program", home / "cargo", "run", "--quiet", *words)


def verify(mirror, home, *words):
    root = mirror.metadata / "1.root.json"
    words = ("--cache", "--mirror", mirror.url, "--root", root, "--json", *words)
    said = client(home, "verify", *words, cwd=home)
    return said.returncode, json.loads(said.stdout)["on_disk"]


def one(home, pattern):
    (path,) = (home / "cargo/registry").glob(pattern)
    return path


def test_what_cargo_keeps_after_a_build_is_proven(mirror, home):
    code, on_disk = verify(mirror, home)
    assert code == 0
    assert {each["package"]: each["status"] for each in on_disk} == {
        "alpha 1.0.0": "proven",
        "beta 0.2.0": "proven",
    }
    assert [each["files"] for each in on_disk] == [2, 2]


def test_a_file_changed_in_registry_src_compiles_silently_and_we_name_it(mirror, home):
    file = one(home, "src/*/alpha-1.0.0/src/lib.rs")
    file.write_text("pub fn answer() -> u8 { 66 }\n")
    control = run(home, "--offline", "--locked")
    assert (control.returncode, control.stdout) == (0, "66 42\n")
    code, on_disk = verify(mirror, home)
    assert code == 1
    (finding,) = on_disk[0]["findings"]
    assert finding["subject"] == "alpha 1.0.0"
    assert finding["where"] == str(file)
    assert "afresh" in finding["advice"]


def test_a_changed_crate_file_is_unpacked_silently_and_we_name_it(mirror, home):
    file = one(home, "cache/*/alpha-1.0.0.crate")
    manifest = b'[package]\nname = "alpha"\nversion = "1.0.0"\nedition = "2021"\n'
    evil = [
        Entry("alpha-1.0.0/Cargo.toml", manifest),
        Entry("alpha-1.0.0/src/lib.rs", b"pub fn answer() -> u8 { 66 }\n"),
    ]
    file.write_bytes(crate_bytes("alpha", "1.0.0", entries=evil))
    shutil.rmtree(one(home, "src/*/alpha-1.0.0"))
    control = run(home, "--offline", "--locked")
    assert (control.returncode, control.stdout) == (0, "66 42\n")
    code, on_disk = verify(mirror, home)
    assert code == 1
    wheres = [finding["where"] for finding in on_disk[0]["findings"]]
    assert wheres[0] == str(file)
    assert any(where.endswith("src/lib.rs") for where in wheres)


def test_with_a_lock_only_its_packages_are_looked_at_and_the_lock_itself_is_proven(mirror, home):
    one(home, "src/*/alpha-1.0.0/src/lib.rs").write_text("//")
    lock = mirror.lock(("beta", "0.2.0"))
    code, on_disk = verify(mirror, home, "--lock", lock)
    assert [each["package"] for each in on_disk] == ["beta 0.2.0"]
    assert code == 0


def test_people_read_which_file_of_which_package_it_is(mirror, home):
    file = one(home, "src/*/alpha-1.0.0/src/lib.rs")
    file.write_text("//")
    words = ("--cache", "--data", mirror.data, "--mirror", mirror.url)
    said = client(home, "verify", *words, cwd=home)
    assert said.returncode == 1
    assert str(file) in said.stdout
    assert "alpha 1.0.0" in said.stdout


def test_with_the_mirror_away_what_was_remembered_proves_it_and_else_nothing_does(tmp_path):
    home = tmp_path / "home"
    with serving(tmp_path / "mirror") as mirror:
        program = make_program(home / "program")
        use_mirror(program, mirror.url)
        assert run(home).stdout == "42 42\n"
        for each in (home, tmp_path / "other"):
            each.mkdir(exist_ok=True)
            root = mirror.metadata / "1.root.json"
            said = client(each, "trust", mirror.url, "--root", root, cwd=home)
            assert said.returncode == 0, said.stderr
        assert client(home, "verify", "--cache", cwd=home).returncode == 0
    remembered = client(home, "verify", "--cache", cwd=home)
    assert remembered.returncode == 0, remembered.stdout
    assert "2 of 2" in remembered.stdout
    one(home, "src/*/alpha-1.0.0/src/lib.rs").write_text("//")
    assert client(home, "verify", "--cache", cwd=home).returncode == 1
    # Somebody else on this machine, who has trusted it and never looked.
    cargo_home = str(home / "cargo")
    assert (
        client(tmp_path / "other", "verify", "--cache", cwd=home, CARGO_HOME=cargo_home).returncode
        == 3
    )
