"""What a client's user is told of its mirror, and what is counted."""

import pytest

from mirror.client.source.standing import Standing, Tally, parts_of, state_of
from mirror.core.names import CrateName
from mirror.errors import MachineError, ProofError, UnreachableError

NOW = 1_800_000_000.0
PLAIN = {"mirror": "https://a.example/", "root_sha256": "ab" * 32, "expires": NOW + 60}


def warnings(**said):
    return Standing(**PLAIN | said).warnings(NOW)


def test_a_plain_mirror_needs_no_words():
    assert warnings(how="fingerprint", upstream_confirmed=NOW - 100) == ()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"how": "first use"}, "trusted on first use"),
        ({"how": "first use"}, "ab" * 32),
        ({"is_trial": True}, "TRIAL"),
        ({"pins_trial": True}, "a real one has followed"),
        ({"away": "no connection"}, "no connection"),
        ({"away": "no connection"}, "2027-01-15T08:01:00Z"),
        ({"stale_until": NOW + 5}, "--accept-stale-until"),
        ({"stale_until": NOW + 5}, "2027-01-15T08:00:05Z"),
        ({"others": (("https://b.example/", "answered 500"),)}, "https://b.example/: answered 500"),
        ({"upstream_confirmed": NOW - 3 * 86_400, "upstream": "crates.io"}, "crates.io"),
    ],
)
def test_what_a_user_has_to_know_is_said(said, words):
    [warning] = warnings(**said)
    assert words in warning


def test_an_upstream_is_old_after_the_time_that_was_set():
    said = {"upstream_confirmed": NOW - 1_000}
    assert warnings(**said, max_upstream_age=1_000.0) == ()
    assert len(warnings(**said, max_upstream_age=999.0)) == 1


@pytest.mark.parametrize(
    "fields",
    [
        None,
        [],
        3,
        {"signed_at": 7},
        {"signed_at": "now"},
        {"mode": ["x"]},
        {"mode": "\x1b[2J"},
    ],
)
def test_what_a_timestamp_says_in_another_way_was_not_said(fields):
    state = state_of(fields)
    assert state.signed_at is None
    assert state.mode is None


def test_a_count_begins_where_it_was_marked():
    tally = Tally()
    tally.index_file()
    tally.refused("a 1.0.0", UnreachableError("x"))
    tally.unproved(CrateName("a"))
    mark = tally.mark()
    assert tally.since(mark).index_files == 0
    assert tally.since(mark).refused == ()
    assert tally.since(mark).unproved == ()
    tally.crate()
    tally.unproved(CrateName("b"))
    tally.unproved(CrateName("b"))
    tally.refused("b 1.0.0", UnreachableError("x"))
    tally.refused("b 1.0.0", UnreachableError("x"))
    counts = tally.since(mark)
    assert (counts.index_files, counts.crates, counts.unproved) == (0, 1, ("b",))
    assert [each.subject for each in counts.refused] == ["b 1.0.0"]
    assert tally.since().unproved == ("a", "b")


def test_a_finding_is_told_by_its_parts_and_another_error_by_its_words():
    finding = ProofError("serde 1.0.0", "https://a/x", "this", "that", "do so")
    assert parts_of(finding) == {
        "subject": "serde 1.0.0",
        "where": "https://a/x",
        "expected": "this",
        "got": "that",
        "advice": "do so",
    }
    assert parts_of(MachineError("the clock")) == {"reason": "the clock"}
