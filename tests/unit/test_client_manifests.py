"""Which workspace cargo takes, and which packages lie outside of it; however TOML is written."""

import subprocess
import sys

import pytest

from mirror.client.sealed.light_lock import Package
from mirror.client.sealed.manifests import Root, find_root, outside, package_of
from tests.support.laptop import package

NEWER_TOML = "x = {\n}\n"
MEMBER = 'members = ["member"]'


def locked(*names, version="0.1.0"):
    return [Package(name, version, None, None) for name in names]


# ---- which workspace


@pytest.mark.parametrize(
    "text",
    [
        f"[workspace]\n{MEMBER}",
        f"\ufeff[workspace]\n{MEMBER}",
        f'["workspace"]\n{MEMBER}',
        f"['workspace']\n{MEMBER}",
        f"[ workspace ]\n{MEMBER}",
        f'["work\\u0073pace"]\n{MEMBER}',
        'workspace = { members = ["member"] }',
        f"workspace.{MEMBER}",
        f'"workspace".{MEMBER}',
        '[workspace.dependencies]\nx = "1"',
        f'x = """\n# no workspace: """\n[workspace] # but here\n{MEMBER}',
    ],
)
def test_a_root_is_known_however_it_says_so(tmp_path, text):
    member = package(tmp_path / "member", "y.workspace = true", more="edition.workspace=true")
    (tmp_path / "Cargo.toml").write_text(text)
    assert find_root(member) == Root(tmp_path, ())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# [workspace]",
        'description = """\n[workspace]\n"""',
        "[lints]\nworkspace = true",
        '[package]\nname = "workspace"',
        'x = ["[workspace]"]',
    ],
)
def test_what_only_looks_like_a_root_is_none(tmp_path, text):
    member = package(tmp_path / "member")
    (tmp_path / "Cargo.toml").write_text(text)
    assert find_root(member) == Root(member, ())


@pytest.mark.parametrize(
    "pointer",
    [
        '[package]\nname = "a"\nworkspace = "../root"',
        'package.workspace = "../root"',
        '"package"."workspace" = "../root"',
        'package = { "work\\u0073pace" = "../root" }',
        '[project]\nworkspace = "../root"',
    ],
)
def test_a_package_says_itself_which_root_is_its_own(tmp_path, pointer):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/Cargo.toml").write_text(pointer)
    (tmp_path / "Cargo.toml").write_text('[workspace]\nexclude = ["x"]')
    assert find_root(tmp_path / "a") == Root(tmp_path / "root", ())


@pytest.mark.parametrize(
    ("lists", "is_excluded"),
    [
        ('members = ["x/m"]\nexclude = ["x"]', False),
        ('members = ["x"]\nexclude = ["x/m"]', False),
        ('members = ["x/*"]\nexclude = ["x"]', True),
        ('members = ["y"]\nexclude = ["x"]', True),
        ('members = []\nexclude = ["./x/"]', True),
        ('exclude = ["y/../x"]', False),
        ('exclude = ["x/mm"]', False),
        ('"exclu\\u0064e" = ["x"]', True),
    ],
)
def test_a_member_that_is_named_beats_exclude(tmp_path, lists, is_excluded):
    member = package(tmp_path / "x/m")
    (tmp_path / "Cargo.toml").write_text(f"[workspace]\n{lists}\n")
    assert find_root(member).folder == (member if is_excluded else tmp_path)


def test_the_search_ends_where_cargo_packs(tmp_path):
    packed = package(tmp_path / "target/package/a-0.1.0")
    (tmp_path / "Cargo.toml").write_text("[workspace]")
    assert find_root(packed).folder == packed


def test_a_manifest_that_only_cargo_can_read_is_told(tmp_path):
    member = package(tmp_path / "member")
    (tmp_path / "Cargo.toml").write_text(f'["workspace"]\n[x]\n{NEWER_TOML}')
    assert find_root(member) == Root(member, (tmp_path / "Cargo.toml",))


# ---- which packages


@pytest.mark.parametrize(
    "line",
    [
        'log = { path = "../far" }',
        'log = { path = "..\\u002ffar" }',
        'log = { "p\\u0061th" = "../far" }',
        'log = { path = """../far""" }',
        "log = { path = '''../far''' }",
        "log = { path = 'link' }",
        'log = "0.1"\n[patch.crates-io.log]\npath = """\n../far"""',
    ],
)
def test_a_package_outside_is_named_however_its_path_is_written(tmp_path, line):
    far = package(tmp_path / "far", name="log")
    work = package(tmp_path / "work", line, name="work")
    (work / "link").symlink_to(far)
    (found,) = outside(work, locked("work", "log"))
    assert found in {f"log ({far})", f"log ({work}/link)"}


def test_what_no_manifest_in_the_workspace_is_of_is_not_covered(tmp_path):
    work = package(tmp_path, name="work")
    package(tmp_path / "unused", name="log")
    assert outside(work, locked("work")) == []
    assert outside(work, locked("log")) == [f"log 0.1.0 (not found below {work})"]
    assert outside(work, locked("work", version="2.0.0")) != []
    found = outside(work, [*locked("work"), *locked("log", version="0.4.0")])
    assert found == [f"log 0.4.0 (not found below {work})"]


@pytest.mark.parametrize(
    "members",
    ['["a", # [old]\n "b"]', '["[ab]"]', "['?']", '["\\u0061", "b"]', '["a", "b", "c"]'],
)
def test_packages_of_the_workspace_are_found_however_members_are_written(tmp_path, members):
    package(tmp_path / "a", 'c = { path = "../c" }', name="a")
    package(tmp_path / "b", name="b")
    package(tmp_path / "c", name="c")
    (tmp_path / "Cargo.toml").write_text(f"[workspace]\nmembers = {members}\n")
    assert outside(tmp_path, locked("a", "b", "c")) == []


def test_a_manifest_that_only_cargo_can_read_proves_nothing(tmp_path):
    work = package(tmp_path / "work", 'far = { path = "../far" }', name="work")
    far = package(
        tmp_path / "far", name="far", more=f'y = "\\\\"\n[package.metadata]\n{NEWER_TOML}'
    )
    assert outside(work, locked("work", "far")) == [
        f"{far}/Cargo.toml: cannot be read here",
        f"far 0.1.0 (not found below {work})",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[package]\nname = "a"\nversion = "1.0.0"\n[lib]\nname = "b"\n', ("a", "1.0.0")),
        ('[package]\r\nname = "a"\r\nversion = "1.0.0"\r\n', ("a", "1.0.0")),
        ('[package]\nversion.workspace = true\nname = "a"', ("a", None)),
        ('[package]\nversion = { workspace = true }\nname = "a"', ("a", None)),
        ('[package]\nname = "a" # "b"\n', ("a", "0.0.0")),
        ('["package"]\nname="a"\nversion=\'1.0.0\'\n', ("a", "1.0.0")),
        ('[project]\nname = "a"\nversion = "1.0.0"\n', ("a", "1.0.0")),
        ('[x]\ny = """\n[package]\nname = "b"\n"""\n[package]\nname = "a"', ("a", "0.0.0")),
        ('[package]\n"name" = "a"\nversion = "1.0.0"\n', ("a", "1.0.0")),
        ("[workspace]\n", (None, None)),
    ],
)
def test_name_and_version_are_what_cargo_reads(text, expected):
    assert package_of(text.encode()) == expected


def test_a_name_in_a_table_over_several_lines_is_not_the_packages(tmp_path):
    text = '[package]\nmetadata = {\nname = "b"\n}\nversion = "1.0.0"\n"name" = "a"\n'
    with pytest.raises(ValueError, match=r".*"):
        package_of(text.encode())


_PLAIN = """
import sys
from pathlib import Path
from mirror.client.sealed.light_lock import Package
from mirror.client.sealed.manifests import find_root, outside
root, names = Path(sys.argv[1]), sys.argv[2:]
packages = [Package(name, "0.1.0", None, None) for name in names]
assert find_root(root / "a").folder == root
assert outside(root, packages) == []
assert "tomllib" not in sys.modules
"""


def test_a_plain_project_needs_no_parser(tmp_path):
    package(tmp_path / "a", name="a", more="[lints]\nworkspace = true")
    package(tmp_path / "b", 'a = { path = "../a" }', name="b")
    (tmp_path / "Cargo.toml").write_text('[workspace]\nmembers = ["a"]\n')
    assert run(tmp_path, "a")
    (tmp_path / "Cargo.toml").write_text('[workspace]\nmembers = ["?"]\n')
    assert run(tmp_path, "a", "b")


def run(*words):
    return subprocess.run([sys.executable, "-c", _PLAIN, *words], check=False).returncode == 0
