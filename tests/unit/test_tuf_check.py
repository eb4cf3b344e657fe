import json
import shutil
from datetime import UTC, datetime, timedelta

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Key,
    Root,
    SuccinctRoles,
    Targets,
)

from tests.fakes.tuf import NOW, Repository, target
from tests.support.forging import next_root, only, publish_again
from tuf_repo import verify
from tuf_repo.check import RepositoryCheck, check_repository
from tuf_repo.core.bins import BinLayout
from tuf_repo.core.numbers import Reservation
from tuf_repo.core.times import DAY
from tuf_repo.errors import KeyFileError, MetadataError, RepositoryError
from tuf_repo.keys import key_file, load_online_signers, load_signer
from tuf_repo.loading import establish, load, load_roots
from tuf_repo.signing import sign
from tuf_repo.storage import MetadataFolder

CHANGES = {f"index/1/{letter}": target(5) for letter in "abcdefgh"}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    base = tmp_path_factory.mktemp("original") / "data"
    base.mkdir()
    repository = Repository(base)
    repository.init()
    repository.publish(repository.open(), CHANGES)
    return repository


@pytest.fixture
def repository(original, tmp_path):
    shutil.copytree(original.base, tmp_path / "data")
    return Repository(tmp_path / "data")


def found(repository, now=NOW):
    return list(check_repository(repository.folder(), now=now))


def test_a_sound_repository_has_no_findings(repository):
    check = RepositoryCheck(repository.folder(), now=NOW)
    assert list(check.findings()) == []
    assert check.files == repository.open().current_files()
    assert dict(check.targets()) == CHANGES
    assert check.root.version == 1
    assert check.timestamp.version == repository.open().timestamp_version


def test_every_changed_byte_is_found_and_its_file_named(repository):
    for file in sorted(repository.open().current_files()):
        path = repository.metadata / file
        good = path.read_bytes()
        for at in range(0, len(good), len(good) // 7):
            path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
            assert file in [finding.file for finding in found(repository)], (file, at)
        path.write_bytes(good)
    assert found(repository) == []


def test_every_missing_file_is_found_and_the_rest_still_looked_at(repository):
    bins = sorted(file for file in repository.open().current_files() if "crates-" in file)
    (repository.metadata / bins[0]).unlink()
    (repository.metadata / bins[2]).write_bytes(b"{}")
    assert [finding.file for finding in found(repository)] == [bins[0], bins[2]]
    for file in ("1.targets.json", "timestamp.json", "1.root.json"):
        (repository.metadata / file).unlink()
        assert found(repository)[0].file == file
    assert found(Repository(repository.base / "nowhere"))[0].file == "1.root.json"


def test_what_has_expired_is_found(repository):
    (finding,) = found(repository, NOW + DAY)
    assert str(finding).startswith("timestamp.json: expected metadata that has not expired")
    assert len(found(repository, NOW + 61 * DAY)) == 2 + 4


def test_a_number_used_twice_is_found_though_nothing_names_the_file(repository):
    named = next(file for file in repository.open().current_files() if "crates-0" in file)
    orphan = named.replace("crates-0", "crates-1")
    (repository.metadata / orphan).write_bytes(b"")
    (finding,) = found(repository)
    assert finding.file in (named, orphan)
    assert "number of its own" in finding.expected


def test_a_file_too_large_to_be_ours_is_found(repository):
    with (repository.metadata / "timestamp.json").open("ab") as file:
        file.truncate(20_000_000)
    assert "at most" in str(found(repository)[0])


# --- repositories signed with the right keys, and wrong all the same


def as_it_is(*_):
    pass


def test_signing_again_without_a_change_is_sound(repository):
    publish_again(repository, as_it_is)
    assert found(repository) == []
    load(repository.folder())


def misplace(signed):
    signed["targets"] = {f"index/1/{number}": target().fields() for number in range(20)}


WRONG = {
    "a target in another's bin": only("crates-1", misplace),
    "another role's name": only("crates-1", lambda s: s.update({"x-role": "crates-2"})),
    "no role's name": only("crates-1", lambda s: s.pop("x-role")),
    "another version": only("crates-1", lambda s: s.update(version=1)),
    "targets of another name": only("targets", lambda s: s.update({"x-role": "crates"})),
    "a snapshot without a bin": only("snapshot", lambda s: s["meta"].pop("crates-1.json")),
    "a snapshot without targets": only("snapshot", lambda s: s["meta"].pop("targets.json")),
    "a snapshot with another role": only(
        "snapshot", lambda s: s["meta"].update({"other.json": {"version": 1}})
    ),
    "a snapshot that binds too little": only(
        "snapshot", lambda s: s["meta"]["targets.json"].pop("hashes")
    ),
    "no delegation": only("targets", lambda s: s.pop("delegations")),
    "two delegations": only(
        "targets",
        lambda s: s["delegations"]["roles"].append({**s["delegations"]["roles"][0], "name": "b"}),
    ),
    "a delegation by hash prefix": only(
        "targets",
        lambda s: s["delegations"]["roles"][0].update(paths=None, path_hash_prefixes=[""]),
    ),
    "no bins": only("crates", lambda s: s.pop("delegations")),
    "bins of another name": only(
        "crates", lambda s: s["delegations"]["succinct_roles"].update(name_prefix="other")
    ),
    "too many bins": only(
        "crates", lambda s: s["delegations"]["succinct_roles"].update(bit_length=20)
    ),
}


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_what_was_signed_wrongly_is_found(repository, wrong):
    publish_again(repository, WRONG[wrong])
    assert found(repository)
    if wrong == "a target in another's bin":
        check = RepositoryCheck(repository.folder(), now=NOW)
        assert {finding.file.split(".")[1] for finding in check.findings()} == {"crates-1"}
        assert len(dict(check.targets())) < len(CHANGES)
    else:
        with pytest.raises(RepositoryError):
            load(repository.folder())


def test_a_key_that_signs_targets_and_the_delegation_is_found(repository):
    key = load_signer(key_file(repository.base / "offline", "targets")).public_key

    def share(signed):
        signed["delegations"]["keys"][key.keyid] = key.to_dict()
        signed["delegations"]["roles"][0]["keyids"].append(key.keyid)

    publish_again(repository, only("targets", share))
    assert "keys that targets does not have" in found(repository)[0].expected
    with pytest.raises(KeyFileError, match="keys that targets does not have"):
        load(repository.folder())


@pytest.mark.parametrize("role", ["root", "targets", "crates", "snapshot", "timestamp"])
def test_an_online_key_that_serves_another_role_too_is_found(repository, role):
    """The key of the bins as one of another role's."""
    key = load_online_signers(repository.base / "keys").bins.public_key
    if role == "crates":

        def share(signed):
            signed["delegations"]["keys"][key.keyid] = key.to_dict()
            signed["delegations"]["roles"][0]["keyids"].append(key.keyid)

        publish_again(repository, only("targets", share))
    else:
        next_root(repository, change=lambda root: root.add_key(key, role))
    (finding,) = found(repository)
    assert f"{key.keyid[:8]}" in str(finding)


def test_a_quorum_that_nobody_can_meet_is_found(repository):
    def beyond(signed):
        signed["delegations"]["succinct_roles"]["threshold"] = 2

    publish_again(repository, only("crates", beyond))
    assert "role bins" in [finding.file for finding in found(repository)]


def test_a_pattern_that_we_do_not_read_as_clients_do_is_refused(repository):
    publish_again(
        repository,
        only("targets", lambda s: s["delegations"]["roles"][0].update(paths=["index/[a-z]/*"])),
    )
    with pytest.raises(MetadataError, match="simple path patterns"):
        load(repository.folder())


def test_a_timestamp_without_its_time_is_refused(repository):
    path = repository.metadata / "timestamp.json"
    signed = json.loads(path.read_bytes())["signed"]
    del signed["x-signed-at"]
    path.write_bytes(sign(signed, load_online_signers(repository.base / "keys").timestamp))
    with pytest.raises(MetadataError, match="x-signed-at"):
        repository.open()


def test_a_committed_timestamp_that_does_not_read_is_refused(repository):
    (repository.metadata / "timestamp.json").write_bytes(b"[]")
    with pytest.raises(MetadataError, match="a version"):
        repository.folder().timestamp_version()


def twice_described(signed):
    path = next(iter(signed["targets"]))
    signed["targets"][path]["hashes"]["sha512"] = "0" * 128


def badly_described(signed):
    next(iter(signed["targets"].values()))["hashes"]["sha256"] = "ABC"


FULL_BIN = BinLayout("crates", 2).bin_of("index/1/a")
OVERLOOKED = {
    "a target with two digests": (only(FULL_BIN, twice_described), "nothing else"),
    "a digest that is none": (only(FULL_BIN, badly_described), "64 hex digits"),
    "a target beside the bins": (
        only("targets", lambda s: s["targets"].update({"index/1/a": target().fields()})),
        "delegations and no targets",
    ),
    "a target above the bins": (
        only("crates", lambda s: s["targets"].update({"index/1/a": target().fields()})),
        "delegations and no targets",
    ),
}


@pytest.mark.parametrize("wrong", OVERLOOKED, ids=str)
def test_what_stock_clients_would_take_is_found(repository, wrong):
    """Each is correctly signed, and makes clients see what our signer does not."""
    change, words = OVERLOOKED[wrong]
    publish_again(repository, change)
    (finding,) = found(repository)
    assert words in finding.expected
    assert finding.file.split(".")[1] in {FULL_BIN, "targets", "crates"}


# --- the counter


def test_a_number_that_was_not_reserved_is_found(repository):
    below = repository.open().timestamp_version
    look = RepositoryCheck(repository.folder(), now=NOW)
    assert not list(look.findings())
    (finding,) = look.unreserved(Reservation(below, 0))
    assert str(finding) == (
        f"timestamp.json: expected a number that is reserved, below {below}, got {below}"
    )
    assert not list(look.unreserved(Reservation(below + 1, 0)))


def test_a_timestamp_with_the_number_of_another_file_is_found(repository):
    number = repository.open().snapshot_version
    publish_again(repository, only("timestamp", lambda s: s.update(version=number)), roles=[])
    words = [str(finding) for finding in found(repository)]
    assert any("a number of its own" in each for each in words)
    assert any(f"below that of timestamp.json, {number}" in each for each in words)


# --- the chain of roots


def test_a_next_root_is_followed(repository, tmp_path):
    fresh = CryptoSigner.generate_ed25519()

    def rotate(root):
        root.add_key(fresh.public_key, "root")
        root.roles["root"].threshold = 2

    next_root(repository, rotate, also=[fresh])
    assert found(repository) == []
    publisher = repository.open()
    assert publisher.root_version == 2
    assert {"1.root.json", "2.root.json"} <= publisher.current_files()
    repository.client(tmp_path / "cache").refresh()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: setattr(root, "version", 3), "version 2"),
        (lambda root: setattr(root, "consistent_snapshot", False), "consistent snapshots"),
        (lambda root: setattr(root.roles["root"], "threshold", 2), "signatures"),
    ],
)
def test_a_root_that_clients_would_not_follow_is_found(repository, change, words):
    next_root(repository, change)
    (finding,) = found(repository)
    assert finding.file == "2.root.json"
    assert words in finding.expected
    with pytest.raises(MetadataError, match=words):
        load_roots(repository.folder())


def test_a_root_of_other_keys_is_found(repository):
    next_root(repository, by=[CryptoSigner.generate_ed25519()])
    assert "signatures" in found(repository)[0].expected


def test_one_public_key_under_two_keyids_is_found(repository):
    def twice(root):
        key = root.get_key(root.roles["snapshot"].keyids[0])
        fields = {**key.to_dict(), "keyval": {"public": key.keyval["public"].upper()}}
        root.add_key(Key.from_dict("another", fields), "snapshot")

    next_root(repository, twice)
    (finding,) = found(repository)
    assert "of its own" in finding.expected
    with pytest.raises(KeyFileError, match="of its own"):
        repository.open()


def test_metadata_of_another_type_is_refused(repository):
    (root,) = load_roots(repository.folder())
    data = (repository.metadata / "timestamp.json").read_bytes()
    with pytest.raises(MetadataError, match="root metadata"):
        verify.root("f", data, None, 1)
    with pytest.raises(MetadataError, match="targets metadata, got timestamp"):
        verify.targets("f", data, "targets", root, None)
    with pytest.raises(MetadataError, match="root metadata"):
        verify.root("f", b"[" * 100_000, None, 1)


def test_offline_roles_are_checked_before_they_are_used():
    root_key, key = CryptoSigner.generate_ed25519(), CryptoSigner.generate_ed25519()
    expires = datetime.now(UTC) + timedelta(days=1)
    root = Root(expires=expires)
    for role in ("root", "targets"):
        root.add_key(root_key.public_key, role)
    delegated = DelegatedRole("crates", [key.public_key.keyid], 1, terminating=True, paths=["*"])
    targets = Targets(
        delegations=Delegations({key.public_key.keyid: key.public_key}, {"crates": delegated})
    )
    succinct = SuccinctRoles([key.public_key.keyid], 1, 3, "crates")
    delegate = Targets(
        2, delegations=Delegations({key.public_key.keyid: key.public_key}, None, succinct)
    )
    trust = establish(root, targets, delegate, {"targets": b"", "crates": b"1"})
    assert trust.layout.count == 8
    assert trust.fixed["crates"].length == 1


def test_a_folder_that_is_not_there_is_empty(tmp_path):
    folder = MetadataFolder(tmp_path / "none")
    assert folder.files() == set()
    assert folder.timestamp_version() == 0
