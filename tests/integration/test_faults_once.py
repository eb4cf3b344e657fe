"""The fault matrix through `sync --once`: what its line and its exit code say, and what it keeps.

Mode index, whose sweep looks at many files at a time: one bad file must not cost another.
"""

import re
import time
from types import SimpleNamespace

import pytest

from tests.fakes.upstream import FakeUpstream
from tests.support.matrix import (
    INDEX_CASES,
    LIMITS,
    REFUSED,
    fill,
    good_index,
    in_so_many_seconds,
    new_name,
)
from tests.support.processes import crateseal
from tests.support.registry import index_url

NAMES = {case: new_name(case) for case in INDEX_CASES}
NEIGHBOURS = [f"neighbour{number:02}" for number in range(40)]
SUMMARY = re.compile(r"([\d,]+) looked at.*?, ([\d,]+) missing: (.+); will retry")


def options(folder, upstream, names):
    (folder / "names.txt").write_text("\n".join(names) + "\n")
    return ("--mode", "index", "--names", "names.txt", "--upstream", upstream.source)


def look(folder, *arguments, timeout=90):
    return crateseal("sync", "--once", *arguments, cwd=folder, timeout=timeout, **LIMITS)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """One look while all is bad, `check` and `status` behind it, one more when all is well."""
    folder = tmp_path_factory.mktemp("once")
    with FakeUpstream(folder / "upstream") as upstream:
        names = [*NAMES.values(), *NEIGHBOURS]
        fill(upstream, names)
        given = options(folder, upstream, names)
        assert crateseal("init", "--trial", "--bin-bits", "5", *given, cwd=folder).returncode == 0
        for case, name in NAMES.items():
            INDEX_CASES[case].strike(upstream, index_url(name), name)
        first = look(folder, *given)
        held = held_files(folder)
        check = crateseal("check", cwd=folder)
        status = crateseal("status", cwd=folder)
        for name in NAMES.values():
            upstream.heal(index_url(name))
        second = look(folder, *given)
        yield SimpleNamespace(
            first=first, held=held, check=check, status=status, second=second,
            at_last=held_files(folder),
        )  # fmt: skip


def held_files(folder):
    """Return name -> the bytes published as its index file."""
    index = folder / "crateseal-data/www/index"
    files = [file for file in index.glob("*/**/*") if file.is_file() and file.suffix != ".gz"]
    return {file.name: file.read_bytes() for file in files}


def test_a_look_at_bad_files_is_exit_1_and_says_how_many_and_why(seen):
    assert seen.first.returncode == 1, seen.first.stderr
    found = SUMMARY.search(seen.first.stdout)
    assert found, seen.first.stdout
    refused = sum(case.status == REFUSED for case in INDEX_CASES.values())
    assert found[1] == str(len(NEIGHBOURS) + refused)
    assert found[2] == str(len(NAMES) - refused)
    assert "1 of 500" in found[3]
    assert f"{refused} refused" in seen.first.stdout


@pytest.mark.parametrize("case", INDEX_CASES)
def test_each_bad_file_is_named_with_its_reason(seen, case):
    said = (seen.first.stdout + seen.first.stderr).splitlines()
    lines = [line for line in said if re.search(rf"\b{NAMES[case]}(?![-\w])", line)]
    assert any(re.search(INDEX_CASES[case].says, line) for line in lines), lines


def test_neighbours_arrive_and_nothing_else_does(seen):
    assert seen.held == {name: good_index(name) for name in NEIGHBOURS}


def test_what_is_kept_is_sound_and_status_says_what_is_missing(seen):
    assert seen.check.returncode == 0, seen.check.stdout
    assert seen.status.returncode == 1
    assert NAMES["broken-json"] in seen.status.stdout


def test_nothing_is_a_surprise(seen):
    for each in (seen.first, seen.second):
        assert "Traceback" not in each.stderr
        assert "mistake of ours" not in each.stderr


def test_everything_arrives_at_the_next_look_once_upstream_is_well(seen):
    assert seen.second.returncode == 0, seen.second.stdout + seen.second.stderr
    everything = [*NEIGHBOURS, *NAMES.values()]
    assert seen.at_last == {name: good_index(name) for name in everything}


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_who_asks_us_to_wait_is_left_alone_for_so_long(tmp_path, form):
    with FakeUpstream(tmp_path / "upstream") as upstream:
        name = NEIGHBOURS[0]
        fill(upstream, [name])
        given = options(tmp_path, upstream, [name])
        assert crateseal("init", "--trial", "--bin-bits", "5", *given, cwd=tmp_path).returncode == 0
        # A date has whole seconds, and counts from now on, not from the first request.
        until = time.monotonic() + 7
        wait = 3 if form == "seconds" else in_so_many_seconds(8)
        upstream.fault(index_url(name), "busy", wait, times=1)
        done = look(tmp_path, *given)
        assert done.returncode == 0, done.stdout + done.stderr
        first, second = upstream.times[index_url(name)]
        assert second >= (first + 2.9 if form == "seconds" else until)


def test_an_upstream_that_refuses_everything_is_exit_3_and_nothing_counts_as_done(tmp_path):
    with FakeUpstream(tmp_path / "upstream") as upstream:
        fill(upstream, NEIGHBOURS)
        given = options(tmp_path, upstream, NEIGHBOURS)
        assert crateseal("init", "--trial", "--bin-bits", "5", *given, cwd=tmp_path).returncode == 0
        with upstream.refusing():
            done = look(tmp_path, *given)
        assert done.returncode == 3, done.stdout + done.stderr
        found = SUMMARY.search(done.stdout)
        assert found, done.stdout
        assert found[1] == "0"
        assert found[2] == str(len(NEIGHBOURS))
        assert look(tmp_path, *given).returncode == 0
        assert sorted(held_files(tmp_path)) == NEIGHBOURS
