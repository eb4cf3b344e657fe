"""What `cargo sealed` makes of a command line and an environment, and what it may import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mirror.client.home.settings import ClientSettings
from mirror.client.sealed.cargo_words import (
    Words,
    is_ci,
    is_offline,
    sealed,
    take_option,
    working_folder,
)
from mirror.client.sealed.sealing import Call, cargo_environment, program_of
from mirror.errors import UsageError
from tests.support.processes import environment

HERE = Path("/here")
INDEX = "sparse+http://127.0.0.1:8471/0123456789abcdef/index/"
OURS = [
    "--config",
    'source.crates-io.replace-with="n"',
    "--config",
    f'registries.n.index="{INDEX}"',
]
HEAVY = {"httpx", "tuf", "rich", "orjson", "asyncio", "ssl", "tomllib", "argparse", "subprocess"}
HEAVY |= {"dataclasses", "logging", "securesystemslib", "email"}


def words(*rest, command="build", toolchain=None, options=()):
    return Words(toolchain, tuple(options), command, tuple(rest))


def test_before_cargo_runs_nothing_heavy_is_imported():
    code = "import sys, mirror.client.sealed.cargo_command as _, mirror.client.sealed.survey as _;"
    code += "print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert not HEAVY & {each.partition(".")[0] for each in done.stdout.split()}


def test_our_words_stand_before_cargos_and_a_toolchain_before_all():
    made = sealed(words("--locked", toolchain="+nightly", options=("-v",)), "n", INDEX, HERE)
    assert made == ["+nightly", *OURS, "-v", "build", "--locked"]


def test_vendor_respects_the_sources_that_are_configured():
    expected = [*OURS, "vendor", "--respect-source-config", "dir"]
    assert sealed(words("dir", command="vendor"), "n", INDEX, HERE) == expected


def test_search_and_info_are_told_the_registry_unless_the_user_did():
    assert sealed(words("x", command="info"), "n", INDEX, HERE)[4:] == [
        "info",
        "--registry",
        "n",
        "x",
    ]
    mine = words("x", "--registry=corp", command="search")
    assert sealed(mine, "n", INDEX, HERE)[4:] == ["search", "x", "--registry=corp"]


def test_what_stands_behind_two_dashes_is_not_for_cargo():
    run = words("--", "--offline", "--config", "source.x", "-C", "/", command="run")
    assert not is_offline(run, {})
    assert sealed(run, "n", INDEX, HERE)[4:] == [
        "run",
        "--",
        "--offline",
        "--config",
        "source.x",
        "-C",
        "/",
    ]
    assert working_folder(run, Path("/here")) == Path("/here")


@pytest.mark.parametrize(
    "said",
    [
        ("--config", 'source.crates-io.registry="https://x"'),
        ("--config=source.a.directory='v'",),
        ("--config", '"source".a.directory="v"'),
        ("--config", ' "s\\u006furce".a.directory="v"'),
        ("--config", 'include="x.toml"'),
        ("--config", "no TOML that we know"),
    ],
)
def test_words_that_redirect_a_source_are_refused(said):
    with pytest.raises(UsageError, match="says itself where crates come from"):
        sealed(words(*said), "n", INDEX, HERE)


def test_a_file_that_redirects_a_source_is_refused_and_another_one_is_not(tmp_path):
    (tmp_path / "bad.toml").write_text("[source.crates-io]\nreplace-with = 'x'\n")
    (tmp_path / "good.toml").write_text("net.retry = 0\n")
    with pytest.raises(UsageError, match="says itself where crates come from"):
        sealed(words("--config", "bad.toml"), "n", INDEX, tmp_path)
    assert sealed(words("--config", "good.toml"), "n", INDEX, tmp_path)[-1] == "good.toml"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError):
        sealed(words("--config", "pipe"), "n", INDEX, tmp_path)


@pytest.mark.parametrize("said", ["-C below", "-Cbelow", "-C=below", "-C elsewhere -C below"])
def test_the_folder_that_cargo_is_told_is_found_however_it_is_written(said, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "below").symlink_to("real")
    assert working_folder(words(options=said.split()), tmp_path) == tmp_path / "real"


def test_other_configuration_on_the_command_line_is_left_alone():
    made = sealed(words("--config", "net.retry=0"), "n", INDEX, HERE)
    assert made == [*OURS, "build", "--config", "net.retry=0"]


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("-v", 1),
        ("--color always", 2),
        ("--color=always", 1),
        ("-Zx", 1),
        ("-Z x", 2),
        ("-C d", 2),
        ("--config a=1", 2),
        ("--strickt", 0),
        ("build", 0),
    ],
)
def test_options_of_cargos_are_known_with_their_values(line, count):
    assert take_option(line.split()) == count


def test_offline_may_be_said_in_three_ways_and_a_build_machine_in_one():
    assert is_offline(words("--offline"), {})
    assert is_offline(words("--frozen"), {})
    assert is_offline(words(), {"CARGO_NET_OFFLINE": "true"})
    assert not is_offline(words(), {"CARGO_NET_OFFLINE": "false"})
    assert is_ci({"CI": "true"})
    assert not is_ci({"CI": "false"})


def call(environment, *, toolchain=None, **settings):
    folders = (Path("/config"), Path("/cache"), Path("/run"))
    asked = words(toolchain=toolchain)
    return Call(asked, ClientSettings(*folders, **settings), environment, Path("/here"), json=False)


def made(before, **more):
    return cargo_environment(call(before, **more), Path("/overlay"), 8471)


def test_no_proxy_of_the_environment_is_asked_for_this_machine():
    said = made({"NO_PROXY": "corp.example", "http_proxy": "http://proxy"})
    assert said["NO_PROXY"] == "corp.example,127.0.0.1"
    assert said["no_proxy"] == "127.0.0.1"
    assert said["http_proxy"] == "http://proxy"
    again = made(said)
    assert again["NO_PROXY"] == "corp.example,127.0.0.1"
    assert made({"no_proxy": "*"})["no_proxy"] == "*"


def test_with_strict_all_that_is_not_for_us_comes_to_us():
    said = made({"NO_PROXY": "corp.example"}, strict=True)
    assert said["CARGO_HTTP_PROXY"] == "http://127.0.0.1:8471"
    assert said["NO_PROXY"] == said["no_proxy"] == "127.0.0.1"


def test_the_cargo_that_started_us_is_the_one_unless_a_toolchain_is_named():
    variables = {"CARGO": "/rust/bin/cargo"}
    assert program_of(words(), variables) == "/rust/bin/cargo"
    assert program_of(words(), {}) == "cargo"
    assert program_of(words(toolchain="+nightly"), variables) == "cargo"
    assert "CARGO" not in made(variables, toolchain="+nightly")
    assert made(variables)["CARGO_HOME"] == os.fspath(Path("/overlay"))
