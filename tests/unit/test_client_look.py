"""One look: python-tuf's rules on bytes in memory, and what we ask of its private part."""

import inspect
import time
from datetime import UTC, datetime

import pytest
from tuf.api.exceptions import (
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from mirror.client.source.look import (
    BehindError,
    Look,
    Need,
    PastError,
    TargetInfo,
    WrongRoleError,
)
from tests.fakes.tuf import NOW, Repository, target
from tests.support.forging import only, publish_again, signed_part

SERDE = "index/se/rd/serde"


@pytest.fixture
def repository(tmp_path):
    repository = Repository(tmp_path / "data")
    (tmp_path / "data").mkdir()
    repository.init()
    repository.publish(repository.open(), {SERDE: target(7)})
    return repository


def file(repository, name):
    return (repository.metadata / name).read_bytes()


def opened(repository, now=NOW, *, timestamp=None, snapshot=None, **said):
    """Return a look whose top is verified."""
    look = Look(file(repository, "1.root.json"), now, **said)
    look.recall_timestamp(timestamp)
    look.take_timestamp(file(repository, "timestamp.json"))
    if not look.recall_snapshot(snapshot):
        take(repository, look, look.need_snapshot())
    take(repository, look, look.need("targets", "root"))
    return look


def take(repository, look, need):
    look.take(need, file(repository, need.file))


def found(repository, look, path, now=NOW):
    while isinstance(answer := look.find(path, now), Need):
        take(repository, look, answer)
    return answer


# ---- what we use of python-tuf's private part


def test_python_tufs_private_part_is_as_we_use_it(repository):
    assert list(inspect.signature(TrustedMetadataSet).parameters) == ["root_data", "envelope_type"]
    trusted = TrustedMetadataSet(file(repository, "1.root.json"), EnvelopeType.METADATA)
    assert trusted.reference_time.tzinfo is not None
    for name, parameters in {
        "update_timestamp": ["data"],
        "update_snapshot": ["data", "trusted"],
        "update_delegated_targets": ["data", "role_name", "delegator_name"],
    }.items():
        assert list(inspect.signature(getattr(trusted, name)).parameters) == parameters
    assert Timestamp.type not in trusted
    assert isinstance(trusted.root, Root)
    trusted.reference_time = datetime.fromtimestamp(NOW, UTC)
    trusted.update_timestamp(file(repository, "timestamp.json"))
    version = trusted.timestamp.snapshot_meta.version
    trusted.update_snapshot(file(repository, f"{version}.snapshot.json"))
    assert isinstance(trusted.snapshot, Snapshot)
    assert trusted[Timestamp.type] is trusted.timestamp


# ---- looking up


def test_a_target_is_found_through_the_roles_that_delegate_to_it(repository):
    info = found(repository, opened(repository), SERDE)
    assert (info.path, info.length, info.sha256) == (SERDE, 7, f"{7:064x}")


def test_what_no_role_names_is_not_there(repository):
    look = opened(repository)
    assert found(repository, look, "index/se/rd/serdf") is None
    assert found(repository, look, "elsewhere") is None


def test_a_file_is_asked_for_by_the_version_in_the_snapshot(repository):
    look = opened(repository)
    need = look.find(SERDE, NOW)
    assert need.file == f"{need.version}.crates.json"
    assert need.path == f"tuf/metadata/{need.file}"
    assert need.kept_as == "crates.json"
    take(repository, look, need)
    assert look.need("crates", "targets") is None


@pytest.mark.parametrize("is_last", [True, False])
def test_the_first_role_that_a_path_is_delegated_to_wins_and_a_last_one_ends_the_search(is_last):
    look = tree(
        {
            "targets": ([("first", is_last), ("second", False)], {}),
            "first": ([], {"a": 1}),
            "second": ([], {"a": 2, "b": 2}),
        }
    )
    assert look.find("a", NOW).length == 1
    assert (look.find("b", NOW) is None) == is_last


def test_roles_that_delegate_in_a_circle_are_visited_once():
    around = [("one", False)], {}
    look = tree({"targets": around, "one": around})
    assert look.find("a", NOW) is None


def test_no_more_roles_are_visited_than_python_tuf_would():
    roles = {"targets": ([("r0", False)], {})}
    for number in range(40):
        roles[f"r{number}"] = ([(f"r{number + 1}", False)], {f"t{number}": 1})
    roles["r40"] = ([], {})
    look = tree(roles)
    assert look.find("t10", NOW).length == 1
    assert look.find("t39", NOW) is None


def tree(roles):
    """A look that has taken these: role -> (role and whether it is the last) and targets."""
    look = Look.__new__(Look)
    look._taken = {}
    for role, (below, targets) in roles.items():
        delegated = {
            name: DelegatedRole(name, [], 1, is_last, paths=["*"]) for name, is_last in below
        }
        files = {
            path: TargetFile(size, {"sha256": "0" * 64}, path) for path, size in targets.items()
        }
        signed = Targets(targets=files)
        if delegated:
            signed.delegations = Delegations({}, roles=delegated)
        for parent in ["root", *roles]:
            look._taken[parent, role] = Taken(signed)
    return look


class Taken:
    def __init__(self, targets):
        self.targets, self.expires = targets, NOW + 1


# ---- what is refused


def test_a_root_that_is_none_is_refused(repository):
    for data in (b"", b"{}", file(repository, "timestamp.json")):
        with pytest.raises(RepositoryError):
            Look(data, NOW)


def test_an_older_timestamp_is_behind_and_a_forged_one_is_not(repository):
    old = file(repository, "timestamp.json")
    repository.publish(repository.open(), {SERDE: target(8)})
    look = Look(file(repository, "1.root.json"), NOW)
    look.recall_timestamp(file(repository, "timestamp.json"))
    with pytest.raises(BehindError):
        look.take_timestamp(old)
    with pytest.raises(UnsignedMetadataError):
        look.take_timestamp(old.replace(b'"version":', b'"x":1,"version":', 1))


def test_the_same_timestamp_again_is_well(repository):
    stamp = file(repository, "timestamp.json")
    look = opened(repository, timestamp=stamp)
    assert look.timestamp_data == stamp


def test_what_was_remembered_and_no_longer_verifies_counts_for_nothing(repository):
    look = opened(repository, timestamp=b"{}", snapshot=b"{}")
    assert found(repository, look, SERDE).length == 7


def test_a_remembered_snapshot_that_is_still_the_newest_is_not_needed_again(repository):
    snapshot = opened(repository).snapshot_data
    look = Look(file(repository, "1.root.json"), NOW)
    look.take_timestamp(file(repository, "timestamp.json"))
    assert look.recall_snapshot(snapshot)


def test_a_role_that_vanished_from_the_snapshot_is_a_rollback(repository):
    snapshot = opened(repository).snapshot_data
    stamp = file(repository, "timestamp.json")

    def change(role, signed):
        if role in {"snapshot", "timestamp"}:
            signed["version"] += 10
        if role == "snapshot":
            del signed["meta"]["crates-0.json"]
        if role == "timestamp":
            signed["meta"]["snapshot.json"]["version"] += 10

    before = signed_part(repository.metadata / "timestamp.json")["meta"]["snapshot.json"]["version"]
    publish_again(repository, change, roles=())
    newest = repository.metadata / f"{before}.snapshot.json"
    look = Look(file(repository, "1.root.json"), NOW)
    look.recall_timestamp(stamp)
    look.take_timestamp(file(repository, "timestamp.json"))
    assert not look.recall_snapshot(snapshot)
    with pytest.raises(RepositoryError, match="missing info"):
        look.take(look.need_snapshot(), newest.read_bytes())


def test_a_role_signed_for_another_is_refused_and_stays_unknown(repository):
    publish_again(repository, only("crates", lambda signed: signed.update({"x-role": "targets"})))
    look = opened(repository)
    for _ in range(2):
        need = look.find(SERDE, NOW)
        assert need.role == "crates"
        with pytest.raises(WrongRoleError):
            take(repository, look, need)


def test_where_roles_need_not_name_themselves_they_do_not(repository):
    publish_again(repository, lambda _role, signed: signed.pop("x-role", None))
    look = opened(repository, names_itself=False)
    assert found(repository, look, SERDE).length == 7


# ---- time


def test_expiry_says_what_and_when(repository):
    stamp = Metadata.from_bytes(file(repository, "timestamp.json")).signed
    when = stamp.expires.timestamp()
    with pytest.raises(PastError, match="timestamp expired at") as caught:
        opened(repository, when)
    assert caught.value.expired_at == when
    assert opened(repository, when - 1).expires() == when


def test_stale_timestamps_and_snapshots_are_taken_on_demand_and_nothing_else(repository):
    day = 86_400
    look = opened(repository, NOW + 30 * day, accept_stale=True)
    assert found(repository, look, SERDE, NOW + 30 * day).length == 7
    assert look.dated_until() < NOW + 30 * day < look.expires()
    with pytest.raises(PastError, match="crates-"):
        found(repository, look, SERDE, NOW + 61 * day)
    late = opened(repository, NOW + 61 * day, accept_stale=True)
    take(repository, late, late.find(SERDE, NOW + 61 * day))
    with pytest.raises(PastError, match="crates-"):
        take(repository, late, late.find(SERDE, NOW + 61 * day))
    with pytest.raises(PastError, match="root"):
        opened(repository, NOW + 200 * day, accept_stale=True)


def test_a_mirror_says_of_itself_what_the_timestamp_holds(repository):
    said = {"signed_at": "2026-11-21T10:00:00Z", "mode": "cache", "new": []}
    change = only("timestamp", lambda signed: signed.update({"x-crateseal": said}))
    publish_again(repository, change)
    state = opened(repository).state
    assert state.mode == "cache"
    assert state.signed_at == 1795255200.0
    assert state.complete_as_of is None
    assert Look(file(repository, "1.root.json"), time.time()).state.mode is None


# ---- bytes of a target


def test_a_targets_bytes_are_those_of_its_length_and_of_every_hash(tmp_path):
    data = b"bytes"
    good = TargetFile.from_data("a", data, ["sha256", "sha512"])
    for names in (["sha256"], ["sha256", "sha512"], ["sha512"]):
        hashes = {name: good.hashes[name] for name in names}
        TargetInfo("a", 5, hashes).check(data)
        for info, other in (
            (TargetInfo("a", 5, hashes), b"bytez"),
            (TargetInfo("a", 6, hashes), data),
            (TargetInfo("a", 5, hashes | {names[-1]: "0" * len(hashes[names[-1]])}), data),
        ):
            with pytest.raises(LengthOrHashMismatchError):
                info.check(other)
