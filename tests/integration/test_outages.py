"""Upstream is gone: what is held is served at once, to a real cargo too; a miss says so."""

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.fakes.upstream import FakeUpstream
from tests.support.cargo import cargo, make_project, use_mirror
from tests.support.crates import crate_bytes, index_file
from tests.support.matrix import fill
from tests.support.mirror_folder import locked
from tests.support.processes import Up, wait_until
from tests.support.registry import VERSION, crate_url, index_url

NAMES = [f"crate{number:02}" for number in range(30)]
OPTIONS = ("--max-age", "1s", "--first-byte-timeout", "2s", "--max-hold", "6s")
AT_ONCE = 1.5
"""A client's patience here, in seconds: less than any of the limits above."""
FEW = 5
"""Requests that an upstream known to be down may get from many clients, to see if it is back."""


def cut_off(upstream, how):
    return upstream.refusing() if how == "refusing" else upstream.silent()


def lock_of(names):
    checksums = {name: hashlib.sha256(crate_bytes(name, VERSION)).hexdigest() for name in names}
    packages = [locked(name, VERSION, checksums[name]) for name in names]
    listed = ",\n".join(f' "{name}"' for name in names)
    own = f'[[package]]\nname = "project"\nversion = "0.1.0"\ndependencies = [\n{listed},\n]\n'
    return "version = 4\n\n" + "\n".join([*packages, own])


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    with FakeUpstream(tmp_path_factory.mktemp("upstream")) as upstream:
        fill(upstream, NAMES)
        yield upstream


@pytest.fixture(params=["refusing", "silent"])
def outage(request):
    return request.param


@pytest.fixture
def up(tmp_path, upstream):
    """A mirror that holds all of it, every index file past its age."""
    (tmp_path / "here").mkdir()
    up = Up("--upstream", upstream.source, *OPTIONS, cwd=tmp_path / "here")
    try:
        up.wait_until_ready()
        for url in (index_url, crate_url):
            with ThreadPoolExecutor(len(NAMES)) as pool:
                answers = list(pool.map(up.get, map(url, NAMES)))
            assert {answer.status_code for answer in answers} == {200}
        time.sleep(1.2)
        yield up
    finally:
        up.end()


def get_all(up, paths):
    """Return every answer, each of which came at once."""
    with httpx.Client(timeout=AT_ONCE) as client:
        return {path: client.get(f"{up.url}{path}") for path in paths}


def test_cargo_fetches_what_is_held_while_upstream_is_gone(up, upstream, outage, tmp_path):
    project = make_project(tmp_path / "project", dict.fromkeys(NAMES, "1"), lock_of(NAMES))
    use_mirror(project, up.url)
    with cut_off(upstream, outage):
        for home in ("first", "second"):
            done = cargo(project, tmp_path / home, "fetch", "--locked")
            assert done.returncode == 0, done.stderr


def test_nobody_waits_for_what_is_held_and_upstream_is_left_alone(up, upstream, outage):
    index, crates = [index_url(name) for name in NAMES], [crate_url(name) for name in NAMES]
    with cut_off(upstream, outage):
        answers = get_all(up, [*index, *crates])
        assert {answer.status_code for answer in answers.values()} == {200}
        wait_until(lambda: "unreachable" in up.err)
        before = upstream.total
        for _ in range(3):
            answers = get_all(up, [*index, *crates])
            assert {answer.status_code for answer in answers.values()} == {200}
        assert upstream.total - before <= FEW
    assert up.err.count("unreachable") <= 2  # said once for all files, not once for each


def test_a_miss_is_503_with_a_line_that_says_so(up, upstream, outage):
    with cut_off(upstream, outage):
        for path in (index_url("missing"), crate_url("missing"), index_url("missed-too")):
            answer = up.get(path)
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["retry-after"]) > 0
            assert "miss" in answer.text
            assert "\n" not in answer.text.strip()
        # It is known to be down by now: the next miss need not wait for a time limit.
        quick = httpx.get(f"{up.url}{index_url('another')}", timeout=AT_ONCE)
        assert quick.status_code == 503


def test_what_grew_old_meanwhile_is_refreshed_once_upstream_is_back(up, upstream, outage):
    name = NAMES[3]
    newer = index_file(name, VERSION, "1.1.0")
    with cut_off(upstream, outage):
        get_all(up, [index_url(each) for each in NAMES])
        wait_until(lambda: "unreachable" in up.err)
        assert up.get(index_url("new")).status_code == 503
        upstream.put(index_url(name), newer)
        upstream.put(index_url("new"), index_file("new", VERSION))
    try:
        wait_until(lambda: up.get(index_url(name)).content == newer, every=0.3)
        wait_until(lambda: up.get(index_url("new")).status_code == 200, every=0.3)
        wait_until(lambda: "answers again" in up.err)
    finally:
        fill(upstream, NAMES)
        upstream.put(index_url("new"), None)


def test_a_start_without_upstream_serves_what_is_held(up, upstream, outage):
    assert up.stop() == 130
    with cut_off(upstream, outage):
        again = Up("--upstream", upstream.source, *OPTIONS, cwd=up.data.parent)
        try:
            again.wait_until_ready()
            answers = get_all(again, [index_url(name) for name in NAMES])
            assert {answer.status_code for answer in answers.values()} == {200}
            wait_until(lambda: "unreachable" in again.err)
        finally:
            again.end()


def test_bad_answers_about_single_files_are_no_outage(up, upstream):
    bad = NAMES[:10]
    try:
        for name in bad:
            upstream.fault(index_url(name), "status", 503)
        answers = get_all(up, [index_url(name) for name in NAMES])
        assert {answer.status_code for answer in answers.values()} == {200}
        wait_until(lambda: all(upstream.requests[index_url(name)] > 1 for name in bad))
        upstream.put(index_url("fresh"), index_file("fresh", VERSION))
        assert up.get(index_url("fresh")).status_code == 200
        assert "unreachable" not in up.err
    finally:
        for name in bad:
            upstream.heal(index_url(name))
        upstream.put(index_url("fresh"), None)
