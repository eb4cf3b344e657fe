from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.client.home.settings import own_variables
from mirror.config import Config
from mirror.errors import UsageError
from mirror.kinds import parse_duration, parse_size
from mirror.options import load_config, settings_table, show_duration

README = Path(__file__).parents[2] / "README.md"


def load(folder, arguments=None, environment=None, text=None):
    if text is not None:
        (folder / "mirror.toml").write_text(text)
    return load_config(arguments or {}, environment or {}, folder=folder)


def test_nothing_set_gives_the_defaults(tmp_path):
    assert load(tmp_path) == Config()


def test_a_key_of_the_file_counts(tmp_path):
    config = load(tmp_path, text='port = 9000\noffline = true\nmax_age = "2m"\n')
    assert (config.port, config.offline, config.max_age) == (9000, True, 120.0)


def test_environment_wins_over_file_and_command_line_over_both(tmp_path):
    text, environment = "port = 1\njobs = 1\nworkers = 1", {"CRATESEAL_PORT": "2"}
    environment["CRATESEAL_JOBS"] = "2"
    config = load(tmp_path, {"port": "3"}, environment, text)
    assert (config.port, config.jobs, config.workers) == (3, 2, 1)


def test_the_file_can_be_named(tmp_path):
    (tmp_path / "other.toml").write_text("port = 9001")
    assert load(tmp_path, {"config": "other.toml"}, text="port = 9000").port == 9001
    assert load(tmp_path, {}, {"CRATESEAL_CONFIG": "other.toml"}).port == 9001


def test_a_child_gets_exactly_these_settings_through_its_environment(tmp_path):
    config = Config(
        data=Path("elsewhere"), names="a b.txt", offline=True, max_age=0.25, bin_bits=7, jobs=3
    )
    assert load(tmp_path, {}, config.to_environment()) == config


def test_trusted_proxies_are_addresses_and_networks(tmp_path):
    text = 'trusted_proxies = ["127.0.0.1", "fd00::/8"]'
    expected = (ip_network("127.0.0.1/32"), ip_network("fd00::/8"))
    config = load(tmp_path, text=text)
    assert config.trusted_proxies == expected
    child = load(tmp_path / "elsewhere", {}, config.to_environment())
    assert child.trusted_proxies == expected


@pytest.mark.parametrize(
    "contact", ["ops@example.org", "https://a.example/?q=1", "a", "Jo & Co, 7"]
)
def test_a_contact_is_kept_as_it_is(tmp_path, contact):
    assert load(tmp_path, {"contact": contact}).contact == contact


@pytest.mark.parametrize(
    "contact",
    [
        "a\r\nX-Evil: 1",
        "a\nb",
        "a\x7fb",
        "a) evil/1 (b",
        "a\\",
        "Jürgen",
        "a\u2028b",
        " a",
        "",
        "a" * 201,
    ],
)
def test_a_contact_cannot_break_the_header_it_stands_in(tmp_path, contact):
    """Attack: a contact from a shared configuration that adds headers of its own."""
    with pytest.raises(UsageError, match="contact: expected an address or URL"):
        load(tmp_path, {"contact": contact})


def test_a_live_mirror_keeps_its_mode_and_upstream_unless_told_otherwise(tmp_path):
    metadata = tmp_path / "data/www/tuf/metadata"
    metadata.mkdir(parents=True)
    state = '{"mode": "index", "upstream": "sparse+http://127.0.0.1:9/i/"}'
    (metadata / "timestamp.json").write_text('{"signed": {"x-crateseal": ' + state + "}}")
    arguments = {"data": str(tmp_path / "data")}
    config = load(tmp_path, arguments)
    assert (config.mode, config.upstream) == ("index", "sparse+http://127.0.0.1:9/i/")
    assert load(tmp_path, {**arguments, "mode": "cache"}).mode == "cache"


@pytest.mark.parametrize("content", ["", "{", '{"signed": 3}', '{"signed": {"x-crateseal": []}}'])
def test_a_broken_timestamp_is_not_the_configurations_business(tmp_path, content):
    (tmp_path / "www/tuf/metadata").mkdir(parents=True)
    (tmp_path / "www/tuf/metadata/timestamp.json").write_text(content)
    assert load(tmp_path, {"data": str(tmp_path)}).mode == "cache"


@pytest.mark.parametrize(
    ("arguments", "environment", "text", "message"),
    [
        ({}, {}, "prot = 1", r"mirror.toml: unknown key 'prot'; did you mean port\?"),
        ({}, {}, "qqqq = 1", r"unknown key 'qqqq'; known: bin_bits, .*workers"),
        ({}, {}, "port = [1]", "mirror.toml: port: expected one value, got list"),
        ({}, {}, "port = \nx = 1", "mirror.toml: not TOML: .*line 1"),
        ({}, {"CRATESEAL_PROT": "1"}, "", r"CRATESEAL_PROT; did you mean CRATESEAL_PORT\?"),
        ({}, {"CRATESEAL_PORT": "x"}, "", "variable CRATESEAL_PORT: expected a whole .*'x'"),
        ({"port": "65536"}, {}, "", "--port: expected a whole number from 0 to 65535"),
        ({}, {}, "offline = 3", "offline: expected true or false, got '3'"),
        ({}, {}, 'max_age = "10 parsecs"', "max_age: expected a duration such as 90s, 10m"),
        ({"max_age": "0"}, {}, "", "--max-age: expected a duration"),
        ({}, {}, 'index_max_bytes = "10XB"', "index_max_bytes: expected a size such as 10MB"),
        ({"upstream": "https://index.crates.io"}, {}, "", "expected a sparse index such as"),
        ({"public_url": "crates.example"}, {}, "", "expected an http or https URL"),
        ({"mode": "full"}, {}, "", "expected cache, index or list, mode full is not built yet"),
        ({"mode": "Cache"}, {}, "", "expected cache, index or list, got 'Cache'"),
        ({"trusted_proxies": ["10.0.0.1/8"]}, {}, "", ": expected addresses or"),
        ({"trusted_proxies": ["proxy.corp"]}, {}, "", ": expected addresses or"),
        ({"config": "gone.toml"}, {}, "", "gone.toml: cannot be read as configuration: No such"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path, arguments, environment, text, message):
    with pytest.raises(UsageError, match=message) as caught:
        load(tmp_path, arguments, environment, text)
    assert "\n" not in str(caught.value)


def test_what_is_a_clients_alone_says_nothing_to_a_mirror(tmp_path):
    environment = {"CRATESEAL_ROOT_SHA256": "00", "CRATESEAL_CONFIG_HOME": "/home/me/trust"}
    assert load_config({}, environment, folder=tmp_path, foreign=own_variables()) == Config()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("25h", 90_000), ("2d", 172_800), ("5", 5), ("0.5s", 0.5)],
)
def test_durations_read_as_people_write_them(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "1w", "1h30m", "inf", "1e3", "٣s"])
def test_other_durations_are_refused(text):
    with pytest.raises(ValueError):
        parse_duration(text)


@given(st.integers(min_value=1, max_value=10**9))
def test_a_shown_duration_reads_back(seconds):
    assert parse_duration(show_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("10MB", 10_000_000), ("1.5kB", 1500), ("64MiB", 2**26), ("7", 7), ("7 B", 7), ("1GB", 10**9)],
)
def test_sizes_read_as_people_write_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("config", "url"),
    [
        (Config(), "http://127.0.0.1:8470"),
        (Config(host="0.0.0.0", port=80), "http://127.0.0.1:80"),
        (Config(host="::"), "http://[::1]:8470"),
        (Config(public_url="https://a.example/crates"), "https://a.example/crates"),
    ],
)
def test_the_url_is_one_that_clients_can_use(config, url):
    assert config.url == url


def test_a_url_is_kept_with_the_slash_it_needs(tmp_path):
    config = load(tmp_path, {"upstream": "sparse+http://a/b", "public_url": "https://a/b/"})
    assert (config.upstream, config.public_url) == ("sparse+http://a/b/", "https://a/b")


def test_the_mode_decides_the_number_of_bins():
    assert Config().effective_bin_bits == 9
    assert Config(mode="list").effective_bin_bits == 9
    assert Config(mode="index").effective_bin_bits == 13
    assert Config(mode="index", bin_bits=8).effective_bin_bits == 8


def test_the_readme_lists_exactly_the_settings_there_are():
    _, _, rest = README.read_text(encoding="utf-8").partition("<!-- settings -->\n")
    listed, _, _ = rest.partition("<!-- /settings -->")
    assert listed.strip() == settings_table().strip()
