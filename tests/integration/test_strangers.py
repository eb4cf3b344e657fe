"""A real mirror, looked at by those who know nothing of it: stock python-tuf, cargo, a lock."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
from tuf.api.exceptions import RepositoryError
from tuf.ngclient import Updater

from mirror.core.layout import target_file, target_path
from mirror.core.names import parse_name
from mirror.demo.processes import clean_environment, get, run, running_mirror, verify
from mirror.demo.samples import PROJECT, digest, load_samples
from mirror.demo.upstream import serving
from tests.conftest import need

ENVIRONMENT = clean_environment(os.environ)
LOCK = PROJECT / "Cargo.lock"
SAMPLES = load_samples()


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """A running `up` over the demo's upstream, every sample asked for once."""
    with (
        serving(SAMPLES.values()) as upstream,
        running_mirror(tmp_path_factory.mktemp("up"), upstream.index_url, ENVIRONMENT) as running,
    ):
        for sample in SAMPLES.values():
            for path in (sample.index_path, sample.crate_path):
                assert get(f"{running.url}/{path}")[0] == 200
        yield running


def updater(mirror, folder):
    return Updater(
        str(folder),
        f"{mirror.url}/tuf/metadata/",
        target_dir=str(folder),
        target_base_url=f"{mirror.url}/tuf/targets/",
        bootstrap=mirror.root.read_bytes(),
    )


def prove(mirror):
    return verify(mirror, LOCK, digest(mirror.root.read_bytes()), ENVIRONMENT)


@contextmanager
def flipped(file):
    """One bit of a file is another one for as long as the block lasts."""
    good = file.read_bytes()
    at = len(good) // 2
    for data in (good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :], good):
        with file.open("r+b") as opened:
            opened.write(data)
        if data != good:
            yield


# ---- python-tuf


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_a_stock_updater_downloads_every_index_file(mirror, tmp_path, name):
    client = updater(mirror, tmp_path)
    info = client.get_targetinfo(SAMPLES[name].index_path)
    assert info is not None
    with open(client.download_target(info), "rb") as file:
        assert file.read() == SAMPLES[name].index


def test_a_stock_updater_sees_what_is_not_there(mirror, tmp_path):
    assert updater(mirror, tmp_path).get_targetinfo("index/le/ft/left-pad") is None


def test_a_stock_updater_refuses_a_changed_index_file(mirror, tmp_path):
    client = updater(mirror, tmp_path)
    info = client.get_targetinfo(SAMPLES["fnv"].index_path)
    with flipped(index_target(mirror, "fnv")), pytest.raises(RepositoryError):
        client.download_target(info)


# ---- cargo


def test_an_unmodified_cargo_resolves_fetches_and_builds(mirror, tmp_path):
    cargo = need("cargo")
    project = tmp_path / "project"
    (project / "src").mkdir(parents=True)
    (project / ".cargo").mkdir()
    (project / "Cargo.toml").write_text((PROJECT / "Cargo.toml").read_text())
    (project / "src" / "main.rs").write_text((PROJECT / "src" / "main.rs").read_text())
    (project / ".cargo" / "config.toml").write_text(
        '[source.crates-io]\nreplace-with = "m"\n'
        f'[source.m]\nregistry = "sparse+{mirror.url}/index/"\n'
    )
    environment = {**ENVIRONMENT, "CARGO_HOME": str(tmp_path / "home")}
    for words in (("generate-lockfile",), ("fetch", "--locked"), ("build", "--offline")):
        ran = run((cargo, *words), project, environment)
        assert ran.returncode == 0, ran.stderr
    # Without our lock it resolved the same versions, with the same checksums.
    ours, theirs = (
        file.read_text().partition("[[package]]") for file in (LOCK, project / "Cargo.lock")
    )
    assert theirs[2] == ours[2]


# ---- our own client


def index_target(mirror, name):
    sample = SAMPLES[name]
    return mirror.data / "www" / target_file(sample.index_path, digest(sample.index))


def crate(mirror, name):
    return mirror.data / "www" / SAMPLES[name].crate_path


def metadata(mirror, role):
    files = (mirror.data / "www" / "tuf" / "metadata").glob(f"*{role}.json")
    return max(files, key=lambda file: file.stat().st_mtime_ns)


def bin_of(mirror, name):
    """The newest bin file that names the index file; all bins share a prefix."""
    path = target_path(parse_name(name)).encode()
    files = (mirror.data / "www" / "tuf" / "metadata").glob("*.crates-*.json")
    return max(
        (file for file in files if b'"' + path + b'"' in file.read_bytes()),
        key=lambda file: int(file.name.partition(".")[0]),
    )


def test_every_package_of_the_lock_is_proven(mirror):
    code, report = prove(mirror)
    assert code == 0, report
    assert report["proven"] == len(SAMPLES)
    assert report["trial"] is True


TAMPERED = {
    "index": (lambda mirror: index_target(mirror, "hex"), {"hex"}),
    "crate": (lambda mirror: crate(mirror, "wasi"), {"wasi"}),
    "bin": (lambda mirror: bin_of(mirror, "itoa"), {"itoa"}),
    "snapshot": (lambda mirror: metadata(mirror, ".snapshot"), set(SAMPLES)),
    "timestamp": (lambda mirror: metadata(mirror, "timestamp"), set(SAMPLES)),
}


@pytest.mark.parametrize("what", ["index", "crate", "bin", "snapshot"])
def test_a_changed_byte_is_refused_over_http_and_named(mirror, what):
    find, names = TAMPERED[what]
    file = find(mirror)
    with flipped(file):
        code, report = prove(mirror)
    refused = {each["name"]: each["finding"] for each in report["packages"] if "finding" in each}
    assert code == 1
    assert set(refused) == names
    for finding in refused.values():
        assert finding["where"] == f"{mirror.url}/{file.relative_to(mirror.data / 'www')}"
    assert prove(mirror)[0] == 0


@pytest.mark.parametrize("what", sorted(TAMPERED))
def test_a_changed_byte_is_refused_from_the_mirrors_own_folder_and_named(mirror, what):
    find, names = TAMPERED[what]
    file = find(mirror)
    argv = (sys.executable, "-P", "-m", "mirror", "verify", "--lock", str(LOCK))
    with flipped(file):
        ran = subprocess.run(
            (*argv, "--data", str(mirror.data)),
            capture_output=True,
            check=False,
            text=True,
            env=ENVIRONMENT,
        )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert str(file) in ran.stdout
    for name in names:
        assert f"finding     {SAMPLES[name].crate}" in ran.stdout
    assert f"{len(SAMPLES) - len(names)} of {len(SAMPLES)} packages" in ran.stdout


def test_a_changed_crate_that_is_deleted_is_fetched_anew(mirror):
    # What `verify` advises.
    file = crate(mirror, "fnv")
    file.write_bytes(b"not a crate")
    assert prove(mirror)[0] == 1
    file.unlink()
    code, report = prove(mirror)
    assert code == 0, report
    assert file.read_bytes() == SAMPLES["fnv"].data


def test_a_lock_is_proven_by_a_mirror_that_has_seen_nothing_of_it_yet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("new")
    with (
        serving(SAMPLES.values()) as upstream,
        running_mirror(folder, upstream.index_url, ENVIRONMENT) as fresh,
    ):
        code, report = prove(fresh)
    assert code == 0, report
    # Six index files, wished for together: few publications, one upstream request each.
    assert {upstream.asked[f"/{sample.index_path}"] for sample in SAMPLES.values()} == {1}


def test_a_changed_timestamp_never_passes_over_http(mirror):
    with flipped(metadata(mirror, "timestamp")):
        code, report = prove(mirror)
    assert code in {1, 3}
    assert report["proven"] == 0
    assert prove(mirror)[0] == 0
