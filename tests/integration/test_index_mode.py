"""Mode index with the real processes: one sweep after another, and what lies outside the source."""

import json

import pytest

from tests.fakes.upstream import FakeUpstream
from tests.support.crates import crate_bytes, index_file
from tests.support.processes import Up, crateseal, wait_until

NAMES = [f"crate{number:02}" for number in range(30)]


def index(name):
    return f"/index/{name[:2]}/{name[2:4]}/{name}"


@pytest.fixture
def upstream(tmp_path):
    with FakeUpstream(tmp_path / "upstream") as upstream:
        for name in [*NAMES, "outside"]:
            upstream.put(index(name), index_file(name, "1.0.0"))
            upstream.put(f"/crates/{name}/{name}-1.0.0.crate", crate_bytes(name, "1.0.0"))
        yield upstream


@pytest.fixture
def options(tmp_path, upstream):
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    return ["--mode", "index", "--names", "names.txt", "--upstream", upstream.source]


def sync(tmp_path, options, code=0):
    done = crateseal("sync", "--once", *options, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    return state(tmp_path)


def state(tmp_path):
    metadata = tmp_path / "crateseal-data/www/tuf/metadata"
    signed = json.loads((metadata / "timestamp.json").read_bytes())["signed"]
    return {
        "timestamp": signed["version"],
        "snapshot": signed["meta"]["snapshot.json"]["version"],
        "files": len(list(metadata.iterdir())),
        "complete_as_of": signed["x-crateseal"]["complete_as_of"],
    }


def test_sweeps_are_complete_conditional_and_publish_what_changed_alone(
    tmp_path, upstream, options
):
    assert crateseal("init", "--trial", "--bin-bits", "5", *options, cwd=tmp_path).returncode == 0
    first = sync(tmp_path, options)
    assert first["complete_as_of"]
    assert upstream.answers[304] == 0

    second = sync(tmp_path, options)
    assert upstream.answers[304] == len(NAMES)
    assert second["timestamp"] > first["timestamp"]
    assert (second["snapshot"], second["files"]) == (first["snapshot"], first["files"])

    changed = index_file("crate07", "1.0.0", "1.1.0")
    upstream.put(index("crate07"), changed)
    third = sync(tmp_path, options)
    assert third["files"] == second["files"] + 2  # one bin, one snapshot
    assert (tmp_path / f"crateseal-data/www{index('crate07')}").read_bytes() == changed
    assert crateseal("check", cwd=tmp_path).returncode == 0


def test_nothing_is_complete_while_a_name_is_missing(tmp_path, upstream, options):
    upstream.fault(index("crate03"), "status", 500)
    assert crateseal("init", "--trial", "--bin-bits", "5", *options, cwd=tmp_path).returncode == 0
    assert sync(tmp_path, options, code=1)["complete_as_of"] is None
    upstream.heal(index("crate03"))
    assert sync(tmp_path, options)["complete_as_of"]


def test_a_name_outside_the_source_is_404_and_costs_no_request(tmp_path, upstream, options):
    up = Up("--bin-bits", "5", *options, cwd=tmp_path).wait_until_ready()
    try:
        wait_until(lambda: up.get("/api/v1/status").json().get("complete_as_of"))
        for name in ("outside", "nobody"):
            assert up.get(index(name)).status_code == 404
            assert up.get(f"/crates/{name}/{name}-1.0.0.crate").status_code == 404
            assert upstream.requests[index(name)] == 0
        crate = "/crates/crate05/crate05-1.0.0.crate"
        assert up.get(crate).content == upstream.read(crate)
    finally:
        up.end()
