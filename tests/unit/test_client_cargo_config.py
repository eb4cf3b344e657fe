"""`crateseal cargo-config`: cargo's own configuration gets our source, and nothing else changes."""

import io
import os
import stat
import tomllib

import pytest

from mirror.client.commands.cargo_config import (
    CargoConfigOptions,
    change_file,
    run_cargo_config,
    with_ours,
    without_ours,
)
from mirror.client.home.settings import ClientSettings
from mirror.errors import UsageError

ROOT_SHA256 = "0123456789abcdef" * 4
INDEX = "sparse+http://127.0.0.1:8471/0123456789abcdef/index/"
OURS = {
    "source": {"crates-io": {"replace-with": "crateseal"}},
    "registries": {"crateseal": {"index": INDEX}},
}


@pytest.fixture
def path(tmp_path):
    (tmp_path / "cargo").mkdir()
    return tmp_path / "cargo/config.toml"


def write(path, text):
    path.write_bytes(text.encode())
    return path


def run(tmp_path, *, port=None, environment=None, **options):
    out = io.StringIO()
    settings = ClientSettings(
        tmp_path / "config",
        tmp_path / "cache",
        tmp_path / "run",
        mirror=("https://crates.example.org/",),
        root_sha256=ROOT_SHA256,
        proxy_port=port,
    )
    home = {"HOME": str(tmp_path), "CARGO_HOME": str(tmp_path / "cargo")}
    code = run_cargo_config(
        CargoConfigOptions(**options), settings, home | (environment or {}), out
    )
    assert code == 0
    return out.getvalue()


PLAIN = {
    "an empty file": "",
    "settings and comments": '# mine\n[build]\njobs = 2 # two\n\n[alias]\nb = "build"\n# end\n',
    "no newline at its end": "[build]\njobs = 2",
    "lines of Windows": "[build]\r\njobs = 2\r\n",
    "other registries": '[registries.mine]\nindex = "sparse+https://x/" # y\n\n# last\n',
    "sources out of order": '[source.m]\ngit = "a"\n[net]\nretry = 1\n[source.n]\ngit = "b"\n',
    "dotted keys": 'source.m.directory = "a"\nbuild.jobs = 1\n',
}


@pytest.mark.parametrize("text", PLAIN.values(), ids=PLAIN)
def test_ours_is_added_nothing_else_changes_and_it_goes_to_the_letter(text, path):
    write(path, text)
    before = tomllib.loads(text)
    added = with_ours(path, INDEX, replace=False)
    assert added.startswith(text)
    after = tomllib.loads(added)
    assert after["source"].pop("crates-io") == OURS["source"]["crates-io"]
    assert after["registries"].pop("crateseal") == OURS["registries"]["crateseal"]
    assert {key: value for key, value in after.items() if value} == before
    write(path, added)
    assert with_ours(path, INDEX, replace=False) == added
    assert without_ours(path) == (text if text.endswith("\n") or not text else text + "\n")


@pytest.mark.parametrize("text", PLAIN.values(), ids=PLAIN)
def test_another_port_takes_the_place_of_the_first(text, path):
    write(path, text)
    write(path, with_ours(path, INDEX, replace=False))
    other = INDEX.replace("8471", "8472")
    again = with_ours(path, other, replace=False)
    assert tomllib.loads(again)["registries"]["crateseal"]["index"] == other
    assert again.count("[source.crates-io]") == 1


def test_a_table_of_the_users_is_changed_in_place_and_its_comments_stay(path):
    write(path, '[source.crates-io]\n# why\nreplace-with = "mine" # old\n\n[net]\nretry = 1\n')
    text = with_ours(path, INDEX, replace=True)
    assert tomllib.loads(text) == OURS | {"net": {"retry": 1}}
    assert "# why" in text
    assert "# old" in text
    write(path, text)
    gone = tomllib.loads(without_ours(path))
    assert gone["source"] == {"crates-io": {}}
    assert gone["net"] == {"retry": 1}
    assert "# why" in without_ours(path)


def test_what_a_person_copied_by_hand_is_ours_too(path):
    write(path, '[source.crates-io]\nreplace-with = "crateseal"\n\n[registries.crateseal]\n'
                f'index = "{INDEX}"\n')  # fmt: skip
    text = path.read_text()
    assert with_ours(path, INDEX, replace=False) == text
    assert "127.0.0.1" not in without_ours(path)


@pytest.mark.parametrize(
    "text",
    [
        '[source.crates-io]\nreplace-with = "mine"\n[source.mine]\ndirectory = "x"\n',
        'source.crates-io.replace-with = "mine"\n',
        '[registries.crateseal]\nindex = "sparse+https://evil.example.org/"\n',
    ],
)
def test_another_source_for_crates_io_is_not_overwritten_unless_that_is_said(text, path):
    write(path, text)
    with pytest.raises(UsageError, match="already"):
        with_ours(path, INDEX, replace=False)
    after = tomllib.loads(with_ours(path, INDEX, replace=True))
    assert after["source"]["crates-io"]["replace-with"] == "crateseal"
    assert after["registries"]["crateseal"]["index"] == INDEX


def test_remove_leaves_what_only_looks_like_ours(path):
    text = (
        '[source.crates-io]\nreplace-with = "mine"\n'
        '[registries.crateseal]\nindex = "sparse+https://crates.example.org/index/"\n'
    )
    write(path, text)
    assert without_ours(path) == text


@pytest.mark.parametrize(
    "text", ["source = { m = { directory = 'a' } }\n", "source = 1\n", "[source]\ncrates-io = 1\n"]
)
def test_a_file_that_cannot_be_changed_safely_is_left_as_it_is(text, path):
    write(path, text)
    with pytest.raises(UsageError):
        with_ours(path, INDEX, replace=True)


@pytest.mark.parametrize("data", [b"[", b"\xff\xfe", b"a = " + b"[" * 5000])
def test_what_is_no_toml_is_said(data, path):
    path.write_bytes(data)
    for change in (lambda: with_ours(path, INDEX, replace=False), lambda: without_ours(path)):
        with pytest.raises(UsageError, match=r"config\.toml"):
            change()


def test_write_and_remove_and_again(tmp_path, path):
    write(path, "# mine\n")
    assert "written" in run(tmp_path, write=True)
    assert tomllib.loads(path.read_text()) == OURS
    assert "there already" in run(tmp_path, write=True)
    assert "taken out" in run(tmp_path, remove=True)
    assert path.read_text() == "# mine\n"
    assert "nothing of ours" in run(tmp_path, remove=True)


def test_without_write_it_is_only_shown(tmp_path, path):
    text = run(tmp_path)
    assert tomllib.loads(text) == OURS
    assert "crateseal proxy --port 8471" in text
    assert not path.exists()


def test_the_port_is_the_one_said_else_the_one_remembered(tmp_path):
    assert "127.0.0.1:9000/" in run(tmp_path, port=9000)
    (tmp_path / "cache/0123456789abcdef").mkdir(parents=True)
    (tmp_path / "cache/0123456789abcdef/port").write_text("8473\n")
    assert "127.0.0.1:8473/" in run(tmp_path)
    assert "127.0.0.1:9000/" in run(tmp_path, port=9000)


def test_a_proxy_in_the_environment_is_warned_of_where_it_would_get_these_requests(tmp_path):
    proxy = {"https_proxy": "http://x", "http_proxy": "http://x"}
    assert "NO_PROXY" in run(tmp_path, environment=proxy)
    assert "NO_PROXY" not in run(tmp_path, environment=proxy | {"no_proxy": "a,127.0.0.1"})
    assert "NO_PROXY" not in run(tmp_path)


def test_cargos_old_name_of_the_file_is_used_where_cargo_uses_it(tmp_path, path):
    old = write(path.with_name("config"), "[build]\njobs = 1\n")
    run(tmp_path, write=True)
    assert "crateseal" in old.read_text()
    assert not path.exists()


def test_a_home_that_is_not_there_yet_is_made(tmp_path):
    run(tmp_path, write=True)
    assert tomllib.loads((tmp_path / "cargo/config.toml").read_text()) == OURS


def test_write_and_remove_at_once_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError):
        run(tmp_path, write=True, remove=True)


def test_mode_and_a_link_of_dotfiles_survive_and_no_other_file_stays(path, tmp_path):
    (tmp_path / "dotfiles").mkdir()
    real = write(tmp_path / "dotfiles/cargo.toml", "# mine\n")
    real.chmod(0o640)
    path.symlink_to("../dotfiles/cargo.toml")
    assert change_file(path, "# other\n")
    assert os.readlink(path) == "../dotfiles/cargo.toml"
    assert real.read_text() == "# other\n"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert os.listdir(tmp_path / "dotfiles") == ["cargo.toml"]
    assert os.listdir(path.parent) == ["config.toml"]


def test_a_reader_never_sees_half_a_file(path):
    write(path, "# mine\n")
    with path.open() as reader:
        assert change_file(path, "# other, and longer\n")
        assert reader.read() == "# mine\n"
    assert not change_file(path, "# other, and longer\n")


def test_a_file_that_cannot_be_written_is_left_whole(path):
    write(path, "# mine\n")
    with pytest.raises(UnicodeEncodeError):
        change_file(path, "\ud800")
    long = write(path.with_name("a" * 250), "# mine\n")  # no room for a temporary name
    with pytest.raises(OSError):
        change_file(long, "# other\n")
    assert path.read_text() == long.read_text() == "# mine\n"
    assert sorted(os.listdir(path.parent)) == [long.name, path.name]
