import hashlib
import json

import pytest
from tuf.api.metadata import SuccinctRoles

from mirror.core.times import parse_rfc3339
from mirror.errors import NoPublicationError, PublicationError
from mirror.store.publication import Publications, TargetInfo, root_fingerprint
from tests.fakes.www import COMPLETE, FakeWww, index_line

SERDE = index_line("serde", "1.0.0")


@pytest.fixture
def www(tmp_path):
    www = FakeWww(tmp_path / "www")
    www.put_index("serde", SERDE)
    www.publish()
    return www


def change(www, path, edit):
    file = www.root / path
    document = json.loads(file.read_bytes())
    edit(document["signed"])
    www.write(path, json.dumps(document).encode())


def test_a_published_target_is_found_with_its_length_and_digest(www):
    publication = Publications(www.root).current()
    sha256 = hashlib.sha256(SERDE).hexdigest()
    assert publication.target("index/se/rd/serde") == TargetInfo(len(SERDE), sha256)
    assert publication.target("index/se/rd/serde") == TargetInfo(len(SERDE), sha256)
    assert publication.target("index/to/ki/tokio") is None
    assert dict(publication.targets()) == {"index/se/rd/serde": TargetInfo(len(SERDE), sha256)}


@pytest.mark.parametrize("bits", [1, 5, 8, 9, 12])
def test_every_target_is_found_whatever_the_number_of_bins(tmp_path, bits):
    www = FakeWww(tmp_path, bits=bits)
    names = [f"crate{number}" for number in range(50)]
    for name in names:
        www.put_index(name, index_line(name, "1.0.0"))
    www.publish()
    publication = Publications(tmp_path, bins_kept=3).current()
    assert all(publication.target(f"index/cr/at/{name}") for name in names)
    assert len(list(publication.targets())) == 50


def test_bins_are_found_where_stock_python_tuf_looks(tmp_path):
    www = FakeWww(tmp_path, bits=9)
    www.put_index("serde", SERDE)
    www.publish()
    name = SuccinctRoles([], 1, 9, "crates").get_role_for_target("index/se/rd/serde")
    text = (tmp_path / f"tuf/metadata/1.{name}.json").read_text()
    assert "index/se/rd/serde" in text
    (tmp_path / f"tuf/metadata/1.{name}.json").unlink()
    with pytest.raises(PublicationError):
        Publications(tmp_path).current().target("index/se/rd/serde")


def test_a_new_timestamp_is_seen_at_the_next_call(www):
    publications = Publications(www.root)
    before = publications.current()
    assert publications.current() is before
    www.put_index("tokio", index_line("tokio", "1.0.0"))
    www.publish()
    after = publications.current()
    assert (before.timestamp_version, after.timestamp_version) == (1, 2)
    assert before.target("index/to/ki/tokio") is None
    assert after.target("index/to/ki/tokio") is not None


def test_the_signed_state_and_the_expiries_are_there(www):
    www.state = COMPLETE
    www.publish()
    publication = Publications(www.root).current()
    assert publication.state["mode"] == "index"
    assert set(publication.expires) == {"root", "targets", "crates", "snapshot", "timestamp"}
    assert publication.expires["root"] == parse_rfc3339("2099-01-01T00:00:00Z")
    assert (publication.root_version, publication.trial) == (1, False)


def test_the_newest_root_counts(www):
    root = json.loads((www.root / "tuf/metadata/1.root.json").read_bytes())
    root["signed"] |= {"version": 2, "x-crateseal": {"trial": True}}
    www.write("tuf/metadata/2.root.json", json.dumps(root).encode())
    publication = Publications(www.root).current()
    assert (publication.root_version, publication.trial) == (2, True)


def test_the_fingerprint_is_that_of_the_first_root(www):
    data = (www.root / "tuf/metadata/1.root.json").read_bytes()
    assert root_fingerprint(www.root) == ("1.root.json", hashlib.sha256(data).hexdigest())


def test_an_empty_folder_has_no_publication(tmp_path):
    with pytest.raises(NoPublicationError):
        Publications(tmp_path).current()
    with pytest.raises(NoPublicationError):
        root_fingerprint(tmp_path)


def test_without_a_root_there_is_no_publication(www):
    (www.root / "tuf/metadata/1.root.json").unlink()
    with pytest.raises(NoPublicationError):
        Publications(www.root).current()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b'{"signed":[]}',
        b'{"signed":{"_type":"root","version":1}}',
        b"\xff",
        b"{" * 999,
    ],
)
@pytest.mark.parametrize(
    "file", ["timestamp.json", "1.snapshot.json", "1.targets.json", "1.crates.json"]
)
def test_a_file_that_is_no_metadata_is_named(www, file, data):
    www.write(f"tuf/metadata/{file}", data)
    with pytest.raises(PublicationError, match=file):
        Publications(www.root).current()


def test_a_missing_file_is_named(www):
    (www.root / "tuf/metadata/1.snapshot.json").unlink()
    with pytest.raises(PublicationError, match=r"1\.snapshot\.json"):
        Publications(www.root).current()


@pytest.mark.parametrize("version", [0, -1, True, "1", 1.0, 2**53, None])
def test_a_version_is_a_whole_number_below_2_to_the_53(www, version):
    change(www, "tuf/metadata/timestamp.json", lambda signed: signed.update(version=version))
    with pytest.raises(PublicationError):
        Publications(www.root).current()


@pytest.mark.parametrize(
    ("length", "sha256"),
    [
        (-1, "0" * 64),
        ("1", "0" * 64),
        (1, "0" * 63),
        (1, "../../../etc/passwd".ljust(64, "x")),
        (1, 7),
    ],
)
def test_a_bin_with_a_bad_target_is_refused_whole(www, length, sha256):
    for number in range(32):
        item = {"x": {"length": length, "hashes": {"sha256": sha256}}}
        change(
            www, f"tuf/metadata/1.crates-{number:02x}.json", lambda s, i=item: s.update(targets=i)
        )
    publication = Publications(www.root).current()
    with pytest.raises(PublicationError, match="sha256"):
        publication.target("index/se/rd/serde")


@pytest.mark.parametrize(
    "succinct", [None, {}, {"bit_length": 0}, {"bit_length": 5, "name_prefix": "../x"}]
)
def test_a_delegation_that_is_none_is_refused(www, succinct):
    edit = {"delegations": {"succinct_roles": succinct}}
    change(www, "tuf/metadata/1.crates.json", lambda signed: signed.update(edit))
    with pytest.raises(PublicationError, match="delegation"):
        Publications(www.root).current()


def test_an_expiry_without_a_zone_is_refused(www):
    change(www, "tuf/metadata/timestamp.json", lambda s: s.update(expires="2099-01-01T00:00:00"))
    with pytest.raises(PublicationError, match="expiry"):
        Publications(www.root).current()


def test_bins_are_read_only_when_asked_and_only_so_many_are_kept(tmp_path):
    www = FakeWww(tmp_path, bits=8)
    for number in range(100):
        www.put_index(f"crate{number}", index_line(f"crate{number}", "1.0.0"))
    www.publish()
    publications = Publications(tmp_path, bins_kept=4)
    publication = publications.current()
    for file in (tmp_path / "tuf/metadata").glob("*.crates-*.json"):
        if publication.target("index/cr/at/crate7") and "crate7" not in file.read_text():
            file.unlink()
    assert publication.target("index/cr/at/crate7")
    with pytest.raises(PublicationError):
        list(publication.targets())
