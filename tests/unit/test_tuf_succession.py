"""What a ceremony brings to a repository that is at work: taken whole, or refused in one line."""

import json
import shutil
from datetime import timedelta

import pytest

from tests.fakes.tuf import PATHS, REFUSALS, Repository, signed_part, target
from tests.support.successors import Ceremony, fresh, online_key
from tuf_repo.check import check_repository
from tuf_repo.errors import (
    CeremonyError,
    KeyFileError,
    MetadataError,
    OtherSignerError,
    RepositoryError,
)
from tuf_repo.online import OnlineKeys
from tuf_repo.signing import sign

HELD = {f"index/1/{letter}": target(number) for number, letter in enumerate("abcdefgh", 1)}


@pytest.fixture
def repository(tmp_path):
    repository = Repository(tmp_path / "data")
    repository.init()
    repository.publish(repository.open(), HELD)
    return repository


def opened(repository):
    return repository.open(OnlineKeys(repository.base / "keys"))


def succeed(repository, files, publisher=None):
    """Take what a ceremony brought, as the signer does."""
    publisher = publisher or opened(repository)
    succession = publisher.succession(files, now=repository.now)
    staged = publisher.stage({}, {"x-state": 0}, now=repository.now, succession=succession)
    publisher.commit(staged)
    return publisher


def sees_all(client):
    client.refresh()
    return {path for path in HELD if client.get_targetinfo(path)} == set(HELD)


def is_sound(repository):
    return not list(check_repository(repository.folder(), now=repository.now))


@pytest.fixture
def before(repository, tmp_path):
    """A stock client that was here before."""
    client = repository.client(tmp_path / "before")
    assert sees_all(client)
    return tmp_path / "before"


@pytest.mark.parametrize("role", ["root", "targets", "crates", "snapshot", "timestamp", "bins"])
def test_each_role_can_get_another_key_while_clients_go_on(repository, before, tmp_path, role):
    publisher = opened(repository)
    old = repository.folder().files()
    ceremony = Ceremony.of(repository)
    is_online = role in {"snapshot", "timestamp", "bins"}
    ceremony.replace(role, online_key(repository, role) if is_online else fresh())
    succeed(repository, ceremony.files(), publisher)
    assert sees_all(repository.client(before))
    assert sees_all(repository.client(tmp_path / "new"))
    assert is_sound(repository)
    bins = {file for file in repository.folder().files() - old if "crates-" in file}
    assert len(bins) == (4 if role == "bins" else 0)
    repository.publish(publisher, {"index/1/a": target(9)})
    repository.publish(opened(repository), {"index/1/b": target(10)})
    assert repository.client(before).get_targetinfo("index/1/b").length == 10


def test_all_keys_can_be_replaced_at_once(repository, before):
    publisher = opened(repository)
    ceremony = Ceremony.of(repository)
    for role in ("root", "targets", "crates"):
        ceremony.replace(role, *(fresh() for _ in range(3)), threshold=2)
    for role in ("snapshot", "timestamp", "bins"):
        ceremony.replace(role, online_key(repository, role))
    succeed(repository, ceremony.files(), publisher)
    assert sees_all(repository.client(before))
    assert is_sound(repository)
    assert publisher.root_version == 2


def test_a_client_walks_from_any_earlier_root(repository, tmp_path):
    clients = []
    quorums = {}
    for number in range(4):
        clients.append(tmp_path / f"client{number}")
        assert sees_all(repository.client(clients[-1]))
        ceremony = Ceremony.of(repository, quorums)
        successor = fresh()
        ceremony.replace("root", successor)
        quorums["root"] = [successor]
        succeed(repository, ceremony.files())
    assert all(sees_all(repository.client(cache)) for cache in clients)
    assert is_sound(repository)


def test_several_roots_come_at_once(repository, before):
    first = Ceremony.of(repository)
    first.replace("root", successor := fresh())
    files = first.files()
    second = Ceremony(first.root, first.targets, first.crates, {"root": [successor]})
    second.replace("root", fresh())
    publisher = succeed(repository, {**files, **second.files()})
    assert publisher.root_version == 3
    assert sees_all(repository.client(before))


def test_what_is_in_force_is_no_news(repository):
    ceremony = Ceremony.of(repository)
    ceremony.replace("root", fresh())
    publisher = succeed(repository, files := ceremony.files())
    assert publisher.succession(files, now=repository.now) is None
    assert publisher.succession({}, now=repository.now) is None


@pytest.mark.parametrize(("bits", "bigger"), [(2, 4), (5, 8), (3, 4)])
def test_bins_grow_within_a_family_by_the_word_of_crates_alone(tmp_path, bits, bigger):
    repository = Repository(tmp_path / "data", bits=bits)
    repository.init()
    repository.publish(opened(repository), HELD)
    assert sees_all(repository.client(tmp_path / "before"))
    ceremony = Ceremony.of(repository)
    ceremony.change("crates").delegations.succinct_roles.bit_length = bigger
    publisher = succeed(repository, again(ceremony, bigger).files())
    assert sees_all(repository.client(tmp_path / "before"))
    assert sees_all(repository.client(tmp_path / "new"))
    assert is_sound(repository)
    repository.publish(publisher, {"index/1/z": target(3)})
    assert repository.client(tmp_path / "before").get_targetinfo("index/1/z")


def again(ceremony, bits):
    """python-tuf reckons the names' length when it reads: read it again."""
    ceremony.crates = type(ceremony.crates).from_dict(ceremony.crates.to_dict())
    assert ceremony.crates.delegations.succinct_roles.number_of_bins == 1 << bits
    return ceremony


@pytest.mark.parametrize(("bits", "other"), [(4, 5), (5, 4), (6, 5), (8, 9)])
def test_bins_of_other_names_need_new_snapshot_and_timestamp_keys(tmp_path, bits, other):
    repository = Repository(tmp_path / "data", bits=bits)
    repository.init()
    repository.publish(opened(repository), HELD)
    assert sees_all(repository.client(tmp_path / "before"))
    for with_keys in (("snapshot",), ("timestamp",), ("snapshot", "timestamp")):
        ceremony = Ceremony.of(repository)
        ceremony.change("crates").delegations.succinct_roles.bit_length = other
        again(ceremony, other)
        for role in with_keys:
            ceremony.replace(role, online_key(repository, role))
        if len(with_keys) < 2:
            with pytest.raises(CeremonyError, match="all new keys for snapshot and timestamp"):
                succeed(repository, ceremony.files())
    succeed(repository, ceremony.files())
    assert sees_all(repository.client(tmp_path / "before"))
    assert sees_all(repository.client(tmp_path / "new"))
    assert is_sound(repository)


def test_a_lost_online_key_is_replaced_by_one_that_a_ceremony_names(repository, before):
    ceremony = Ceremony.of(repository)
    ceremony.replace("timestamp", online_key(repository, "timestamp"))
    (repository.base / "keys" / "timestamp.pem").unlink()
    publisher = opened(repository)
    with pytest.raises(KeyFileError, match="timestamp key"):
        publisher.stage({}, {}, now=repository.now)
    succeed(repository, ceremony.files(), publisher)
    assert sees_all(repository.client(before))


def lacks_key(ceremony, _repository):
    ceremony.replace("timestamp", fresh())


def expired(role):
    def spoil(ceremony, _repository):
        ceremony.change(role).expires -= timedelta(days=400)

    return spoil


def online_key_offline(ceremony, repository):
    both = online_key(repository, "timestamp")
    ceremony.replace("timestamp", both)
    ceremony.replace("targets", both)


def half_of_it(ceremony, _repository):
    ceremony.replace("targets", fresh())
    ceremony.changed.discard("targets")


def signed_by_another(ceremony, _repository):
    ceremony.change("crates")
    ceremony.quorums["crates"] = [fresh()]


def threshold_of_two(ceremony, repository):
    ceremony.replace("snapshot", *(online_key(repository, "snapshot") for _ in "ab"), threshold=2)


def bins_threshold_of_two(ceremony, repository):
    ceremony.replace("bins", *(online_key(repository, "bins") for _ in "ab"), threshold=2)


def shared_key(ceremony, _repository):
    both = fresh()
    ceremony.replace("targets", both)
    ceremony.replace("crates", both)


def another_delegation(ceremony, _repository):
    targets = ceremony.change("targets")
    (role,) = targets.delegations.roles.values()
    role.name = "others"
    targets.delegations.roles = {"others": role}
    ceremony.changed.add("crates")


def uncovered(ceremony, _repository):
    targets = ceremony.change("targets")
    targets.delegations.roles["crates"].paths = [PATHS[1]]


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (lacks_key, KeyFileError, "timestamp key"),
        (expired("root"), CeremonyError, "root.json: expected metadata that has not expired"),
        (expired("targets"), CeremonyError, "targets.json: expected metadata that has not expired"),
        (expired("crates"), CeremonyError, "crates.json: expected metadata that has not expired"),
        (online_key_offline, CeremonyError, ""),
        (bins_threshold_of_two, CeremonyError, "threshold 1"),
        (half_of_it, CeremonyError, "targets: expected a file above version 1 that the new keys"),
        (signed_by_another, MetadataError, "crates with its signatures"),
        (threshold_of_two, CeremonyError, "threshold 1"),
        (shared_key, KeyFileError, "keys that targets does not have"),
        (another_delegation, CeremonyError, "a delegation to crates"),
        (uncovered, CeremonyError, "as before"),
    ],
)
def test_what_cannot_be_taken_is_refused_in_one_line(repository, before, spoil, error, words):
    ceremony = Ceremony.of(repository)
    spoil(ceremony, repository)
    publisher = opened(repository)
    files = repository.folder().files()
    with pytest.raises(error, match=words or None) as caught:
        publisher.succession(ceremony.files(), now=repository.now)
    assert "\n" not in str(caught.value)
    assert repository.folder().files() == files
    repository.publish(publisher, {"index/1/z": target(1)})
    assert sees_all(repository.client(before))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("3.root.json", "also 2.root.json"),
        ("7.snapshot.json", "files of offline roles only"),
        ("timestamp.json", "files of offline roles only"),
        ("02.root.json", "files of offline roles only"),
        ("9.others.json", "a file of crates, root, targets"),
        ("1.targets.json", "a version above 1, which is published"),
    ],
)
def test_a_file_that_belongs_to_no_ceremony_is_refused(repository, name, words):
    ceremony = Ceremony.of(repository)
    ceremony.change("root")
    (data,) = ceremony.files().values()
    with pytest.raises(CeremonyError, match=words):
        opened(repository).succession({name: data}, now=repository.now)


def test_two_results_from_one_base_are_refused_before_anything_is_staged(repository):
    targets, crates = Ceremony.of(repository), Ceremony.of(repository)
    targets.change("targets")
    crates.change("crates")
    files = {**targets.files(), **crates.files()}
    assert set(files) == {"3.targets.json", "3.crates.json"}
    with pytest.raises(CeremonyError, match="were two drafts made from one base"):
        opened(repository).succession(files, now=repository.now)


def test_a_result_that_a_later_one_has_overtaken_is_refused_and_not_forgotten(repository):
    late, first = Ceremony.of(repository), Ceremony.of(repository)
    late.change("crates")
    first.change("targets")
    first.change("crates")
    publisher = succeed(repository, first.files())
    with pytest.raises(CeremonyError, match="a version above 4, which is published"):
        publisher.succession(late.files(), now=repository.now)


def test_what_revoked_keys_signed_is_no_base_to_go_on_from(repository, tmp_path):
    """Somebody rebuilds a folder from public files, with the old bins and timestamp among them."""
    old = repository.metadata / "timestamp.json"
    before = old.read_bytes()
    ceremony = Ceremony.of(repository)
    for role in ("snapshot", "timestamp", "bins"):
        ceremony.replace(role, online_key(repository, role))
    succeed(repository, ceremony.files())
    old.write_bytes(before)
    with pytest.raises(MetadataError, match="timestamp"):
        opened(repository)


def test_an_offline_version_among_the_counters_numbers_is_refused(repository):
    ceremony = Ceremony.of(repository)
    ceremony.change("crates")
    ceremony.crates.version = opened(repository).timestamp_version + 10
    with pytest.raises(CeremonyError, match="a version below"):
        opened(repository).succession(ceremony.files(), now=repository.now)


def test_a_root_that_clients_have_seen_is_not_exchanged_for_another(repository):
    seen, other = Ceremony.of(repository), Ceremony.of(repository)
    seen.replace("timestamp", online_key(repository, "timestamp"))
    other.replace("timestamp", online_key(repository, "timestamp"))
    (repository.metadata / "2.root.json").write_bytes(seen.files()["2.root.json"])
    repository.storage.note_promotion(repository.folder().timestamp_version())
    publisher = opened(repository)
    assert publisher.root_version == 1
    with pytest.raises(CeremonyError, match="clients have seen"):
        publisher.succession(other.files(), now=repository.now)
    succeed(repository, {}, publisher)
    assert publisher.root_version == 2
    assert is_sound(repository)


# ---- somebody else signs


def test_a_higher_number_of_ours_stops_the_signer_until_it_is_told_to_go_on(
    repository, before, tmp_path
):
    publisher = opened(repository)
    other = Repository(copy_of(repository, tmp_path / "other"))
    other.entropy = 1_000_000
    other.publish(opened(other), {"index/1/z": target(2)})
    seen = (other.metadata / "timestamp.json").read_bytes()
    publisher.judge(seen)
    for each in (publisher, opened(repository)):
        with pytest.raises(OtherSignerError, match="then recover"):
            each.stage({}, {}, now=repository.now)
    publisher.recover()
    repository.publish(publisher, {"index/1/y": target(2)})
    assert publisher.timestamp_version > signed_version(seen) + 2**40
    assert not publisher.other_signer_at
    repository.publish(opened(repository), {})
    assert sees_all(repository.client(before))


def test_a_client_that_saw_the_lost_history_accepts_the_recovered_one(repository, tmp_path):
    backup = copy_of(repository, tmp_path / "backup")
    repository.entropy = 2**31
    for _ in range(3):
        repository.publish(opened(repository), {"index/1/z": target(2)})
    assert sees_all(repository.client(tmp_path / "client"))
    restored = Repository(backup)
    publisher = opened(restored)
    restored.publish(publisher, {"index/1/y": target(3)})
    with pytest.raises(REFUSALS):
        restored.client(tmp_path / "client").refresh()
    publisher.judge((repository.metadata / "timestamp.json").read_bytes())
    publisher.recover()
    restored.publish(publisher, {})
    assert sees_all(restored.client(tmp_path / "client"))


def test_a_crash_before_the_recovery_is_published_leaves_the_signer_stopped(repository, tmp_path):
    other = Repository(copy_of(repository, tmp_path / "other"))
    other.entropy = 5
    other.publish(opened(other), {})
    publisher = opened(repository)
    publisher.judge((other.metadata / "timestamp.json").read_bytes())
    publisher.recover()
    publisher.stage({}, {}, now=repository.now)
    assert opened(repository).other_signer_at


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff" * 100, b"{" * 20_000])
def test_what_our_key_did_not_sign_says_nothing(repository, data):
    publisher = opened(repository)
    publisher.judge(data)
    publisher.judge((repository.metadata / "timestamp.json").read_bytes())
    stamp = signed_part(repository.metadata / "timestamp.json")
    publisher.judge(sign_as(fresh(), {**stamp, "version": 10**12}))
    assert not publisher.other_signer_at


def stopped_by_a_thief(repository, number):
    publisher = opened(repository)
    stamp = signed_part(repository.metadata / "timestamp.json")
    publisher.judge(sign_as(publisher.require_signers().timestamp, {**stamp, "version": number}))
    return publisher


@pytest.mark.parametrize("number", [2**53 - 1, 2**53 - 2**40 - 2**20])
def test_new_snapshot_and_timestamp_keys_end_what_was_seen(repository, before, number):
    """A thief of the timestamp key says the highest number there is: the keys go."""
    publisher = stopped_by_a_thief(repository, number)
    with pytest.raises(RepositoryError, match="replace the snapshot and timestamp keys"):
        publisher.recover()
    ceremony = Ceremony.of(repository)
    for role in ("snapshot", "timestamp"):
        ceremony.replace(role, online_key(repository, role))
    succeed(repository, ceremony.files(), publisher)
    assert not publisher.other_signer_at
    assert sees_all(repository.client(before))
    repository.publish(opened(repository), {"index/1/z": target(1)})


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "root"])
def test_a_ceremony_that_leaves_clients_what_they_saw_does_not_end_the_stop(repository, role):
    publisher = stopped_by_a_thief(repository, 10**12)
    ceremony = Ceremony.of(repository)
    ceremony.replace(role, fresh() if role == "root" else online_key(repository, role))
    files = ceremony.files()
    with pytest.raises(OtherSignerError):
        succeed(repository, files, publisher)
    publisher.recover()
    succeed(repository, files, publisher)
    assert publisher.timestamp_version > 10**12
    assert not opened(repository).other_signer_at


def test_another_timestamp_of_our_number_stops_the_signer(repository):
    publisher = opened(repository)
    stamp = signed_part(repository.metadata / "timestamp.json")
    publisher.judge(sign_as(publisher.require_signers().timestamp, {**stamp, "x-other": 1}))
    assert publisher.other_signer_at == publisher.timestamp_version
    assert opened(repository).other_signer_at


def another_signature(stamp):
    stamp["signatures"].append({"keyid": "00" * 32, "sig": "00"})


def in_capitals(stamp):
    stamp["signatures"][0]["sig"] = stamp["signatures"][0]["sig"].upper()


def another_field_beside(stamp):
    stamp["beside"] = 1


@pytest.mark.parametrize("dress", [another_signature, in_capitals, another_field_beside, str])
def test_our_own_timestamp_in_other_clothes_stops_nobody(repository, dress):
    """Whoever serves it may write beside what is signed: no key is needed for that."""
    publisher = opened(repository)
    stamp = json.loads((repository.metadata / "timestamp.json").read_bytes())
    dress(stamp)
    publisher.judge(json.dumps(stamp, indent=1).encode())
    assert not publisher.other_signer_at
    repository.publish(publisher, {"index/1/z": target(1)})


def by_a_stranger(signatures):
    signatures.append({"keyid": "ab" * 32, "sig": "00" * 64})


def capitals(signatures):
    signatures[0]["sig"] = signatures[0]["sig"].upper()


@pytest.mark.parametrize("dress", [by_a_stranger, capitals])
@pytest.mark.parametrize("role", ["root", "targets", "crates"])
def test_a_file_with_a_signature_that_nobody_asked_for_is_refused(repository, role, dress):
    """A root that is published stays for ever, and so would what a courier added to it."""
    ceremony = Ceremony.of(repository)
    ceremony.change(role)
    ((name, data),) = ceremony.files().items()
    file = json.loads(data)
    dress(file["signatures"])
    changed = data.replace(
        json.dumps(json.loads(data)["signatures"]).encode(),
        json.dumps(file["signatures"]).encode(),
    )
    assert changed != data
    publisher = opened(repository)
    with pytest.raises(RepositoryError, match="signatures"):
        publisher.succession({name: changed}, now=repository.now)
    assert publisher.succession({name: data}, now=repository.now)


def test_a_root_that_was_put_beside_the_staged_one_is_not_promoted(repository, before):
    ceremony = Ceremony.of(repository)
    ceremony.replace("root", fresh())
    publisher = opened(repository)
    succession = publisher.succession(ceremony.files(), now=repository.now)
    staged = publisher.stage({}, {}, now=repository.now, succession=succession)
    (repository.base / "staging" / "3.root.json").write_bytes(b"junk")
    publisher.commit(staged)
    assert not (repository.metadata / "3.root.json").exists()
    assert sees_all(repository.client(before))


def test_a_staged_root_that_was_exchanged_is_not_promoted(repository, before):
    ceremony = Ceremony.of(repository)
    ceremony.replace("root", fresh())
    publisher = opened(repository)
    succession = publisher.succession(ceremony.files(), now=repository.now)
    staged = publisher.stage({}, {}, now=repository.now, succession=succession)
    (repository.base / "staging" / "2.root.json").write_bytes(b"junk")
    with pytest.raises(MetadataError, match="the root that was staged"):
        publisher.commit(staged)
    publisher.abandon(staged)
    assert sees_all(repository.client(before))


def test_what_was_seen_below_what_is_committed_is_of_the_past(repository):
    """A power cut after a recovery was committed, and before the note of the other was gone."""
    repository.storage.write_seen(repository.folder().timestamp_version() - 1)
    assert not opened(repository).other_signer_at


def test_the_mark_of_a_set_up_that_did_end_goes_at_the_next_start(repository):
    repository.storage.mark_setup()
    opened(repository)
    assert not repository.storage.setup_unfinished()


def copy_of(repository, to):
    shutil.copytree(repository.base, to)
    return to


def sign_as(signer, signed):
    return sign(signed, signer)


def signed_version(data):
    return json.loads(data)["signed"]["version"]
