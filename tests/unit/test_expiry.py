"""How the mirror tells what expires: in days, early, and whatever the heartbeat says."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.core import expiry
from mirror.core.expiry import expiries, in_words, warnings
from mirror.core.times import rfc3339
from mirror.sign.expiry_watch import ExpiryWatch
from mirror.sign.heartbeat import Beat, put_heartbeat
from tests.support.signing import START, at_work
from tuf_repo.core.expiry import outlook
from tuf_repo.core.roles import Policy

NOW = 1_800_000_000.0
DAY = 86_400
ROLES = ("root", "targets", "crates", "bins", "snapshot", "timestamp")


def warned(role, left, *, trial=False, renew_from=None):
    """The one warning about a role that has so many seconds left, or None."""
    found = expiries({role: rfc3339(NOW + left)}, renew_from or {}, NOW)
    return next(iter(warnings(found, NOW, trial=trial)), None)


# --- what is said


@pytest.mark.parametrize(
    ("role", "left", "text"),
    [
        ("root", 85 * DAY + 5, "root expires in 85 days (2027-04-10): sign it anew"),
        ("root", 12 * DAY, "root expires in 12 days (2027-01-27): sign it anew now"),
        ("crates", 86_399, "crates expires in 23 hours (2027-01-16): sign it anew now"),
        (
            "root",
            -3 * DAY,
            "root expired 3 days ago (2027-01-12), clients stop: sign it anew",
        ),
        ("timestamp", 7200, "timestamp expires in 2 hours, not renewed: is a signer running?"),
        ("bins", 10 * DAY, "a bin expires in 10 days, not renewed: is a signer running?"),
        ("bins", -60, "a bin expired 1 min ago, clients stop there: is a signer running?"),
    ],
)
def test_a_warning_is_one_line_with_the_days_that_are_left(role, left, text):
    assert warned(role, left)["text"] == text


@pytest.mark.parametrize(
    ("role", "left"), [("root", 91 * DAY), ("timestamp", 20 * 3600), ("bins", 29 * DAY)]
)
def test_what_is_in_order_is_no_warning(role, left):
    assert warned(role, left) is None


def test_the_advice_is_the_commands_to_give():
    steps = warned("root", 85 * DAY)["advice"]
    assert steps[0] == "begin with: tuf-repo resign root --data DIR --out DRAFT"
    assert expiry.RUNBOOK in steps[-1]
    assert warned("timestamp", 60)["advice"] == []


def test_a_trial_is_better_adopted_than_prolonged():
    first, second, _ = warned("root", 85 * DAY, trial=True)["advice"]
    assert "tuf-repo adopt" in first
    assert "tuf-repo resign root" in second


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (85.9 * DAY, "85 days"),
        (2 * DAY, "2 days"),
        (2 * DAY - 1, "47 hours"),
        (3600, "1 hour"),
        (3599, "59 min"),
        (0, "0 min"),
    ],
)
def test_time_is_told_in_days_and_the_last_two_in_hours(seconds, text):
    assert in_words(seconds) == text


# --- whom to believe


@given(st.sampled_from(ROLES), st.integers(-400 * DAY, 400 * DAY))
def test_without_a_heartbeat_the_same_is_said_as_the_signer_would(role, left):
    (known,) = outlook({role: int(NOW) + left}, NOW, Policy())
    (ours,) = expiries({role: rfc3339(NOW + left)}, {}, NOW)
    assert (ours.role, ours.expires, ours.renew_from) == (role, known.expires, known.renew_from)
    assert (ours.by, ours.state) == (known.by, known.urgency)
    assert ours.is_warning == known.is_warning


def test_the_signer_may_have_a_window_of_its_own():
    early = {"root": rfc3339(NOW)}
    assert warned("root", 150 * DAY, renew_from=early)["state"] == "due"


anything = st.recursive(
    st.none() | st.integers() | st.text() | st.just(rfc3339(NOW + 300 * DAY)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(anything, st.sampled_from(["root", "crates"]), st.integers(-9 * DAY, 30 * DAY - 1))
def test_no_word_of_a_heartbeat_silences_what_is_late(word, role, left):
    told = warned(role, left, renew_from={role: word})
    assert told["state"] in ("late", "expired")


@given(st.dictionaries(st.sampled_from([*ROLES, "\x1b[2J"]), anything))
def test_what_is_no_role_of_ours_or_no_time_is_left_out(words):
    found = expiries(words, words, NOW)
    assert {each.role for each in found} <= set(ROLES)


# --- the signer


@pytest.fixture
def bench(tmp_path):
    with at_work(tmp_path / "data") as bench:
        yield bench


def heartbeat(bench, at):
    put_heartbeat(bench.parts, bench.signer.rules, trouble=None, beat=Beat(at, "http://m"))
    return bench.www("status.json").read_text()


def test_the_heartbeat_carries_the_windows_and_the_warnings_and_no_path(bench):
    text = heartbeat(bench, START + 95 * DAY)
    fields = json.loads(text)
    assert fields["renew_from"]["root"] == rfc3339(START + 90 * DAY)
    assert set(fields["renew_from"]) == set(fields["expires"]) == set(ROLES)
    told = {each["role"]: each["state"] for each in fields["warnings"]}
    assert told == {"root": "due", "bins": "expired", "snapshot": "expired", "timestamp": "expired"}
    assert str(bench.config.data) not in text
    assert json.loads(heartbeat(bench, START))["warnings"] == []


def test_the_log_hears_of_an_offline_role_once_a_day_and_at_once_when_it_gets_worse(bench, caplog):
    watch = ExpiryWatch(bench.parts)
    with caplog.at_level(logging.WARNING):
        watch.tell(START + 89 * DAY)
        assert caplog.messages == []
        for hour in range(49):
            watch.tell(START + 91 * DAY + hour * 3600)
    assert [message.split(" (")[0] for message in caplog.messages] == [
        "root expires in 89 days",
        "root expires in 88 days",
        "root expires in 87 days",
    ]
    assert f"tuf-repo adopt --data {bench.config.data} …" in caplog.messages[0]
    caplog.clear()
    watch.tell(START + 150.5 * DAY)
    watch.tell(START + 150.6 * DAY)
    watch.tell(START + 91 * DAY)  # the clock was set back
    assert [message.split(" (")[0] for message in caplog.messages] == [
        "root expires in 29 days",
        "root expires in 89 days",
    ]


def test_every_offline_role_in_its_window_is_told(bench, caplog):
    with caplog.at_level(logging.WARNING):
        ExpiryWatch(bench.parts).tell(START + 300 * DAY)
    assert {message.split()[0] for message in caplog.messages} == {"root", "targets", "crates"}
