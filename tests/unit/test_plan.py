"""What to ask upstream for: every case of the decision."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.core.names import CrateName
from mirror.core.plan import (
    Cursor,
    Fetch,
    Fresh,
    Known,
    Outside,
    is_news,
    is_worth_reporting_gone,
    missing,
    next_sweep,
    plan_lacking,
    plan_look,
    plan_seen,
    seconds_left,
)

NAME = CrateName("serde")
NOW = 10_000.0
AGES = {"followed": True, "now": NOW, "max_age": 600.0}


def looked(seconds_ago, known=Known.PUBLISHED):
    return Cursor(NAME, known, "aa", '"e"', "", NOW - seconds_ago)


def lacking(cursor, **others):
    return plan_lacking(cursor, **{**AGES, "trusted_since": NOW - 5_000, **others})


def test_a_name_outside_the_source_is_never_fetched():
    assert lacking(None, followed=False) == Outside()
    assert plan_seen(looked(0), followed=False, now=NOW, max_age=600.0) == Outside()


def test_who_lacks_a_file_gets_its_bytes_unconditionally():
    assert lacking(None) == Fetch(conditional=False)
    assert lacking(looked(601)) == Fetch(conditional=False)


@pytest.mark.parametrize("known", [Known.PUBLISHED, Known.REFUSED, Known.ABSENT])
def test_what_this_process_just_settled_is_not_fetched_again(known):
    assert lacking(looked(100, known)) == Fresh(500)


def test_what_an_earlier_process_saw_published_is_not_trusted():
    assert lacking(looked(100), trusted_since=NOW - 50) == Fetch(conditional=False)


def test_a_failed_look_leaves_nothing_to_trust():
    assert lacking(Cursor(NAME, Known.UNKNOWN, looked_at=NOW)) == Fetch(conditional=False)


def test_a_seen_name_is_looked_at_again_when_it_is_old():
    assert plan_seen(looked(599), **AGES) == Fresh(1)
    assert plan_seen(looked(600), **AGES) == Fetch(conditional=True)
    assert plan_seen(None, **AGES) == Fetch(conditional=False)


def test_only_published_bytes_make_a_look_conditional():
    assert plan_look(looked(0)) == Fetch(conditional=True)
    for known in (Known.REFUSED, Known.ABSENT, Known.UNKNOWN):
        assert plan_look(looked(0, known)) == Fetch(conditional=False)


def test_the_same_bytes_are_no_news_unless_they_were_refused():
    assert not is_news(looked(0), "aa")
    assert is_news(looked(0), "bb")
    assert is_news(looked(0, Known.REFUSED), "aa")
    assert is_news(None, "aa")


def test_absence_is_reported_once():
    assert is_worth_reporting_gone(None)
    assert is_worth_reporting_gone(looked(0))
    assert not is_worth_reporting_gone(looked(0, Known.ABSENT))


def test_a_look_in_the_future_is_none_the_clock_was_set_back():
    assert plan_seen(looked(-1), **AGES) == Fetch(conditional=True)
    assert plan_seen(looked(-1_000_000), **AGES) == Fetch(conditional=True)
    assert lacking(looked(-1)) == Fetch(conditional=False)
    assert seconds_left(NOW, 600.0, now=NOW) == 600.0
    assert seconds_left(NOW + 1, 600.0, now=NOW) == 0.0
    assert seconds_left(NOW - 600, 600.0, now=NOW) == 0.0


@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_missing_is_what_was_not_looked_at(names, looked_at):
    def ordered(numbers):
        return sorted(CrateName(f"n{number}") for number in numbers)

    assert list(missing(ordered(names), ordered(looked_at))) == ordered(names - looked_at)


def test_the_next_sweep_is_due_a_period_after_the_last_began():
    assert next_sweep(NOW, ended=NOW + 60, every=3600, unreachable=False) == NOW + 3600
    assert next_sweep(NOW, ended=NOW + 9000, every=3600, unreachable=False) == NOW + 9000
    assert next_sweep(NOW, ended=NOW + 9, every=3600, unreachable=True) == NOW + 69
    assert next_sweep(NOW, ended=NOW + 9, every=30, unreachable=True) == NOW + 39
