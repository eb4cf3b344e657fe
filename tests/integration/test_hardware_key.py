"""A PKCS#11 token in software (SoftHSM2), as hardware would be used: the key never leaves it."""

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

import pkcs11
import pytest
from pkcs11.util.ec import encode_named_curve_parameters
from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata

from tests.conftest import need
from tests.fakes.tuf import NOW, PATHS, Repository, target
from tuf_repo import keyfiles
from tuf_repo.core.root import Offline, Quorum, next_files
from tuf_repo.core.update import file_name
from tuf_repo.errors import KeyFileError
from tuf_repo.first import begin
from tuf_repo.online import OnlineKeys, make_beside
from tuf_repo.signing import sign
from tuf_repo.uris import load_public, load_signer

PIN, WRONG_PIN, SO_PIN = "8264", "9999", "5555"
LABEL = "root #1"
URI = "hsm:2?label=root+%231"
HIDDEN_URI = "hsm:3?label=root+%231"
MODULES = [
    Path(folder) / "softhsm" / "libsofthsm2.so"
    for folder in ("/usr/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu")
]


@pytest.fixture(scope="module")
def token(tmp_path_factory):
    """A token with P-256 keys 2 and 3 (known only with the PIN) and a P-384 key 4.

    The module is loaded once for a process and reads its settings then: one token for all tests.
    """
    need("softhsm2-util")
    module = next((path for path in MODULES if path.exists()), None)
    assert module, f"none of {', '.join(map(str, MODULES))}"
    folder = tmp_path_factory.mktemp("token")
    (folder / "tokens").mkdir()
    settings = folder / "softhsm2.conf"
    settings.write_text(f"directories.tokendir = {folder}/tokens\nlog.level = ERROR\n")
    os.environ.update(SOFTHSM2_CONF=str(settings), PYKCS11LIB=str(module))
    subprocess.run(
        [
            "softhsm2-util",
            "--init-token",
            "--free",
            f"--label={LABEL}",
            f"--so-pin={SO_PIN}",
            f"--pin={PIN}",
        ],
        check=True,
        capture_output=True,
    )
    found = pkcs11.lib(str(module)).get_token(token_label=LABEL)
    with found.open(rw=True, user_pin=PIN) as session:
        for number, curve, hidden in (2, "secp256r1", False), (3, "secp256r1", True):
            generate(session, number, curve, hidden=hidden)
        generate(session, 4, "secp384r1", hidden=False)
    yield found
    for name in ("SOFTHSM2_CONF", "PYKCS11LIB"):
        del os.environ[name]


def generate(session, number, curve, *, hidden):
    parameters = session.create_domain_parameters(
        pkcs11.KeyType.EC,
        {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters(curve)},
        local=True,
    )
    parameters.generate_keypair(
        id=bytes([number]),
        store=True,
        public_template={pkcs11.Attribute.PRIVATE: hidden},
    )


def knows(what):
    return PIN.encode()


def nobody(what):
    raise AssertionError(f"asked for {what}")


def refused(call, words):
    with pytest.raises(KeyFileError, match=words) as caught:
        call()
    said = "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value))
    assert "\n" not in str(caught.value)
    assert PIN not in said
    assert WRONG_PIN not in said


def test_a_key_on_hardware_shows_its_public_half_without_a_pin(token):
    key = load_public(URI, nobody)
    assert (key.keytype, key.scheme) == ("ecdsa", "ecdsa-sha2-nistp256")
    assert key == load_public("hsm:?label=root+%231", nobody) == load_public("hsm:", nobody)


def test_a_key_that_the_token_hides_is_shown_with_the_pin(token):
    asked = []
    key = load_public(HIDDEN_URI, lambda what: asked.append(what) or PIN.encode())
    assert asked == [f"pin for {HIDDEN_URI}"]
    assert key != load_public(URI, nobody)
    load_signer(HIDDEN_URI, knows).sign(b"data")


def by_hardware(folder, role, uri):
    """A reference in the signer's folder of keys, and the PIN in a file beside it."""
    folder.mkdir(exist_ok=True)
    public = load_public(uri, knows)
    fields = {"uri": uri, "public": keyfiles.public_fields(public), "secret_file": f"{role}.pin"}
    for name, text in [(f"{role}-token.json", json.dumps(fields)), (f"{role}.pin", f"{PIN}\n")]:
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    return public


def test_a_repository_signed_by_files_and_hardware_is_one_for_stock_python_tuf(token, tmp_path):
    """Root: 3 of 3, an ed25519 file, an ECDSA file and a token; the timestamp: a token, online."""
    repository = Repository(tmp_path)
    asked = []

    def ask(what):
        asked.append(what)
        return PIN.encode() if what.startswith("pin") else b"correct horse"

    root_uris = [str(tmp_path / "alice.pem"), str(tmp_path / "bob.pem"), URI]
    keyfiles.create(Path(root_uris[0]), "ed25519", b"correct horse")
    keyfiles.create(Path(root_uris[1]), "ecdsa", b"correct horse")
    signers = {"root": [load_signer(uri, ask) for uri in root_uris]}
    signers |= {role: [CryptoSigner.generate_ecdsa()] for role in ("targets", "crates")}
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    publics = {role: [each.public_key for each in several] for role, several in signers.items()}
    publics |= {role: [key] for role, key in make_beside(folder, ["bins", "snapshot"]).items()}
    publics["timestamp"] = [by_hardware(folder, "timestamp", HIDDEN_URI)]
    quorums = {role: Quorum(tuple(keys), len(keys)) for role, keys in publics.items()}
    offline = Offline("crates", PATHS, 2, quorums)
    drafted = next_files(None, offline, list(signers), NOW, repository.policy)
    files = {
        file_name(role, signed["version"]): sign(
            signed, {signer.public_key.keyid: signer for signer in signers[role]}
        )
        for role, signed in drafted.items()
    }
    assert asked == [f"passphrase for {uri}" for uri in root_uris[:2]] + [f"pin for {URI}"]

    keys = OnlineKeys.load(folder)
    begin(repository.storage, keys, files, {}, **repository.outside())
    repository.publish(repository.open(keys), {"index/1/a": target()})
    client = repository.client(tmp_path / "client")
    assert client.get_targetinfo("index/1/a").length == 1
    root = Metadata.from_bytes(files["1.root.json"])
    assert sorted(key.keytype for key in publics["root"]) == ["ecdsa", "ecdsa", "ed25519"]
    del root.signatures[signers["root"][2].public_key.keyid]
    with pytest.raises(UnsignedMetadataError):
        root.verify_delegate("root", root)


def test_a_wrong_pin_is_one_clear_line_and_is_not_tried_again(token):
    signer = load_signer(URI, lambda what: WRONG_PIN.encode())
    refused(lambda: signer.sign(b"data"), "the right PIN, got another .PinIncorrect.")
    refused(lambda: signer.sign(b"data"), "one that was refused before")
    load_signer(URI, knows).sign(b"data")


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("hsm:2?label=other", "No PKCS#11 token found for label other"),
        ("hsm:9?label=root+%231", "could not find ECDSA key"),
        ("hsm:nine?label=root+%231", "ValueError"),
        ("hsm:4?label=root+%231", "an ed25519 or ECDSA P-256 key"),
    ],
)
def test_a_key_that_is_not_there_is_one_clear_line(token, uri, words):
    refused(lambda: load_signer(uri, knows), words)


def test_the_token_that_signs_is_the_one_whose_key_is_known(token):
    public = load_public(URI, nobody)
    other = load_signer(HIDDEN_URI, knows, public)
    refused(lambda: other.sign(b"data"), "a signature by key")


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (None, "ValueError: PYKCS11LIB environment variable must be set"),
        ("/nowhere/libtoken.so", "a key that can be used, got"),
        ("there", "No PKCS#11 token found"),
    ],
)
def test_no_token_at_all_is_one_clear_line(token, tmp_path, module, words):
    (tmp_path / "tokens").mkdir()
    settings = tmp_path / "softhsm2.conf"
    settings.write_text(f"directories.tokendir = {tmp_path}/tokens\nlog.level = ERROR\n")
    environment = {**os.environ, "SOFTHSM2_CONF": str(settings)}
    if module is None:
        del environment["PYKCS11LIB"]
    elif module != "there":
        environment["PYKCS11LIB"] = module
    script = (
        "from tuf_repo.errors import KeyFileError\n"
        "from tuf_repo.uris import load_signer\n"
        "try: load_signer('hsm:', None)\n"
        "except KeyFileError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith("hsm:: expected a key that can be used, got ")
    assert words in done.stdout


def tuf_repo(folder, *arguments, secret=""):
    """Run the command as a person would; what is secret comes through a pipe."""
    read, write = os.pipe()
    os.write(write, f"{secret}\n".encode())
    os.close(write)
    given = ["--passphrase-fd", str(read)] if secret else []
    done = subprocess.run(
        [sys.executable, "-m", "tuf_repo", *arguments, *given],
        check=False,
        cwd=folder,
        pass_fds=[read],
        capture_output=True,
        text=True,
    )
    os.close(read)
    assert PIN not in done.stdout + done.stderr
    return done


def ran(folder, *arguments, secret=""):
    done = tuf_repo(folder, *arguments, secret=secret)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_ceremony_takes_a_signer_with_hardware(token, tmp_path):
    """The commands of a first ceremony; two of three root keys sign, one of them on a token."""
    online = {role: CryptoSigner.generate_ed25519() for role in ("bins", "snapshot", "timestamp")}
    fields = {role: keyfiles.public_fields(each.public_key) for role, each in online.items()}
    (tmp_path / "online.json").write_text(
        json.dumps(
            {"format": 1, "delegation": "crates", "paths": list(PATHS), "bin_bits": 9}
            | {"keys": fields}
        )
    )
    (tmp_path / "token.pub").write_text(ran(tmp_path, "key", "show", URI))
    people = {"alice": "ed25519", "bob": "ecdsa", "targets": "ecdsa", "crates": "ed25519"}
    for name, kind in people.items():
        ran(tmp_path, "key", "new", f"{name}.pem", "--type", kind, secret="correct horse")
    named = ["root=token.pub", "root=alice.pem.pub", "root=bob.pem.pub"]
    named += ["targets=targets.pem.pub", "crates=crates.pem.pub"]
    options = [word for key in named for word in ("--key", key)]
    options += [
        word for role in ("root=2", "targets=1", "crates=1") for word in ("--threshold", role)
    ]
    ran(tmp_path, "init", "--online", "online.json", *options, "--out", "draft.json")

    before = (tmp_path / "draft.json").read_bytes()
    wrong = tuf_repo(tmp_path, "sign", "draft.json", "--key", URI, "--yes", secret=WRONG_PIN)
    assert wrong.returncode != 0
    assert "expected the right PIN" in wrong.stderr
    assert wrong.stderr.count("\n") == 1
    assert (tmp_path / "draft.json").read_bytes() == before

    ran(tmp_path, "sign", "draft.json", "--key", URI, "--yes", secret=PIN)
    for name in ("bob", "targets", "crates"):
        key = f"{name}.pem"
        ran(tmp_path, "sign", "draft.json", "--key", key, "--yes", secret="correct horse")
    ran(tmp_path, "finish", "draft.json", "--out", "signed")
    root = Metadata.from_bytes((tmp_path / "signed" / "1.root.json").read_bytes())
    root.verify_delegate("root", root)
    assert len(root.signatures) == 2
