"""A stolen quorum of `targets` or of `crates` alone, and one of the two answered with the other.

Three rules keep the two apart: no version is the same, no key is shared, and the snapshot has their
sha256. The swap needs all three to be off; the forgery is stopped by the third alone.
"""

import hashlib
import itertools
import shutil
from datetime import UTC, datetime

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import (
    DownloadLengthMismatchError,
    LengthOrHashMismatchError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Delegations, SuccinctRoles, Targets

from tests.fakes.tuf import NOW, REFUSALS, Repository, answer, target
from tests.support.forging import Keys, committed, only, publish_again, signed_part
from tuf_repo.core import update
from tuf_repo.core.bins import BinLayout
from tuf_repo.core.roles import Policy
from tuf_repo.core.times import DAY
from tuf_repo.signing import sign

SERDE = "index/se/rd/serde"
GOOD, EVIL = target(1), target(666)
DIFFERENT_VERSIONS, KEYS_APART, DIGESTS = "different versions", "keys apart", "digests"
RULES = (DIFFERENT_VERSIONS, KEYS_APART, DIGESTS)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    base = tmp_path_factory.mktemp("original") / "data"
    base.mkdir()
    repository = Repository(base)
    repository.init()
    repository.publish(repository.open(), {SERDE: GOOD})
    return repository


@pytest.fixture
def repository(original, tmp_path):
    shutil.copytree(original.base, tmp_path / "data")
    return Repository(tmp_path / "data")


def is_refused(found):
    return isinstance(found, REFUSALS)


# --- one answered with the other


def with_rules(repository, rules):
    """Publish again with some of the three rules only; return the two files."""
    keys, folder = Keys(repository), repository.metadata
    files = committed(repository)
    versions = {"targets": 1, "crates": 2 if DIFFERENT_VERSIONS in rules else 1}
    signers = {"targets": keys.signer("targets")}
    signers["crates"] = keys.signer("crates" if KEYS_APART in rules else "targets")
    key = signers["crates"].public_key
    parts = {role: signed_part(folder / files[role]) for role in versions}
    delegations = parts["targets"]["delegations"]
    delegations["keys"] = {key.keyid: key.to_dict()}
    delegations["roles"][0]["keyids"] = [key.keyid]
    parts["crates"]["version"] = versions["crates"]
    named = {role: update.file_name(role, version) for role, version in versions.items()}
    described = {}
    for role, file in named.items():
        data = sign(parts[role], signers[role])
        (folder / file).write_bytes(data)
        described[f"{role}.json"] = {"version": versions[role]}
        if DIGESTS in rules:
            described[f"{role}.json"] |= facts(data)
    publish_again(repository, only("snapshot", lambda s: s["meta"].update(described)), roles=[])
    return named


def facts(data):
    return {"length": len(data), "hashes": {"sha256": hashlib.sha256(data).hexdigest()}}


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_alone_keeps_targets_and_the_delegation_apart(repository, tmp_path, rule):
    named = with_rules(repository, {rule})
    assert answer(repository, tmp_path / "c", {}, SERDE).length == GOOD.length
    for right, wrong in itertools.permutations(named.values()):
        found = answer(repository, tmp_path / "c", {right: wrong}, SERDE)
        assert is_refused(found) or found.length == GOOD.length


def test_without_the_three_every_crate_would_seem_absent(repository, tmp_path):
    """The control: the same file name, so a host without keys needs only to choose."""
    named = with_rules(repository, set())
    assert answer(repository, tmp_path / "c", {}, SERDE).length == GOOD.length
    # python-tuf has been at `targets` and takes what it says of `crates` for a cycle.
    host = {named["crates"]: named["targets"]}
    assert answer(repository, tmp_path / "c", host, SERDE) is None


# --- a stolen quorum, and no snapshot key


def forged(repository, role, thief):
    """What a thief of one quorum signs, in the version that the snapshot names."""
    file = committed(repository)[role]
    signed = signed_part(repository.metadata / file)
    if role == "targets":
        signed["targets"] = {SERDE: EVIL.fields()}
        return {file: Keys(repository).sign(role, signed)}
    key = thief.public_key
    succinct = SuccinctRoles([key.keyid], 1, repository.bits, "crates")
    evil = Targets(
        version=signed["version"],
        expires=datetime.fromtimestamp(NOW + DAY, UTC),
        delegations=Delegations({key.keyid: key}, succinct_roles=succinct),
    )
    name = BinLayout("crates", repository.bits).bin_of(SERDE)
    bin_file = committed(repository)[name]
    version = int(bin_file.split(".")[0])
    fields = update.next_bin(name, version, {SERDE: EVIL.fields()}, NOW, Policy())
    return {file: Keys(repository).sign(role, evil.to_dict()), bin_file: sign(fields, thief)}


@pytest.mark.parametrize("role", ["targets", "crates"])
def test_a_stolen_quorum_alone_swaps_in_no_crate(repository, tmp_path, role):
    host = forged(repository, role, CryptoSigner.generate_ed25519())
    found = answer(repository, tmp_path / "c", host, SERDE)
    assert isinstance(found, LengthOrHashMismatchError | DownloadLengthMismatchError)


@pytest.mark.parametrize("role", ["targets", "crates"])
def test_without_digests_in_the_snapshot_it_would(repository, tmp_path, role):
    """The control: a snapshot that lists versions only, as python-tuf makes them by default."""

    def versions_only(signed):
        for fixed in ("targets", "crates"):
            meta = signed["meta"][f"{fixed}.json"]
            signed["meta"][f"{fixed}.json"] = {"version": meta["version"]}

    publish_again(repository, only("snapshot", versions_only))
    host = forged(repository, role, CryptoSigner.generate_ed25519())
    found = answer(repository, tmp_path / "c", host, SERDE)
    assert found.hashes["sha256"] == EVIL.sha256


# --- a stolen bins key


def test_a_stolen_bins_key_forges_until_the_quorum_of_crates_replaces_it(repository, tmp_path):
    """What the picture of trust says of that key, and how `crates` alone ends it."""
    name = BinLayout("crates", repository.bits).bin_of(SERDE)
    file = committed(repository)[name]
    thief = Keys(repository).online.bins
    fields = {**signed_part(repository.metadata / file), "targets": {SERDE: EVIL.fields()}}
    host = {file: sign(fields, thief)}
    assert answer(repository, tmp_path / "c", host, SERDE).length == EVIL.length
    fresh = CryptoSigner.generate_ed25519()

    def replace(role, signed):
        if role == "crates":
            signed["delegations"]["keys"] = {fresh.public_key.keyid: fresh.public_key.to_dict()}
            signed["delegations"]["succinct_roles"]["keyids"] = [fresh.public_key.keyid]

    publish_again(repository, replace, roles=["crates"])
    for each in (role for role in committed(repository) if role.startswith("crates-")):
        path = repository.metadata / committed(repository)[each]
        path.write_bytes(sign(signed_part(path), fresh))
    assert answer(repository, tmp_path / "c", {}, SERDE).length == GOOD.length
    assert isinstance(answer(repository, tmp_path / "c", host, SERDE), UnsignedMetadataError)
