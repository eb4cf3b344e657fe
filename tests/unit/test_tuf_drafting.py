"""Drafting: who wants what changed, and the draft that comes of it."""

import json
import os
from dataclasses import replace

import pytest

from tests.fakes.people import (
    OUTSIDE,
    People,
    Person,
    data_of,
    draft_of,
    file_of,
    signed_by,
)
from tests.fakes.tuf import NOW, PATHS, Repository
from tuf_repo import ceremony, drafting
from tuf_repo.core.edits import Edits
from tuf_repo.core.roles import Policy
from tuf_repo.errors import CeremonyError, EditError
from tuf_repo.folder import DataFolder
from tuf_repo.proposal import fingerprint, read_proposal
from tuf_repo.storage import MetadataFolder

# --- drafting


def test_the_first_draft_has_the_default_thresholds(people):
    proposal = read_proposal(people.init())
    assert {role: q.threshold for role, q in proposal.new.quorums.items()} == {
        "root": 3,
        "targets": 2,
        "crates": 2,
        "snapshot": 1,
        "timestamp": 1,
        "bins": 1,
    }
    assert set(proposal.draft.roles) == {"root", "targets", "crates"}
    assert next(proposal.words()).startswith("a new repository")


def test_any_m_of_n_can_be_asked_for(people):
    proposal = read_proposal(people.init(thresholds={"root": 5, "targets": 1, "crates": 3}))
    counts = {count.role: count.threshold for count in proposal.counts()}
    assert counts == {"root": 5, "targets": 1, "crates": 3}


def test_a_first_draft_needs_keys_for_every_role(people):
    with pytest.raises(EditError, match=r"--key root=FILE\.pub"):
        drafting.init(people.half(), Edits(), **OUTSIDE)
    with pytest.raises(EditError, match="threshold from 1 to 1"):
        drafting.init(people.half(), people.edits(added={"root": [people.root[0].key]}), **OUTSIDE)
    with pytest.raises(EditError, match="keys to add only"):
        drafting.init(people.half(), people.edits(dropped={"root": ["1"]}), **OUTSIDE)


def test_a_key_of_the_signing_machine_signs_no_offline_role(people):
    added = {**people.edits().added, "root": [people.online["bins"].key] * 1}
    with pytest.raises(EditError, match=r"bins: expected keys that root does not have"):
        drafting.init(
            replace(people.half(), keys={r: p.key for r, p in people.online.items()}),
            Edits(added, thresholds={"root": 1}),
            **OUTSIDE,
        )


def test_a_change_starts_from_what_is_in_force(people, base):
    new = Person("new")
    draft = draft_of(base, Edits({"root": [new.key]}, {"root": [people.root[4].key.keyid[:8]]}))
    assert draft.base == base
    assert set(draft.roles) == {"root"}
    assert draft.roles["root"].signed["version"] == 2


def test_the_old_quorum_and_the_new_one_sign_a_root(people, base):
    new = [Person(f"new {n}") for n in range(5)]
    edits = Edits(replaced={"root": [each.key for each in new]})
    draft = signed_by(draft_of(base, edits), *new[:3])
    assert [(c.whose, c.lacks) for c in read_proposal(draft).counts()] == [("old", 3), ("new", 0)]
    draft = signed_by(draft, *people.root[2:5])
    assert not any(count.lacks for count in read_proposal(draft).counts())


def test_a_role_that_the_new_quorum_has_not_signed_comes_in_by_itself(people, base):
    new = [Person(f"new {n}") for n in range(3)]
    draft = draft_of(base, Edits(replaced={"targets": [each.key for each in new]}))
    assert {r: f.signed["version"] for r, f in draft.roles.items()} == {"root": 2, "targets": 3}
    draft = draft_of(base, Edits(replaced={"crates": [each.key for each in new]}))
    assert {r: f.signed["version"] for r, f in draft.roles.items()} == {"targets": 3, "crates": 4}
    # Two of three have signed, and are still enough.
    draft = draft_of(base, Edits(dropped={"crates": [people.crates[2].key.keyid]}))
    assert set(draft.roles) == {"targets"}
    draft = draft_of(base, Edits(thresholds={"crates": 3}))
    assert set(draft.roles) == {"targets", "crates"}


def test_a_draft_without_that_role_is_not_signed_by_anybody(people, base):
    draft = draft_of(base, Edits(thresholds={"crates": 3}))
    cut = replace(draft, roles={"targets": draft.roles["targets"]})
    with pytest.raises(CeremonyError, match="crates in it, as its keys or threshold change"):
        read_proposal(cut)


def test_a_stolen_bins_key_is_replaced_through_crates_alone(people, base):
    draft = draft_of(base, Edits(replaced={"bins": [Person("new").key]}))
    assert set(draft.roles) == {"crates"}


def test_new_online_keys_of_another_machine_come_in_by_their_file(people, base):
    other = People().half()
    draft = draft_of(base, Edits(), other)
    assert set(draft.roles) == {"root", "crates"}
    new = read_proposal(draft).new
    assert {r: new.quorums[r].ids() for r in other.keys} == {
        role: [key.keyid] for role, key in other.keys.items()
    }
    with pytest.raises(CeremonyError, match="--online"):
        draft_of(base, Edits(), People().half(delegation="gems"))


def test_a_draft_of_nothing_is_none(base):
    with pytest.raises(EditError, match="tuf-repo resign"):
        draft_of(base, Edits())


def test_resigning_changes_versions_and_expiry_only(people, base):
    later = NOW + 90 * 86_400
    draft = drafting.resign(base, [], now=later, policy=Policy())
    assert [f.signed["version"] for f in draft.roles.values()] == [2, 3, 4]
    proposal = read_proposal(draft)
    assert proposal.old == proposal.new
    assert proposal.after["root"].expires == later + Policy().root_seconds
    assert set(drafting.resign(base, ["targets"], **OUTSIDE).roles) == {"targets"}
    with pytest.raises(EditError, match="role bins"):
        drafting.resign(base, ["bins"], **OUTSIDE)


def test_rotating_a_persons_key_says_both_keys(people, base):
    old, new = people.crates[0].key, Person("new").key
    edits = Edits({"crates": [new]}, {"crates": [old.keyid[:8]]})
    draft = drafting.rotate(base, ["crates"], edits, None, **OUTSIDE)
    assert old.keyid not in read_proposal(draft).new.quorums["crates"].ids()
    for part in (Edits(edits.added), Edits(dropped=edits.dropped)):
        with pytest.raises(EditError, match="the old and the new"):
            drafting.rotate(base, ["crates"], part, None, **OUTSIDE)


def test_rotating_online_keys_makes_them_beside_the_old(trial):
    data = data_of(trial)
    base = ceremony.read_base(MetadataFolder(data.metadata))
    draft = drafting.rotate(base, ["snapshot", "bins"], Edits(), data.keys, **OUTSIDE)
    proposal = read_proposal(draft)
    for role in ("snapshot", "bins"):
        (new,) = proposal.new.quorums[role].ids()
        assert new not in proposal.old.quorums[role].ids()
        assert (data.keys / f"{role}-{new[:8]}.pem").stat().st_mode & 0o777 == 0o600
        assert (data.keys / f"{role}.pem").exists()
    assert proposal.new.quorums["timestamp"] == proposal.old.quorums["timestamp"]


def test_an_online_key_elsewhere_is_rotated_by_its_public_half(base):
    new = Person("a token").key
    draft = drafting.rotate(base, ["bins"], Edits({"bins": [new]}), None, **OUTSIDE)
    assert read_proposal(draft).new.quorums["bins"].ids() == [new.keyid]
    with pytest.raises(EditError, match="--data DIR, to make a key in"):
        drafting.rotate(base, ["bins"], Edits(), None, **OUTSIDE)


def test_no_key_is_made_for_a_draft_that_breaks_a_rule(trial):
    data = data_of(trial)
    base = ceremony.read_base(MetadataFolder(data.metadata))
    before = sorted(os.listdir(data.keys))
    with pytest.raises(EditError, match="old ones for timestamp"):
        drafting.rotate(base, ["snapshot"], Edits(bits=13), data.keys, **OUTSIDE)
    assert sorted(os.listdir(data.keys)) == before
    draft = drafting.rotate(base, ["snapshot", "timestamp"], Edits(bits=13), data.keys, **OUTSIDE)
    assert read_proposal(draft).new.bits == 13


# --- from a trial to people


def test_adopting_replaces_every_key_and_is_signed_by_the_trial(people, trial):
    data = data_of(trial)
    draft = drafting.adopt(data, people.edits(), **OUTSIDE)
    proposal = read_proposal(draft)
    olds = {key.keyid for q in proposal.old.quorums.values() for key in q.keys}
    news = {key.keyid for q in proposal.new.quorums.values() for key in q.keys}
    assert not olds & news
    assert (dict(proposal.old.extra["root"]), proposal.new.extra["root"]) == ({"x-trial": True}, {})
    assert [(c.role, c.whose, c.lacks) for c in proposal.counts()] == [
        ("root", "old", 0),
        ("root", "new", 3),
        ("targets", "", 2),
        ("crates", "", 2),
    ]
    path = file_of(trial.base, signed_by(draft, *people.root[1:4], *people.crates[1:]))
    done = ceremony.finish([path], data=data, out=data.ceremony, now=NOW)
    assert done.files == ("4.crates.json", "3.targets.json", "2.root.json")
    assert done.root_sha256 == fingerprint((data.ceremony / "2.root.json").read_bytes())


def test_a_trials_own_key_stays_in_no_quorum(people, trial):
    data = data_of(trial)
    trial = Repository(trial.base).open()._trust.root
    key = trial.get_key(trial.roles["targets"].keyids[0])
    edits = people.edits(added={**people.edits().added, "root": [key]}, thresholds={"root": 1})
    before = sorted(os.listdir(data.keys))
    with pytest.raises(EditError, match="keys that the trial did not have"):
        drafting.adopt(data, edits, **OUTSIDE)
    assert sorted(os.listdir(data.keys)) == before


def test_only_a_trial_can_be_adopted(people, trial, tmp_path):
    with pytest.raises(EditError, match="keys to add only"):
        drafting.adopt(data_of(trial), Edits(dropped={"root": ["a"]}), **OUTSIDE)
    (trial.base / "offline-keys" / "root.pem").unlink()
    with pytest.raises(CeremonyError, match="a trial, its root key in"):
        drafting.adopt(data_of(trial), people.edits(), **OUTSIDE)
    with pytest.raises(CeremonyError, match="for the first one: `tuf-repo init`"):
        drafting.adopt(DataFolder(tmp_path), people.edits(), **OUTSIDE)


def test_the_online_half_is_read_strictly(people, tmp_path):
    half = people.half()
    value = {
        "format": 1,
        "delegation": "crates",
        "paths": list(PATHS),
        "bin_bits": 9,
        "keys": {role: {"keyid": k.keyid, **k.to_dict()} for role, k in half.keys.items()},
    }
    path = tmp_path / "online.json"
    path.write_text(json.dumps(value))
    assert drafting.read_online(path) == half
    for change in (
        {"format": 2},
        {"keys": []},
        {"keys": {"bins": {}}},
        {"bin_bits": "9"},
        {"bin_bits": True},
        {"paths": "index"},
        {"paths": [1]},
        {"delegation": ""},
        {"delegation": 1},
        {"delegation": "a\x07"},
    ):
        path.write_text(json.dumps({**value, **change}))
        with pytest.raises(CeremonyError, match=r"online\.json"):
            drafting.read_online(path)
    path.write_bytes(b" " * 100_000)
    with pytest.raises(CeremonyError, match="at most"):
        drafting.read_online(path)
