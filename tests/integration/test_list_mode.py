"""Mode list with the real processes: what lock files name, all of that and nothing else."""

import hashlib
import json

import pytest

from tests.fakes.upstream import FakeUpstream
from tests.support.cargo import cargo, make_project, use_mirror
from tests.support.crates import crate_bytes, index_file, index_line
from tests.support.mirror_folder import locked
from tests.support.processes import Up, crateseal, wait_until
from tests.support.registry import crate_url, index_url

VERSIONS = ("1.0.0", "1.1.0", "2.0.0")
OLD, MIDDLE, NEW = VERSIONS
LISTED = {"alpha": OLD, "beta": MIDDLE, "Gamma_Ray": NEW, "delta": OLD, "epsilon": OLD}
BESIDES = ("zeta", "eta")
"""Upstream has them, no lock names them."""


def checksum(name, version):
    return hashlib.sha256(crate_bytes(name, version)).hexdigest()


def line_of(name, version):
    return index_line(name, version, checksum(name, version))


def write_lock(folder, listed=None, file="Cargo.lock", **checksums):
    """Write a lock that names these (name -> version), as their checksums are unless told."""
    packages = [
        locked(name, version, checksums.get(name) or checksum(name, version))
        for name, version in (listed or LISTED).items()
    ]
    (folder / file).write_text("version = 4\n\n" + "\n".join(packages))


@pytest.fixture
def upstream(tmp_path):
    with FakeUpstream(tmp_path / "upstream") as upstream:
        for name in (*LISTED, *BESIDES):
            deps = ("zeta",) if name == "beta" else ()
            upstream.put(index_url(name), index_file(name, *VERSIONS, deps=deps))
            for version in VERSIONS:
                upstream.put(crate_url(name, version), crate_bytes(name, version))
        yield upstream


@pytest.fixture
def options(tmp_path, upstream):
    """The options of a mirror that holds the lock in `tmp_path`; its keys are made."""
    write_lock(tmp_path)
    options = ("--mode", "list", "--lock", "Cargo.lock", "--upstream", upstream.source)
    made = crateseal("init", "--trial", *options, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    return options


def look(folder, options, code=0):
    done = crateseal("sync", "--once", *options, cwd=folder)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def www(folder):
    return folder / "crateseal-data/www"


def held_versions(folder, name):
    """Return the versions that the published index file of a name lists; none where none is there.

    While the one that is listed now is being fetched, there is none.
    """
    file = www(folder) / index_url(name)[1:]
    lines = file.read_bytes().splitlines() if file.exists() else []
    return [json.loads(line)["vers"] for line in lines]


def held_crates(folder):
    return {f"/{file.relative_to(www(folder))}" for file in www(folder).glob("crates/**/*.crate")}


def complete_as_of(folder):
    timestamp = json.loads((www(folder) / "tuf/metadata/timestamp.json").read_bytes())
    return timestamp["signed"]["x-crateseal"]["complete_as_of"]


def is_sound(folder, lock="Cargo.lock"):
    """Whether `check` finds nothing, and `verify` proves every package of the lock."""
    checked = crateseal("check", cwd=folder)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    words = ("verify", "--lock", lock, "--data", "crateseal-data")
    proven = crateseal(*words, cwd=folder)
    assert proven.returncode == 0, proven.stdout + proven.stderr
    return True


def test_exactly_what_the_lock_names_is_held(tmp_path, upstream, options):
    said = look(tmp_path, options)
    assert "missing" not in said
    assert held_crates(tmp_path) == {crate_url(name, version) for name, version in LISTED.items()}
    for name, version in LISTED.items():
        assert held_versions(tmp_path, name) == [version]
    index = {file.name for file in www(tmp_path).glob("index/*/**/*") if file.is_file()}
    assert {name.removesuffix(".gz") for name in index} == {name.lower() for name in LISTED}
    assert complete_as_of(tmp_path)
    assert is_sound(tmp_path)
    for name in BESIDES:
        assert upstream.requests[index_url(name)] == 0


def test_a_line_that_is_listed_is_upstreams_byte_for_byte(tmp_path, upstream, options):
    odd = b'{ "vers":"1.0.0","name":"alpha", "yanked":false,"features":{},"deps":[], "cksum":"%b"}'
    odd %= checksum("alpha", OLD).encode()
    upstream.put(index_url("alpha"), b"\n".join([line_of("alpha", NEW), odd]) + b"\n")
    look(tmp_path, options)
    assert (www(tmp_path) / index_url("alpha")[1:]).read_bytes() == odd + b"\n"


def test_a_second_look_asks_for_no_crate_again(tmp_path, upstream, options):
    look(tmp_path, options)
    look(tmp_path, options)
    for name, version in LISTED.items():
        assert upstream.requests[crate_url(name, version)] == 1
    assert upstream.answers[304] == len(LISTED)


def test_cargo_cannot_resolve_to_what_is_not_there(tmp_path, upstream, options):
    up = Up(*options, cwd=tmp_path)
    try:
        up.wait_until_ready()
        wait_until(lambda: up.get("/api/v1/status").json().get("complete_as_of"))
        project = make_project(tmp_path / "project", {"alpha": "1"})
        use_mirror(project, up.url)
        done = cargo(project, tmp_path / "home", "fetch")
        assert done.returncode == 0, done.stderr
        # Upstream has 1.1.0 as well.
        assert f'name = "alpha"\nversion = "{OLD}"' in (project / "Cargo.lock").read_text()
        for dependencies in ({"alpha": "=1.1.0"}, {"zeta": "1"}):
            bad = make_project(tmp_path / "-".join(["bad", *dependencies]), dependencies)
            use_mirror(bad, up.url)
            assert cargo(bad, tmp_path / "home", "fetch").returncode != 0
    finally:
        up.end()


def test_what_is_not_on_the_list_is_404_and_costs_no_request(tmp_path, upstream, options):
    up = Up(*options, cwd=tmp_path)
    try:
        up.wait_until_ready()
        wait_until(lambda: up.get("/api/v1/status").json().get("complete_as_of"))
        for path in (index_url("zeta"), crate_url("zeta"), crate_url("alpha", NEW)):
            answer = up.get(path)
            assert answer.status_code == 404, answer.text
            assert "not on the list" in answer.text
            assert upstream.requests[path] == 0
        for name, version in LISTED.items():
            assert up.get(crate_url(name, version)).content == crate_bytes(name, version)
    finally:
        up.end()


def test_a_crate_that_fails_leaves_the_rest_and_comes_later(tmp_path, upstream, options):
    upstream.fault(crate_url("alpha", OLD), "status", 500)
    upstream.fault(crate_url("delta", OLD), "wrong", crate_bytes("delta", NEW))
    said = look(tmp_path, options, code=1)
    assert "2 missing: " in said
    for words in ("1 of 500", "1 wrong sha256", "; will retry"):
        assert words in said
    bad = {crate_url("alpha", OLD), crate_url("delta", OLD)}
    listed = {crate_url(name, version) for name, version in LISTED.items()}
    assert held_crates(tmp_path) == listed - bad
    # The index names nothing that is not held: not even for a moment.
    for name in ("alpha", "delta"):
        assert not (www(tmp_path) / index_url(name)[1:]).exists()
    assert complete_as_of(tmp_path) is None
    assert crateseal("check", cwd=tmp_path).returncode == 0
    for path in bad:
        upstream.heal(path)
    look(tmp_path, options)
    assert held_crates(tmp_path) == listed
    assert complete_as_of(tmp_path)
    assert is_sound(tmp_path)


def test_a_bad_answer_for_an_index_file_leaves_the_rest(tmp_path, upstream, options):
    upstream.fault(index_url("alpha"), "html")
    said = look(tmp_path, options, code=1)
    assert "missing: " in said
    listed = {crate_url(name, version) for name, version in LISTED.items() if name != "alpha"}
    assert held_crates(tmp_path) == listed
    upstream.heal(index_url("alpha"))
    look(tmp_path, options)
    assert is_sound(tmp_path)


def test_upstreams_checksum_must_be_the_one_in_the_lock(tmp_path, upstream, options):
    write_lock(tmp_path, alpha="6" * 64)
    said = look(tmp_path, options, code=1)
    assert "alpha" in said
    assert held_crates(tmp_path) == {
        crate_url(name, version) for name, version in LISTED.items() if name != "alpha"
    }
    status = crateseal("status", "--json", cwd=tmp_path)
    assert status.returncode == 1
    (shown,) = json.loads(status.stdout)["quarantined"]
    assert (shown["name"], shown["rule"]) == ("alpha", "lock-mismatch")
    assert "6666" in shown["reason"]


def test_a_version_that_upstream_does_not_have_is_missing_by_name(tmp_path, upstream, options):
    upstream.put(index_url("alpha"), line_of("alpha", NEW) + b"\n")
    said = look(tmp_path, options, code=1)
    assert "1 missing: " in said
    assert not (www(tmp_path) / crate_url("alpha", OLD)[1:]).exists()
    assert (www(tmp_path) / crate_url("beta", MIDDLE)[1:]).exists()


def test_a_changed_lock_counts_from_the_next_start_on(tmp_path, upstream, options):
    look(tmp_path, options)
    changed = {**LISTED, "alpha": NEW, "eta": OLD}
    del changed["delta"]
    write_lock(tmp_path, changed)
    up = Up(*options, cwd=tmp_path)
    try:
        up.wait_until_ready()
        wait_until(lambda: up.get(crate_url("eta", OLD)).status_code == 200)
        wait_until(lambda: held_versions(tmp_path, "alpha") == [NEW])
        assert up.get(crate_url("alpha", NEW)).content == crate_bytes("alpha", NEW)
        wait_until(lambda: up.get(index_url("delta")).status_code == 404)
        assert "not on the list" in up.get(index_url("delta")).text
        assert up.stop() == 130
    finally:
        up.end()
    assert is_sound(tmp_path)


def test_several_locks_are_held_together(tmp_path, upstream, options):
    write_lock(tmp_path, {"alpha": NEW, "zeta": OLD}, "other.lock")
    look(tmp_path, (*options, "--lock", "other.lock"))
    assert held_versions(tmp_path, "alpha") == [OLD, NEW]
    assert held_versions(tmp_path, "zeta") == [OLD]
    assert is_sound(tmp_path)
    assert is_sound(tmp_path, "other.lock")


def test_a_yank_of_a_listed_version_is_followed(tmp_path, upstream, options):
    look(tmp_path, options)
    yanked = line_of("alpha", OLD).replace(b'"yanked":false', b'"yanked":true')
    others = [line_of("alpha", version) for version in (MIDDLE, NEW)]
    upstream.put(index_url("alpha"), b"\n".join([yanked, *others]) + b"\n")
    look(tmp_path, options)
    assert (www(tmp_path) / index_url("alpha")[1:]).read_bytes() == yanked + b"\n"


@pytest.mark.parametrize("words", [(), ("--lock", "nowhere.lock")])
def test_mode_list_without_a_lock_file_is_exit_2_and_names_it(tmp_path, words):
    assert crateseal("init", "--trial", cwd=tmp_path).returncode == 0
    done = crateseal("sync", "--once", "--mode", "list", *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "--lock" in done.stderr
