"""Every fault of every file, with the real processes: a clear line, and nothing lost or believed.

All cases go wrong at the same time, in one mirror, step by step (`story`); the tests then look at
what was seen of each. Here is what the mirror does while it serves; test_faults_once.py has the
same for `sync --once`.
"""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import httpx
import pytest

from tests.fakes.upstream import FakeUpstream
from tests.support.crates import crate_bytes
from tests.support.matrix import (
    CRATE_CASES,
    INDEX_CASES,
    LIMITS,
    REFUSED,
    crate_name,
    fill,
    good_index,
    held_name,
    new_name,
    newer_index,
)
from tests.support.processes import Up, crateseal, wait_until
from tests.support.registry import VERSION, crate_url, index_url

NEIGHBOURS = [f"neighbour{number}" for number in range(12)]
NEW = [new_name(case) for case in INDEX_CASES]
HELD = [held_name(case) for case in INDEX_CASES]
CRATES = [crate_name(case) for case in CRATE_CASES]
OPTIONS = ("--max-age", "2s", "--max-hold", "8s")
HEALED_WITHIN_SECONDS = 40
"""Failures are tried again with growing pauses."""


@dataclass
class Story:
    """What was seen, step by step. Each maps a path to its last answer."""

    first: dict = field(default_factory=dict)
    """While everything is bad, asked for the first time; and the neighbours, meanwhile."""
    stored: set = field(default_factory=set)
    """Files under the web root then."""
    held: dict = field(default_factory=dict)
    """Path -> all answers for what was held before it went bad, old by now."""
    restarted: dict = field(default_factory=dict)
    """After a restart, while everything is bad still."""
    healed: dict = field(default_factory=dict)
    """After everything is well again."""
    log: str = ""
    codes: list = field(default_factory=list)


def ask_all(up, paths):
    """Ask for all at the same time; return path -> answer."""

    def ask(path):
        with suppress(httpx.HTTPError):  # None: closed or silent, which no case allows
            return httpx.get(f"{up.url}{path}", timeout=20)

    with ThreadPoolExecutor(len(paths)) as pool:
        return dict(zip(paths, pool.map(ask, paths), strict=True))


def strike(upstream):
    for case, name in zip(INDEX_CASES.values(), NEW, strict=True):
        case.strike(upstream, index_url(name), name)
    for case, name in zip(INDEX_CASES.values(), HELD, strict=True):
        upstream.put(index_url(name), newer_index(name))
        case.strike(upstream, index_url(name), name)
    for case, name in zip(CRATE_CASES.values(), CRATES, strict=True):
        case.strike(upstream, crate_url(name), name)


def heal(upstream):
    for name in [*NEW, *HELD]:
        upstream.heal(index_url(name))
    for name in CRATES:
        upstream.heal(crate_url(name))


def watch_held(up, upstream, story):
    """Ask for what is held until upstream was asked for all of it again, and gave bad answers."""
    paths = [index_url(name) for name in HELD]
    story.held = {path: [] for path in paths}
    end = time.monotonic() + 25
    while time.monotonic() < end:
        for path, answer in ask_all(up, paths).items():
            story.held[path].append(answer)
        if all(upstream.requests[path] > 1 for path in paths):
            break
        time.sleep(0.3)
    time.sleep(3.2)  # the slowest fault takes `--total-timeout`
    for path, answer in ask_all(up, paths).items():
        story.held[path].append(answer)


def wait_for_all(up, story):
    """Ask until everything has come that was bad, or the time is up."""
    wanted = {index_url(name): good_index(name) for name in NEW}
    wanted |= {index_url(name): newer_index(name) for name in HELD}
    wanted |= {
        crate_url(name): crate_bytes(name, VERSION)
        for name in CRATES
        if name != crate_name("bomb")  # it was never good
    }
    end = time.monotonic() + HEALED_WITHIN_SECONDS
    while wanted and time.monotonic() < end:
        answers = ask_all(up, list(wanted))
        story.healed |= answers
        for path, answer in answers.items():
            if answer is not None and answer.content == wanted[path]:
                del wanted[path]
        time.sleep(0.3)


@contextmanager
def running(folder, upstream):
    up = Up("--upstream", upstream.source, *OPTIONS, cwd=folder, **LIMITS)
    try:
        yield up.wait_until_ready()
    finally:
        up.end()


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    story = Story()
    folder = tmp_path_factory.mktemp("faults")
    with FakeUpstream(folder / "upstream") as upstream:
        fill(upstream, [*NEW, *HELD, *CRATES, *NEIGHBOURS])
        with running(folder, upstream) as up:
            ask_all(up, [index_url(name) for name in [*HELD, *CRATES]])
            strike(upstream)
            asked = [index_url(name) for name in [*NEIGHBOURS[:6], *NEW]]
            asked += [crate_url(name) for name in CRATES]
            story.first = ask_all(up, asked)
            story.first |= ask_all(up, [index_url(name) for name in NEIGHBOURS[6:]])
            story.stored = {f"/{file.relative_to(up.data / 'www')}" for file in files_of(up)}
            watch_held(up, upstream, story)
            story.codes.append(up.stop())
            story.log = up.err
        with running(folder, upstream) as up:
            story.restarted = ask_all(up, [*asked, *(index_url(name) for name in HELD)])
            heal(upstream)
            wait_for_all(up, story)
            story.codes.append(up.stop())
            story.log += up.err
        story.codes.append(crateseal("check", cwd=folder).returncode)
    return story


def is_refused(case):
    return case.status == REFUSED


def files_of(up):
    return [file for file in (up.data / "www").glob("**/*") if file.is_file()]


def answered(answers, path, case):
    answer = answers[path]
    assert answer is not None, "no answer at all"
    assert answer.status_code == case.status, answer.text
    assert re.search(case.says, answer.text), answer.text
    assert answer.text.count("\n") <= 1
    if case.status == 503:
        assert int(answer.headers["retry-after"]) > 0
    return answer


@pytest.mark.parametrize("case", INDEX_CASES)
def test_who_asks_first_for_a_bad_index_file_is_told_why_in_one_line(story, case):
    answer = answered(story.first, index_url(new_name(case)), INDEX_CASES[case])
    assert new_name(case) in answer.text


@pytest.mark.parametrize("case", CRATE_CASES)
def test_who_asks_first_for_a_bad_crate_is_told_why_in_one_line(story, case):
    answer = answered(story.first, crate_url(crate_name(case)), CRATE_CASES[case])
    assert crate_name(case) in answer.text


@pytest.mark.parametrize("case", INDEX_CASES)
def test_a_bad_index_file_is_not_stored(story, case):
    assert index_url(new_name(case)) not in story.stored
    targets = [path for path in story.stored if path.startswith("/tuf/targets/index/")]
    assert not [path for path in targets if path.endswith(f".{new_name(case)}")]


@pytest.mark.parametrize("case", CRATE_CASES)
def test_a_bad_crate_is_not_stored(story, case):
    assert crate_url(crate_name(case)) not in story.stored


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_neighbours_go_on(story, name):
    assert story.first[index_url(name)].content == good_index(name)


@pytest.mark.parametrize("case", INDEX_CASES)
def test_a_held_index_file_that_goes_bad_is_served_as_it_was(story, case):
    name = held_name(case)
    answers = story.held[index_url(name)]
    assert {answer and answer.status_code for answer in answers} == {200}
    assert {answer.content for answer in answers} == {good_index(name)}
    assert story.restarted[index_url(name)].content == good_index(name)


@pytest.mark.parametrize("case", INDEX_CASES)
def test_after_a_restart_a_bad_index_file_is_still_not_served(story, case):
    answered(story.restarted, index_url(new_name(case)), INDEX_CASES[case])


@pytest.mark.parametrize("case", CRATE_CASES)
def test_after_a_restart_a_bad_crate_is_still_not_served(story, case):
    answered(story.restarted, crate_url(crate_name(case)), CRATE_CASES[case])


@pytest.mark.parametrize("case", [case for case in CRATE_CASES if is_refused(CRATE_CASES[case])])
def test_the_log_has_a_line_about_each_refused_crate(story, case):
    logged(story, crate_name(case), CRATE_CASES[case])


@pytest.mark.parametrize("case", [case for case in INDEX_CASES if is_refused(INDEX_CASES[case])])
def test_the_log_has_a_line_about_each_refused_index_file(story, case):
    for name in (new_name(case), held_name(case)):
        logged(story, name, INDEX_CASES[case])


def logged(story, name, case):
    lines = [line for line in story.log.splitlines() if re.search(rf"\b{name}(?![-\w])", line)]
    assert any(re.search(case.says, line) for line in lines), lines


def test_the_log_says_in_one_line_how_much_is_missing_and_why(story):
    lines = [line for line in story.log.splitlines() if re.search(r"\d+ missing: ", line)]
    assert lines
    assert len(lines) <= 10  # not one for each file, nor for each try
    for reason in ("cut off", "2 of 500", "of 429"):
        assert any(reason in line for line in lines), lines
    assert any("tried again" in line for line in lines)


def test_no_fault_is_a_surprise(story):
    assert "Traceback" not in story.log
    assert "mistake of ours" not in story.log
    assert story.codes == [130, 130, 0]  # Ctrl-C twice; `check` finds nothing wrong


@pytest.mark.parametrize("case", INDEX_CASES)
def test_a_bad_index_file_arrives_once_upstream_is_well(story, case):
    name = new_name(case)
    assert story.healed[index_url(name)].content == good_index(name)


@pytest.mark.parametrize("case", INDEX_CASES)
def test_a_held_index_file_is_followed_once_upstream_is_well(story, case):
    name = held_name(case)
    assert story.healed[index_url(name)].content == newer_index(name)


@pytest.mark.parametrize("case", [case for case in CRATE_CASES if case != "bomb"])
def test_a_bad_crate_arrives_once_upstream_is_well(story, case):
    name = crate_name(case)
    assert story.healed[crate_url(name)].content == crate_bytes(name, VERSION)


def test_a_redirect_into_our_own_network_is_not_followed(tmp_path):
    # Upstream has a public address, which a proxy on loopback stands for: nothing leaves here.
    with FakeUpstream(tmp_path / "inside") as inside, FakeUpstream(tmp_path / "proxy") as proxy:
        name = NEIGHBOURS[0]
        fill(inside, [name])
        fill(proxy, [name, NEIGHBOURS[1]])
        proxy.fault(index_url(name), "redirect", f"{inside.url}{index_url(name)}")
        source = "sparse+http://192.88.99.1/index/"
        up = Up("--upstream", source, cwd=tmp_path, HTTP_PROXY=proxy.url, http_proxy=proxy.url)
        try:
            up.wait_until_ready()
            answer = up.get(index_url(name))
            assert answer.status_code == 503
            assert re.search(f"{name}: sent to {inside.url}.* private address", answer.text)
            assert inside.total == 0
            assert up.get(index_url(NEIGHBOURS[1])).status_code == 200
            wait_until(lambda: "1 missing: " in up.err)
        finally:
            up.end()
