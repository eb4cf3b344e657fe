"""The pure rules: names, index files, audit, archives; properties where there is a round trip."""

import gzip
import hashlib
import io
import itertools
import json
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.core.archive import ArchiveLimits, check_archive
from mirror.core.audit import audit_index_file
from mirror.core.index import IndexLimits, dependencies_of_newest, find_entry, parse_index_file
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
    CksumChangedError,
    CksumMismatchError,
    InvalidNameError,
    InvalidVersionError,
    MalformedIndexError,
    RejectedError,
    VersionVanishedError,
)
from tests.support.crates import crate_bytes, index_file, index_line
from tests.support.tar import Entry, header, pax, raw

LIMITS = IndexLimits()
NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,63}", fullmatch=True).map(CrateName)
VERSIONS = st.from_regex(
    r"(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})"
    r"(-(alpha|rc\.[1-9]|0))?(\+[a-z0-9]{1,6})?",
    fullmatch=True,
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
OWN_FIELDS = {"name", "vers", "deps", "cksum", "features", "yanked"}
UNKNOWN = st.dictionaries(st.text(max_size=6).filter(lambda key: key not in OWN_FIELDS), VALUES)


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


@given(NAMES, st.lists(st.tuples(VERSIONS, UNKNOWN), min_size=1, max_size=4))
def test_bytes_of_an_index_file_pass_through_unchanged(name, lines):
    data = b"".join(index_line(name, version, **more) + b"\n" for version, more in lines)
    file = parse_index_file(name, data, LIMITS)
    assert file.data == data
    assert b"".join(entry.line + b"\n" for entry in file.entries) == data
    assert [entry.crate.version for entry in file.entries] == [version for version, _ in lines]
    assert file.entries[-1].fields().items() >= lines[-1][1].items()


@given(NAMES, st.lists(VERSIONS, min_size=1, max_size=6))
def test_one_entry_is_found_as_in_the_whole_file(name, versions):
    data = b"\n".join(
        index_line(name, version, f"{number:064x}") for number, version in enumerate(versions)
    )
    by_version = parse_index_file(name, data, LIMITS).by_version()
    for version in versions:
        assert find_entry(data, name, version) == by_version[version]
    assert find_entry(data, name, "99999.0.0") is None


@pytest.mark.parametrize(
    "line",
    [
        b"<html><body>Please log in</body></html>",
        b"",
        b"{}",
        b"[]",
        b"null",
        index_line("other", "1.0.0"),
        index_line("demo", "1.0"),
        index_line("demo", "1.0.0", "x"),
        index_line("demo", "1.0.0", "A" * 64),
        index_line("demo", "1.0.0")[:-5],
        index_line("demo", "1.0.0", yanked="no"),
        index_line("demo", "1.0.0", deps2=1).replace(b'"deps":[]', b'"deps":{}'),
        index_line("demo", "1.0.0").replace(b'"yanked"', b'"vers":"2.0.0","yanked"'),
        index_line("demo", "1.0.0", x=1).replace(b'"x":1', b'"x":NaN'),
        index_line("demo", "1.0.0", x=1).replace(b'"x":1', b'"x":"\xff"'),
        index_line("demo", "1.0.0", x=1).replace(b'"x":1', b'"x":"\\ud800"'),
        index_line("demo", "1.0.0").decode().encode("utf-16"),
        b'{"a":' * 100_000,
        b'{"a":' + b"9" * 10_000 + b"}",
        index_line("demo", "1.0.0")[:-1] + b',"x":' + b"[" * 300 + b"]" * 300 + b"}",
        index_line("demo", "1.0.0").replace(b'"1.0.0"', b'"1.0.\\u0030"'),
    ],
)
def test_a_line_that_is_no_entry_of_this_crate_is_refused(line):
    with pytest.raises(MalformedIndexError):
        parse_index_file(CrateName("demo"), line, LIMITS)


def test_lines_with_other_spacing_are_entries_too():
    spaced = index_line("demo", "1.0.0").replace(b":", b": ").replace(b",", b", ")
    assert parse_index_file(CrateName("demo"), spaced, LIMITS).entries[0].line == spaced


@pytest.mark.parametrize(
    "limits",
    [IndexLimits(file_max_bytes=100), IndexLimits(line_max_bytes=50), IndexLimits(entries_max=1)],
)
def test_an_index_file_keeps_within_each_limit(limits):
    with pytest.raises(MalformedIndexError):
        parse_index_file(CrateName("demo"), index_file("demo", "1.0.0", "1.1.0"), limits)


def test_the_name_is_compared_in_lower_case():
    file = parse_index_file(CrateName("inflector"), index_line("Inflector", "1.0.0"), LIMITS)
    assert str(file.entries[0].crate) == "Inflector 1.0.0"


def test_of_a_version_given_twice_the_last_line_counts():
    data = index_line("demo", "1.0.0", "1" * 64) + b"\n" + index_line("demo", "1.0.0", "2" * 64)
    file = parse_index_file(CrateName("demo"), data, LIMITS)
    assert file.by_version()["1.0.0"].cksum == "2" * 64


def test_dependencies_are_those_of_the_newest_version_that_a_build_may_take():
    lines = [
        index_line("demo", "1.0.0", deps=("old",)),
        index_line("demo", "1.2.0", deps=("new", "demo", "bad name", "new")),
        index_line("demo", "1.3.0", deps=("yanked",), yanked=True),
        index_line("demo", "2.0.0-rc.1", deps=("pre",)),
    ]
    file = parse_index_file(CrateName("demo"), b"\n".join(lines), LIMITS)
    assert dependencies_of_newest(file, 64) == ("new",)


def test_renamed_required_and_dev_dependencies_are_told_apart():
    deps = [
        {"name": "maybe", "kind": "normal", "optional": True},
        {"name": "alias", "package": "real", "kind": "normal", "optional": False},
        {"name": "tests", "kind": "dev"},
        {"name": "elsewhere", "registry": "https://example.invalid"},
        {"name": "builds", "kind": "build"},
    ]
    line = index_line("demo", "1.0.0", deps=())
    data = json.dumps(json.loads(line) | {"deps": deps}).encode()
    file = parse_index_file(CrateName("demo"), data, LIMITS)
    assert dependencies_of_newest(file, 64) == ("real", "builds", "maybe")
    assert dependencies_of_newest(file, 1) == ("real",)


# The audit


def test_a_new_version_and_a_yank_pass_the_audit():
    before = index_file("demo", "1.0.0")
    after = before.replace(b'"yanked":false', b'"yanked":true') + index_line("demo", "1.1.0")
    assert audit_index_file(CrateName("demo"), before, after, LIMITS).data == after


def test_a_changed_cksum_is_refused():
    before, after = index_line("demo", "1.0.0", "1" * 64), index_line("demo", "1.0.0", "2" * 64)
    with pytest.raises(CksumChangedError) as caught:
        audit_index_file(CrateName("demo"), before, after, LIMITS)
    assert "1" * 64 in caught.value.expected
    assert caught.value.got == "2" * 64
    assert caught.value.rule == "cksum-changed"


def test_a_changed_cksum_hidden_in_a_second_line_is_refused():
    before = index_line("demo", "1.0.0", "1" * 64)
    with pytest.raises(CksumChangedError):
        audit_index_file(
            CrateName("demo"),
            before,
            before + b"\n" + index_line("demo", "1.0.0", "2" * 64),
            LIMITS,
        )


def test_a_version_that_vanished_is_refused():
    with pytest.raises(VersionVanishedError):
        audit_index_file(
            CrateName("demo"),
            index_file("demo", "1.0.0", "1.1.0"),
            index_file("demo", "1.1.0"),
            LIMITS,
        )


# Crates

CRATE = CrateId("demo", "1.0.0")
TOP = "demo-1.0.0"


def check(data, limits=None):
    check_archive(CRATE, io.BytesIO(data), limits or ArchiveLimits())


def archive(*entries):
    return crate_bytes("demo", "1.0.0", entries=list(entries))


def test_an_ordinary_crate_passes():
    check(crate_bytes("demo", "1.0.0"))


def test_links_that_stay_inside_pass():
    check(
        archive(
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


GOOD = raw(f"{TOP}/Cargo.toml", b"[package]")
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
