import json
import subprocess
import sys
import textwrap
import traceback
from contextlib import suppress

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner, Signature, Signer
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, Root

from tuf_repo import keyfiles
from tuf_repo.errors import KeyFileError
from tuf_repo.uris import Pin, ServiceSigner, load_public, load_signer

PASSPHRASE = b"correct horse battery"
WRONG = b"wrong guess"
PIN = "1234"


def nobody(what):
    raise AssertionError(f"asked for {what}")


def knows(what):
    return PASSPHRASE


def everything_said(error):
    return "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))


def refused(call, words):
    with pytest.raises(KeyFileError, match=words) as caught:
        call()
    said = everything_said(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert PASSPHRASE.decode() not in said
    return said


# --- keys in files


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
@pytest.mark.parametrize("scheme", ["", "file:", "file://"])
def test_an_encrypted_file_signs_once_its_passphrase_is_told(tmp_path, kind, scheme):
    path = tmp_path / "alice.pem"
    public = keyfiles.create(path, kind, PASSPHRASE)
    assert path.stat().st_mode & 0o777 == 0o600
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in path.read_bytes()
    signer = load_signer(f"{scheme}{path}", knows)
    assert signer.public_key == public == load_public(f"{scheme}{path}", knows)
    public.verify_signature(signer.sign(b"data"), b"data")


def test_a_file_that_is_not_encrypted_asks_nobody(tmp_path):
    path = tmp_path / "bins.pem"
    public = keyfiles.create(path, "ed25519", None)
    assert load_signer(str(path), nobody).public_key == public


def test_the_question_names_the_file(tmp_path):
    path = tmp_path / "alice.pem"
    keyfiles.create(path, "ed25519", PASSPHRASE)
    asked = []
    load_signer(str(path), lambda what: asked.append(what) or PASSPHRASE)
    assert asked == [f"passphrase for {path}"]


def test_what_we_encrypt_others_read_and_what_others_encrypt_we_read(tmp_path):
    path = tmp_path / "alice.pem"
    public = keyfiles.create(path, "ecdsa", PASSPHRASE)
    key = load_pem_private_key(path.read_bytes(), PASSPHRASE)
    for style in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        other = tmp_path / "other.pem"
        other.write_bytes(
            key.private_bytes(Encoding.PEM, style, BestAvailableEncryption(PASSPHRASE))
        )
        other.chmod(0o600)
        assert load_signer(str(other), knows).public_key == public


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_a_wrong_passphrase_is_one_clear_line(tmp_path, kind):
    path = tmp_path / "alice.pem"
    keyfiles.create(path, kind, PASSPHRASE)
    said = refused(lambda: load_signer(str(path), lambda what: WRONG), "the passphrase of this key")
    assert WRONG.decode() not in said


def test_an_encrypted_key_is_refused_where_there_is_nobody_to_ask(tmp_path):
    path = tmp_path / "bins.pem"
    keyfiles.create(path, "ed25519", PASSPHRASE)
    refused(lambda: keyfiles.load(path, None), "not encrypted, got an encrypted one")


def test_the_wrong_key_is_refused(tmp_path):
    path = tmp_path / "alice.pem"
    keyfiles.create(path, "ed25519", None)
    other = CryptoSigner.generate_ed25519().public_key
    refused(lambda: load_signer(str(path), nobody, other), "the private half of")


def test_an_encrypted_rsa_key_is_refused(tmp_path):
    path = tmp_path / "alice.pem"
    key = load_pem_private_key(CryptoSigner.generate_rsa().private_bytes, None)
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSPHRASE))
    )
    path.chmod(0o600)
    refused(lambda: load_signer(str(path), knows), "an ed25519 or ECDSA P-256 key in PEM")


@pytest.mark.parametrize("uri", ["file:", "", "file://host/alice.pem"])
def test_a_uri_of_no_file_is_refused(uri):
    refused(lambda: load_signer(uri, nobody), "no path of this machine")


@pytest.mark.parametrize("uri", ["gnupg:", "tkey:", "https://host/key", "file2:/alice.pem"])
def test_an_unknown_scheme_is_answered_with_those_we_know(uri):
    refused(lambda: load_signer(uri, nobody), "a path or one of file:, hsm:, gcpkms:, awskms:")


def test_no_key_takes_the_place_of_another(tmp_path):
    path = tmp_path / "alice.pem"
    keyfiles.create(path, "ed25519", None)
    before = path.read_bytes()
    refused(lambda: keyfiles.create(path, "ed25519", PASSPHRASE), "no file there yet")
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["alice.pem"]


def test_a_key_of_another_kind_is_not_made(tmp_path):
    refused(lambda: keyfiles.create(tmp_path / "a.pem", "rsa", None), "ed25519 or ecdsa, got rsa")
    assert not list(tmp_path.iterdir())


# --- public halves


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
@pytest.mark.parametrize("name", [None, "Alice Ærø"])
def test_a_public_half_comes_back_as_it_was_written(tmp_path, kind, name):
    key = keyfiles.create(tmp_path / "alice.pem", kind, None)
    keyfiles.write_public(tmp_path / "alice.pub", key, name)
    assert keyfiles.read_public(tmp_path / "alice.pub") == key
    assert keyfiles.read_public_named(tmp_path / "alice.pub") == (key, name)
    fields = json.loads((tmp_path / "alice.pub").read_bytes())
    assert set(fields) - {"name"} == {"keyid", "keytype", "scheme", "keyval"}


def public_fields(kind="ed25519", **changes):
    maker = {"ed25519": CryptoSigner.generate_ed25519, "ecdsa": CryptoSigner.generate_ecdsa}[kind]
    return keyfiles.public_fields(maker().public_key) | changes


def doubled(fields):
    return json.dumps(fields).replace("{", '{"keyid": "other", ', 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a JSON object"),
        ("[]", "a JSON object"),
        ("[" * 9_000, "a JSON object"),
        ('{"a": NaN}', "a JSON object"),
        (doubled(public_fields()), "each name once"),
        ("{}", "keyid, keytype, scheme and keyval"),
        (json.dumps(public_fields(more=1)), "keyid, keytype, scheme and keyval"),
        (json.dumps(public_fields(keyval="ab")), "the public key alone"),
        (json.dumps(public_fields(keyval={"public": "ab", "private": "s"})), "public key alone"),
        (json.dumps(public_fields(keyval={"public": 1})), "texts"),
        (json.dumps(public_fields(keytype=[])), "texts"),
        (json.dumps(public_fields(keyid="ab" * 32)), "expected keyid"),
        (json.dumps(public_fields(keytype="rsa")), "an ed25519 or ECDSA P-256 key"),
        (json.dumps(public_fields(scheme="ecdsa-sha2-nistp256")), "an ed25519 or ECDSA P-256 key"),
        (json.dumps(public_fields(keyval={"public": "AB" * 32})), "its usual spelling"),
        (json.dumps(public_fields(name=7)), "a name"),
        (json.dumps(public_fields(name="a\u001b[2J")), "a name"),
        (json.dumps(public_fields(name="a" * 101)), "a name"),
        (" " * 10_001, "at most 10000 bytes"),
    ],
)
def test_a_public_half_that_was_changed_is_refused(tmp_path, text, words):
    path = tmp_path / "alice.pub"
    path.write_text(text)
    refused(lambda: keyfiles.read_public(path), words)


PUBLIC = public_fields("ecdsa")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*PUBLIC, "name", "more"]), JSON))
def test_whatever_is_changed_in_a_public_half_is_refused_in_one_way(changes):
    try:
        key = keyfiles.parse_public("it", PUBLIC | changes)
    except KeyFileError:
        return
    assert keyfiles.public_fields(key) == PUBLIC


@given(st.binary(max_size=80))
def test_whatever_is_no_object_is_refused_in_one_way(data):
    with suppress(KeyFileError):
        assert isinstance(keyfiles.parse_object("it", data), dict)


def test_a_public_half_that_is_not_there_is_named(tmp_path):
    refused(lambda: keyfiles.read_public(tmp_path / "a.pub"), "a.pub: expected a public key, got")
    refused(lambda: keyfiles.read_public(tmp_path), "Is a directory")


# --- both kinds in one root


def test_a_root_of_both_kinds_of_key_is_one_for_stock_python_tuf(tmp_path):
    signers = []
    for number, kind in enumerate(["ed25519", "ecdsa", "ecdsa"]):
        path = tmp_path / f"{number}.pem"
        keyfiles.create(path, kind, PASSPHRASE)
        signers.append(load_signer(str(path), knows))
    root = Root()
    for signer in signers:
        root.add_key(signer.public_key, "root")
    root.roles["root"].threshold = 3
    metadata = Metadata(root)
    for signer in signers:
        metadata.sign(signer, append=True)
    read = Metadata.from_bytes(metadata.to_bytes())
    read.verify_delegate("root", read)
    read.signatures.popitem()
    with pytest.raises(UnsignedMetadataError):
        read.verify_delegate("root", read)


# --- keys in services

BLOCKED = """
    import sys
    for name in ("hvac", "boto3", "google.cloud", "azure.identity", "azure.core", "pkcs11"):
        sys.modules[name] = None
    from tuf_repo.errors import KeyFileError
    from tuf_repo.uris import load_public, load_signer
    for load in (load_public, load_signer):
        try:
            load(sys.argv[1], None)
        except KeyFileError as error:
            print(error)
"""


@pytest.mark.parametrize(
    ("uri", "extra"),
    [
        ("hsm:2?label=root", "hsm"),
        ("gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1", "gcpkms"),
        ("awskms:alias/root", "awskms"),
        ("azurekms://vault.vault.azure.net/keys/root", "azurekms"),
        ("hv:root/1", "vault"),
    ],
)
def test_without_its_packages_a_service_says_what_to_install(uri, extra):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BLOCKED), uri],
        capture_output=True,
        text=True,
        check=True,
    )
    line = (
        f"{uri}: expected the packages for such keys, got none: pip install 'crateseal[{extra}]'\n"
    )
    assert done.stdout == line * 2


@pytest.mark.parametrize("uri", ["azurekms://elsewhere.example/keys/root", "azurekms:root"])
def test_an_azure_address_of_no_vault_is_refused(uri):
    refused(lambda: load_public(uri, nobody), "azurekms://VAULT.vault.azure.net/keys/NAME")


class PinIncorrect(Exception):  # noqa: N818 - the name that PKCS#11's has
    pass


class Token(Signer):
    """A service that wants a PIN with every signature, and counts the tries."""

    def __init__(self, handler, pin=PIN, key=None, error=None):
        self._handler = handler
        self._pin = pin
        self._signer = CryptoSigner.generate_ecdsa()
        self._key = key or self._signer.public_key
        self.error = error
        self.tries = 0

    @property
    def public_key(self):
        return self._key

    @classmethod
    def from_priv_key_uri(cls, priv_key_uri, public_key, secrets_handler=None):
        raise NotImplementedError

    def sign(self, payload):
        self.tries += 1
        if self._handler("pin") != self._pin:
            raise PinIncorrect
        if self.error:
            raise self.error
        return Signature(self._key.keyid, self._signer.sign(payload).signature)


def service(answers, **options):
    pin = Pin("hsm:2", lambda what: answers.append(what) or PIN.encode())
    token = Token(pin, **options)
    return ServiceSigner("hsm:2", token, pin), token


def test_a_pin_is_asked_once_for_many_signatures():
    asked = []
    signer, token = service(asked)
    for data in (b"a", b"b", b"c"):
        signer.public_key.verify_signature(signer.sign(data), data)
    assert asked == ["pin for hsm:2"]
    assert token.tries == 3


def test_a_wrong_pin_is_tried_once_as_a_token_counts():
    signer, token = service([], pin="9876")
    assert PIN not in refused(lambda: signer.sign(b"a"), "the right PIN, got another")
    assert PIN not in refused(lambda: signer.sign(b"a"), "one that was refused before")
    assert token.tries == 1


def test_a_service_that_fails_may_be_asked_again_and_what_it_says_holds_no_pin():
    signer, token = service([], error=OSError(f"cannot log in with {PIN}"))
    assert PIN not in refused(lambda: signer.sign(b"a"), "a key that can be used, got OSError$")
    token.error = TimeoutError("no answer\nin two lines")
    refused(lambda: signer.sign(b"a"), "got TimeoutError: no answer$")
    token.error = None
    signer.sign(b"a")


def test_a_service_that_signs_with_another_key_is_found_out():
    signer, _ = service([], key=CryptoSigner.generate_ecdsa().public_key)
    refused(lambda: signer.sign(b"a"), "a signature by key")


def test_a_pin_that_is_no_text_is_refused():
    pin = Pin("hsm:2", lambda what: b"\xff")
    refused(lambda: ServiceSigner("hsm:2", Token(pin), pin).sign(b"a"), "a pin in UTF-8")


def test_nothing_private_shows_in_any_repr(tmp_path):
    path = tmp_path / "alice.pem"
    keyfiles.create(path, "ed25519", None)
    signer, _ = service([])
    signer.sign(b"a")
    shown = repr(signer) + repr(load_signer(str(path), nobody)) + repr(signer.public_key)
    assert PIN not in shown
    assert path.read_text().splitlines()[1][-20:] not in shown
