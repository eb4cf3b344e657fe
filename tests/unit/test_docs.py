"""What the README lists is what there is."""

import re
import tomllib
from pathlib import Path

from mirror.cli import commands
from mirror.parser import client_settings_table
from tuf_repo.cli import COMMANDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def between(name):
    return README.partition(f"<!-- {name} -->")[2].partition(f"<!-- /{name} -->")[0]


def test_the_readme_lists_exactly_the_commands_there_are():
    assert re.findall(r"^\| `crateseal ([a-z-]+)`", between("commands"), re.MULTILINE) == list(
        commands()
    )


def test_the_readme_lists_exactly_the_settings_of_a_client():
    assert between("client-settings").strip() == client_settings_table().strip()


def test_the_readme_lists_exactly_the_commands_of_tuf_repo():
    listed = re.findall(r"^\| `tuf-repo ([a-z ]+)`", between("tuf-repo"), re.MULTILINE)
    assert listed == list(COMMANDS)


def test_every_dependency_is_explained():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    declared = [*project["dependencies"], *extras["mirror"], *extras["dev"]]
    explained = (ROOT / "mirror/README.md").read_text(encoding="utf-8")
    table = explained.partition("## Dependencies")[2].partition("\n## ")[0]
    for requirement in declared:
        name = re.match(r"[A-Za-z0-9-]+", requirement)[0]
        assert re.search(rf"^\|.*\b{name}\b.*\|", table, re.MULTILINE), name


def test_every_link_in_a_readme_leads_somewhere():
    for readme in ROOT.glob("*/README.md"), [ROOT / "README.md"]:
        for path in readme:
            for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
                assert (path.parent / link).exists(), (path, link)


def test_every_file_the_readmes_name_is_there():
    for path in [ROOT / "README.md", *ROOT.glob("*/README.md")]:
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"\b((?:tests|mirror|tuf_repo|deploy)/[\w/]+\.\w+)", text):
            assert (ROOT / name).exists(), (path, name)
