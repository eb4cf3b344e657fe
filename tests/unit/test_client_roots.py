"""The next root is one that the current one's keys and its own have signed, whoever brings it."""

import json

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import RepositoryError

from mirror.client.trust.roots import check_root, next_root
from mirror.store.roots import to_pin
from tests.fakes.tuf import Repository
from tests.support import forging
from tests.support.mirror_folder import flip


@pytest.fixture
def repository(tmp_path):
    repository = Repository(tmp_path)
    repository.init()
    return repository


def first(repository):
    return (repository.metadata / "1.root.json").read_bytes()


def reason(current, data):
    found = next_root(current, [("http://a/", data)])
    assert found.root is None
    ((mirror, why),) = found.wrong
    assert mirror == "http://a/"
    return why


def test_the_next_root_is_taken_from_whoever_has_it(repository):
    second = forging.next_root(repository, write=False)
    found = next_root(first(repository), [("http://a/", b"{}"), ("http://b/", second)])
    assert found.root == second
    assert [mirror for mirror, _ in found.wrong] == ["http://a/"]


def test_nothing_offered_is_no_error(repository):
    found = next_root(first(repository), [])
    assert (found.root, found.wrong) == (None, ())


def test_of_several_that_verify_the_first_mirrors_counts(repository):
    second = forging.next_root(repository, write=False)
    other = forging.next_root(
        repository, lambda root: root.unrecognized_fields.update(x=1), write=False
    )
    assert next_root(first(repository), [("a", other), ("b", second)]).root == other


def test_a_root_is_exactly_one_newer(repository):
    def skip(root):
        root.version += 1

    third = forging.next_root(repository, skip, write=False)
    assert reason(first(repository), third) == "expected version 2 of the root, got 3"
    assert reason(first(repository), first(repository)) == "expected version 2 of the root, got 1"


def test_a_root_that_the_one_before_did_not_sign_is_none(repository):
    thief = CryptoSigner.generate_ed25519()

    def take(root):
        for keyid in list(root.roles["root"].keyids):
            root.revoke_key(keyid, "root")
        root.add_key(thief.public_key, "root")

    forged = forging.next_root(repository, take, by=[thief], write=False)
    assert "1 signatures of the keys of the root before, got 0" in reason(first(repository), forged)


def test_a_root_that_its_own_keys_did_not_sign_is_none(repository):
    other = CryptoSigner.generate_ed25519()

    def hand_on(root):
        for keyid in list(root.roles["root"].keyids):
            root.revoke_key(keyid, "root")
        root.add_key(other.public_key, "root")

    half = forging.next_root(repository, hand_on, write=False)
    assert "1 signatures of its own, got 0" in reason(first(repository), half)


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 100_000, b'{"signed": {}, "signatures": []}'])
def test_what_is_no_metadata_is_no_root(repository, data):
    assert "cannot be read" in reason(first(repository), data)


def test_another_role_is_no_root_even_with_the_roots_signature(repository):
    fields = json.loads((repository.metadata / "timestamp.json").read_bytes())["signed"]
    data = forging.Keys(repository).sign("root", {**fields, "version": 2})
    assert "expected a root" in reason(first(repository), data) or "cannot be read" in reason(
        first(repository), data
    )
    with pytest.raises(RepositoryError):
        check_root(data)


def test_a_changed_root_is_none_to_begin_with(repository):
    check_root(first(repository), 1)
    with pytest.raises(RepositoryError, match="expected version 2, got 1"):
        check_root(first(repository), 2)
    data = first(repository)
    flip(repository.metadata / "1.root.json", data.index(b'"expires":') + 14)
    with pytest.raises(RepositoryError):
        check_root(first(repository))


def trial(version, *, is_trial):
    return json.dumps({"signed": {"version": version, "x-crateseal": {"trial": is_trial}}}).encode()


def test_the_root_to_pin_is_the_oldest_that_no_trial_made_else_the_first():
    one, two, three = trial(1, is_trial=True), trial(2, is_trial=False), trial(3, is_trial=False)
    assert to_pin([one, two, three]) == (2, two)
    assert to_pin([one]) == (1, one)
    assert to_pin([two, three]) == (1, two)
    with pytest.raises(ValueError, match="no root"):
        to_pin([])
