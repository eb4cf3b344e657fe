"""The attacks that the TUF specification names (1.5.2), by a host without keys or a thief of some.

Each is shown twice: stock python-tuf against our repository refuses it, and with the one defence
switched off the same host does the same thing and succeeds. Endless data and slow retrieval are in
test_transport.py, where the defence is our own.
"""

import hashlib
import json
import shutil

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadHTTPError,
    ExpiredMetadataError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import TargetFile

from tests.fakes.tuf import NOW, REFUSALS, FolderHost, Repository, target
from tests.support.forging import Keys, committed, next_root, only, publish_again, signed_part
from tuf_repo.core.bins import BinLayout
from tuf_repo.core.roles import Policy
from tuf_repo.core.times import DAY
from tuf_repo.signing import sign

SERDE, RAND = "index/se/rd/serde", "index/ra/nd/rand"
LINE = b'{"name":"serde","vers":"1.0.0","deps":[]}\n'
OTHER = b'{"name":"rand","vers":"0.9.0","deps":[1]}\n'
LAYOUT = BinLayout("crates", 2)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return made(tmp_path_factory.mktemp("original") / "data")


@pytest.fixture
def repository(original, tmp_path):
    shutil.copytree(original.base, tmp_path / "data")
    return Repository(tmp_path / "data")


def made(base, policy=None):
    base.mkdir()
    repository = Repository(base, policy=policy)
    repository.init()
    publish(repository, {SERDE: LINE, RAND: OTHER})
    return repository


def publish(repository, contents):
    changes = {path: repository.put(path, data) for path, data in contents.items()}
    repository.publish(repository.open(), changes)


def sees(client, path=SERDE):
    """The digest that a client believes in; None for "no such crate"."""
    info = client.get_targetinfo(path)
    return info.hashes["sha256"] if info else None


def digest(data):
    return hashlib.sha256(data).hexdigest()


def stamp_of(repository):
    return (repository.metadata / "timestamp.json").read_bytes()


class UncheckedTarget(TargetFile):
    """The defence of a target, switched off."""

    def verify_length_and_hashes(self, data):
        pass


def installed(client, path, kind=TargetFile):
    info = client.get_targetinfo(path)
    with open(client.download_target(kind(info.length, info.hashes, path)), "rb") as file:
        return file.read()


def served_as(path, genuine, data):
    """The host's answer to who fetches a target."""
    parent, _, name = path.rpartition("/")
    return {f"{parent}/{digest(genuine)}.{name}": data}


# --- arbitrary software installation, extraneous dependencies, wrong software installation

SWAPS = {
    "arbitrary software": b"E" * len(LINE),
    "an extraneous dependency": LINE.replace(b'"deps":[]', b'"deps":[{"name":"evil"}]'),
    "the wrong software": OTHER,
}


@pytest.mark.parametrize("swap", SWAPS)
def test_what_a_host_puts_in_the_place_of_a_target_is_refused(repository, tmp_path, swap):
    host = served_as(SERDE, LINE, SWAPS[swap])
    with pytest.raises(REFUSALS):
        installed(repository.client(tmp_path / "c", swap=host), SERDE)


@pytest.mark.parametrize("swap", ["arbitrary software", "the wrong software"])
def test_without_the_digest_it_would_be_installed(repository, tmp_path, swap):
    """The control. A longer answer is refused still: the length ends the download."""
    host = served_as(SERDE, LINE, SWAPS[swap][: len(LINE)])
    got = installed(repository.client(tmp_path / "c", swap=host), SERDE, UncheckedTarget)
    assert got == SWAPS[swap][: len(LINE)]


def test_without_tuf_an_extraneous_dependency_would_be_believed(repository):
    """The control: who takes the host's word reads the dependency out of the index line."""
    host = FolderHost(repository.base, served_as(SERDE, LINE, SWAPS["an extraneous dependency"]))
    (name,) = host.swap
    (got,) = host.fetch(f"http://host/targets/{name}")
    assert json.loads(got)["deps"] == [{"name": "evil"}]


def test_a_whole_repository_by_strangers_is_refused(repository, tmp_path):
    strangers = made(tmp_path / "strangers")
    publish(strangers, {SERDE: b"evil"})
    with pytest.raises(UnsignedMetadataError):
        repository.client(tmp_path / "c", host=FolderHost(strangers.base)).refresh()
    # The control: who takes the first root from that host trusts its keys.
    gullible = strangers.client(tmp_path / "gullible")
    assert sees(gullible) == digest(b"evil")


# --- fast-forward


def forwarded(repository):
    """A timestamp of the highest version there is, by a thief of its key."""
    signed = signed_part(repository.metadata / "timestamp.json")
    return Keys(repository).sign("timestamp", {**signed, "version": 2**53 - 1})


def test_after_a_fast_forward_new_keys_in_the_root_bring_clients_back(repository, tmp_path):
    host = {"timestamp.json": forwarded(repository)}
    repository.client(tmp_path / "c", swap=host).refresh()
    with pytest.raises(BadVersionNumberError):
        repository.client(tmp_path / "c").refresh()
    next_root(repository, replace=["timestamp", "snapshot"])
    publish_again(repository, lambda *_: None)
    client = repository.client(tmp_path / "c")
    assert sees(client) == digest(LINE)
    with pytest.raises(UnsignedMetadataError):
        repository.client(tmp_path / "c", swap=host).refresh()


def test_without_new_keys_a_fast_forward_would_last(repository, tmp_path):
    """The control: another root, the same keys."""
    host = {"timestamp.json": forwarded(repository)}
    repository.client(tmp_path / "c", swap=host).refresh()
    next_root(repository, replace=[])
    publish_again(repository, lambda *_: None)
    with pytest.raises(BadVersionNumberError):
        repository.client(tmp_path / "c").refresh()


# --- indefinite freeze


def test_a_host_that_stands_still_is_refused_a_day_later(repository, tmp_path):
    repository.client(tmp_path / "c").refresh()
    assert sees(repository.client(tmp_path / "c", now=NOW + DAY - 1)) == digest(LINE)
    for cache in ("c", "fresh"):
        with pytest.raises(ExpiredMetadataError):
            repository.client(tmp_path / cache, now=NOW + DAY + 1).refresh()


def test_without_expiry_clients_would_believe_it_for_months(tmp_path):
    """The control: a timestamp and a snapshot that live as long as the root."""
    long = Policy(timestamp_seconds=180 * DAY, snapshot_seconds=180 * DAY, bin_seconds=180 * DAY)
    repository = made(tmp_path / "data", long)
    assert sees(repository.client(tmp_path / "c", now=NOW + 179 * DAY)) == digest(LINE)


# --- malicious mirrors that prevent updates


class Refusing(FolderHost):
    """A mirror that says of everything from some file on that it is not there."""

    def __init__(self, base, withheld):
        super().__init__(base)
        self._withheld = withheld

    def _fetch(self, url):
        if self._withheld in url:
            raise DownloadHTTPError("not here", 404)
        return super()._fetch(url)


@pytest.mark.parametrize("withheld", ["timestamp", "snapshot", "targets.json", "crates", "crates-"])
def test_a_mirror_that_withholds_is_an_error_and_another_one_serves(repository, tmp_path, withheld):
    with pytest.raises(DownloadHTTPError):
        sees(repository.client(tmp_path / "c", host=Refusing(repository.base, withheld)))
    assert sees(repository.client(tmp_path / "c")) == digest(LINE)


def test_without_signed_absence_a_crate_would_seem_not_to_exist(repository):
    """The control: what cargo makes of a 404 on a plain index."""

    def plain(host):
        try:
            (data,) = host.fetch(f"http://host/targets/index/se/rd/{digest(LINE)}.serde")
        except DownloadHTTPError as error:
            return None if error.status_code == 404 else error
        return data

    assert plain(FolderHost(repository.base)) == LINE
    assert plain(Refusing(repository.base, "serde")) is None


# --- mix-and-match


def bin_of(path):
    return LAYOUT.bin_of(path)


def test_files_of_two_publications_are_not_mixed(repository, tmp_path):
    before = committed(repository)
    old_stamp = stamp_of(repository)
    publish(repository, {SERDE: b"new", RAND: b"new"})
    after = committed(repository)
    for role in (bin_of(SERDE), "snapshot"):
        host = {after[role]: before[role]}
        with pytest.raises(RepositoryError):
            sees(repository.client(tmp_path / role, swap=host))
    host = {"timestamp.json": old_stamp, before["snapshot"]: after["snapshot"]}
    with pytest.raises(RepositoryError):
        sees(repository.client(tmp_path / "old", swap=host))


def test_without_numbers_that_rise_old_and_new_would_be_mixed(repository, tmp_path):
    """The control: a signer that signs two contents with one number."""
    role = bin_of(SERDE)
    file = committed(repository)[role]
    old = (repository.metadata / file).read_bytes()
    fields = target(3).fields()
    publish_again(repository, only(role, lambda signed: signed["targets"].update({SERDE: fields})))
    assert sees(repository.client(tmp_path / "c")) == target(3).sha256
    assert sees(repository.client(tmp_path / "mixed", swap={file: old})) == digest(LINE)


# --- rollback


def test_a_client_does_not_go_back_to_what_was_before(repository, tmp_path):
    old = stamp_of(repository)
    publish(repository, {SERDE: b"mended"})
    assert sees(repository.client(tmp_path / "c")) == digest(b"mended")
    with pytest.raises(BadVersionNumberError):
        repository.client(tmp_path / "c", swap={"timestamp.json": old}).refresh()


def test_without_memory_a_client_would_go_back(repository, tmp_path):
    """The control, and a limit of TUF: a client that starts anew knows only what has expired."""
    old = stamp_of(repository)
    publish(repository, {SERDE: b"mended"})
    repository.client(tmp_path / "c").refresh()
    shutil.rmtree(tmp_path / "c")
    host = {"timestamp.json": old}
    assert sees(repository.client(tmp_path / "c", swap=host)) == digest(LINE)


# --- vulnerability to key compromises


def stolen_root(repository, thief):
    """The next root with the thief's key for timestamps, signed by one root key alone."""
    return next_root(
        repository, change=lambda root: root.add_key(thief.public_key, "timestamp"), write=False
    )


def thiefs_host(repository, root_file):
    thief = CryptoSigner.generate_ed25519()
    signed = signed_part(repository.metadata / "timestamp.json")
    stamp = sign({**signed, "x-thief": True}, thief)
    return {root_file: stolen_root(repository, thief), "timestamp.json": stamp}


def test_one_stolen_key_of_two_changes_no_root(repository, tmp_path):
    second = CryptoSigner.generate_ed25519()

    def quorum(root):
        root.add_key(second.public_key, "root")
        root.roles["root"].threshold = 2

    next_root(repository, change=quorum, also=[second])
    repository.client(tmp_path / "c").refresh()
    host = thiefs_host(repository, "3.root.json")
    with pytest.raises(UnsignedMetadataError):
        repository.client(tmp_path / "c", swap=host).refresh()


def test_with_a_threshold_of_one_it_would(repository, tmp_path):
    """The control: the same theft where one key is enough."""
    client = repository.client(tmp_path / "c", swap=thiefs_host(repository, "2.root.json"))
    client.refresh()
    assert client._trusted_set.timestamp.unrecognized_fields["x-thief"]


@pytest.mark.parametrize("role", ["targets", "crates"])
def test_the_online_keys_together_sign_no_offline_role(repository, tmp_path, role):
    file = committed(repository)[role]
    signed = signed_part(repository.metadata / file)
    keys = Keys(repository)
    for number, thief in enumerate((keys.online.bins, keys.online.snapshot, keys.online.timestamp)):
        (repository.metadata / file).write_bytes(sign(signed, thief))
        describe_again(repository)
        with pytest.raises(UnsignedMetadataError):
            sees(repository.client(tmp_path / f"{number}"))
    # The control: the role's own key.
    (repository.metadata / file).write_bytes(keys.sign(role, signed))
    describe_again(repository)
    assert sees(repository.client(tmp_path / "c")) == digest(LINE)


def describe_again(repository):
    """Make the snapshot fit what lies there, as a thief of its key would."""

    def fit(role, signed):
        if role == "snapshot":
            for fixed in ("targets", "crates"):
                data = (repository.metadata / committed(repository)[fixed]).read_bytes()
                signed["meta"][f"{fixed}.json"].update(
                    length=len(data), hashes={"sha256": digest(data)}
                )

    publish_again(repository, fit, roles=["snapshot"])
