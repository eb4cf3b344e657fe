"""The offline roles as values: edits, rules, versions."""

import copy
from dataclasses import replace

import pytest
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Root, Targets

from tests.fakes.people import (
    Person,
    under_keyid,
    with_quorum,
)
from tests.fakes.tuf import NOW
from tuf_repo.core.edits import Edits, edited, new_quorums, refuse_broken_rules
from tuf_repo.core.numbers import LIMIT
from tuf_repo.core.roles import SPEC_VERSION, Policy
from tuf_repo.core.root import (
    X_NAME,
    Stamp,
    changed_files,
    next_files,
    read_offline,
    refuse_versions,
    stamp_of,
)
from tuf_repo.errors import CeremonyError, EditError, KeyFileError

DAY = 86_400


# --- reading and writing


def test_what_is_built_is_read_back_as_the_same(offline, parts):
    assert read_offline(parts, "crates") == offline


def test_python_tuf_reads_what_is_built(parts):
    root = Root.from_dict(copy.deepcopy(parts["root"]))
    assert root.consistent_snapshot
    assert {name: role.threshold for name, role in root.roles.items()} == {
        "root": 3,
        "targets": 2,
        "snapshot": 1,
        "timestamp": 1,
    }
    below = Targets.from_dict(copy.deepcopy(parts["crates"]))
    assert below.delegations.succinct_roles.bit_length == 9
    assert below.unrecognized_fields == {"x-role": "crates"}


def test_whose_a_key_is_stands_in_the_signed_root(people, parts):
    key = people.root[0].key
    assert parts["root"]["keys"][key.keyid][X_NAME] == "root 0"


def changed(parts, role, change):
    parts = copy.deepcopy(parts)
    change(parts[role])
    return parts


@pytest.mark.parametrize(
    ("role", "change"),
    [
        ("root", lambda part: part.update(consistent_snapshot=False)),
        ("root", lambda part: part.pop("keys")),
        ("root", lambda part: part["keys"].popitem()),
        ("root", lambda part: part["keys"].update({"0" * 64: dict(_some(part["keys"]))})),
        ("root", lambda part: part["roles"]["root"].update(threshold=0)),
        ("root", lambda part: part["roles"]["timestamp"].update(threshold=True)),
        ("root", lambda part: part.update(consistent_snapshot=1)),
        ("root", lambda part: part.update(spec_version="1.999")),
        ("root", lambda part: part.update(spec_version=1.0)),
        ("root", lambda part: part.update(spec_version="1.0.99")),
        ("crates", lambda part: part.update(spec_version="1.0.031")),
        ("targets", lambda part: part["delegations"]["roles"][0].update(terminating=1)),
        ("crates", lambda part: part["delegations"]["succinct_roles"].update(bit_length=True)),
        ("root", lambda part: part["roles"]["root"].update(keyids="abc")),
        ("root", lambda part: part["roles"]["root"].update({"x-more": 1})),
        ("root", lambda part: part["roles"]["snapshot"].update(keyids=[["x"]])),
        ("root", lambda part: part["roles"]["snapshot"].update(keyids=[None])),
        ("root", lambda part: part.update(_type="targets")),
        ("root", lambda part: part.update(version="1")),
        ("root", lambda part: part.update(version=True)),
        ("root", lambda part: part.update(expires="2031-01-31")),
        ("root", lambda part: part.update(spec_version="9.0.0")),
        ("targets", lambda part: part.pop("delegations")),
        ("targets", lambda part: part["delegations"]["roles"].append({})),
        ("targets", lambda part: part["delegations"]["roles"][0].update(terminating=False)),
        ("targets", lambda part: part["delegations"]["roles"][0].update(name="others")),
        ("targets", lambda part: part["targets"].update(_target())),
        ("targets", lambda part: part.update({"x-role": "crates"})),
        ("crates", lambda part: part.pop("delegations")),
        ("crates", lambda part: part.pop("x-role")),
        ("crates", lambda part: part["delegations"]["succinct_roles"].update(name_prefix="b")),
        ("crates", lambda part: part["delegations"].pop("succinct_roles")),
    ],
)
def test_a_file_that_says_more_or_less_is_refused(parts, role, change):
    with pytest.raises(CeremonyError):
        read_offline(changed(parts, role, change), "crates")


def test_the_number_of_the_specification_is_ours_whatever_python_tuf_is_at_hand(parts):
    assert {part["spec_version"] for part in parts.values()} == {SPEC_VERSION}


def _some(values):
    return next(iter(values.values()))


def _target():
    return {"index/a/b": {"length": 1, "hashes": {"sha256": "0" * 64}}}


@pytest.mark.parametrize("name", ["root", "targets", "snapshot", "timestamp", "bins"])
def test_a_delegation_cannot_have_the_name_of_another_role(parts, name):
    named = {**parts, name: parts["crates"]}
    with pytest.raises(CeremonyError, match="a name of its own"):
        read_offline({"root": parts["root"], "targets": parts["targets"], **named}, name)


@pytest.mark.parametrize("version", [0, -1, LIMIT, "1", True, None])
def test_a_version_is_a_number_that_every_reader_knows(version):
    with pytest.raises(CeremonyError, match="version"):
        stamp_of("root", {"version": version, "expires": "2031-01-31T12:00:00Z"})


@pytest.mark.parametrize("expires", ["2031-01-31", "soon", None, 5])
def test_an_expiry_is_a_time_as_tuf_writes_it(expires):
    with pytest.raises(CeremonyError, match="expires as in"):
        stamp_of("root", {"version": 1, "expires": expires})


# --- edits


def test_keys_come_and_go_by_the_first_digits_of_their_keyids(people, offline):
    new = Person("new")
    leaver = people.root[4].key.keyid
    after = edited(offline, Edits({"root": [new.key]}, {"root": [leaver[:8]]}))
    assert after.quorums["root"].ids() == [*offline.quorums["root"].ids()[:4], new.key.keyid]
    assert after.quorums["targets"] == offline.quorums["targets"]


def test_thresholds_bits_and_fields_are_set(offline):
    extra = {"root": {"x-a": 1}}
    after = edited(offline, Edits(thresholds={"root": 4}, bits=12, extra=extra))
    assert after.quorums["root"].threshold == 4
    assert (after.bits, after.extra["root"]) == (12, {"x-a": 1})


def test_all_keys_of_a_role_are_replaced(offline):
    new = Person("new")
    after = edited(offline, Edits(replaced={"bins": [new.key]}))
    assert after.quorums["bins"].ids() == [new.key.keyid]


@pytest.mark.parametrize("prefix", ["", "zz"])
def test_a_key_to_drop_must_be_one(offline, prefix):
    with pytest.raises(EditError, match="one key of it to drop"):
        edited(offline, Edits(dropped={"root": [prefix]}))


def test_an_ambiguous_keyid_drops_nobody(offline):
    ids = offline.quorums["root"].ids()
    shared = [under_keyid(key, f"ab{key.keyid}") for key in offline.quorums["root"].keys]
    with pytest.raises(EditError, match=f"{len(ids)} that begin with 'ab'"):
        edited(with_quorum(offline, "root", shared), Edits(dropped={"root": ["ab"]}))


def test_a_key_that_is_there_is_not_added_again_under_another_keyid(people, offline):
    again = under_keyid(people.root[0].key, "f" * 64)
    with pytest.raises(EditError, match="that it does not have"):
        edited(offline, Edits({"root": [again]}))


def test_an_unknown_role_is_refused(offline):
    with pytest.raises(EditError, match="role others"):
        edited(offline, Edits(thresholds={"others": 1}))
    with pytest.raises(EditError, match="role others"):
        new_quorums(Edits(thresholds={"others": 1}), "crates", {})


# --- rules


def test_a_sound_repository_keeps_the_rules(offline):
    refuse_broken_rules(None, offline)
    refuse_broken_rules(offline, offline)


@pytest.mark.parametrize("threshold", [0, -1, 6])
def test_a_threshold_that_nobody_or_too_many_must_meet_is_refused(offline, threshold):
    with pytest.raises(EditError, match="threshold from 1 to 5"):
        refuse_broken_rules(None, with_quorum(offline, "root", threshold=threshold))


def test_a_role_has_keys(offline):
    with pytest.raises(EditError, match=r"--key targets=FILE\.pub"):
        refuse_broken_rules(None, with_quorum(offline, "targets", []))


def test_one_machine_signs_an_online_role(people, offline):
    keys = [people.online["bins"].key, Person("second").key]
    refuse_broken_rules(None, with_quorum(offline, "bins", keys))
    with pytest.raises(EditError, match="one machine signs it"):
        refuse_broken_rules(None, with_quorum(offline, "bins", keys, 2))


def test_one_public_key_stands_under_one_keyid(people, offline):
    keys = [*offline.quorums["root"].keys, under_keyid(people.root[0].key, "f" * 64)]
    with pytest.raises(KeyFileError, match="a public key of its own"):
        refuse_broken_rules(None, with_quorum(offline, "root", keys))


def test_nobody_has_the_keyid_of_somebody_else(people, offline):
    """Shown is the keyid of Dan, and whoever looks for it finds it; the key is another's."""
    dan, eve = people.root[3].key, Person("eve").key
    as_dan = SSlibKey(dan.keyid, eve.keytype, eve.scheme, eve.keyval, dan.unrecognized_fields)
    keys = [as_dan if key == dan else key for key in offline.quorums["root"].keys]
    forged = with_quorum(offline, "root", keys)
    with pytest.raises(EditError, match=f"its own keyid, {eve.keyid}"):
        refuse_broken_rules(None, forged)
    # Nor in what a draft says it starts from: that names the keys that go.
    with pytest.raises(EditError, match=f"its own keyid, {eve.keyid}"):
        refuse_broken_rules(forged, offline)


def test_one_key_has_one_spelling(people, offline):
    other = under_keyid(people.root[0].key, people.root[0].key.keyid)
    with pytest.raises(EditError, match="two spellings"):
        refuse_broken_rules(None, with_quorum(offline, "targets", [other], 1))


def test_a_key_is_of_our_kinds_and_spelled_as_usual(people, offline):
    key = people.root[0].key
    loud = SSlibKey(key.keyid, key.keytype, key.scheme, {"public": key.keyval["public"].upper()})
    with pytest.raises(EditError, match="its usual spelling"):
        refuse_broken_rules(None, with_quorum(offline, "crates", [loud], 1))
    rsa = CryptoSigner.generate_rsa().public_key
    with pytest.raises(KeyFileError, match="rsa"):
        refuse_broken_rules(None, with_quorum(offline, "crates", [rsa], 1))


def test_one_key_stands_once_in_a_role(people, offline):
    with pytest.raises(EditError, match="each key once"):
        refuse_broken_rules(None, with_quorum(offline, "root", [people.root[0].key] * 2, 1))


def test_root_and_targets_may_be_signed_by_the_same_people(people, offline):
    assert {each.key.keyid for each in people.targets} <= set(offline.quorums["root"].ids())


@pytest.mark.parametrize(
    ("role", "other"),
    [
        ("crates", "targets"),
        ("snapshot", "root"),
        ("bins", "crates"),
        ("timestamp", "targets"),
        ("timestamp", "snapshot"),
    ],
)
def test_keys_are_kept_apart(offline, role, other):
    key = offline.quorums[other].keys[0]
    broken = with_quorum(offline, role, [key], 1)
    with pytest.raises(EditError, match=r"does not have, got .* in both"):
        refuse_broken_rules(None, broken)


def test_the_delegation_stays_what_it_was(offline):
    with pytest.raises(EditError, match="as before"):
        refuse_broken_rules(offline, replace(offline, paths=("*/*",)))
    with pytest.raises(EditError, match="path patterns"):
        refuse_broken_rules(None, replace(offline, paths=()))
    with pytest.raises(EditError, match="simple path patterns"):
        refuse_broken_rules(None, replace(offline, paths=("[ab]/*",)))


@pytest.mark.parametrize("bits", [0, 17])
def test_there_are_two_to_65536_bins(offline, bits):
    with pytest.raises(EditError, match="bin bits"):
        refuse_broken_rules(offline, replace(offline, bits=bits))


def test_bins_grow_inside_a_family_with_no_new_key(offline):
    refuse_broken_rules(offline, replace(offline, bits=12))


@pytest.mark.parametrize("bits", [8, 13])
def test_bins_of_other_names_need_new_snapshot_and_timestamp_keys(offline, bits):
    grown = replace(offline, bits=bits)
    with pytest.raises(EditError, match=f"rotate snapshot timestamp --bin-bits {bits}"):
        refuse_broken_rules(offline, grown)
    half = with_quorum(grown, "snapshot", [Person("new").key])
    with pytest.raises(EditError, match="old ones for timestamp;"):
        refuse_broken_rules(offline, half)
    refuse_broken_rules(offline, with_quorum(half, "timestamp", [Person("new").key]))


# --- versions


def test_the_first_versions_are_never_the_same_below_root(parts):
    assert {role: part["version"] for role, part in parts.items()} == {
        "root": 1,
        "targets": 1,
        "crates": 2,
    }


def test_only_files_that_change_are_made_anew(offline):
    assert changed_files(None, offline) == ["root", "targets", "crates"]
    assert changed_files(offline, offline) == []
    new = [Person("new").key]
    assert changed_files(offline, with_quorum(offline, "bins", new)) == ["crates"]
    assert changed_files(offline, with_quorum(offline, "crates", new, 1)) == ["targets"]
    assert changed_files(offline, with_quorum(offline, "snapshot", new)) == ["root"]


def test_versions_go_on_above_both(offline):
    base = {"root": Stamp(4, 0), "targets": Stamp(7, 0), "crates": Stamp(3, 0)}
    for wanted, expected in (
        (["crates"], {"crates": 8}),
        (["root", "targets", "crates"], {"root": 5, "targets": 8, "crates": 9}),
    ):
        made = next_files(base, offline, wanted, NOW, Policy())
        assert {role: part["version"] for role, part in made.items()} == expected


@pytest.mark.parametrize(
    ("root", "targets", "crates"),
    [
        *((5, 8, 3), (6, 8, 9), (5, 7, 9), (5, 8, 7), (5, 8, 8), (4, 8, 9)),
        # Higher than all there is, and yet not the next: the base may be of long ago.
        *((5, 9, 10), (5, 8, 10), (5, 9, 8), (5, 2**40, 9)),
    ],
)
def test_versions_that_do_not_go_on_are_refused(offline, root, targets, crates):
    base = {"root": Stamp(4, 0), "targets": Stamp(7, 0), "crates": Stamp(3, 0)}
    good = {"root": Stamp(5, 0), "targets": Stamp(8, 0), "crates": Stamp(9, 0)}
    refuse_versions(offline, base, good, good)
    bad = {"root": Stamp(root, 0), "targets": Stamp(targets, 0), "crates": Stamp(crates, 0)}
    with pytest.raises(CeremonyError, match="version"):
        refuse_versions(offline, base, bad, bad)


def test_files_that_stay_have_two_versions(offline):
    same = {"root": Stamp(4, 0), "targets": Stamp(7, 0), "crates": Stamp(7, 0)}
    with pytest.raises(CeremonyError, match="different versions"):
        refuse_versions(offline, same, {**same, "root": Stamp(5, 0)}, ["root"])


def test_the_first_versions_are_these_and_no_others(offline):
    good = {"root": Stamp(1, 0), "targets": Stamp(1, 0), "crates": Stamp(2, 0)}
    refuse_versions(offline, {}, good, good)
    for role in good:
        bad = {**good, role: Stamp(5, 0)}
        with pytest.raises(
            CeremonyError, match=f"{role} in the draft: expected version [12], got 5"
        ):
            refuse_versions(offline, {}, bad, bad)


def test_used_up_versions_are_said_so(offline):
    base = {"root": Stamp(1, 0), "targets": Stamp(LIMIT - 1, 0), "crates": Stamp(3, 0)}
    with pytest.raises(CeremonyError, match="below"):
        next_files(base, offline, ["crates"], NOW, Policy())


def test_each_role_lives_as_long_as_the_policy_says(offline):
    policy = Policy(root_seconds=DAY, targets_seconds=2 * DAY, delegation_seconds=3 * DAY)
    made = next_files(None, offline, offline.files, NOW, policy)
    lives = {role: (stamp_of(role, part).expires - NOW) / DAY for role, part in made.items()}
    assert lives == {"root": 1, "targets": 2, "crates": 3}
