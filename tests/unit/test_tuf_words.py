"""Who is asked to sign, who has; and a change in plain words."""

from dataclasses import replace

import pytest
from securesystemslib.signer import SSlibKey
from tuf.api.metadata import Metadata

from tests.fakes.people import (
    Person,
    signed_by,
    under_keyid,
    with_quorum,
)
from tuf_repo.core import words
from tuf_repo.core.edits import Edits, edited
from tuf_repo.core.quorums import asked, count, member, refuse_bad_signatures, verifies
from tuf_repo.core.root import (
    X_NAME,
    Offline,
    Quorum,
    Stamp,
    build,
)
from tuf_repo.errors import CeremonyError
from tuf_repo.proposal import read_proposal

DAY = 86_400


# --- quorums


def count_of(people, signers, role="root"):
    draft = signed_by(people.init(), *signers)
    (found,) = [each for each in read_proposal(draft).counts() if each.role == role]
    return found


def test_who_has_signed_and_who_is_missing(people):
    found = count_of(people, people.root[:2])
    assert [key.keyid for key in found.signed] == [each.key.keyid for each in people.root[:2]]
    assert [key.keyid for key in found.missing] == [each.key.keyid for each in people.root[2:]]
    assert found.lacks == 1
    assert count_of(people, people.root[:4]).lacks == 0


def test_one_public_key_counts_once_under_whatever_keyid(people):
    key = people.root[0].key
    quorum = Quorum((key, under_keyid(key, "e" * 64), people.root[1].key), 2)
    signature = people.root[0].signer.sign(b"text").signature
    for signatures in (
        {key.keyid: signature, "e" * 64: signature},
        {"e" * 64: signature},
    ):
        found = count("root", "", quorum, b"text", signatures)
        assert (len(found.signed), found.lacks) == (1, 1)
        assert [each.keyid for each in found.missing] == [people.root[1].key.keyid]


def test_the_root_before_is_asked_too_where_its_quorum_differs(people, offline):
    assert asked("root", None, offline) == [("", offline.quorums["root"])]
    assert asked("root", offline, offline) == [("", offline.quorums["root"])]
    after = with_quorum(offline, "root", threshold=4)
    assert [whose for whose, _ in asked("root", offline, after)] == ["old", "new"]
    assert asked("targets", offline, after) == [("", offline.quorums["targets"])]


def test_a_key_is_found_under_the_keyid_of_the_metadata(people, offline):
    key = people.root[0].key
    quorums = asked("root", None, offline)
    assert member(under_keyid(key, "f" * 64), quorums).keyid == key.keyid
    assert member(Person("stranger").key, quorums) is None


def test_a_signature_of_garbage_does_not_verify(people):
    for person in people.root[:2]:
        for text in ("", "00", "zz", "0" * 128):
            assert not verifies(person.key, b"text", text)
        assert not verifies(person.key, b"text", None)
        good = person.signer.sign(b"text").signature
        assert verifies(person.key, b"text", good)
        assert not verifies(person.key, b"other", good)


def test_signatures_of_strangers_and_over_other_bytes_are_refused(people, offline):
    quorums = asked("root", None, offline)
    stranger = Person("stranger")
    with pytest.raises(CeremonyError, match="signatures by its keys only"):
        signature = stranger.signer.sign(b"text").signature
        refuse_bad_signatures("root", quorums, b"text", {stranger.key.keyid: signature})
    with pytest.raises(CeremonyError, match="changed after it"):
        signature = people.root[0].signer.sign(b"other").signature
        refuse_bad_signatures("root", quorums, b"text", {people.root[0].key.keyid: signature})


def test_mixed_kinds_of_keys_verify_with_python_tuf(people):
    draft = signed_by(people.init(), *people.root[:3])
    metadata = Metadata.from_bytes(draft.roles["root"].data)
    metadata.verify_delegate("root", metadata)
    assert {key.keytype for key in metadata.signed.keys.values()} == {"ed25519", "ecdsa"}


# --- words


def test_a_first_repository_says_who_becomes_what(people, offline):
    stamps = {"root": Stamp(1, 0), "targets": Stamp(1, 0), "crates": Stamp(2, 0)}
    lines = list(words.first(replace(offline, extra={"root": {"x-a": [1]}}), stamps))
    assert lines[1:3] == ["root 1, expires 1970-01-01T00:00:00Z", "  root: 3 of 5 must sign"]
    assert f'  root: key {words.spelled(people.root[1].key.keyid)} ("root 1", ecdsa)' in lines
    at = lines.index("  crates: covers 2 path patterns")
    assert lines[at + 1 : at + 4] == [
        '  crates: path "index/*/*"',
        '  crates: path "index/*/*/*"',
        "crates 2, expires 1970-01-01T00:00:00Z",
    ]
    assert "  crates: 512 bins (9 bits)" in lines
    assert "  root: field x-a = [1]" in lines
    assert "  bins: signed by the signing machine alone" in lines


BEFORE = {"root": Stamp(1, 0), "targets": Stamp(1, 0), "crates": Stamp(2, 0)}
AFTER = {"root": Stamp(2, 0), "targets": Stamp(3, 0), "crates": Stamp(4, 0)}


def whole(old, new):
    return list(words.changes(old, new, BEFORE, AFTER))


def said(old, new):
    """What is marked in the whole."""
    return [line.strip() for line in whole(old, new) if line[:6].strip() in {"new", "goes", "now"}]


def test_every_change_is_a_line(people, offline):
    new = Person("new")
    leaver = people.root[4].key
    edits = Edits({"root": [new.key]}, {"root": [leaver.keyid]}, {}, {"crates": 3}, 12)
    assert said(offline, edited(offline, edits)) == [
        f'new   root: key {words.spelled(new.key.keyid)} ("new", ed25519)',
        f'goes  root: key {words.spelled(leaver.keyid)} ("root 4", ed25519)',
        "now   crates: 3 of 3 must sign (was 2 of 3)",
        "now   crates: 4096 bins (12 bits) (was 512 bins (9 bits))",
    ]


def test_of_every_file_that_is_signed_the_whole_is_said(people, offline):
    """A key that is no difference may be one that went long ago: it was in the old file."""
    lines = whole(offline, offline)
    for role, quorum in offline.quorums.items():
        for key in quorum.keys:
            assert f"        {role}: key {words.person(key)}" in lines
    for line in ("root: 3 of 5 must sign", 'crates: path "index/*/*"', "crates: 512 bins (9 bits)"):
        assert f"        {line}" in lines
    only = list(words.changes(offline, offline, BEFORE, {"crates": Stamp(3, 0)}))
    assert only == [
        "crates 3 (was 2), expires 1970-01-01T00:00:00Z (was 1970-01-01T00:00:00Z)",
        "        bins: signed by the signing machine alone",
        f"        bins: key {words.person(people.online['bins'].signer.public_key)}",
        "        crates: 512 bins (9 bits)",
        words.NOTHING,
    ]


def test_a_pattern_that_reads_like_two_is_seen_to_be_one(offline):
    one = replace(offline, paths=(", ".join(offline.paths), "a\u3164b" * 99))
    lines = [line.strip() for line in whole(one, one)]
    assert "crates: covers 2 path patterns" in lines
    assert 'crates: path "index/*/*, index/*/*/*"' in lines
    assert 'crates: path "' + "a\\u3164b" * 99 + '"' in lines
    single = whole(*[replace(offline, paths=("a/*",))] * 2)
    assert "        crates: covers 1 path pattern" in single


def test_fields_that_come_go_and_change_are_lines(offline):
    old = replace(offline, extra={"root": {"x-a": 1, "x-b": {"c": True}, "x-same": 0}})
    new = replace(offline, extra={"root": {"x-a": 2, "x-d": "e", "x-same": 0}})
    assert said(old, new) == [
        "now   root: field x-a = 2 (was 1)",
        'goes  root: field x-b = {"c": true}',
        'new   root: field x-d = "e"',
    ]
    # All of a value, and nothing in it that nobody sees.
    long = replace(offline, extra={"root": {"x-a": "\ufe0f" + "a" * 190 + "end"}})
    assert said(offline, long)[0].endswith("\\ufe0f" + "a" * 190 + 'end"')


def test_a_key_that_is_written_otherwise_is_a_line(people, offline):
    key = people.crates[0].key
    renamed = SSlibKey(key.keyid, key.keytype, key.scheme, key.keyval, {X_NAME: "Eve"})
    new = with_quorum(offline, "crates", [renamed, *offline.quorums["crates"].keys[1:]])
    (line,) = said(offline, new)
    assert line.startswith("now   crates: key ")
    assert line.endswith('("Eve", ed25519) (was ("crates 0", ed25519))')


def test_a_resigned_file_says_that_nothing_else_changes(offline):
    lines = list(words.changes(offline, offline, BEFORE, {"root": Stamp(2, 86_400)}))
    assert lines[0] == ("root 2 (was 1), expires 1970-01-02T00:00:00Z (was 1970-01-01T00:00:00Z)")
    assert lines[-1] == words.NOTHING
    assert said(offline, offline) == []


def test_names_cannot_play_with_the_terminal(offline):
    """None of these comes into a draft; in what a draft starts from it may stand."""
    for name, shown in (
        ("evil\x1b[2K\r\u202egood" + "x" * 100, '("evil\\u001b[2K\\r\\u202egoodx'),
        ("\u3164\u2800\ufe0f", '("\\u3164\\u2800\\ufe0f", ed25519)'),
        ('Ana", ed25519) (x', '("Ana\\", ed25519) (x", ed25519)'),
    ):
        key = Person(name).key
        old = with_quorum(offline, "crates", [*offline.quorums["crates"].keys, key])
        line = said(old, offline)[-1]
        assert shown in line
        assert line.startswith("goes  crates: key ")
        assert line.isascii() or "…" in line
        assert line.isprintable()


def test_who_is_missing_in_words(people):
    found = count_of(people, people.root[:2])
    lines = list(words.who(found))
    assert lines[0] == "root: 2 of 3 signatures, 1 more needed"
    assert lines[1] == f'  signed   {people.root[0].key.keyid[:8]} ("root 0", ed25519)'
    assert lines[3] == f'  missing  {people.root[2].key.keyid[:8]} ("root 2", ed25519)'
    done = list(words.who(count_of(people, people.root[:3])))
    assert done[0] == "root: 3 of 3 signatures, complete"
    assert done[4].startswith("  spare    ")


def test_a_key_without_a_name_is_its_keyid(people):
    key = people.online["bins"].signer.public_key
    assert words.person(key) == f"{words.spelled(key.keyid)} (ed25519)"


def test_a_signer_sees_the_whole_keyid_in_groups_that_can_be_read_aloud(people, offline):
    """Eight digits can be had for any key: a second key with the same eight takes a few days."""
    stamps = {"root": Stamp(1, 0), "targets": Stamp(1, 0), "crates": Stamp(2, 0)}
    first = " ".join(words.first(offline, stamps))
    changed = " ".join(whole(offline, with_quorum(offline, "root", [Person("n").key], 1)))
    for text in (first, changed):
        for key in offline.quorums["root"].keys:
            groups = [key.keyid[at : at + 8] for at in range(0, 64, 8)]
            assert " ".join(groups) in text


def test_a_key_that_changes_its_name_on_the_way_to_another_role_is_a_line(people, offline):
    """Neither role kept it: what is out is Ana's, what is in is Ben's, and both are one key."""
    key = people.root[4].key
    renamed = SSlibKey(key.keyid, key.keytype, key.scheme, key.keyval, {X_NAME: "Ben"})
    new = with_quorum(offline, "root", offline.quorums["root"].keys[:4])
    new = with_quorum(new, "crates", [*offline.quorums["crates"].keys, renamed])
    (line,) = [line for line in said(offline, new) if line.startswith("new")]
    assert line == (
        f'new   crates: key {words.spelled(key.keyid)} ("Ben", ed25519) (was ("root 4", ed25519))'
    )


def test_a_field_that_is_true_and_then_1_has_changed(offline):
    old, new = (replace(offline, extra={"root": {"x-a": value}}) for value in (True, 1))
    assert said(old, new) == ["now   root: field x-a = 1 (was true)"]


def test_the_layout_follows_from_the_bits(offline):
    assert isinstance(offline, Offline)
    assert offline.layout.count == 512
    assert build("crates", offline, Stamp(3, 0))["version"] == 3
