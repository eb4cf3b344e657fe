"""A client's settings and folders: where they come from, and what they never come from."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mirror.client.home import folders
from mirror.client.home.settings import (
    ABOUT,
    ClientSettings,
    leading_options,
    own_variables,
    read_settings,
)
from mirror.errors import MachineError, UsageError


class Home:
    """A user's home, and the environment of a process there."""

    def __init__(self, path):
        self.path = path
        self.config = path / ".config" / "crateseal"
        self.environment = {"HOME": str(path)}

    def write(self, text):
        folders.make_private(self.config)
        (self.config / "client.toml").write_text(text)

    def read(self, arguments=None, **environment):
        return read_settings(arguments or {}, {**self.environment, **environment})


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def test_the_table_describes_exactly_the_settings_there_are():
    places = {"config_dir", "cache_dir", "run_dir"}
    assert set(ABOUT) - {"cache_dir"} == set(ClientSettings._fields) - places


def test_command_line_beats_environment_beats_file(home):
    home.write('mirror = ["http://c/", "http://d"]\nfetch_jobs = 3\nmax_wait = "3s"\nstrict = true')
    settings = home.read({"fetch_jobs": "1"}, CRATESEAL_FETCH_JOBS="2", CRATESEAL_MAX_WAIT="2s")
    assert (settings.fetch_jobs, settings.max_wait, settings.strict) == (1, 2.0, True)
    assert settings.mirror == ("http://c/", "http://d/")


def test_without_a_word_the_defaults_hold_and_no_mirror_and_no_folder_is_meant(home):
    settings = home.read()
    assert settings == ClientSettings(
        home.config, home.path / ".cache/crateseal", home.path / ".cache/crateseal/run"
    )
    assert (settings.data, settings.mirror) == (None, ())


def test_a_hostile_checkout_brings_no_setting(home, tmp_path):
    checkout = tmp_path / "checkout"
    (checkout / "crateseal-data" / "www").mkdir(parents=True)
    for name in ("mirror.toml", "client.toml", "crateseal.toml", ".crateseal.toml"):
        (checkout / name).write_text('mirror = "http://evil/"\ndata = "crateseal-data"\n')
    code = (
        "import os; from mirror.client.home.settings import ClientSettings, read_settings;"
        "print(read_settings({}, os.environ)[3:] == ClientSettings('', '', '')[3:])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=checkout,
        env={**home.environment, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "True\n"


@pytest.mark.parametrize("key", ["data", "root", "cache_dir"])
def test_a_path_in_the_file_is_absolute_since_the_working_folder_may_be_a_strangers(home, key):
    home.write(f'{key} = "ci/1.root.json"')
    with pytest.raises(UsageError, match=f"client.toml: {key}: expected an absolute path"):
        home.read()


def test_a_relative_config_home_is_refused(home):
    with pytest.raises(UsageError, match="CRATESEAL_CONFIG_HOME: expected an absolute path"):
        home.read(CRATESEAL_CONFIG_HOME=".crateseal")


def test_a_relative_xdg_folder_is_ignored(home):
    settings = home.read(XDG_CONFIG_HOME="here", XDG_CACHE_HOME="here", XDG_RUNTIME_DIR="here")
    assert settings.config_dir == home.config
    assert settings.cache_dir == home.path / ".cache" / "crateseal"
    assert settings.run_dir == settings.cache_dir / "run"


def test_xdg_folders_count(home, tmp_path):
    session = tmp_path / "session"
    session.mkdir(mode=0o700)
    said = {"XDG_CONFIG_HOME": "/x/config", "XDG_CACHE_HOME": "/x/cache"}
    settings = home.read(**said, XDG_RUNTIME_DIR=str(session))
    assert settings.config_dir == Path("/x/config/crateseal")
    assert settings.cache_dir == Path("/x/cache/crateseal")
    assert settings.run_dir == session / "crateseal"


def test_a_session_folder_that_others_enter_is_not_used(home, tmp_path):
    session = tmp_path / "session"
    session.mkdir(mode=0o755)
    settings = home.read(XDG_RUNTIME_DIR=str(session))
    assert settings.run_dir == settings.cache_dir / "run"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('mirrors = "http://a/"', "client.toml: unknown key 'mirrors'; did you mean mirror?"),
        ("max_wait = []", "max_wait: expected one value, got list"),
        ('max_wait = "soon"', "max_wait: expected a duration such as"),
        ('root_sha256 = "3f7a91c2"', "root_sha256: expected all 64 hex digits"),
        ("max_wait =", "client.toml: not TOML"),
        ('mirror = "ftp://a/"', "mirror: expected URLs such as"),
    ],
)
def test_what_is_wrong_in_the_file_is_named_with_its_place(home, text, message):
    home.write(text)
    with pytest.raises(UsageError, match=message) as caught:
        home.read()
    assert str(home.config / "client.toml") in str(caught.value)


def test_an_unknown_variable_of_ours_is_an_error_that_names_the_nearest(home):
    with pytest.raises(UsageError, match=r"CRATESEAL_MIRORR; did you mean CRATESEAL_MIRROR\?"):
        home.read(CRATESEAL_MIRORR="http://a/")


def test_what_a_mirror_hands_to_its_children_says_nothing_to_a_client(home):
    said = {"CRATESEAL_MODE": "index", "CRATESEAL_PORT": "8470", "CRATESEAL_PARENT_FD": "3"}
    assert home.read(**said) == home.read()
    assert "CRATESEAL_PORT" not in own_variables() >= {"CRATESEAL_MIRROR", "CRATESEAL_GATE"}


@pytest.mark.parametrize(
    ("far", "near", "left"),
    [
        ({"mirror": "http://a/"}, {"data": "/d"}, {"data"}),
        ({"mirror": "http://a/", "root_sha256": "0" * 64}, {"data": "/d"}, {"data"}),
        ({"data": "/d"}, {"mirror": "http://a/"}, {"mirror"}),
        ({"root": "/r"}, {"root_sha256": "0" * 64}, {"root_sha256"}),
        ({"root_sha256": "0" * 64}, {"root": "/r"}, {"root"}),
        ({"root": "/r"}, {"mirror": "http://a/"}, {"root", "mirror"}),
    ],
)
def test_what_is_said_nearer_takes_the_place_of_what_it_contradicts(home, far, near, left):
    variables = {f"CRATESEAL_{name.upper()}": text for name, text in far.items()}
    settings = home.read(near, **variables)
    said = {name for name in ("mirror", "data", "root", "root_sha256") if getattr(settings, name)}
    assert said == left


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mirror": ("http://a/", "http://b/x/"), "root_sha256": "ab" * 32},
        {"data": Path("/d"), "strict_absence": True, "proxy_port": 8480, "clock_tolerance": 0.0},
        {"accept_stale_until": 1_900_000_000.0, "max_wait": 2.5, "cache_max_bytes": 10**9},
    ],
)
def test_a_child_gets_exactly_these_settings_whatever_stood_there(home, settings):
    home.write('mirror = "http://c/"\nstrict_absence = true')
    wanted = home.read()._replace(**{"mirror": (), "strict_absence": False, **settings})
    if not wanted.mirror and wanted.data is None:
        wanted = wanted._replace(mirror=("http://c/",))
    old = {**home.environment, "CRATESEAL_ROOT": "/old", "CRATESEAL_DATA": "/old", "PATH": "/bin"}
    environment = wanted.child_environment(old)
    assert read_settings({}, environment) == wanted
    assert environment["PATH"] == "/bin"


def test_a_relative_path_means_the_same_to_a_child_elsewhere(home):
    settings = home.read({"root": "ci/1.root.json", "mirror": ["http://a/"]})
    environment = settings.child_environment(home.environment)
    assert environment["CRATESEAL_ROOT"] == os.path.join(os.getcwd(), "ci/1.root.json")


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("2030-01-31", datetime(2030, 2, 1, tzinfo=UTC)),
        ("2030-01-31T12:00:00Z", datetime(2030, 1, 31, 12, tzinfo=UTC)),
        ("2030-01-31T12:00:00+02:00", datetime(2030, 1, 31, 10, tzinfo=UTC)),
    ],
)
def test_until_a_day_means_to_its_end(home, text, when):
    assert home.read({"accept_stale_until": text}).accept_stale_until == when.timestamp()


@pytest.mark.parametrize("text", ["tomorrow", "2030-01-31T12:00:00", "2030-13-01", "20300131"])
def test_other_dates_are_refused(home, text):
    with pytest.raises(UsageError, match="--accept-stale-until: expected a date such as"):
        home.read({"accept_stale_until": text})


@pytest.mark.parametrize("text", ["3f7a91c2", "g" * 64, "a" * 63, "a" * 65, ""])
def test_a_part_of_a_fingerprint_is_none(home, text):
    with pytest.raises(UsageError, match="--root-sha256: expected all 64 hex digits"):
        home.read({"root_sha256": text})


@pytest.mark.parametrize(
    "url", ["crates.example.org", "ftp://a/", "http://", "http://a/?x", "http://a/#x", "http://[a/"]
)
def test_other_urls_than_those_of_a_folder_are_refused(home, url):
    with pytest.raises(UsageError, match="--mirror: expected URLs such as"):
        home.read({"mirror": [url]})


def test_the_options_of_cargo_sealed_end_at_its_first_other_word():
    said, rest = leading_options(
        ["--strict", "--mirror", "http://a/", "--mirror=http://b/", "--port", "8480", "+nightly",
         "build", "--mirror", "x"]
    )  # fmt: skip
    assert said == {
        "strict": "true",
        "mirror": ["http://a/", "http://b/"],
        "proxy_port": "8480",
    }
    assert rest == ["+nightly", "build", "--mirror", "x"]
    assert leading_options(["--strict", "--", "--list"]) == ({"strict": "true"}, ["--list"])
    with pytest.raises(UsageError, match="--mirror: expected URLs"):
        leading_options(["--mirror"])


# ---- folders


def test_a_folder_is_made_for_this_user_only(tmp_path):
    made = folders.make_private(tmp_path / "new" / "crateseal")
    assert made.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert folders.make_private(made) == made


def linked(path):
    (path.parent / "elsewhere").mkdir(mode=0o700)
    path.symlink_to(path.parent / "elsewhere")


def shared(path):
    path.mkdir()
    path.chmod(0o770)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (linked, "a link, which could be led elsewhere"),
        (shared, "others can enter it"),
        (lambda path: path.write_text(""), "not a folder"),
    ],
)
def test_a_folder_that_is_not_this_users_alone_is_not_used(home, spoil, message):
    home.config.parent.mkdir()
    spoil(home.config)
    for use in (lambda: folders.make_private(home.config), home.read):
        with pytest.raises(MachineError, match=message) as caught:
            use()
        assert str(home.config) in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_somebody_elses_folder_is_not_used(home):
    folders.make_private(home.config)
    os.chown(home.config, 65534, 65534)
    with pytest.raises(MachineError, match="belongs to user 65534"):
        home.read()


# ---- the price


def test_what_each_build_imports_is_light():
    code = "import sys; import mirror.client.home.remembered; print(*sorted(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    heavy = {"dataclasses", "asyncio", "ssl", "http.client", "httpx", "tuf", "orjson", "rich"}
    heavy |= {"argparse", "logging", "tomllib", "difflib", "hashlib", "datetime"}
    loaded = set(run.stdout.split()) - set(_bare())
    assert not loaded & heavy


def _bare():
    code = "import sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.split()
