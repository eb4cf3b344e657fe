"""The workspace that is looked at is the one that a real cargo takes."""

import os
import subprocess
from pathlib import Path

import pytest

from mirror.client.sealed.manifests import find_root
from tests.conftest import need
from tests.support.laptop import RUSTUP_HOME, package


@pytest.mark.parametrize(
    ("root", "more"),
    [
        ('[workspace]\nmembers = ["x/m"]', ""),
        ('["workspace"]\nmembers = ["x/m"]', ""),
        ('\ufeff["work\\u0073pace"]\nmembers = ["x/m"]', ""),
        ('workspace.members = ["x/m"]', ""),
        ('[workspace]\nmembers = ["x/m"]\nexclude = ["x"]', ""),
        ('[workspace]\nmembers = ["x/*"]\nexclude = ["x"]', ""),
        ('[workspace]\nmembers = ["x/m"]\nexclude = ["y/../x"]', ""),
        ('[workspace]\nexclude = ["x"]', ""),
        ('[workspace]\nmembers = ["x/m"]', 'workspace = "../../other"'),
        ('[workspace]\nmembers = ["x/m"]', '"work\\u0073pace" = "../../other"'),
        ('[package]\nname = "p"\nversion = "1.0.0"\ndescription = """\n[workspace]\n"""', ""),
    ],
)
def test_the_workspace_is_the_one_that_cargo_takes(tmp_path, root, more):
    need("cargo")
    member = package(tmp_path / "x/m", name="m", more=more)
    package(tmp_path / "x", name="x")
    (tmp_path / "src").mkdir()
    (tmp_path / "src/lib.rs").write_text("")
    (tmp_path / "Cargo.toml").write_text(root)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/Cargo.toml").write_text('[workspace]\nmembers = ["../x/m"]\n')
    said = subprocess.run(
        ["cargo", "locate-project", "--workspace", "--message-format", "plain"],
        cwd=member,
        env={**os.environ, "RUSTUP_HOME": RUSTUP_HOME, "CARGO_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert find_root(member).folder == Path(said.strip()).parent
