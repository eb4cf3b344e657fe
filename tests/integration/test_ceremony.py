"""A ceremony of five people, three of whom must sign: real processes, five separate homes.

Nobody has anything but the draft and their own key; drafts travel as copies of a file.
"""

import os
import re
import shutil

import pytest
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata

from tests.support.ceremony import Member, online_file, run

NAMES = (("ana", "ed25519"), ("ben", "ecdsa"), ("cleo", "ed25519"), ("dan", "ecdsa"))


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    """The five, and the folder of the one who drafts."""
    base = tmp_path_factory.mktemp("ceremony")
    members = [Member(base, name, kind) for name, kind in (*NAMES, ("eli", "ed25519"))]
    return base, members


@pytest.fixture
def drafted(five, tmp_path):
    """A first draft; root by all, targets by three, crates by the other two and one of a token."""
    _, members = five
    ana, ben, cleo, dan, eli = members
    office = tmp_path / "office"
    office.mkdir()
    online_file(office / "online.json", office)
    third = Member(tmp_path, "third")
    keys = [f"root={member.public}" for member in members]
    keys += [f"targets={member.public}" for member in (ana, ben, cleo)]
    keys += [f"crates={member.public}" for member in (dan, eli, third)]
    run(
        office,
        *("init", "--online", "online.json", "--out", "draft.json"),
        *(word for key in keys for word in ("--key", key)),
    )
    return office / "draft.json"


def verified(folder, root="1.root.json"):
    """Verify a ceremony's files with stock python-tuf; return their versions."""
    trusted = Metadata.from_bytes((folder / root).read_bytes())
    trusted.verify_delegate("root", trusted)
    (targets_file,) = folder.glob("*.targets.json")
    (crates_file,) = folder.glob("*.crates.json")
    targets = Metadata.from_bytes(targets_file.read_bytes())
    trusted.verify_delegate("targets", targets)
    crates = Metadata.from_bytes(crates_file.read_bytes())
    targets.verify_delegate("crates", crates)
    return trusted.signed.version, targets.signed.version, crates.signed.version


def test_three_of_five_sign_copies_and_the_result_verifies(five, drafted, tmp_path):
    _, members = five
    ana, ben, cleo, dan, eli = members
    data = tmp_path / "data"
    copies = {member.name: member.receive(drafted) for member in members}

    # Each sees in plain words what it is about.
    said = ana.sign("draft.json")
    assert "root: 3 of 5 must sign" in said
    assert re.search(r'root: key ([0-9a-f]{8} ){8}\("ben", ecdsa\)', said)
    assert "signed root 1 and targets 1 with key " + ana.keyid[:8] in said

    # Two at once, each on a copy of their own.
    together = [(member, member.start_signing("draft.json")) for member in (ben, dan)]
    for member, process in together:
        member.end(process)

    # Two of three for root, and the third is missing by name.
    paths = [copies[name] for name in ("ana", "ben", "dan")]
    said = run(tmp_path, "finish", *paths, "--data", data, code=1)
    assert "crates in the draft: expected 2 signatures by its keys, got 1" in said
    assert not data.exists()
    said = run(tmp_path, "status", copies["ana"], copies["ben"])
    assert "root: 2 of 3 signatures, 1 more needed" in said
    assert f'missing  {cleo.keyid[:8]} ("cleo", ed25519)' in said

    # Eli gets Dan's copy, and so there is one chain less to merge.
    eli.sign(dan.home / "draft.json")
    run(tmp_path, "merge", copies["ana"], copies["ben"], copies["dan"])
    said = run(tmp_path, "finish", copies["ana"], "--data", data)
    folder = data / "ceremony"
    assert sorted(os.listdir(folder)) == ["1.root.json", "1.targets.json", "2.crates.json"]
    assert verified(folder) == (1, 1, 2)
    assert re.search(r"root 1, sha256 [0-9a-f]{64}", said)


def test_two_at_once_on_one_file_lose_nothing(five, drafted, tmp_path):
    _, members = five
    signing = [(member, member.start_signing(drafted)) for member in members]
    for member, process in signing:
        member.end(process)
    said = run(tmp_path, "status", drafted)
    assert "root: 5 of 3 signatures, complete" in said
    assert "crates: 2 of 2 signatures, complete" in said
    run(tmp_path, "finish", drafted, "--out", "signed")
    assert verified(tmp_path / "signed") == (1, 1, 2)
    assert [name for name in os.listdir(drafted.parent) if name.endswith(".tmp")] == []


def test_one_signature_short_is_not_enough_for_anybody(five, drafted, tmp_path):
    _, (ana, ben, _cleo, dan, eli) = five
    for member in (ana, ben):
        member.sign(drafted)
    crates_only = tmp_path / "other.json"
    shutil.copy(drafted, crates_only)
    said = run(tmp_path, "finish", drafted, "--out", "signed", code=1)
    assert said.startswith("tuf-repo: root in the draft: expected 3 signatures by its keys, got 2")
    assert not (tmp_path / "signed").exists()
    for member in (dan, eli):
        member.sign(crates_only)
    run(tmp_path, "finish", drafted, crates_only, "--out", "signed")
    assert verified(tmp_path / "signed") == (1, 1, 2)
    root = Metadata.from_bytes((tmp_path / "signed" / "1.root.json").read_bytes())
    root.signatures.popitem()
    root.signatures.popitem()
    with pytest.raises(UnsignedMetadataError):
        root.verify_delegate("root", root)


def test_a_wrong_passphrase_key_or_draft_is_one_clear_line(five, drafted, tmp_path):
    _, (ana, ben, *_rest) = five
    before = drafted.read_bytes()
    arguments = ("sign", drafted, "--key", ana.home / "ana", "--passphrase-fd", "0", "--yes")
    said = run(tmp_path, *arguments, passphrase="a guess at it", code=5)
    assert "expected the passphrase of this key, got another one" in said
    stranger = Member(tmp_path, "stranger")
    assert "one that counts for none" in stranger.sign(drafted, code=1)
    said = ben.sign(drafted, "--root", ana.public, code=1)
    assert "expected a draft from root" in said
    assert drafted.read_bytes() == before


def test_a_draft_that_was_edited_by_hand_is_refused(five, drafted, tmp_path):
    _, (ana, ben, *_rest) = five
    ben.sign(drafted)
    edited = drafted.read_bytes().replace(b'"threshold": 3', b'"threshold": 1')
    drafted.write_bytes(edited)
    for said in (
        ana.sign(drafted, code=1),
        run(tmp_path, "status", drafted, code=1),
        run(tmp_path, "finish", drafted, "--out", "signed", code=1),
    ):
        assert f"the signature by {ben.keyid[:8]} does not fit" in said
        assert "start from an untouched copy" in said
    assert drafted.read_bytes() == edited
