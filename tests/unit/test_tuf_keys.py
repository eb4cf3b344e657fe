import os
import traceback

import pytest
from securesystemslib.signer import CryptoSigner, SSlibKey

from tests.fakes.tuf import NOW, Repository, target
from tuf_repo.errors import KeyFileError, MetadataError
from tuf_repo.keys import (
    create_key,
    create_online_signers,
    load_online_signers,
    load_signer,
    public_bytes,
    refuse_shared_keys,
)

# --- key files


def test_a_key_is_made_once_for_its_owner_alone(tmp_path):
    path = tmp_path / "keys" / "bins.pem"
    create_key(path)
    pem = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(path.parent) == ["bins.pem"]
    create_key(path)
    assert path.read_bytes() == pem
    assert load_signer(path).public_key.keyid == load_signer(path).public_key.keyid


def test_a_half_written_key_of_a_crash_is_dropped(tmp_path):
    (tmp_path / ".bins.pem.tmp").write_bytes(b"-----BEGIN")
    create_key(tmp_path / "bins.pem")
    load_signer(tmp_path / "bins.pem")
    assert os.listdir(tmp_path) == ["bins.pem"]


def test_online_signers_are_three_keys(tmp_path):
    made = create_online_signers(tmp_path)
    loaded = load_online_signers(tmp_path)
    ids = [s.public_key.keyid for s in (made.bins, made.snapshot, made.timestamp)]
    assert len(set(ids)) == 3
    assert ids == [s.public_key.keyid for s in (loaded.bins, loaded.snapshot, loaded.timestamp)]
    assert "object at" in repr(made)


def refused(path, words):
    with pytest.raises(KeyFileError, match=words) as caught:
        load_signer(path)
    return "".join(traceback.format_exception(caught.value))


def test_a_missing_key_is_named(tmp_path):
    assert "bins.pem" in refused(tmp_path / "bins.pem", "No such file")


def test_a_key_that_others_may_read_is_refused(tmp_path):
    path = tmp_path / "bins.pem"
    create_key(path)
    path.chmod(0o640)
    refused(path, "0600")


def test_a_link_or_a_folder_is_no_key(tmp_path):
    create_key(tmp_path / "real.pem")
    (tmp_path / "bins.pem").symlink_to(tmp_path / "real.pem")
    refused(tmp_path / "bins.pem", "expected a private key")
    refused(tmp_path, "regular file")


@pytest.mark.parametrize("cut", [10, 60, 90])
def test_an_error_never_holds_private_material(tmp_path, cut):
    path = tmp_path / "bins.pem"
    create_key(path)
    pem = path.read_bytes()
    path.write_bytes(pem[:cut] + b"?" + pem[cut:])
    text = refused(path, "ed25519 key in PEM")
    secret = pem.decode().splitlines()[1]
    assert not any(secret[at : at + 8] in text for at in range(len(secret) - 8))


def test_a_key_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "bins.pem"
    path.write_bytes(CryptoSigner.generate_ecdsa().private_bytes)
    path.chmod(0o600)
    refused(path, "ed25519")


# --- one public key, one keyid


def respelled(key, keyid, public):
    return SSlibKey(keyid, key.keytype, key.scheme, {"public": public})


def test_one_public_key_under_two_keyids_is_refused_however_it_is_spelled():
    ed = CryptoSigner.generate_ed25519().public_key
    ec = CryptoSigner.generate_ecdsa().public_key
    refuse_shared_keys([ed, ec, ed])
    for twice in (
        respelled(ed, "other", ed.keyval["public"].upper()),
        respelled(ec, "other", ec.keyval["public"].replace("\n", "\r\n")),
    ):
        with pytest.raises(KeyFileError, match="of its own"):
            refuse_shared_keys([ed, ec, twice])


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_what_is_no_public_key_is_refused(kind):
    with pytest.raises(KeyFileError, match="a public key"):
        public_bytes(SSlibKey("id", kind, kind, {"public": "nonsense"}))


# --- the trial repository


def test_a_trial_keeps_keys_apart_and_says_what_it_is(tmp_path):
    repository = Repository(tmp_path)
    repository.init()
    names = sorted(path.name for path in tmp_path.glob("*/*.pem"))
    assert names == sorted(
        ["bins.pem", "snapshot.pem", "timestamp.pem", "root.pem", "targets.pem", "delegation.pem"]
    )
    assert len({path.read_bytes() for path in tmp_path.glob("*/*.pem")}) == 6
    assert repository.open().root_extra == {"x-trial": True}


def test_a_committed_repository_is_never_touched(tmp_path):
    repository = Repository(tmp_path)
    assert repository.init()
    repository.publish(repository.open(), {"index/1/a": target()})
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert not repository.init()
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_files_that_are_not_ours_are_left_alone(tmp_path):
    repository = Repository(tmp_path)
    repository.init()
    (repository.metadata / "timestamp.json").unlink()
    with pytest.raises(MetadataError, match="an empty folder"):
        repository.init()
    assert (repository.metadata / "1.root.json").exists()


def test_keys_made_before_are_used(tmp_path):
    keyid = create_online_signers(tmp_path / "keys").bins.public_key.keyid
    repository = Repository(tmp_path)
    repository.init()
    assert load_online_signers(tmp_path / "keys").bins.public_key.keyid == keyid
    repository.open().stage({}, {}, now=NOW)


def test_one_key_for_two_roles_makes_no_repository(tmp_path):
    create_online_signers(tmp_path / "keys")
    create_key(tmp_path / "offline" / "targets.pem")
    (tmp_path / "offline" / "delegation.pem").write_bytes(
        (tmp_path / "offline" / "targets.pem").read_bytes()
    )
    (tmp_path / "offline" / "delegation.pem").chmod(0o600)
    repository = Repository(tmp_path)
    with pytest.raises(KeyFileError, match="targets does not have"):
        repository.init()
    assert repository.folder().files() == set()
