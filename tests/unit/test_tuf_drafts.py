"""The draft's file: read strictly, written whole, merged without loss."""

import copy
import json
import os
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.people import OUTSIDE, People, Person, signed_by
from tuf_repo import drafting, drafts
from tuf_repo.ceremony import signed
from tuf_repo.core.edits import Edits
from tuf_repo.core.root import as_text
from tuf_repo.drafts import DRAFT_MAX_BYTES, RoleFile
from tuf_repo.errors import CeremonyError, RepositoryError
from tuf_repo.proposal import read_proposal


@pytest.fixture(scope="module")
def people():
    return People()


@pytest.fixture(scope="module")
def draft(people):
    return people.init()


@pytest.fixture
def value(draft):
    return json.loads(drafts.to_bytes(draft))


def read_value(value):
    return drafts.parse("draft.json", json.dumps(value).encode())


# --- reading


def test_a_draft_is_read_back_as_the_same(people, draft):
    whole = signed_by(draft, people.root[1], *people.crates)
    assert drafts.parse("draft.json", drafts.to_bytes(whole)) == whole
    assert drafts.to_bytes(drafts.parse("x", drafts.to_bytes(whole))) == drafts.to_bytes(whole)


def test_files_come_out_of_a_draft_byte_for_byte(people):
    base = people.base()
    for role, file in base.items():
        assert drafts.parse_role_file(role, file.data) == file
    with pytest.raises(CeremonyError, match="the bytes that this program writes"):
        drafts.parse_role_file("root", base["root"].data + b" ")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b'"format": 1', b'"format": 1, "format": 1', "'format' twice"),
        (b'"version": 1', b'"version": 1, "version": 2', "'version' twice"),
        (b'"threshold": 3', b'"threshold": NaN', "NaN"),
        (b'"threshold": 3', b'"threshold": -Infinity', "-Infinity"),
        (b'"threshold": 3', b'"threshold": 3.0', "the fraction 3.0"),
        (b'"threshold": 3', b'"threshold": 9007199254740992', "9007199254740992"),
        (b'"threshold": 3', b'"threshold": ' + b"1" * 5000, "the number 1111"),
        (b'"format": 1', b'"format": 2', "a newer program"),
        (b'"format": 1', b'"format": 0', "format 1, got 0"),
        (b'"format": 1', b'"format": true', "format 1, got True"),
        (b'"format": 1', b'"format": "1"', "format 1, got '1'"),
        (b'"format": 1', b'"formats": 1', "a draft, got something else"),
        (b'"base": null', b'"base": null, "more": 1', "the fields base, delegation"),
        (b'"base": null', b'"base": []', "files by role"),
        (b'"base": null', b'"base": {}', "all of crates, root, targets, got none"),
        (b'"delegation": "crates"', b'"delegation": ""', "the name of the delegation"),
        (b'"delegation": "crates"', b'"delegation": 5', "the name of the delegation"),
        (b'"delegation": "crates"', b'"delegation": "a\\u0007"', "the name of the delegation"),
        (b'"delegation": "crates"', b'"delegation": "root"', "a name of its own"),
        (b'"delegation": "crates"', b'"delegation": "gems"', "all of gems, root, targets"),
        (b'"root 0"', b'"\\ud800"', "JSON, in UTF-8"),
        (b'"root 0"', b'"\\u0001"', "valid text"),
        (b'"root 0"', b'"\xff"', "JSON, in UTF-8"),
        (b"{", b"", "JSON, in UTF-8"),
        (b'"signatures": []', b'"signatures": {}', "a list `signatures`"),
        (b'"signatures": []', b'"signatures": [1]', "the fields keyid, sig, got no object"),
        (b'"signatures": []', b'"signatures": [{"keyid": "a"}]', "the fields keyid, sig"),
        (b'"signatures": []', b'"signatures": [{"keyid": 1, "sig": ""}]', "keyid and hex"),
        (b'"signatures": []', b'"signatures": [{"keyid": "", "sig": 1}]', "keyid and hex"),
        (b'"signatures": []', b'"signatures": [{"keyid": "", "sig": "xy"}]', "keyid and hex"),
        (
            b'"signatures": []',
            b'"signatures": [{"keyid": "a", "sig": ""}, {"keyid": "a", "sig": "00"}]',
            "one signature by each key",
        ),
        (b'"signed": {', b'"signed": [], "was": {', "the fields signatures, signed"),
    ],
)
def test_what_is_not_exactly_a_draft_is_refused(draft, old, new, said):
    data = drafts.to_bytes(draft)
    assert old in data
    with pytest.raises(CeremonyError) as caught:
        drafts.parse("draft.json", data.replace(old, new, 1))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("draft.json")


@pytest.mark.parametrize("data", [b"", b"[]", b"5", b"null", b'"format"', b"[" * 100_000])
def test_other_json_is_no_draft(data):
    with pytest.raises(CeremonyError, match=r"^draft.json: "):
        drafts.parse("draft.json", data)


def test_a_draft_that_is_too_large_is_not_even_read():
    with pytest.raises(CeremonyError, match="at most"):
        drafts.parse("draft.json", b" " * (DRAFT_MAX_BYTES + 1))


def test_an_empty_draft_and_foreign_roles_are_refused(people, value):
    later = json.loads(drafts.to_bytes(drafts.Draft("crates", people.base(), {})))
    for roles in ({}, {"snapshot": value["roles"]["root"]}):
        with pytest.raises(CeremonyError, match="some of crates, root, targets"):
            read_value({**later, "roles": roles})
    value["roles"]["root"] = {"signatures": [], "signed": []}
    with pytest.raises(CeremonyError, match="an object `signed`"):
        read_value(value)


def test_a_draft_of_a_hundred_thousand_names_is_read_at_once():
    names = ", ".join(f'"{number}": 1' for number in range(100_000)) + ', "7": 2'
    began = time.perf_counter()
    with pytest.raises(CeremonyError, match="'7' twice"):
        drafts.parse("draft.json", b"{" + names.encode() + b"}")
    # In the square of that it takes minutes.
    assert time.perf_counter() - began < 10


# --- merging


def test_signatures_of_copies_come_together(people, draft):
    copies = [signed_by(draft, person) for person in people.root[:3]]
    whole = drafts.merged([(f"copy {n}", copy) for n, copy in enumerate(copies)])
    assert len(whole.roles["root"].signatures) == 3
    again = drafts.merged([("a", copies[2]), ("b", copies[0]), ("c", copies[1]), ("d", whole)])
    assert drafts.to_bytes(again) == drafts.to_bytes(whole)


def test_a_second_signature_by_one_key_changes_nothing(people, draft):
    """An ECDSA signature is another one each time; the first stays."""
    person = next(each for each in people.root if each.key.keytype == "ecdsa")
    first, second = signed_by(draft, person), signed_by(draft, person)
    assert first != second
    assert drafts.merged([("a", first), ("b", second)]) == first


def test_another_draft_is_not_merged(people, draft):
    other = people.init(bits=10)
    with pytest.raises(CeremonyError, match=r"b: expected another copy of a, got a different"):
        drafts.merged([("a", draft), ("b", other)])


# --- the disk


def test_a_draft_takes_no_other_files_place(tmp_path, draft):
    path = tmp_path / "draft.json"
    drafts.write_new(path, draft)
    before = path.read_bytes()
    with pytest.raises(CeremonyError, match="a free name"):
        drafts.write_new(path, draft)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["draft.json"]


def test_a_refused_change_leaves_the_file_as_it_was(tmp_path, draft):
    path = tmp_path / "draft.json"
    drafts.write_new(path, draft)
    before = path.read_bytes()

    def refuse(_draft):
        raise CeremonyError("draft", "this", "that")

    with pytest.raises(CeremonyError, match="this"):
        drafts.update(path, refuse)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["draft.json"]


def test_a_disk_that_cannot_be_written_leaves_nothing(tmp_path, draft):
    with pytest.raises(FileNotFoundError):
        drafts.write_new(tmp_path / "missing" / "draft.json", draft)
    assert os.listdir(tmp_path) == []


def test_many_signers_at_once_on_one_file_lose_nothing(tmp_path, draft):
    path = tmp_path / "draft.json"
    drafts.write_new(path, draft)
    people = [Person(str(number)) for number in range(12)]
    together = threading.Barrier(len(people))

    def sign(person):
        together.wait()
        key, text = person.key.keyid, person.signer.sign(b"x").signature
        drafts.update(path, lambda there: there.with_signatures({"root": {key: text}}))

    threads = [threading.Thread(target=sign, args=(person,)) for person in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = drafts.read(path).roles["root"].signatures
    assert set(found) == {person.key.keyid for person in people}
    assert os.listdir(tmp_path) == ["draft.json"]


def test_a_signed_draft_keeps_its_mode_and_its_owner(tmp_path, people, draft):
    """In a folder that people share, the second signer must still be able to write it."""
    path = tmp_path / "draft.json"
    drafts.write_new(path, draft)
    path.chmod(0o664)
    if os.geteuid() == 0:
        os.chown(path, 12345, 12346)
    before = path.stat()
    signed_one = signed_by(draft, people.root[0])
    drafts.update(path, lambda _there: signed_one)
    after = path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )
    assert drafts.read(path) == signed_one


def test_a_signature_goes_into_the_file_that_a_link_leads_to(tmp_path, people, draft):
    shared, mine = tmp_path / "shared.json", tmp_path / "mine.json"
    drafts.write_new(shared, draft)
    mine.symlink_to("shared.json")
    drafts.update(mine, lambda there: signed_by(there, people.root[0]))
    assert mine.is_symlink()
    assert drafts.read(shared).roles["root"].signatures


def test_a_draft_that_could_not_be_made_leaves_its_name_free(tmp_path, draft):
    path = tmp_path / "draft.json"
    with pytest.raises(KeyboardInterrupt), drafts.new_file(path):
        assert path.exists()
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_a_copy_with_true_for_1_is_another_draft(draft, value):
    one, other = (copy.deepcopy(value) for _ in range(2))
    one["roles"]["root"]["signed"]["x-a"], other["roles"]["root"]["signed"]["x-a"] = 1, True
    with pytest.raises(CeremonyError, match="a different draft"):
        drafts.merged([("a", read_value(one)), ("b", read_value(other))])


def test_a_role_file_knows_its_bytes(people, draft):
    file = signed(read_proposal(draft), people.root[1].signer).roles["root"]
    assert file.data.startswith(b'{"signatures":[{"keyid": ')
    assert json.loads(file.data)["signed"] == file.signed
    assert RoleFile(file.signed).payload == file.payload


# --- any draft at all

ODD = st.sampled_from(
    [None, True, -1, 0, 1, 2**53 - 1, "", "x", "root", "\x1b", [], [[]], {}, {"x": 1}, ["a", "a"]]
)


@pytest.fixture(scope="module")
def later(people):
    """A signed change, as its file has it."""
    new = Person("new")
    edits = Edits({"root": [new.key]}, bits=10)
    draft = drafting.draft(people.base(), edits, None, **OUTSIDE)
    return json.loads(drafts.to_bytes(signed_by(draft, *people.root[:2], *people.crates)))


def places(value, path=()):
    """Every place in a JSON value."""
    yield path
    if isinstance(value, dict | list):
        keys = value if isinstance(value, dict) else range(len(value))
        for key in keys:
            yield from places(value[key], (*path, key))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_draft_changed_anywhere_is_refused_in_words_or_the_same(later, data):
    value = copy.deepcopy(later)
    *way, last = data.draw(st.sampled_from([place for place in places(value) if place]))
    holder = value
    for step in way:
        holder = holder[step]
    if data.draw(st.booleans()):
        holder[last] = data.draw(ODD)
    else:
        del holder[last]
    try:
        found = read_proposal(read_value(value))
    except RepositoryError:
        return
    # What still passes is less of the same: a signature fewer, never another content.
    assert {role: as_text(file.signed) for role, file in found.draft.roles.items()} == {
        role: as_text(file["signed"])
        for role, file in later["roles"].items()
        if role in found.draft.roles
    }
    assert list(found.words())
