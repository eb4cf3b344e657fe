"""What a repository's files, clock and disk can bring: refused in one clear line, nothing written.

Whoever signs with the right keys can still write what two programs read differently.
"""

import contextlib
import json
import os
import resource
import shutil
import signal

import pytest

from tests.fakes.tuf import NOW, Repository, target
from tests.support.forging import Keys, committed, only, publish_again, signed_part
from tuf_repo import verify
from tuf_repo.check import check_repository
from tuf_repo.core.bins import BinLayout
from tuf_repo.core.numbers import LIMIT, Reservation
from tuf_repo.core.times import DAY
from tuf_repo.errors import ClockError, CounterError, MetadataError, RepositoryError
from tuf_repo.loading import load_roots

SERDE = "index/se/rd/serde"
FULL_BIN = BinLayout("crates", 2).bin_of(SERDE)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    base = tmp_path_factory.mktemp("original") / "data"
    base.mkdir()
    repository = Repository(base)
    repository.init()
    repository.publish(repository.open(), {SERDE: target(7)})
    return repository


@pytest.fixture
def repository(original, tmp_path):
    shutil.copytree(original.base, tmp_path / "data")
    return Repository(tmp_path / "data")


def everything(repository):
    """Every file of the metadata and the state folder, with its bytes."""
    folders = (repository.metadata, repository.base / "staging")
    return {path: path.read_bytes() for folder in folders for path in folder.iterdir()}


def refused(repository, *words, kind=RepositoryError):
    """Opening says no in one line with these words, changes nothing, and `check` says the same."""
    before = everything(repository)
    with pytest.raises(kind) as caught:
        repository.open()
    line = str(caught.value)
    assert "\n" not in line
    for word in words:
        assert word in line
    assert everything(repository) == before
    return line


def found(repository):
    return [str(finding) for finding in check_repository(repository.folder(), now=NOW)]


# --- bytes that are not the one form


def spelled(old, new):
    return lambda data: data.replace(old, new, 1)


SPELLINGS = {
    "a key twice": spelled(b'"_type":', b'"_type":"root","_type":'),
    "a key twice beside what is signed": spelled(
        b'{"signatures":', b'{"signatures":[],"signatures":'
    ),
    "a key twice in a target": spelled(b'"length":', b'"length":1,"length":'),
    "blanks": spelled(b'"signed":', b'"signed": '),
    "a newline at the end": lambda data: data + b"\n",
    "an escape": spelled(b"se/rd", b"se\\u002frd"),
    "another order": spelled(b'{"hashes":', b'{"length":7,"hashes":'),
    "a field beside what is signed": lambda data: data[:-1] + b',"more":1}',
    "a field in a signature": spelled(b'"sig":', b'"more":NaN,"sig":'),
    "another spelling of a time": spelled(b'"expires":"2027-03', b'"expires":"2027-3'),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_second_spelling_of_signed_metadata_is_refused(repository, spelling):
    """Stock python-tuf takes most of them: the signature is over what it makes of the bytes."""
    file = committed(repository)[FULL_BIN]
    path = repository.metadata / file
    good = path.read_bytes()
    bad = SPELLINGS[spelling](good)
    assert bad != good
    path.write_bytes(bad)
    refused(repository, file, "the one form we write, each key once, got another at byte")
    assert file in found(repository)[0]


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets", "crates"])
def test_so_it_is_in_every_role(repository, role):
    files = {**committed(repository), "root": "1.root.json", "timestamp": "timestamp.json"}
    path = repository.metadata / files[role]
    path.write_bytes(path.read_bytes().replace(b'"_type":', b'"_type":"x","_type":'))
    refused(repository, files[role])


def test_nan_is_refused(repository):
    file = committed(repository)[FULL_BIN]
    path = repository.metadata / file
    for number in (b"NaN", b"Infinity", b"1e5", b"1.5"):
        good = path.read_bytes()
        path.write_bytes(good.replace(b'"length":7', b'"length":' + number))
        refused(repository, file)
        path.write_bytes(good)


def test_what_is_no_metadata_is_refused(repository):
    for number, role in enumerate(["timestamp", "snapshot", "targets", "crates", FULL_BIN]):
        file = {**committed(repository), "timestamp": "timestamp.json"}[role]
        path = repository.metadata / file
        good = path.read_bytes()
        for bad in (
            b"",
            b"{",
            b"[]",
            b"null",
            b'"text"',
            b"\xff\xfe",
            b"[" * 90_000,
            b'{"signed":{}}',
        ):
            path.write_bytes(bad)
            refused(repository, file if number else "")
        path.write_bytes(good)


# --- numbers that are not exact everywhere


@pytest.mark.parametrize("number", [LIMIT, -LIMIT, 10**30])
@pytest.mark.parametrize(
    "where",
    [
        lambda number: {"x-deep": {"a": [{"b": [1, number]}]}},
        lambda number: {"x-first": [number]},
        lambda number: {"x-plain": number},
    ],
)
def test_a_number_that_some_readers_would_round_is_refused(repository, number, where):
    publish_again(repository, only(FULL_BIN, lambda s: s.update(where(number))))
    refused(repository, committed(repository)[FULL_BIN], f"numbers below {LIMIT}, got {number}")


def test_the_largest_exact_number_and_digits_in_texts_are_fine(repository):
    fields = {"x-large": [LIMIT - 1, -(LIMIT - 1)], "x-text": f'":{LIMIT}, [{10**20}, '}
    publish_again(repository, only(FULL_BIN, lambda s: s.update(fields)))
    repository.open()
    assert found(repository) == []


def test_digits_beyond_what_python_reads_are_refused(repository):
    path = repository.metadata / "timestamp.json"
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"version":', b'"version":' + b"9" * 5_000))
    refused(repository, "timestamp.json")


# --- a bin that delegates


def test_a_bin_that_delegates_is_refused(repository, tmp_path):
    """The control is in it: stock clients would follow, to whatever key the thief of one names."""
    thief = Keys(repository).online.bins.public_key
    evil = {
        "_type": "targets",
        "expires": "2030-01-01T00:00:00Z",
        "spec_version": "1.0.31",
        "targets": {"index/ev/il/evil": target(666).fields()},
        "version": 5,
        "x-role": "elsewhere",
    }
    delegations = {
        "keys": {thief.keyid: thief.to_dict()},
        "roles": [
            {
                "keyids": [thief.keyid],
                "name": "elsewhere",
                "paths": ["index/*/*/*"],
                "terminating": True,
                "threshold": 1,
            }
        ],
    }
    bin_name = BinLayout("crates", 2).bin_of("index/ev/il/evil")
    (repository.metadata / "5.elsewhere.json").write_bytes(Keys(repository).sign("elsewhere", evil))

    def delegate(role, signed):
        if role == bin_name:
            signed["delegations"] = delegations
        if role == "snapshot":
            signed["meta"]["elsewhere.json"] = {"version": 5}

    publish_again(repository, delegate)
    assert repository.client(tmp_path / "c").get_targetinfo("index/ev/il/evil").length == 666
    file = committed(repository)[bin_name]
    assert any(
        f"{file}: expected a bin, which delegates to nobody" in each for each in found(repository)
    )
    publish_again(repository, only("snapshot", lambda s: s["meta"].pop("elsewhere.json")))
    refused(repository, file, "delegates to nobody")


# --- a repository newer than the program


@pytest.mark.parametrize("role", ["root", "timestamp", FULL_BIN])
def test_a_repository_of_a_later_specification_says_so(repository, role):
    files = {**committed(repository), "root": "1.root.json", "timestamp": "timestamp.json"}
    path = repository.metadata / files[role]
    path.write_bytes(path.read_bytes().replace(b'"1.0.31"', b'"2.1.0"'))
    refused(
        repository, files[role], "version 1 of the TUF specification, got 2.1.0: a newer program"
    )


def test_a_specification_without_sense_is_refused(repository):
    path = repository.metadata / "timestamp.json"
    good = path.read_bytes()
    for wrong in (b'"x.1"', b'"0.9"', b"[1]", b"null"):
        path.write_bytes(good.replace(b'"1.0.31"', wrong))
        assert "newer" not in refused(repository, "timestamp.json")


def test_a_counter_of_a_later_program_says_so(repository):
    path = repository.base / "staging" / "counter.json"
    path.write_bytes(json.dumps({**json.loads(path.read_bytes()), "format": 2}).encode())
    refused(repository, "counter.json", "format 1", "newer program", kind=CounterError)


@pytest.mark.parametrize(
    "bad",
    [b"", b"[]", b"{}", b'{"below":"x","at":1}', b'{"below":1}', b"\xff", b"[" * 90_000]
    + [
        b'{"format":1,"below":' + number + b',"at":1}'
        for number in (b"NaN", b"-5", b"true", b"null")
    ],
)
def test_a_counter_that_is_none_is_refused(repository, bad):
    (repository.base / "staging" / "counter.json").write_bytes(bad)
    refused(repository, "counter.json", kind=CounterError)


# --- the counter's end, the clock


@pytest.mark.parametrize("below", [LIMIT - 10, LIMIT, LIMIT + 5])
def test_a_counter_at_its_end_signs_nothing_and_writes_nothing(repository, below):
    repository.storage.write_reservation(Reservation(below, int(NOW)))
    publisher = repository.open()
    before = everything(repository)
    with pytest.raises(CounterError, match=f"^counter: expected numbers below {LIMIT}"):
        publisher.stage({SERDE: target(9)}, {}, now=NOW)
    assert everything(repository) == before


def test_a_committed_number_beyond_the_end_is_refused(repository):
    publish_again(repository, only("timestamp", lambda s: s.update(version=LIMIT)), roles=[])
    refused(repository, "timestamp.json", f"numbers below {LIMIT}", kind=MetadataError)
    assert any("timestamp.json" in each for each in found(repository))


def test_a_clock_that_went_back_signs_nothing_and_writes_nothing(repository):
    publisher = repository.open()
    before = everything(repository)
    for behind in (61, DAY, 400 * DAY):
        with pytest.raises(
            ClockError, match=r"^clock: expected a time after the last signature, 2027"
        ):
            publisher.stage({SERDE: target(9)}, {}, now=NOW - behind)
    assert everything(repository) == before


def test_a_clock_far_ahead_is_found_by_who_has_the_right_one(repository):
    """A signer whose clock ran ahead signed; set right again it waits, and says for what."""
    repository.now = NOW + 400 * DAY
    repository.publish(repository.open(), {SERDE: target(9)})
    repository.now = NOW
    refused(repository, "clock", "2028", kind=ClockError)


# --- a disk that is full


@contextlib.contextmanager
def files_no_larger_than(size):
    """The system refuses to write beyond; a full disk does the same, in the middle of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("size", [0, 40, 400, 700])
def test_a_file_that_the_disk_has_no_room_for_leaves_nothing(repository, size):
    publisher = repository.open()
    before = everything(repository)
    with files_no_larger_than(size), pytest.raises(OSError, match="File too large"):
        publisher.stage({SERDE: target(9), "index/1/a": target(1)}, {}, now=NOW)
    after = everything(repository)
    counter = repository.base / "staging" / "counter.json"
    assert {**after, counter: b""} == {**before, counter: b""}
    repository.publish(publisher, {SERDE: target(9)})
    assert found(repository) == []


# --- files that are missing, or that should not be there


def test_a_missing_file_is_named(repository):
    files = {**committed(repository), "root": "1.root.json", "timestamp": "timestamp.json"}
    for file in files.values():
        path = repository.metadata / file
        data = path.read_bytes()
        path.unlink()
        assert refused(repository, file, kind=MetadataError).endswith("got nothing")
        path.write_bytes(data)
    repository.open()


def test_what_is_no_file_of_ours_is_left_alone(repository):
    strays = {
        "notes.txt": b"x",
        ".hidden": b"",
        "x.root.json": b"{}",
        f"{10**20}.snapshot.json": b"",
    }
    for name, data in strays.items():
        (repository.metadata / name).write_bytes(data)
    repository.publish(repository.open(), {SERDE: target(9)})
    assert {name: (repository.metadata / name).read_bytes() for name in strays} == strays


def test_a_file_already_under_the_next_name_is_never_written_over(repository):
    """Numbers are unique; if they were not, the disk would still refuse."""
    publisher = repository.open()
    staged = publisher.stage({SERDE: target(9)}, {}, now=NOW)
    publisher.abandon(staged)
    twin = repository.open()
    again = twin.stage({SERDE: target(8)}, {}, now=NOW)
    assert not set(staged.written) & set(again.written)
    file = again.written[0]
    twin.abandon(again)
    stray = repository.metadata / file
    stray.write_bytes(b"somebody's")
    with pytest.raises(FileExistsError):
        repository.storage.write(file, b"ours")
    assert stray.read_bytes() == b"somebody's"


def test_a_root_out_of_order_is_refused(repository):
    (root,) = load_roots(repository.folder())
    data = (repository.metadata / "1.root.json").read_bytes()
    (repository.metadata / "2.root.json").write_bytes(data)
    refused(repository, "2.root.json", "version 2, got 1", kind=MetadataError)
    with pytest.raises(MetadataError, match="version 3"):
        verify.root("3.root.json", data, root, 3)


def test_a_folder_in_the_place_of_a_file_is_an_error_of_the_disk(repository):
    os.unlink(repository.metadata / "timestamp.json")
    (repository.metadata / "timestamp.json").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        repository.open()


def test_signed_parts_are_what_they_were(repository):
    """Publishing again without a change is sound: what the other tests find is their own doing."""
    before = signed_part(repository.metadata / committed(repository)[FULL_BIN])
    publish_again(repository, lambda *_: None)
    assert signed_part(repository.metadata / committed(repository)[FULL_BIN]) == before
    assert found(repository) == []
