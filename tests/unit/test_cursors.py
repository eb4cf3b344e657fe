"""What sync remembers of upstream survives a restart, and may be lost."""

import errno
import sqlite3

import pytest

from mirror.core.names import CrateName
from mirror.core.plan import Cursor, Known, Retry, Trouble
from mirror.store.cursors import Cursors
from mirror.store.retries import Retries

A, B, C = (
    Cursor(CrateName("a"), Known.PUBLISHED, "aa", '"e"', "yesterday", 100.0),
    Cursor(CrateName("b"), Known.REFUSED, "bb", "", "", 50.0, "no good"),
    Cursor(CrateName("c"), Known.ABSENT, looked_at=10.0),
)
NOW = 1_000.0


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
    assert cursors.oldest_look_at_held(NOW) is None
    cursors.put([B, A, C])
    assert cursors.holds_any()
    assert cursors.followed() == ["a", "b"]
    assert cursors.oldest_look_at_held(NOW) == 50.0
    cursors.put([Cursor(CrateName("z"), Known.PUBLISHED)])
    assert cursors.oldest_look_at_held(NOW) is None


def test_the_oldest_look_counts_only_when_every_name_was_looked_at(cursors):
    cursors.put([A, B, C])
    assert cursors.oldest_look_at_all(3, NOW) == 10.0
    assert cursors.oldest_look_at_all(4, NOW) is None


def test_a_look_in_the_future_confirms_nothing(cursors):
    cursors.put([A, B, C])
    assert cursors.oldest_look_at_all(3, 99.0) is None
    assert cursors.oldest_look_at_held(99.0) is None
    assert list(cursors.looked_at_between(20.0, 99.0)) == ["b"]
    assert list(cursors.looked_at_between(50.0, 100.0)) == ["a", "b"]


def test_names_that_are_followed_no_longer_are_forgotten(cursors):
    cursors.put([A, B, C])
    cursors.keep_only((A.name, C.name))
    assert [cursor.name for cursor in cursors] == ["a", "c"]


def test_another_upstream_keeps_the_names_and_forgets_the_rest(cursors):
    cursors.put([A])
    cursors.forget_validators()
    assert cursors.get(A.name) == Cursor(A.name, Known.PUBLISHED, "aa")


def test_after_a_restored_publication_only_the_held_names_are_left(cursors):
    cursors.put([A, B, C])
    cursors.forget_publications()
    assert list(cursors) == [
        Cursor(A.name, Known.PUBLISHED),
        Cursor(B.name, Known.REFUSED, trouble="no good"),
    ]


def limit_pages(cursors, pages):
    """Let the file grow no more: SQLite then says what it says of a full disk."""
    cursors._db.execute(f"PRAGMA max_page_count = {pages}")


def test_what_a_full_disk_does_not_take_is_remembered_until_there_is_room(tmp_path, caplog):
    path = tmp_path / "cursors.sqlite3"
    cursors = Cursors(path)
    many = [Cursor(CrateName(f"n{number:04}"), Known.PUBLISHED) for number in range(3_000)]
    limit_pages(cursors, 1)  # as far as it goes: no smaller than the file is
    cursors.put(many)
    for cursor in many:
        cursors.note(cursor)
    cursors.set_fact("upstream", "there")
    assert cursors.get(many[7].name) == many[7]
    assert cursors.fact("upstream") == "there"
    assert caplog.text.count("kept in memory") == 1
    with pytest.raises(OSError, match="full") as caught:
        cursors.followed()
    assert caught.value.errno == errno.ENOSPC
    limit_pages(cursors, 1_000_000)
    assert len(cursors.followed()) == 3_000
    cursors.close()
    again = Cursors(path)
    assert len(again) == 3_000
    assert again.fact("upstream") == "there"
    again.close()


def test_what_cannot_be_read_is_not_remembered_and_ends_nothing(cursors, caplog):
    cursors.put([A])
    cursors._db.execute("DROP TABLE cursor")
    assert cursors.get(A.name) is None
    assert "cannot be read" in caplog.text
    with pytest.raises(OSError, match="no such table"):
        len(cursors)


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


def retry(number):
    return Retry(f"n{number}", Trouble.FAILED, "of 500", "n: 500", float(number), 2, 70.0)


def test_what_is_missing_is_there_after_a_restart(tmp_path):
    path = tmp_path / "cursors.sqlite3"
    first = Cursors(path)
    for number in (1, 2, 3):
        first.retries.put(retry(number))
    first.retries.drop("n2")
    first.save()
    first.close()
    second = Cursors(path)
    assert list(second.retries) == [retry(1), retry(3)]
    second.retries.drop("n1")
    second.close()
    third = Cursors(path)
    assert [found.key for found in third.retries] == ["n3"]
    third.close()


def test_of_too_much_that_is_missing_the_oldest_goes():
    retries = Retries(most=3)
    for number in range(5):
        retries.put(retry(number))
    assert [found.key for found in retries] == ["n2", "n3", "n4"]
    assert (len(retries), retries.drop("n0"), retries.drop("n2")) == (3, False, True)


def test_a_table_of_before_there_were_retries_is_kept(tmp_path):
    path = tmp_path / "cursors.sqlite3"
    old = Cursors(path)
    old.put([A])
    old._db.execute("DROP TABLE retry")
    old.close()
    new = Cursors(path)
    assert (list(new), list(new.retries)) == ([A], [])
    new.close()


def test_what_a_full_disk_does_not_take_of_what_is_missing_is_written_later(tmp_path):
    cursors = Cursors(tmp_path / "cursors.sqlite3")
    limit_pages(cursors, 1)
    for number in range(3_000):
        cursors.retries.put(retry(number))
    cursors.save()
    assert cursors.retries.is_changed
    limit_pages(cursors, 1_000_000)
    cursors.save()
    assert not cursors.retries.is_changed
    cursors.close()
