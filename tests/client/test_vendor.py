"""`crateseal vendor` and `verify --vendor` with a real cargo, and what that overlooks."""

import json
import shutil

import pytest

from tests.support.cargo import cargo, use_mirror
from tests.support.registry_of_folder import client, make_program, serving


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("mirror")) as mirror:
        yield mirror


@pytest.fixture(scope="module")
def locked(mirror, tmp_path_factory):
    """A program whose lock cargo itself has made."""
    folder = tmp_path_factory.mktemp("locked")
    program = make_program(folder / "program")
    use_mirror(program, mirror.url)
    made = cargo(program, folder / "cargo", "generate-lockfile")
    assert made.returncode == 0, made.stderr
    shutil.rmtree(program / ".cargo")
    return program


@pytest.fixture
def program(locked, tmp_path):
    shutil.copytree(locked, tmp_path / "program")
    return tmp_path / "program"


def vendor(mirror, program, *words):
    return client(program.parent, "vendor", "vendor", "--data", mirror.data, *words, cwd=program)


def verify(mirror, program, *words):
    words = ("--vendor", "vendor", "--data", mirror.data, "--json", *words)
    said = client(program.parent, "verify", *words, cwd=program)
    return said.returncode, json.loads(said.stdout)


def vendored(mirror, program):
    """Vendor, and configure cargo as it says."""
    said = vendor(mirror, program)
    assert said.returncode == 0, said.stderr
    lines = said.stdout[said.stdout.index("[source.crates-io]") :]
    (program / ".cargo").mkdir()
    (program / ".cargo/config.toml").write_text(lines)
    return program / "vendor"


def run(program):
    """Build and run with a home that has never seen a registry, and no network."""
    return cargo(program, program.parent / "cargo", "run", "--quiet", "--offline", "--locked")


def test_plain_cargo_builds_from_the_folder_with_no_proxy_and_no_network(mirror, program):
    folder = vendored(mirror, program)
    ran = run(program)
    assert ran.stdout == "42 42\n", ran.stderr
    assert not (program.parent / "cargo/registry").exists()
    assert sorted(path.name for path in folder.iterdir()) == ["alpha-1.0.0", "beta-0.2.0"]
    code, said = verify(mirror, program, "--lock", "Cargo.lock")
    assert code == 0
    assert [each["status"] for each in said["on_disk"]] == ["proven", "proven"]


def test_cargo_builds_a_changed_folder_whose_checksums_were_changed_too_and_we_do_not(
    mirror, program
):
    folder = vendored(mirror, program)
    package = folder / "alpha-1.0.0"
    (package / "src/lib.rs").write_text("pub fn answer() -> u8 { 66 }\n")
    control = run(program)
    assert control.returncode != 0  # this much cargo sees
    listed = json.loads((package / ".cargo-checksum.json").read_text())
    del listed["files"]["src/lib.rs"]
    (package / ".cargo-checksum.json").write_text(json.dumps(listed))
    assert run(program).stdout == "66 42\n"
    code, said = verify(mirror, program)
    assert code == 1
    (finding,) = said["on_disk"][0]["findings"]
    assert finding["subject"] == "alpha 1.0.0"
    assert finding["where"].endswith("vendor/alpha-1.0.0/src/lib.rs")


def test_cargo_runs_a_build_script_that_nobody_lists_and_we_name_it(mirror, program):
    folder = vendored(mirror, program)
    mark = program.parent / "ran"
    script = f'fn main() {{ std::fs::write({json.dumps(str(mark))}, "").unwrap(); }}'
    (folder / "beta-0.2.0/build.rs").write_text(script)
    assert run(program).returncode == 0
    assert mark.exists()
    code, said = verify(mirror, program)
    assert code == 1
    assert said["on_disk"][1]["findings"][0]["where"].endswith("beta-0.2.0/build.rs")


def test_folders_that_cargo_vendor_made_are_proven_too(mirror, program):
    use_mirror(program, mirror.url)
    words = ("vendor", "--respect-source-config", "--locked", "vendor")
    made = cargo(program, program.parent / "cargo", *words)
    assert made.returncode == 0, made.stderr
    code, said = verify(mirror, program, "--lock", "Cargo.lock")
    assert (code, len(said["on_disk"])) == (0, 2)
    (program / "vendor/alpha/src/bin").mkdir()
    (program / "vendor/alpha/src/bin/more.rs").write_text("fn main() {}")
    assert verify(mirror, program)[0] == 1
    # And ours takes the place of what is unchanged, but never of that.
    refused = vendor(mirror, program)
    assert refused.returncode == 2
    assert "vendor/alpha" in refused.stderr
    (program / "vendor/alpha/src/bin/more.rs").unlink()
    assert vendor(mirror, program).returncode == 0
    names = sorted(path.name for path in (program / "vendor").iterdir())
    assert names == ["alpha-1.0.0", "beta-0.2.0"]


def test_a_crate_that_does_not_verify_is_named_and_cargo_gets_nothing_of_it(
    mirror, program, tmp_path
):
    copy = mirror.copied(tmp_path / "data")
    file = copy.file("crates/alpha/*.crate")
    file.write_bytes(copy.file("crates/beta/*.crate").read_bytes())
    said = client(tmp_path, "vendor", "vendor", "--data", copy.data, cwd=program)
    assert said.returncode == 1
    assert "alpha 1.0.0" in said.stdout
    assert "[source" not in said.stdout
    assert [path.name for path in (program / "vendor").glob("[!.]*")] == ["beta-0.2.0"]


def test_with_no_mirror_and_nothing_remembered_it_is_exit_code_3_and_nothing_is_written(
    mirror, program, tmp_path
):
    sha256 = (
        mirror.repository
        and __import__("hashlib").sha256((mirror.metadata / "1.root.json").read_bytes()).hexdigest()
    )
    words = ("--mirror", "http://127.0.0.1:9/", "--root-sha256", sha256)
    said = client(tmp_path, "vendor", "vendor", *words, cwd=program)
    assert said.returncode == 3
    assert not (program / "vendor").exists()


def test_a_second_run_says_that_everything_is_there_and_writes_nothing(mirror, program):
    vendor(mirror, program)
    files = {path: path.stat().st_mtime_ns for path in (program / "vendor").rglob("*")}
    said = vendor(mirror, program)
    assert "0 packages written, 2 kept, 0 removed" in said.stdout
    assert {path: path.stat().st_mtime_ns for path in (program / "vendor").rglob("*")} == files
