"""What sync remembers of upstream survives a restart, and may be lost."""

import sqlite3

import pytest

from mirror.core.names import CrateName
from mirror.core.plan import Cursor, Known
from mirror.store.cursors import Cursors

A, B, C = (
    Cursor(CrateName("a"), Known.PUBLISHED, "aa", '"e"', "yesterday", 100.0),
    Cursor(CrateName("b"), Known.REFUSED, "bb", "", "", 50.0, "no good"),
    Cursor(CrateName("c"), Known.ABSENT, looked_at=10.0),
)


@pytest.fixture
def cursors(tmp_path):
    table = Cursors(tmp_path / "data/cursors.sqlite3")
    yield table
    table.close()


def test_what_was_put_is_there_after_a_restart(tmp_path):
    path = tmp_path / "cursors.sqlite3"
    first = Cursors(path)
    assert first.is_new
    first.put([C, A, B])
    first.set_fact("upstream", "there")
    first.close()
    second = Cursors(path)
    assert not second.is_new
    assert [second.get(cursor.name) for cursor in (A, B, C)] == [A, B, C]
    assert list(second) == [A, B, C]
    assert second.fact("upstream") == "there"
    assert second.fact("nothing") == ""
    second.close()


def test_what_was_noted_is_seen_at_once_and_written_later(cursors):
    cursors.note(A)
    assert cursors.get(A.name) == A
    assert cursors.get(B.name) is None
    assert len(cursors) == 1
    for number in range(2_000):
        cursors.note(Cursor(CrateName(f"n{number}"), Known.PUBLISHED))
    assert len(cursors) == 2_001


def test_a_put_comes_after_what_was_noted(cursors):
    cursors.note(Cursor(A.name))
    cursors.put([A])
    assert cursors.get(A.name) == A


def test_held_names_are_the_published_and_the_refused(cursors):
    assert not cursors.holds_any()
    assert cursors.oldest_look_at_held() is None
    cursors.put([B, A, C])
    assert cursors.holds_any()
    assert cursors.followed() == ["a", "b"]
    assert cursors.oldest_look_at_held() == 50.0
    cursors.put([Cursor(CrateName("z"), Known.PUBLISHED)])
    assert cursors.oldest_look_at_held() is None


def test_the_oldest_look_counts_only_when_every_name_was_looked_at(cursors):
    cursors.put([A, B, C])
    assert cursors.oldest_look_at_all(3) == 10.0
    assert cursors.oldest_look_at_all(4) is None


def test_names_that_are_followed_no_longer_are_forgotten(cursors):
    cursors.put([A, B, C])
    cursors.keep_only((A.name, C.name))
    assert [cursor.name for cursor in cursors] == ["a", "c"]


def test_another_upstream_keeps_the_names_and_forgets_the_rest(cursors):
    cursors.put([A])
    cursors.forget_validators()
    assert cursors.get(A.name) == Cursor(A.name, Known.PUBLISHED, "aa")


@pytest.mark.parametrize("damage", ["text", "foreign", "torn", "empty"])
def test_a_damaged_or_foreign_file_is_dropped_and_made_anew(tmp_path, damage, caplog):
    path = tmp_path / "cursors.sqlite3"
    if damage == "text":
        path.write_text("this is no database, and long enough to be read as one" * 100)
    elif damage == "foreign":
        other = sqlite3.connect(path)
        other.execute("CREATE TABLE other (x)")
        other.close()
    elif damage == "torn":
        whole = Cursors(path)
        whole.put(Cursor(CrateName(f"n{number}"), Known.PUBLISHED) for number in range(5_000))
        whole.close()
        data = bytearray(path.read_bytes())
        data[8_192:60_000] = bytes(60_000 - 8_192)
        path.write_bytes(data)
    else:
        path.touch()
    table = Cursors(path)
    assert table.is_new
    assert len(table) == 0
    table.put([A])
    table.close()
    assert ("made anew" in caplog.text) == (damage != "empty")
