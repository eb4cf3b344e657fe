"""The pure rules: names and archives; properties where there is a round trip."""

import gzip
import hashlib
import io
import itertools
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.core.archive import ArchiveLimits, check_archive
from mirror.core.index import IndexLimits, parse_index_file
from mirror.core.layout import (
    name_of_target,
    note_path,
    parse_crate_path,
    parse_index_path,
    target_path,
)
from mirror.core.names import CrateId, CrateName, CrateVersion, index_path, parse_name
from mirror.core.verify import verify_crate
from mirror.errors import (
    ArchiveError,
    CksumMismatchError,
    InvalidNameError,
    InvalidVersionError,
    RejectedError,
)
from tests.support.crates import crate_bytes, index_file
from tests.support.tar import Entry, header, pax, raw

LIMITS = IndexLimits()
NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,63}", fullmatch=True).map(CrateName)
VERSIONS = st.from_regex(
    r"(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})"
    r"(-(alpha|rc\.[1-9]|0))?(\+[a-z0-9]{1,6})?",
    fullmatch=True,
)


@given(NAMES)
def test_an_index_path_leads_back_to_its_name(name):
    assert parse_index_path(index_path(name)) == name
    assert name_of_target(target_path(name)) == name
    assert name_of_target(note_path(name)) == name


@given(NAMES, VERSIONS)
def test_a_crate_path_leads_back_to_its_crate(name, version):
    assert parse_crate_path(f"{name}/{name}-{version}.crate") == CrateId(name, version)


@pytest.mark.parametrize("text", ["", "1a", "ä", "a/b", "a\n", "a.b", "a" * 65, "..", "a\0"])
def test_a_name_that_no_crate_can_have_is_refused(text):
    with pytest.raises(InvalidNameError):
        parse_name(text)


@pytest.mark.parametrize(
    "text", ["1", "1.2", "1.2.3.4", "01.2.3", "1.2.3-", "1.2.3+", "1.2.3/..", ""]
)
def test_a_text_that_is_no_version_is_refused(text):
    with pytest.raises(InvalidVersionError):
        CrateVersion(text)


def test_versions_stand_in_the_order_of_the_specification():
    texts = "1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2 1.0.0-beta.11"
    texts += " 1.0.0-rc.1 1.0.0 1.0.1 1.2.0 1.10.0 2.0.0"
    ordered = [CrateVersion(text) for text in texts.split()]
    assert all(low < high for low, high in itertools.pairwise(ordered))


@pytest.mark.parametrize(
    "path",
    ["serde/../x-1.0.0.crate", "serde/serde-1.crate", "a/b-1.0.0.crate", "serde-1.0.0.crate", ""],
)
def test_a_crate_path_that_is_not_the_one_path_is_refused(path):
    with pytest.raises(RejectedError):
        parse_crate_path(path)


# Crates

CRATE = CrateId("demo", "1.0.0")
TOP = "demo-1.0.0"
MANIFEST = b'[package]\nname = "demo"\nversion = "1.0.0"\n'


def check(data, limits=None):
    check_archive(CRATE, io.BytesIO(data), limits or ArchiveLimits())


def archive(*entries):
    return crate_bytes("demo", "1.0.0", entries=list(entries))


def test_an_ordinary_crate_passes():
    check(crate_bytes("demo", "1.0.0"))


def test_links_that_stay_inside_pass():
    check(
        archive(
            Entry(f"{TOP}/Cargo.toml", MANIFEST),
            Entry(f"{TOP}/LICENSE", b"text"),
            Entry(f"{TOP}/sub/LICENSE", type=tarfile.SYMTYPE, link="../LICENSE"),
            Entry(f"{TOP}/again", type=tarfile.LNKTYPE, link=f"{TOP}/LICENSE"),
        )
    )


@pytest.mark.parametrize(
    "entry",
    [
        Entry("other-1.0.0/src/lib.rs", b"x"),
        Entry("/etc/passwd", b"x"),
        Entry(f"{TOP}/../../escape", b"x"),
        Entry("../escape", b"x"),
        Entry(f"{TOP}\\..\\..\\escape", b"x"),
        Entry(f"{TOP}/link", type=tarfile.SYMTYPE, link="/etc/passwd"),
        Entry(f"{TOP}/link", type=tarfile.SYMTYPE, link="../../etc/passwd"),
        Entry(f"{TOP}/link", type=tarfile.LNKTYPE, link="/etc/passwd"),
        Entry(f"{TOP}/link", type=tarfile.LNKTYPE, link="other/file"),
        Entry(f"{TOP}/tty", type=tarfile.CHRTYPE),
        Entry(f"{TOP}/disk", type=tarfile.BLKTYPE),
        Entry(f"{TOP}/pipe", type=tarfile.FIFOTYPE),
    ],
    ids=lambda entry: f"{entry.path}>{entry.link}",
)
def test_what_would_leave_its_folder_is_refused(entry):
    with pytest.raises(ArchiveError):
        check(archive(Entry(f"{TOP}/Cargo.toml", b"[package]"), entry))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>",
        gzip.compress(b"no tar at all, but more than one block of it" * 100),
        gzip.compress(b""),
        crate_bytes("demo", "1.0.0")[:-10],
        crate_bytes("demo", "1.0.0", entries=[]),
    ],
)
def test_what_is_no_whole_archive_is_refused(data):
    with pytest.raises(ArchiveError):
        check(data)


def test_a_bomb_is_refused_before_it_unfolds():
    bomb = archive(Entry(f"{TOP}/zeros", bytes(30_000_000)))
    assert len(bomb) < 100_000
    with pytest.raises(ArchiveError):
        check(bomb, ArchiveLimits(unpacked_max_bytes=1_000_000))


def test_too_many_entries_are_refused():
    many = archive(*(Entry(f"{TOP}/{number}") for number in range(50)))
    with pytest.raises(ArchiveError):
        check(many, ArchiveLimits(entries_max=49))


GOOD = raw(f"{TOP}/Cargo.toml", MANIFEST)
END = bytes(1024)
LONG = "a" * 120


def test_what_real_crates_are_made_of_passes():
    long = f"{TOP}/{LONG}"
    check(
        gzip.compress(
            GOOD
            + raw("long", long.encode() + b"\0", b"L")
            + raw("short", b"x")
            + pax(path=f"{TOP}/pax", mtime="1.5")
            + raw("other", b"y")
            + raw(f"{TOP}/folder/", kind=b"5")
            + END
        )
    )
    check(gzip.compress(GOOD))  # no end marks: cargo takes it too


@pytest.mark.parametrize(
    "tail",
    {
        "a number that is none hides the rest": raw(f"{TOP}/a", uid=b"zzzzzzz")
        + raw(f"{TOP}/leak", kind=b"2", link="/etc/passwd"),
        "a wrong header checksum": raw(f"{TOP}/a", sum=b"000000\0 ") + GOOD,
        "a global pax header": pax(b"g", path=f"{TOP}/a") + raw("/etc/passwd"),
        "a sparse file by pax": pax(GNU__sparse__name=f"{TOP}/a") + raw("../../evil"),
        "an old sparse file": raw(f"{TOP}/a", kind=b"S"),
        "a pax size that lies": pax(size="0") + raw(f"{TOP}/a", GOOD),
        "a pax size without end": pax(size="9" * 60) + raw(f"{TOP}/a"),
        "a negative size": raw(f"{TOP}/a", size=b"\xff" * 12),
        "many long names": raw("l", b"x", b"L") * 1500,
        "many pax headers": pax(path="x") * 1500,
        "a huge long name": header("l", 400_000_000, b"L"),
        "a long name without an entry": raw("l", b"x", b"L") + END,
        "a path that escapes by pax": pax(path="/etc/passwd") + raw(f"{TOP}/a"),
        "a link that leaves by pax": pax(linkpath="/etc/passwd") + raw(f"{TOP}/a", kind=b"2"),
        "a link through a link": raw(f"{TOP}/a/l1", kind=b"2", link="..")
        + raw(f"{TOP}/a/l2", kind=b"2", link="l1/../.."),
        "a file through a link": raw(f"{TOP}/l", kind=b"2", link="sub") + raw(f"{TOP}/l/f"),
        "a link that leaves and comes back": raw(f"{TOP}/l", kind=b"2", link=f"../{TOP}/a"),
        "a drive of Windows": raw("C:/evil"),
        "an unknown kind": raw(f"{TOP}/a", kind=b"Z"),
        "a link with contents": raw(f"{TOP}/l", GOOD, b"2", link="a"),
        "something after the end": END + GOOD,
        "half a header": GOOD[:100],
    }.items(),
    ids=lambda item: item[0],
)
def test_what_readers_may_read_in_two_ways_is_refused(tail):
    with pytest.raises(ArchiveError):
        check(gzip.compress(GOOD + tail[1]))


def test_a_second_gzip_member_is_refused():
    with pytest.raises(ArchiveError):
        check(gzip.compress(GOOD + END) + gzip.compress(GOOD))


def test_a_verified_crate_has_the_bytes_its_line_names():
    data = crate_bytes("demo", "1.0.0")
    file = parse_index_file(CrateName("demo"), index_file("demo", "1.0.0"), LIMITS)
    crate = verify_crate(file.entries[0], data, ArchiveLimits())
    assert crate.sha256 == hashlib.sha256(data).hexdigest()
    with pytest.raises(CksumMismatchError):
        verify_crate(file.entries[0], data + b"\0", ArchiveLimits())
    with pytest.raises(ArchiveError):
        verify_crate(file.entries[0], data, ArchiveLimits(file_max_bytes=10))
