"""Whatever people are to sign can be shown to them, in full, and is what it looks like."""

from dataclasses import replace

import pytest
from securesystemslib.signer import SSlibKey

from tests.fakes.people import with_quorum
from tuf_repo.core.edits import refuse_broken_rules
from tuf_repo.core.names import is_name
from tuf_repo.core.root import X_NAME, read_offline
from tuf_repo.errors import CeremonyError, EditError


@pytest.mark.parametrize(
    "path",
    [
        "",
        "index/*/*, index/*/*/*",
        "a b",
        "a\u3164",
        "ind\u0435x/*",
        "a\n",
        "a" * 201,
        '"',
        "{a,b}",
    ],
)
def test_a_path_pattern_reads_like_one_and_like_itself(offline, path):
    with pytest.raises(EditError, match="simple path patterns"):
        refuse_broken_rules(None, replace(offline, paths=("index/*/*", path)))


def test_all_that_is_signed_can_be_shown(people, offline):
    key = people.crates[0].key

    def with_fields(**fields):
        named = SSlibKey(key.keyid, key.keytype, key.scheme, key.keyval, fields)
        return with_quorum(offline, "crates", [named], 1)

    refuse_broken_rules(None, with_fields())
    refuse_broken_rules(None, with_fields(**{X_NAME: "Ana Lima"}))
    for fields in (
        {"x-not-after": 1},
        {X_NAME: "Ana", "x-more": "x"},
        {X_NAME: {"a": 1}},
        {X_NAME: None},
        {X_NAME: ""},
        {X_NAME: "Ana Lima, ed25519) (x"},
    ):
        with pytest.raises(EditError, match=f"key {key.keyid[:8]}"):
            refuse_broken_rules(None, with_fields(**fields))
        # It can go again.
        refuse_broken_rules(with_fields(**fields), offline)


def test_extra_fields_are_named_so_and_short_enough_to_be_shown(offline):
    def with_extra(fields):
        return replace(offline, extra={"targets": fields})

    refuse_broken_rules(
        None, with_extra({"x-crateseal": {"trial": True}, "x-" + "a" * 58: "a" * 198})
    )
    for name in ("threshold", "x-", "x-\u2800", "x-a b", "x-" + "a" * 59):
        with pytest.raises(EditError, match="targets: expected extra fields x-"):
            refuse_broken_rules(None, with_extra({name: 1}))
    for value in ("a" * 199, {"a": "a" * 190, "z": "hidden"}):
        with pytest.raises(EditError, match="at most 200 characters, got more in x-a"):
            refuse_broken_rules(None, with_extra({"x-a": value}))


@pytest.mark.parametrize(
    "name",
    [
        *("Ana Lima", "eli2", "O'Neil", "J. R. Ben-Ami", "ana@example.org", "a_b", "x" * 60),
        *(
            "Žofie Nováková",
            "Анна Каренина",
            "Ελένη",
            "अनीता",
            "ดวงใจ",
            "山田 花子",
            "山田はなこ",
            "김 민지",
        ),
        *("Nguyễn Thị", "שרה", "0"),
    ],
)
def test_people_are_called_what_they_are_called(name):
    assert is_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", "Ana ", " Ana", "Ana  Lima", "x" * 61, "a\nb", "a\tb", "a\u00a0b", "a\u200bb"),
        *(
            "\u202eneb",
            "D\x1b[2Jan",
            "\u3164",
            "\u2800",
            "Ana\ufe0f",
            "Ana\u034f",
            "\u115f",
            "\u1160",
        ),
        *("\ufe0f", "\u0301a", " \u0301a", "1\u0301", "a\u20dd", "b" + "\u0301" * 5, "\U000e0101"),
        *(
            "A\u0301na",
            "\uff21na",
            "\ufb01n",
            "\U0001d400na",
            "Ana (root)",
            "Ana, Ben",
            'Ana"',
            "a/b",
            "—",
            "№1",
        ),
        # A Cyrillic letter among Latin ones, a Greek one; digits of another script.
        *("\u0410na", "An\u03b1", "Ana \u0410\u043d\u043d\u0430", "\u0661\u0662", "山田 Ana"),
    ],
)
def test_a_name_is_what_it_looks_like(name):
    assert not is_name(name)


@pytest.mark.parametrize(
    "name", ["Crates", "1crates", "cr ates", "a/b", "", "\u0441rates", "a" * 32]
)
def test_a_delegation_has_a_plain_name(parts, name):
    with pytest.raises(CeremonyError, match="at most 31 of a-z"):
        read_offline({**parts, name: parts["crates"]}, name)
