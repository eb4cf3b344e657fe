"""The matrix of bad crate archives, through the real processes: one `up`, each crate asked for."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.fakes.upstream import FakeUpstream
from tests.support.bad_archives import ENTRIES_MAX, UNPACKED_MAX_BYTES, Matrix
from tests.support.crates import crate_bytes, index_line
from tests.support.processes import Up, crateseal, wait_until

CASES = dict(zip(Matrix("x").all(), (f"bad{n:03}" for n in range(1_000)), strict=False))
"""What is bad -> the name of a crate whose version 1.0.0 is that, and 1.1.0 is good."""
LIMITS = {
    "CRATESEAL_UNPACKED_MAX_BYTES": str(UNPACKED_MAX_BYTES),
    "CRATESEAL_CRATE_MAX_ENTRIES": str(ENTRIES_MAX),
}


def path(name, version="1.0.0"):
    return f"/crates/{name}/{name}-{version}.crate"


class Asked:
    """A mirror of which everybody wanted everything."""

    def __init__(self, up, bad):
        self.up = up
        self.bad = bad
        with httpx.Client(base_url=up.url, timeout=60) as client, ThreadPoolExecutor(8) as pool:
            answers = pool.map(client.get, map(path, CASES.values()))
            self.answers = dict(zip(CASES, answers, strict=True))
        wait_until(lambda: len(self.status()["quarantined"]) >= len(CASES))

    def status(self):
        run = crateseal("status", "--json", "--data", self.up.data, cwd=self.up.data.parent)
        assert run.returncode == 1, run.stderr
        return json.loads(run.stdout)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archives")
    bad = {case: Matrix(name).all()[case] for case, name in CASES.items()}
    with FakeUpstream(folder / "upstream") as upstream:
        for case, name in CASES.items():
            crates = {"1.0.0": bad[case].data, "1.1.0": crate_bytes(name, "1.1.0")}
            lines = []
            for version, data in crates.items():
                upstream.put(path(name, version), data)
                lines.append(index_line(name, version, hashlib.sha256(data).hexdigest()) + b"\n")
            upstream.put(f"/index/{name[:2]}/{name[2:4]}/{name}", b"".join(lines))
        (folder / "here").mkdir()
        options = ("--upstream", upstream.source, "--max-age", "2s")
        up = Up(*options, cwd=folder / "here", **LIMITS)
        try:
            yield Asked(up.wait_until_ready(), bad)
        finally:
            up.end()


@pytest.mark.parametrize("case", CASES)
def test_a_bad_crate_is_403_with_the_reason(asked, case):
    answer = asked.answers[case]
    assert answer.status_code == 403, answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    assert f"{CASES[case]} 1.0.0" in answer.text
    assert asked.bad[case].word in answer.text


def test_nothing_of_a_bad_crate_is_stored(asked):
    crates = {file.name for file in asked.up.data.glob("www/crates/**/*") if file.is_file()}
    assert not {name for name in crates if name.endswith("-1.0.0.crate")}
    assert not list(asked.up.data.glob("www/crates/**/*.tmp*"))


def test_status_names_each_bad_crate_with_its_rule(asked):
    shown = asked.status()["quarantined"]
    rules = {entry["name"]: entry["rule"] for entry in shown}
    for case, name in CASES.items():
        assert rules[f"{name} 1.0.0"] == "archive", case
    said = crateseal("status", "--data", asked.up.data, cwd=asked.up.data.parent)
    assert said.returncode == 1
    assert f"{CASES['two top folders']} 1.0.0" in said.stdout


def test_the_neighbours_of_a_bad_crate_go_on(asked):
    for name in CASES.values():
        answer = asked.up.get(path(name, "1.1.0"))
        assert (answer.status_code, answer.content) == (200, crate_bytes(name, "1.1.0"))


def test_what_is_on_disk_is_in_order_and_nobody_was_killed(asked):
    run = crateseal("check", "--data", asked.up.data, cwd=asked.up.data.parent)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Traceback" not in asked.up.err
    assert "ended by signal" not in asked.up.err


def test_a_crate_that_the_operator_accepts_is_served(asked):
    case = "a character device"
    name = CASES[case]
    run = crateseal("accept", f"{name}@1.0.0", "--data", asked.up.data, cwd=asked.up.data.parent)
    assert run.returncode == 0, run.stderr
    wait_until(lambda: asked.up.get(path(name)).status_code == 200, every=0.3)
    assert asked.up.get(path(name)).content == asked.bad[case].data
    assert f"{name} 1.0.0" not in {each["name"] for each in asked.status()["quarantined"]}
    assert asked.up.get(path(CASES["a fifo"])).status_code == 403
