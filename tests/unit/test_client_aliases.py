"""A checkout's aliases: none may bring a `--config` behind ours, or lead to another checkout."""

import pytest

from mirror.client.sealed.aliases import check_aliases
from mirror.errors import UsageError
from tests.support.laptop import configure

CONFIG = "source.crates-io.replace-with='v'"


def check(folder, command="b", **environment):
    check_aliases(command, folder / "below", folder / "home", environment)


@pytest.mark.parametrize(
    "text",
    [
        f'alias.b = ["build", "--config", "{CONFIG}"]',
        f'alias.b = "build --config={CONFIG}"',
        f'[alias]\nb = ["-q", "c"]\nc = ["build", "--config", "{CONFIG}"]',
        f'[alias]\nb = ["--color", "always", "c-c"]\nc-c = ["build", "--config", "{CONFIG}"]',
        f'[alias]\nb = "c.d"\nc.d = ["build", "--config", "{CONFIG}"]',
        f'alias.b = ["--", "c", "--config", "{CONFIG}"]',
        f'"al\\u0069as".b = ["build", "--config", "{CONFIG}"]',
        'include = ["more.toml"]',
    ],
)
def test_an_alias_with_a_config_is_refused_however_it_is_written(tmp_path, text):
    configure(tmp_path, text)
    more = f'alias.b = ["build", "--config", "{CONFIG}"]'
    (tmp_path / ".cargo/more.toml").write_text(more)
    with pytest.raises(UsageError, match=r"alias b: stands for words with a --config"):
        check(tmp_path)


@pytest.mark.parametrize("option", ["--manifest-path", "--lockfile-path", "-C"])
@pytest.mark.parametrize("form", ['["build", "{}", "x"]', '"build {}=x"', '["{}=x", "build"]'])
def test_an_alias_that_leads_to_another_checkout_is_refused(tmp_path, option, form):
    configure(tmp_path, f"alias.b = {form.format(option)}")
    with pytest.raises(UsageError, match=f"alias b: stands for words with a {option}, "):
        check(tmp_path)


def test_lists_of_several_places_are_joined_so_each_counts(tmp_path):
    configure(tmp_path, f'alias.b = ["--config", "{CONFIG}"]')
    (tmp_path / "below").mkdir()
    configure(tmp_path / "below", 'alias.b = ["build"]')
    with pytest.raises(UsageError):
        check(tmp_path)


@pytest.mark.parametrize("command", ["b", "b-b", "b.b"])
def test_an_alias_of_the_environment_counts(tmp_path, command):
    name = "CARGO_ALIAS_B" if command == "b" else "CARGO_ALIAS_B_B"
    with pytest.raises(UsageError):
        check(tmp_path, command, **{name: f"build --config {CONFIG}"})


@pytest.mark.parametrize(
    "text",
    [
        'alias.b = ["build", "--release"]',
        'alias.b = "run --package xtask -- --config x"',
        'alias.b = "rustc -- -C opt-level=3"',
        f'alias.other = ["build", "--config", "{CONFIG}"]',
        '[alias]\nb = "c"\nc = "b"',
        "build.x = {\n}  # no word of them",
    ],
)
def test_other_aliases_are_left_alone(tmp_path, text):
    configure(tmp_path, text)
    check(tmp_path)


@pytest.mark.parametrize(
    "text", ["x = {\n}\nalias.b = 'c'", "x = {\n}\ninclude = 'c'", "x = {\n}\ny = '\\'"]
)
def test_a_configuration_that_only_cargo_can_read_is_refused_in_one_line(tmp_path, text):
    configure(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        check(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/.cargo/config.toml: cannot be read here")
    assert "\n" not in str(caught.value)


def test_more_includes_than_are_followed_are_refused(tmp_path):
    files = [f"{number}.toml" for number in range(60)]
    configure(tmp_path, f"include = {files}")
    for file in files:
        (tmp_path / ".cargo" / file).write_text("")
    with pytest.raises(UsageError):
        check(tmp_path)
