import base64
import os
import textwrap
import traceback

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from securesystemslib.signer import CryptoSigner, Signature, SSlibKey

from tests.fakes.tuf import NOW, Repository, target
from tuf_repo.core.publickeys import canonical_key
from tuf_repo.errors import KeyFileError, MetadataError
from tuf_repo.keys import (
    create_key,
    create_online_signers,
    load_online_signers,
    load_signer,
    public_bytes,
    refuse_shared_keys,
    same_key,
)

P384 = "ecdsa-sha2-nistp384"

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
    text = refused(path, "ed25519 or ECDSA P-256 key in PEM")
    secret = pem.decode().splitlines()[1]
    assert not any(secret[at : at + 8] in text for at in range(len(secret) - 8))


@pytest.mark.parametrize(
    "signer", [CryptoSigner.generate_rsa(), CryptoSigner.generate_ecdsa(scheme=P384)]
)
def test_a_key_of_another_kind_is_refused(tmp_path, signer):
    path = tmp_path / "bins.pem"
    path.write_bytes(signer.private_bytes)
    path.chmod(0o600)
    refused(path, "ed25519 or ECDSA P-256 key")


@pytest.mark.parametrize("data", [b"", b"garbage", b"\0" * 9_000, b"-----BEGIN PRIVATE KEY-----\n"])
def test_what_is_no_key_is_refused(tmp_path, data):
    path = tmp_path / "bins.pem"
    path.write_bytes(data)
    path.chmod(0o600)
    refused(path, "ed25519 or ECDSA P-256 key in PEM, got something else")


def test_a_huge_file_is_not_read_whole(tmp_path):
    path = tmp_path / "bins.pem"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    path.chmod(0o600)
    refused(path, "at most 10000 bytes")


def test_a_pipe_is_no_key_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "bins.pem", 0o600)
    refused(tmp_path / "bins.pem", "regular file")


# --- one public key, one keyid


def respelled(key, keyid, public, keytype=None):
    return SSlibKey(keyid, keytype or key.keytype, key.scheme, {"public": public})


def pem(der):
    return f"-----BEGIN PUBLIC KEY-----\n{base64.encodebytes(der).decode()}-----END PUBLIC KEY-----"


def point(key, form):
    public = load_pem_public_key(key.keyval["public"].encode())
    return public.public_bytes(Encoding.X962, form)


def in_a_key(raw):
    """A SubjectPublicKeyInfo of P-256 by name, around a point in any form."""
    algorithm = bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107")
    body = algorithm + bytes([0x03, len(raw) + 1, 0]) + raw
    return bytes([0x30, len(body)]) + body


def hybrid(key):
    raw = point(key, PublicFormat.UncompressedPoint)
    return bytes([6 + raw[-1] % 2]) + raw[1:]


ED_SPELLINGS = {
    "capitals": lambda key: key.keyval["public"].upper(),
    "spaces": lambda key: " ".join(textwrap.wrap(key.keyval["public"], 2)),
}
EC_SPELLINGS = {
    "line ends": lambda key: key.keyval["public"].replace("\n", "\r\n"),
    "no last line end": lambda key: key.keyval["public"].strip(),
    "text around": lambda key: f"my key\n{key.keyval['public']}\nmine",
    "short lines": lambda key: pem(in_a_key(point(key, PublicFormat.UncompressedPoint))),
    "compressed": lambda key: pem(in_a_key(point(key, PublicFormat.CompressedPoint))),
    "hybrid": lambda key: pem(in_a_key(hybrid(key))),
    "whole curve": lambda key: pem(WHOLE_CURVE + point(key, PublicFormat.UncompressedPoint)),
}
# What `openssl ec -param_enc explicit` writes before the point: the curve, not its name.
WHOLE_CURVE = bytes.fromhex(
    "3082014b3082010306072a8648ce3d02013081f7020101302c06072a8648ce3d0101022100ffffffff000000010000"
    "00000000000000000000ffffffffffffffffffffffff305b0420ffffffff0000000100000000000000000000000"
    "0fffffffffffffffffffffffc04205ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b"
    "031500c49d360886e704936a6678e1139d26b7819f7e900441046b17d1f2e12c4247f8bce6e563a440f277037d812"
    "deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f50221"
    "00ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551020101034200"
)


@pytest.mark.parametrize("spelling", ED_SPELLINGS)
def test_an_ed25519_key_is_one_key_however_it_is_spelled(spelling):
    key = CryptoSigner.generate_ed25519().public_key
    refuse_shared_keys([key, CryptoSigner.generate_ecdsa().public_key, key])
    twice = respelled(key, "other", ED_SPELLINGS[spelling](key))
    with pytest.raises(KeyFileError, match="of its own"):
        refuse_shared_keys([key, twice])
    assert same_key(key, twice)


@pytest.mark.filterwarnings("ignore:keytype:DeprecationWarning")
@pytest.mark.parametrize("keytype", ["ecdsa", "ecdsa-sha2-nistp256"])
@pytest.mark.parametrize("spelling", EC_SPELLINGS)
def test_an_ecdsa_key_is_one_key_however_it_is_spelled(spelling, keytype):
    signer = CryptoSigner.generate_ecdsa()
    key = signer.public_key
    twice = respelled(key, "other", EC_SPELLINGS[spelling](key), keytype)
    assert twice.keyval != key.keyval
    with pytest.raises(KeyFileError, match="of its own"):
        refuse_shared_keys([CryptoSigner.generate_ed25519().public_key, key, twice])
    # Stock code takes the second spelling, and would count one signer twice.
    twice.verify_signature(Signature("other", signer.sign(b"data").signature), b"data")


def test_different_keys_are_different():
    keys = [CryptoSigner.generate_ecdsa().public_key for _ in range(3)]
    refuse_shared_keys([*keys, *(CryptoSigner.generate_ed25519().public_key for _ in range(3))])
    assert not same_key(*keys[:2])


@pytest.mark.parametrize(
    ("kind", "public"),
    [
        ("ed25519", "nonsense"),
        ("ed25519", "ab" * 31),
        ("ecdsa", "nonsense"),
        ("ecdsa", "\udcff"),
        ("ecdsa", pem(in_a_key(b"\x04" + b"\x07" * 64))),
        ("ecdsa", pem(bytes.fromhex("300c300606042a0304050302000a"))),
    ],
)
def test_what_is_no_public_key_is_refused(kind, public):
    with pytest.raises(KeyFileError, match="a public key"):
        public_bytes(SSlibKey("id", kind, kind, {"public": public}))


def test_a_key_of_another_kind_is_none_of_ours():
    for key in (
        CryptoSigner.generate_rsa().public_key,
        CryptoSigner.generate_ecdsa(scheme=P384).public_key,
        SSlibKey("id", "ed25519", "other", {"public": "ab" * 32}),
        respelled(
            CryptoSigner.generate_ecdsa().public_key,
            "id",
            CryptoSigner.generate_ecdsa(scheme=P384).public_key.keyval["public"],
        ),
    ):
        with pytest.raises(KeyFileError, match="an ed25519 or ECDSA P-256 key"):
            canonical_key("it", key)


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
