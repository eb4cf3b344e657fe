"""The ceremony, step by step, with files and keys but without a terminal."""

import copy
import itertools
import os
from dataclasses import replace

import pytest
from tuf.api.metadata import Metadata

from tests.fakes.people import (
    OUTSIDE,
    People,
    Person,
    data_of,
    draft_of,
    file_of,
    in_force,
    signed_by,
    write_in_force,
)
from tests.fakes.tuf import NOW, Repository, target
from tuf_repo import ceremony, drafting, drafts
from tuf_repo.core.edits import Edits
from tuf_repo.core.roles import Policy
from tuf_repo.drafts import Draft, RoleFile
from tuf_repo.errors import CeremonyError, KeyFileError, MetadataError
from tuf_repo.folder import DataFolder
from tuf_repo.online import OnlineKeys
from tuf_repo.proposal import fingerprint, propose, read_proposal, refuse_expired


def complete(people, base, edits):
    """A change of the bins, signed by enough."""
    return signed_by(draft_of(base, edits), *people.crates[:2])


# --- what a signer's machine refuses


def edit(draft, role, change):
    """A draft as somebody edits it by hand."""
    file = draft.roles[role]
    signed = copy.deepcopy(file.signed)
    change(signed)
    return replace(draft, roles={**draft.roles, role: RoleFile(signed, file.signatures)})


def test_a_draft_that_was_edited_after_a_signature_is_refused(people, base):
    draft = signed_by(people.init(), people.root[0])
    edited = edit(draft, "root", lambda part: part.update(expires="2099-01-01T00:00:00Z"))
    with pytest.raises(CeremonyError, match="changed after it; start from an untouched copy"):
        read_proposal(edited)


def test_a_draft_whose_versions_do_not_go_on_is_refused(people, base):
    draft = draft_of(base, Edits(thresholds={"root": 4, "crates": 3}))
    for role, version in (("root", 1), ("root", 3), ("targets", 2), ("crates", 2), ("crates", 3)):
        with pytest.raises(CeremonyError, match="version"):
            read_proposal(edit(draft, role, lambda part, v=version: part.update(version=v)))


def test_a_base_that_its_own_quorums_did_not_sign_is_refused(people, base):
    for role in base:
        unsigned = {**base, role: RoleFile(base[role].signed)}
        draft = Draft("crates", unsigned, drafting.resign(base, ["root"], **OUTSIDE).roles)
        with pytest.raises(MetadataError, match=rf"base: \d\.{role}\.json"):
            read_proposal(draft)


def test_a_draft_that_breaks_a_rule_is_refused_by_every_signer(people, base):
    draft = people.init()

    def lower(part):
        part["roles"]["root"]["threshold"] = 9

    with pytest.raises(CeremonyError, match="threshold"):
        read_proposal(edit(draft, "root", lower))


def test_a_draft_is_signed_before_it_expires_only(people):
    proposal = read_proposal(people.init())
    ends = proposal.after["root"].expires
    refuse_expired(proposal, ends - 1)
    with pytest.raises(CeremonyError, match="make a new draft, or set this clock"):
        refuse_expired(proposal, ends)


def test_a_signer_who_keeps_the_root_sees_a_foreign_base(people, base, tmp_path):
    path = file_of(tmp_path, draft_of(base, Edits(thresholds={"root": 4})))
    stranger = tmp_path / "root.json"
    stranger.write_bytes(base["root"].data)
    assert ceremony.look(path, stranger, now=NOW)
    stranger.write_bytes(People().base()["root"].data)
    with pytest.raises(CeremonyError, match="a draft from root"):
        ceremony.look(path, stranger, now=NOW)
    first = file_of(tmp_path, people.init(), "first.json")
    with pytest.raises(CeremonyError, match="got a new repository"):
        ceremony.look(first, stranger, now=NOW)


def test_what_a_draft_says_it_starts_from_is_shown(people, base):
    lines = list(read_proposal(draft_of(base, Edits(thresholds={"root": 4}))).words())
    assert lines[:3] == [
        f"starts from {role} {version}, sha256 {fingerprint(base[role].data)}"
        for role, version in (("root", 1), ("targets", 1), ("crates", 2))
    ]
    assert lines[4] == "  now   root: 4 of 5 must sign (was 3 of 5)"


# --- signing


def test_a_key_signs_every_file_that_asks_for_it(people, tmp_path):
    path = file_of(tmp_path, people.init())
    seen = ceremony.look(path, None, now=NOW)
    after = ceremony.add_signatures(path, seen, people.root[0].signer)
    key = people.root[0].key.keyid
    assert [role for role, file in after.roles.items() if key in file.signatures] == [
        "root",
        "targets",
    ]
    assert drafts.read(path) == after
    before = path.read_bytes()
    ceremony.add_signatures(path, ceremony.look(path, None, now=NOW), people.root[0].signer)
    assert path.read_bytes() == before


def test_a_key_that_counts_for_nothing_signs_nothing(people, tmp_path):
    path = file_of(tmp_path, people.init())
    seen = ceremony.look(path, None, now=NOW)
    before = path.read_bytes()
    for stranger in (Person("stranger"), people.online["bins"]):
        with pytest.raises(CeremonyError, match="one that counts for none"):
            ceremony.add_signatures(path, seen, stranger.signer)
    assert path.read_bytes() == before


def test_what_was_signed_is_what_was_shown(people, tmp_path):
    path = file_of(tmp_path, people.init())
    seen = ceremony.look(path, None, now=NOW)
    path.write_bytes(drafts.to_bytes(people.init(bits=10)))
    before = path.read_bytes()
    with pytest.raises(CeremonyError, match="a different draft"):
        ceremony.add_signatures(path, seen, people.root[0].signer)
    assert path.read_bytes() == before


class BrokenSigner:
    """A token that answers with something else."""

    def __init__(self, signer):
        self.public_key = signer.public_key
        self._signer = signer

    def sign(self, payload):
        return self._signer.sign(payload + b" ")


def test_a_token_that_signs_wrongly_is_found_out(people, tmp_path):
    path = file_of(tmp_path, people.init())
    seen = ceremony.look(path, None, now=NOW)
    with pytest.raises(KeyFileError, match="signatures that verify"):
        ceremony.add_signatures(path, seen, BrokenSigner(people.root[0].signer))


def test_copies_are_merged_into_one(people, tmp_path):
    draft = people.init()
    paths = [
        file_of(tmp_path, signed_by(draft, person), f"{n}.json")
        for n, person in enumerate(people.root[:3])
    ]
    assert [c.lacks for c in ceremony.status(paths).counts()] == [0, 0, 2]
    assert [c.lacks for c in ceremony.status(paths[:1]).counts()] == [2, 1, 2]
    ceremony.merge(paths[0], paths[1:])
    assert [c.lacks for c in ceremony.status(paths[:1]).counts()] == [0, 0, 2]
    other = file_of(tmp_path, people.init(bits=10), "other.json")
    before = paths[0].read_bytes()
    with pytest.raises(CeremonyError, match="a different draft"):
        ceremony.merge(paths[0], [other])
    assert paths[0].read_bytes() == before


def test_a_bad_signature_is_merged_into_nothing(people, tmp_path):
    draft = people.init()
    path = file_of(tmp_path, draft)
    signed = signed_by(draft, people.root[0])
    text = next(iter(signed.roles["root"].signatures.values()))
    forged = draft.with_signatures({"root": {people.root[1].key.keyid: text}})
    copy_of = file_of(tmp_path, forged, "copy.json")
    before = path.read_bytes()
    with pytest.raises(CeremonyError, match="does not fit"):
        ceremony.merge(path, [copy_of])
    assert path.read_bytes() == before


def test_of_several_copies_the_bad_one_is_named(people, tmp_path):
    draft = people.init()
    good = file_of(tmp_path, signed_by(draft, people.root[0]), "good.json")
    text = next(iter(drafts.read(good).roles["root"].signatures.values()))
    forged = draft.with_signatures({"root": {people.root[1].key.keyid: text}})
    bad = file_of(tmp_path, forged, "bad.json")
    for copies in ([good, bad], [bad, good]):
        with pytest.raises(CeremonyError, match=r"bad\.json: root in the draft: .* does not fit"):
            ceremony.status(copies)


# --- finishing


def test_finish_refuses_short_of_any_threshold(people, tmp_path):
    out = tmp_path / "out"
    draft = people.init()
    steps = [people.root[0], people.root[3], people.crates[0]]
    for person in steps:
        draft = signed_by(draft, person)
        path = file_of(tmp_path, draft, f"{person.name}.json")
        with pytest.raises(CeremonyError, match=r"signatures by its keys, got [0-2]; ask for more"):
            ceremony.finish([path], data=None, out=out, now=NOW)
    assert not out.exists()


def test_finish_takes_the_signatures_of_all_copies(people, tmp_path):
    draft = people.init()
    signers = [*people.root[:3], *people.crates[:2]]
    paths = [file_of(tmp_path, signed_by(draft, each), f"{each.name}.json") for each in signers]
    out = tmp_path / "out"
    done = ceremony.finish(paths, data=None, out=out, now=NOW)
    assert done.files == ("2.crates.json", "1.targets.json", "1.root.json")
    root = Metadata.from_bytes((out / "1.root.json").read_bytes())
    root.verify_delegate("root", root)
    targets = Metadata.from_bytes((out / "1.targets.json").read_bytes())
    root.verify_delegate("targets", targets)
    targets.verify_delegate("crates", Metadata.from_bytes((out / "2.crates.json").read_bytes()))
    assert ceremony.finish(paths, data=None, out=out, now=NOW) == done


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_as_root_the_signers_user_is_given_the_files(people, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    os.chown(data, 12345, 12345)
    path = file_of(tmp_path, signed_by(people.init(), *people.root[:3], *people.crates[:2]))
    ceremony.finish([path], data=None, out=data / "ceremony", now=NOW)
    for each in (data / "ceremony", *(data / "ceremony").iterdir()):
        assert (each.stat().st_uid, each.stat().st_gid) == (12345, 12345)


def test_finish_refuses_what_has_expired(people, tmp_path):
    path = file_of(tmp_path, signed_by(people.init(), *people.root[:3], *people.crates[:2]))
    with pytest.raises(CeremonyError, match="expired"):
        ceremony.finish([path], data=None, out=tmp_path / "out", now=NOW + 181 * 86_400)


def test_a_change_is_finished_with_the_base_that_is_in_force(people, base, tmp_path):
    path = file_of(tmp_path, complete(people, base, Edits(replaced={"bins": [Person("n").key]})))
    done = ceremony.finish([path], data=None, out=tmp_path / "out", now=NOW)
    assert done.files == ("3.crates.json",)
    assert (done.root_version, done.root_sha256) == (1, fingerprint(base["root"].data))


def test_finish_does_not_mix_two_ceremonies(people, base, tmp_path):
    out = tmp_path / "out"
    first = file_of(tmp_path, complete(people, base, Edits(bits=10)))
    other = file_of(tmp_path, complete(people, base, Edits(bits=11)), "other.json")
    ceremony.finish([first], data=None, out=out, now=NOW)
    with pytest.raises(CeremonyError, match="which the signer has not taken"):
        ceremony.finish([other], data=None, out=out, now=NOW)
    assert os.listdir(out) == ["3.crates.json"]


def test_finish_refuses_a_draft_of_another_or_an_older_repository(people, base, trial):
    data = data_of(trial)
    path = file_of(trial.base, complete(people, base, Edits(bits=10)))
    with pytest.raises(CeremonyError, match="another repository or is outdated"):
        ceremony.finish([path], data=data, out=data.ceremony, now=NOW)
    first = file_of(
        trial.base, signed_by(people.init(), *people.root[:3], *people.crates[:2]), "1.json"
    )
    with pytest.raises(CeremonyError, match="no repository yet"):
        ceremony.finish([first], data=data, out=data.ceremony, now=NOW)
    assert not data.ceremony.exists()


def test_a_first_ceremony_finishes_in_an_empty_folder(people, tmp_path):
    data = DataFolder(tmp_path)
    path = file_of(tmp_path, signed_by(people.init(), *people.root[:3], *people.crates[:2]))
    ceremony.finish([path], data=data, out=data.ceremony, now=NOW)
    assert len(os.listdir(data.ceremony)) == 3


def test_each_later_ceremony_builds_on_the_one_before(people, base):
    """Root after root, from any of which a client walks on to the newest."""
    now, quorum, chain = base, people.root[:], [base["root"].data]
    for step in range(4):
        new = Person(f"step {step}", ("ecdsa", "ed25519")[step % 2])
        leaver = quorum.pop(0)
        edits = Edits({"root": [new.key]}, {"root": [leaver.key.keyid]})
        draft = signed_by(draft_of(now, edits), leaver, *quorum[:2], new)
        quorum.append(new)
        assert not any(count.lacks for count in read_proposal(draft).counts())
        now = in_force(now, draft)
        chain.append(now["root"].data)
    roots = [Metadata.from_bytes(data) for data in chain]
    for before, after in itertools.pairwise(roots):
        before.verify_delegate("root", after)
        after.verify_delegate("root", after)
        assert after.signed.version == before.signed.version + 1


def test_what_is_in_force_is_read_from_the_published_metadata(trial):
    found = ceremony.read_base(trial.folder())
    assert {role: file.signed["version"] for role, file in found.items()} == {
        "root": 1,
        "targets": 1,
        "crates": 2,
    }
    trial.publish(trial.open(), {"index/a/b": target()})
    assert ceremony.read_base(trial.folder()) == found


def test_a_root_without_its_publication_waits_for_the_signer(people, trial):
    data = data_of(trial)
    draft = drafting.adopt(data, people.edits(), **OUTSIDE)
    done = signed_by(draft, *people.root[:3], *people.crates[:2])
    write_in_force(data.metadata, {"root": done.roles["root"]})
    with pytest.raises(CeremonyError, match="start the signer, which finishes it"):
        ceremony.read_base(trial.folder())


def test_a_proposal_is_made_and_examined_by_the_same_rules(people, base):
    proposal = propose(base, ceremony.offline_of(base), ["root"], NOW, Policy())
    assert read_proposal(proposal.draft) == proposal


def test_a_finished_succession_has_its_online_keys_at_hand(people, trial):
    data = data_of(trial)
    drafting.adopt(data, people.edits(), **OUTSIDE)
    signers = OnlineKeys.load(data.keys).signers_for(Repository(trial.base).open()._trust)
    assert signers.bins
