"""A ceremony where somebody cheats or something is cut short: old bases, foreign keys, marks."""

import json
import os
import resource
import time
from dataclasses import replace

import pytest

from tests.fakes.disk import Crash, CrashingDisk
from tests.fakes.people import (
    OUTSIDE,
    Person,
    data_of,
    draft_of,
    file_of,
    in_force,
    signed_by,
    write_in_force,
)
from tests.fakes.tuf import NOW, PATHS, Repository
from tests.unit.test_tuf_cli import draft_file, key_at, secret
from tuf_repo import ceremony, drafting, drafts, keyfiles, standing
from tuf_repo.cli import main
from tuf_repo.core.edits import Edits
from tuf_repo.core.words import person, spelled
from tuf_repo.drafts import RoleFile
from tuf_repo.errors import CeremonyError
from tuf_repo.first import begin
from tuf_repo.folder import FINISHING
from tuf_repo.keys import create_online_signers
from tuf_repo.proposal import fingerprint, read_proposal

# --- a base of long ago


@pytest.fixture
def later(people, base):
    """What is in force after the stolen bins' key was replaced, and once more."""
    first = draft_of(base, Edits(replaced={"bins": [Person("bins 2").key]}))
    now = in_force(base, signed_by(first, *people.crates[:2]))
    again = drafting.resign(now, ["targets"], **OUTSIDE)
    return in_force(now, signed_by(again, *people.targets[:2]))


@pytest.fixture
def cheating(later, base):
    """A draft from the true root and targets, and from the `crates` that named the stolen key."""
    return drafting.resign({**later, "crates": base["crates"]}, ["crates"], **OUTSIDE)


def test_a_version_that_is_merely_higher_is_refused_by_every_signer(people, base):
    draft = drafting.resign(base, ["crates"], **OUTSIDE)
    signed = {**draft.roles["crates"].signed, "version": 9}
    edited = replace(draft, roles={"crates": RoleFile(signed)})
    with pytest.raises(CeremonyError, match="crates in the draft: expected version 3, got 9"):
        read_proposal(edited)


def test_a_key_that_comes_back_from_an_old_base_is_shown(people, cheating, base):
    proposal = read_proposal(cheating)
    lines = list(proposal.words())
    stolen = people.online["bins"].signer.public_key
    assert f"        bins: key {person(stolen)}" in lines
    assert lines[2] == f"starts from crates 2, sha256 {fingerprint(base['crates'].data)}"


def test_a_folder_with_what_the_signer_keeps_tells_an_old_base(tmp_path, later, cheating):
    kept, path = tmp_path / "kept", file_of(tmp_path, cheating)
    write_in_force(kept, later)
    root = kept / f"{later['root'].signed['version']}.root.json"
    # The root alone is the true one.
    assert ceremony.look(path, root, now=NOW)
    with pytest.raises(CeremonyError, match=r"a draft from crates [0-9a-f]{16}…, got crates"):
        ceremony.look(path, kept, now=NOW)
    honest = file_of(tmp_path, drafting.resign(later, ["crates"], **OUTSIDE), "honest.json")
    assert ceremony.look(honest, kept, now=NOW)


def test_of_what_a_signer_keeps_the_newest_counts_and_none_may_lack(tmp_path, base, later):
    kept = tmp_path / "kept"
    for files in (base, later):
        write_in_force(kept, files)
    (kept / "notes.txt").touch()
    path = file_of(tmp_path, drafting.resign(later, ["root"], **OUTSIDE))
    assert ceremony.look(path, kept, now=NOW)
    old = file_of(tmp_path, drafting.resign(base, ["root"], **OUTSIDE), "old.json")
    with pytest.raises(CeremonyError, match="a draft from targets"):
        ceremony.look(old, kept, now=NOW)
    for file in kept.glob("*.crates.json"):
        file.unlink()
    with pytest.raises(CeremonyError, match=r"the newest root and .* got no N\.crates\.json"):
        ceremony.look(path, kept, now=NOW)


def test_what_was_compared_with_nothing_is_said(tmp_path, base):
    proposal = read_proposal(drafting.resign(base, ["root"], **OUTSIDE))
    alone = list(standing.to_compare(proposal, tmp_path / "1.root.json"))
    assert alone[0] == "root is the one that you keep; the others may be of long ago"
    assert alone[2:4] == [
        f"  targets 1, sha256 {fingerprint(base['targets'].data)}",
        f"  crates 2, sha256 {fingerprint(base['crates'].data)}",
    ]
    assert f"  root 1, sha256 {fingerprint(base['root'].data)}" in list(
        standing.to_compare(proposal, None)
    )
    assert list(standing.to_compare(proposal, tmp_path)) == []


def test_who_signs_with_the_root_alone_is_told_so(tmp_path, people, capsys):
    ana = key_at(tmp_path / "ana", "-q")
    half, edits = people.half(), people.edits()
    ana_key = keyfiles.read_public(tmp_path / "ana.pub")
    edits = replace(edits, added={**edits.added, "root": [*edits.added["root"], ana_key]})
    now = {"now": time.time(), "policy": OUTSIDE["policy"]}
    made = drafting.init(half, edits, **now)
    base = dict(signed_by(made, *people.root[:3], *people.crates[:2]).roles)
    draft = draft_file(tmp_path, drafting.resign(base, ["root"], **now))
    write_in_force(tmp_path / "kept", base)
    root = str(tmp_path / "kept" / "1.root.json")
    sign = ["sign", draft, "--key", str(ana), "--yes"]
    for more, is_told in ((["--root", root], True), (["--root", str(tmp_path / "kept")], False)):
        assert main([*sign, "--passphrase-fd", secret("long enough"), *more]) == 0
        assert ("the others may be of long ago" in capsys.readouterr().out) is is_told
    assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)


# --- online keys of somebody else


def first_draft(people, data, now=NOW):
    """A first draft for a machine that has made its keys."""
    signers = create_online_signers(data.keys)
    keys = {role: getattr(signers, role).public_key for role in people.online}
    half = drafting.OnlineHalf("crates", PATHS, 2, keys)
    draft = drafting.init(half, people.edits(), now=now, policy=OUTSIDE["policy"])
    return signers, signed_by(draft, *people.root[:3], *people.crates[:2])


@pytest.mark.parametrize("role", ["bins", "snapshot", "timestamp"])
def test_finish_refuses_an_online_key_that_the_signer_lacks(people, tmp_path, role):
    data = data_of(Repository(tmp_path / "data"))
    signers, draft = first_draft(people, data)
    path = file_of(tmp_path, draft)
    away = tmp_path / "token"
    os.rename(data.keys / f"{role}.pem", away)
    key = getattr(signers, role).public_key
    with pytest.raises(CeremonyError, match=f"{role} key {spelled(key.keyid)} .* reference to it"):
        ceremony.finish([path], data=data, out=data.ceremony, now=NOW)
    assert not data.ceremony.exists()
    reference = data.keys / f"{role}-token.json"
    public = keyfiles.public_fields(key)
    reference.write_text(json.dumps({"uri": f"file:{away}", "public": public}))
    reference.chmod(0o600)
    assert ceremony.finish([path], data=data, out=data.ceremony, now=NOW).unseen == ()


def test_keys_that_nobody_here_may_see_are_named_on_stderr(people, tmp_path, capsys):
    data = data_of(Repository(tmp_path / "data"))
    signers, draft = first_draft(people, data, time.time())
    path = file_of(tmp_path, draft)
    os.rename(data.keys, tmp_path / "elsewhere")
    assert main(["finish", str(path), "--data", str(data.path)]) == 0
    captured = capsys.readouterr()
    assert "root 1, sha256 " in captured.out
    for role in ("snapshot", "timestamp", "bins"):
        whole = spelled(getattr(signers, role).public_key.keyid)
        assert f"whether the signer has {role} {whole}" in captured.err


def test_an_online_key_that_is_in_force_is_not_asked_for_again(trial, people):
    data = data_of(trial)
    draft = drafting.resign(ceremony.read_base(trial.folder()), [], **OUTSIDE)
    signers = [keyfiles.load(path, None) for path in data.offline_keys.iterdir()]
    for signer in signers:
        draft = ceremony.signed(read_proposal(draft), signer)
    (data.keys / "bins.pem").unlink()
    path = file_of(trial.base, draft)
    assert ceremony.finish([path], data=data, out=data.ceremony, now=NOW).files


# --- cut short just before the end, and taken


def cut_short(path, data):
    """Finish, and be killed before the mark is gone."""
    with pytest.raises(Crash):
        ceremony.finish(
            [path],
            data=data,
            out=data.ceremony,
            now=NOW,
            disk=lambda there: CrashingDisk(there, stop_at=there_is_a_mark(path), mode="lost"),
        )
    assert (data.ceremony / FINISHING).exists()
    return {file.name: file.read_bytes() for file in data.ceremony.glob("*.json")}


def there_is_a_mark(path):
    # The mark, a sync, the files, a sync; then the mark goes.
    return 3 + len(drafts.read(path).roles)


def ends_well(path, data, files, capsys):
    next(data.ceremony.glob("*.json")).unlink()
    assert main(["finish", str(path), "--data", str(data.path)]) == 0
    assert "this very draft is in force already" in capsys.readouterr().out
    assert os.listdir(data.ceremony) == []
    again = ceremony.finish([path], data=data, out=data.ceremony, now=NOW)
    assert again.is_in_force
    assert set(again.files) == set(files)
    assert os.listdir(data.ceremony) == []


def test_a_first_finish_that_was_cut_short_and_whose_files_were_taken_ends_well(
    people, tmp_path, capsys
):
    trial = Repository(tmp_path / "data")
    data = data_of(trial)
    signers, draft = first_draft(people, data)
    path = file_of(tmp_path, draft)
    files = cut_short(path, data)
    begin(trial.storage, signers, files, {}, **trial.outside())
    # A copy with one signature more: still the same draft.
    more = file_of(tmp_path, signed_by(draft, people.root[4]), "more.json")
    other = file_of(tmp_path, signed_by(people.init(), *people.root[:3], *people.crates), "o.json")
    with pytest.raises(CeremonyError, match="no repository yet"):
        ceremony.finish([other], data=data, out=data.ceremony, now=NOW)
    assert (data.ceremony / FINISHING).exists()
    ends_well(more, data, files, capsys)


def test_a_later_finish_that_was_cut_short_and_whose_files_were_taken_ends_well(
    trial, people, capsys
):
    data, publisher = data_of(trial), trial.open()
    draft = drafting.resign(ceremony.read_base(trial.folder()), [], **OUTSIDE)
    for signer in [keyfiles.load(path, None) for path in data.offline_keys.iterdir()]:
        draft = ceremony.signed(read_proposal(draft), signer)
    path = file_of(trial.base, draft)
    files = cut_short(path, data)
    succession = publisher.succession(files, now=NOW)
    publisher.commit(publisher.stage({}, {}, now=NOW, succession=succession))
    ends_well(path, data, files, capsys)


def test_the_mark_of_another_finish_stays(trial, people):
    data, publisher = data_of(trial), trial.open()
    draft = drafting.resign(ceremony.read_base(trial.folder()), [], **OUTSIDE)
    for signer in [keyfiles.load(path, None) for path in data.offline_keys.iterdir()]:
        draft = ceremony.signed(read_proposal(draft), signer)
    path = file_of(trial.base, draft)
    files = dict(read_proposal(draft).files())
    succession = publisher.succession(files, now=NOW)
    publisher.commit(publisher.stage({}, {}, now=NOW, succession=succession))
    assert ceremony.finish([path], data=data, out=data.ceremony, now=NOW).is_in_force
    assert not data.ceremony.exists()
    data.ceremony.mkdir()
    (data.ceremony / FINISHING).write_bytes(b"of another")
    assert ceremony.finish([path], data=data, out=data.ceremony, now=NOW).is_in_force
    assert (data.ceremony / FINISHING).read_bytes() == b"of another"


# --- what somebody put among the signatures of a published file


@pytest.mark.parametrize("junk", [{"keyid": "x", "sig": "Z"}, {"keyid": "0" * 64, "sig": "00"}])
def test_a_published_file_with_a_junk_signature_can_be_moved_on_from(tmp_path, people, base, junk):
    text = json.dumps(junk).encode()
    dirty = {
        role: drafts.parse_role_file(
            role, file.data.replace(b'],"signed":', b", " + text + b'],"signed":', 1)
        )
        for role, file in base.items()
    }
    assert fingerprint(dirty["root"].data) != fingerprint(base["root"].data)
    draft = drafts.parse("d", drafts.to_bytes(drafting.resign(dirty, [], **OUTSIDE)))
    done = signed_by(draft, *people.root[:3], *people.crates[:2])
    path = file_of(tmp_path, done)
    assert ceremony.finish([path], data=None, out=tmp_path / "out", now=NOW).root_version == 2
    # In what is to be signed it is refused as ever.
    file = done.roles["root"]
    bad = done.with_signatures({"root": {junk["keyid"]: junk["sig"]}})
    assert file.signatures
    with pytest.raises(CeremonyError):
        read_proposal(drafts.parse("d", drafts.to_bytes(bad)))
