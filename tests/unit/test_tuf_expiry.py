"""What expires when, from when it is to be signed anew, and by whom."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuf_repo.core.expiry import By, Urgency, outlook
from tuf_repo.core.roles import Policy
from tuf_repo.core.times import DAY, HOUR
from tuf_repo.core.update import renewal_time

NOW = 1_800_000_000
POLICY = Policy()
ROLES = ("root", "targets", "crates", "bins", "snapshot", "timestamp")
LIVES = {
    "root": POLICY.root_seconds,
    "targets": POLICY.targets_seconds,
    "crates": POLICY.delegation_seconds,
    "bins": POLICY.bin_seconds,
    "snapshot": POLICY.snapshot_seconds,
    "timestamp": POLICY.timestamp_seconds,
}
roles = st.sampled_from(ROLES)
moments = st.integers(-400 * DAY, 400 * DAY)


def of(role, left, policy=POLICY):
    (found,) = outlook({role: NOW + left}, NOW, policy)
    return found


def test_what_was_just_signed_is_fine_whatever_it_is():
    fresh = outlook({role: NOW + life for role, life in LIVES.items()}, NOW, POLICY)
    assert {each.urgency for each in fresh} == {Urgency.FINE}
    assert not any(each.is_warning for each in fresh)


def test_the_first_to_expire_comes_first():
    expires = {role: NOW + life for role, life in LIVES.items()}
    shown = [each.role for each in outlook(expires, NOW, POLICY)]
    assert shown == ["timestamp", "snapshot", "bins", "root", "crates", "targets"]


def test_who_signs_anew_is_said():
    online = {role for role in ROLES if of(role, DAY).by is By.SIGNER}
    assert online == {"timestamp", "snapshot", "bins"}


@pytest.mark.parametrize(
    ("role", "left", "urgency"),
    [
        ("root", 90 * DAY + 1, Urgency.FINE),
        ("root", 90 * DAY, Urgency.DUE),
        ("root", 30 * DAY, Urgency.DUE),
        ("root", 30 * DAY - 1, Urgency.LATE),
        ("root", 0, Urgency.EXPIRED),
        ("targets", 90 * DAY, Urgency.DUE),
        ("crates", 90 * DAY + 1, Urgency.FINE),
        ("crates", 29 * DAY, Urgency.LATE),
        ("timestamp", 23 * HOUR, Urgency.DUE),
        ("timestamp", 12 * HOUR, Urgency.DUE),
        ("timestamp", 11 * HOUR, Urgency.LATE),
        ("snapshot", 4 * DAY + 1, Urgency.FINE),
        ("snapshot", 2 * DAY - 1, Urgency.LATE),
        ("bins", 29 * DAY, Urgency.DUE),
        ("bins", 14 * DAY, Urgency.LATE),
        ("bins", -1, Urgency.EXPIRED),
    ],
)
def test_each_role_has_its_window(role, left, urgency):
    assert of(role, left).urgency is urgency


def test_an_offline_role_warns_from_the_first_day_of_its_window_an_online_one_when_it_is_late():
    assert of("root", 90 * DAY).is_warning
    assert not of("timestamp", 22 * HOUR).is_warning
    assert of("timestamp", 2 * HOUR).is_warning
    assert of("timestamp", 0).is_warning


def test_whole_days_are_left():
    assert [of("root", left).days_left for left in (85 * DAY, 85 * DAY - 1, 5, 0, -9 * DAY)] == [
        85,
        84,
        0,
        0,
        0,
    ]


def test_another_policy_has_other_windows():
    policy = Policy(root_window_seconds=10 * DAY, offline_late_seconds=2 * DAY)
    assert of("root", 11 * DAY, policy).urgency is Urgency.FINE
    assert of("root", 3 * DAY, policy).urgency is Urgency.DUE


@given(roles, moments, moments)
def test_nothing_grows_less_urgent_while_time_goes_by(role, at, later):
    order = list(Urgency)
    first, second = sorted((at, later))
    assert order.index(of(role, -first).urgency) <= order.index(of(role, -second).urgency)


@given(st.integers(0, 65535), st.integers(NOW, NOW + 60 * DAY))
def test_no_bin_that_is_renewed_on_its_day_is_called_due(index, signed):
    expires = signed + POLICY.bin_seconds
    (found,) = outlook({"bins": expires}, signed, POLICY)
    assert renewal_time(index, expires, POLICY) <= found.renew_from
