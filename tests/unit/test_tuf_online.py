import json
import os
import traceback

import pytest
from securesystemslib.signer import CryptoSigner

from tests.conftest import need_root
from tests.fakes.tuf import Repository, target
from tuf_repo import keyfiles, loading
from tuf_repo.errors import KeyFileError
from tuf_repo.keys import load_online_signers
from tuf_repo.online import OnlineKeys, make_beside, named_keys, remove_replaced

WRONG = b"hoof hearted"


@pytest.fixture
def repository(tmp_path):
    repository = Repository(tmp_path)
    repository.init()
    return repository


def trust_of(repository):
    return loading.load(repository.folder())[0]


def keys_of(repository):
    return repository.base / "keys"


def keyids(signers):
    return [each.public_key.keyid for each in (signers.bins, signers.snapshot, signers.timestamp)]


def refused(call, words):
    with pytest.raises(KeyFileError, match=words) as caught:
        call()
    return "".join(traceback.format_exception(caught.value))


# --- which key signs


def test_the_keys_that_the_metadata_names_are_found_among_several(repository):
    first = load_online_signers(keys_of(repository))
    for _ in range(2):
        make_beside(keys_of(repository), ["bins", "snapshot", "timestamp"])
    signers = OnlineKeys.load(keys_of(repository)).signers_for(trust_of(repository))
    assert keyids(signers) == keyids(first)
    publisher = repository.open(signers)
    repository.publish(publisher, {"index/1/a": target()})
    repository.open(signers)


def test_a_key_is_found_whatever_its_file_is_called(repository):
    folder = keys_of(repository)
    os.rename(folder / "bins.pem", folder / "bins-of-last-year.pem")
    make_beside(folder, ["bins"])
    signers = OnlineKeys.load(folder).signers_for(trust_of(repository))
    assert signers.bins.public_key.keyid in {
        key.keyid for key in named_keys(trust_of(repository))["bins"]
    }


def test_a_key_that_came_after_the_start_counts(repository):
    folder = keys_of(repository)
    keys = OnlineKeys.load(folder)
    os.rename(folder / "bins.pem", folder.parent / "away.pem")
    refused(lambda: keys.signers_for(trust_of(repository)), "bins key in .*: .* got keyid none")
    os.rename(folder.parent / "away.pem", folder / "bins.pem")
    keys.signers_for(trust_of(repository))


@pytest.mark.parametrize("role", ["bins", "snapshot", "timestamp"])
def test_a_role_that_lacks_its_key_is_named(repository, role):
    folder = keys_of(repository)
    (folder / f"{role}.pem").unlink()
    other = make_beside(folder, [role])[role]
    refused(
        lambda: OnlineKeys.load(folder).signers_for(trust_of(repository)),
        rf"{role} key in .*: expected one that the metadata names .*, got keyid {other.keyid[:8]}…",
    )


def test_a_key_that_cannot_be_read_matters_only_where_it_is_needed(repository):
    folder = keys_of(repository)
    keys, trust = OnlineKeys.load(folder), trust_of(repository)
    for name, data in [("bins-0.pem", b"garbage"), ("snapshot-0.json", b"garbage")]:
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o600)
    keys.signers_for(trust)
    (folder / "bins.pem").unlink()
    refused(lambda: keys.signers_for(trust), "bins-0.pem: expected an ed25519 or ECDSA P-256 key")
    (folder / "bins-0.pem").unlink()
    (folder / "snapshot.pem").chmod(0o644)
    refused(lambda: keys.signers_for(trust), "bins key in")


def test_an_encrypted_online_key_is_refused_as_nobody_is_there_to_ask(repository):
    folder = keys_of(repository)
    (folder / "bins.pem").unlink()
    keyfiles.create(folder / "bins.pem", "ed25519", b"correct horse")
    keys = OnlineKeys.load(folder)
    refused(lambda: keys.signers_for(trust_of(repository)), "bins.pem: .* not encrypted")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    refused(lambda: OnlineKeys.load(tmp_path / "keys"), "keys: expected the folder")


def test_three_signers_say_themselves_whether_they_are_the_ones(repository, tmp_path):
    signers = load_online_signers(keys_of(repository))
    assert signers.signers_for(trust_of(repository)) is signers
    other = Repository(tmp_path / "other")
    other.init()
    refused(lambda: signers.signers_for(trust_of(other)), "timestamp key")


# --- a key beside the old one


def test_a_key_beside_the_old_one_is_for_its_owner_alone_and_named_by_its_keyid(repository):
    folder = keys_of(repository)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    made = make_beside(folder, ["bins", "timestamp"])
    assert list(made) == ["bins", "timestamp"]
    for role, key in made.items():
        path = folder / f"{role}-{key.keyid[:8]}.pem"
        assert path.stat().st_mode & 0o777 == 0o600
        assert keyfiles.load(path, None).public_key == key
    assert before == {path: path.read_bytes() for path in before}
    assert len(list(folder.iterdir())) == len(before) + 2


def test_a_key_half_made_in_a_crash_is_in_nobodys_way(repository):
    folder = keys_of(repository)
    (folder / ".bins.new.pem").write_bytes(b"-----BEGIN")
    (folder / "..bins.new.pem.tmp").write_bytes(b"-----BEGIN")
    make_beside(folder, ["bins"])
    assert not list(folder.glob(".*"))


def test_a_key_that_root_makes_is_for_the_signers_user(repository):
    need_root()
    folder = keys_of(repository)
    os.chown(folder, 65534, 65534)
    key = make_beside(folder, ["bins"])["bins"]
    status = (folder / f"bins-{key.keyid[:8]}.pem").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (65534, 65534, 0o600)


def test_no_key_is_made_for_an_offline_role(tmp_path):
    refused(lambda: make_beside(tmp_path, ["root"]), "bins or snapshot or timestamp, got another")


# --- what was replaced


def test_only_keys_that_were_named_once_and_are_not_now_are_removed(repository):
    folder, trust = keys_of(repository), trust_of(repository)
    current = {key.keyid for keys in named_keys(trust).values() for key in keys}
    former = make_beside(folder, ["bins", "snapshot"])
    pending = make_beside(folder, ["bins", "timestamp"])
    past = current | {key.keyid for key in former.values()}
    gone = sorted(f"{role}-{key.keyid[:8]}.pem" for role, key in former.items())
    assert sorted(remove_replaced(folder, past, trust)) == gone
    assert remove_replaced(folder, past, trust) == []
    assert {path.name for path in folder.iterdir()} == {
        "bins.pem",
        "snapshot.pem",
        "timestamp.pem",
        *(f"{role}-{key.keyid[:8]}.pem" for role, key in pending.items()),
    }


def test_a_named_key_stays_even_where_it_lies_under_another_role(repository):
    folder, trust = keys_of(repository), trust_of(repository)
    named = {key.keyid for keys in named_keys(trust).values() for key in keys}
    os.rename(folder / "timestamp.pem", folder / "bins-0.pem")
    assert remove_replaced(folder, named, trust) == []


def test_what_is_no_private_key_stays(repository):
    folder, trust = keys_of(repository), trust_of(repository)
    for name in ("bins-0.pem", "bins-1.json", "notes.txt", "root.pem"):
        (folder / name).write_bytes(b"{}")
    assert remove_replaced(folder, {"any"}, trust) == []
    assert len(list(folder.iterdir())) == 7


# --- a key that is no file


def reference(path, **fields):
    path.write_text(json.dumps(fields))
    path.chmod(0o600)


def moved_away(repository):
    """The bins key lies elsewhere, and a reference says where."""
    folder = keys_of(repository)
    away = folder.parent / "token.pem"
    os.rename(folder / "bins.pem", away)
    public = keyfiles.public_fields(keyfiles.load(away, None).public_key)
    return folder, {"uri": f"file:{away}", "public": public}


@pytest.mark.parametrize("name", ["bins.json", "bins-token.json"])
def test_a_reference_says_where_a_key_is(repository, name):
    folder, fields = moved_away(repository)
    reference(folder / name, **fields)
    signers = OnlineKeys.load(folder).signers_for(trust_of(repository))
    repository.publish(repository.open(signers), {"index/1/a": target()})


def test_a_reference_names_the_file_with_the_secret(repository):
    folder, fields = moved_away(repository)
    away = folder.parent / "token.pem"
    away.unlink()
    public = keyfiles.create(away, "ecdsa", b"correct horse")
    fields |= {"public": keyfiles.public_fields(public), "secret_file": "bins.pin"}
    path, pin = folder / "bins-token.json", folder / "bins.pin"
    reference(path, **fields)
    trust = trust_of(repository)
    pin.write_bytes(WRONG + b"\n")
    keys = OnlineKeys.load(folder)
    refused(lambda: keys.signers_for(trust), "bins.pin: .* owner alone")
    pin.chmod(0o600)
    assert WRONG.decode() not in refused(
        lambda: keys.signers_for(trust), "the passphrase of this key"
    )
    pin.write_bytes(b"correct horse\n")
    # It opens now; that the metadata names another key is said last.
    refused(lambda: keys.signers_for(trust), f"got keyid {public.keyid[:8]}")
    del fields["secret_file"]
    reference(path, **fields)
    refused(lambda: keys.signers_for(trust), "expected a secret_file with the passphrase for")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"uri": None}, "uri, public"),
        ({"uri": "file:a\0b"}, "no name of a file"),
        ({"more": 1}, "uri, public"),
        ({"secret_file": 7}, "a path as secret_file"),
        ({"public": None}, "keyid, keytype"),
        ({"public": keyfiles.public_fields(CryptoSigner.generate_ed25519().public_key)}, "half of"),
    ],
)
def test_a_reference_that_does_not_hold_is_refused(repository, change, words):
    folder, fields = moved_away(repository)
    reference(folder / "bins-token.json", **fields | change)
    keys = OnlineKeys.load(folder)
    refused(lambda: keys.signers_for(trust_of(repository)), words)


def test_a_reference_that_others_may_change_is_refused(repository):
    folder, fields = moved_away(repository)
    reference(folder / "bins-token.json", **fields)
    (folder / "bins-token.json").chmod(0o644)
    keys = OnlineKeys.load(folder)
    refused(lambda: keys.signers_for(trust_of(repository)), "owner alone")
