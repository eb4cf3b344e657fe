"""Crate archives: the whole matrix of bad ones, and what must pass because cargo builds it."""

import gzip
import hashlib
import io
import time
import tracemalloc

import pytest

from mirror.core.archive import ArchiveLimits, check_archive
from mirror.core.index import IndexLimits, parse_index_file
from mirror.core.manifest import manifest_owner
from mirror.core.names import CrateId, CrateName
from mirror.core.verify import verify_crate
from mirror.errors import ArchiveError, CksumMismatchError
from tests.support.bad_archives import ENTRIES_MAX, UNPACKED_MAX_BYTES, Matrix, manifest, packed
from tests.support.crates import crate_bytes, index_line
from tests.support.tar import gnu, header, pax, raw

CRATE = CrateId("demo", "1.0.0")
SMALL = ArchiveLimits(unpacked_max_bytes=UNPACKED_MAX_BYTES, entries_max=ENTRIES_MAX)
DEMO = Matrix("demo")
TOP, good = DEMO.top, DEMO.good
OWN = manifest("demo")
BAD = DEMO.all() | DEMO.no_archives()


def check(data, limits=None):
    check_archive(CRATE, io.BytesIO(data), limits or ArchiveLimits())


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_archive_is_refused_and_the_reason_says_why(bad):
    with pytest.raises(ArchiveError) as caught:
        check(bad.data, SMALL)
    assert bad.word in str(caught.value)
    assert str(caught.value).startswith("demo 1.0.0: ")
    assert caught.value.rule == "archive"


WINDOWS = raw(f"{TOP}/a\\b", b"x")
LEAVE_IT_TO_CARGO = {
    "no toml": b"[package\n",
    "no text": b"\xff\xfe",
    "toml 1.1": OWN + b"[package.metadata]\nx = { a = 1,\n b = 2 }\n",
    "too deep": b"a = " + b"[" * 5_000,
    "too long": manifest("other") + b"#" * 1_000_000,
    "too many dots": manifest("other") + b"a." * 300 + b"a = 1\n",
}
FINE = {
    "an ordinary crate": crate_bytes("demo", "1.0.0"),
    "a crate made of ustar headers": packed(good()),
    "no marks of the end": gzip.compress(good()),
    "half a mark of the end": gzip.compress(good() + bytes(512)),
    "a newline behind it all (forust 0.1.0)": packed(good()) + b"\n",
    "zeros behind it all": packed(good()) + bytes(100),
    "the rest of an older file behind it all": packed(good()) + b"\x8b\x1fgarbage" * 20_000,
    "the same manifest twice (proc 0.1.4)": packed(good(raw(f"{TOP}/Cargo.toml", OWN))),
    "its own manifest behind another's": packed(raw(f"{TOP}/Cargo.toml", b"") + good()),
    "[project] for [package]": packed(good(text=manifest("demo", table="project"))),
    "[package] beside [project]": packed(good(text=manifest("x", table="project") + OWN)),
    "space around the version": packed(good(text=manifest("demo", " 1.0.0 "))),
    "a long name": packed(good(gnu(f"{TOP}/{'a' * 200}"))),
    "a path by pax": packed(good(pax(path=f"{TOP}/pax", mtime="1.5") + raw("other", b"y"))),
    "a size by pax": packed(good(pax(size="1") + raw(f"{TOP}/a", b"y"))),
    "a prefix": packed(good(raw("a", prefix=TOP.encode()))),
    "a folder": packed(good(raw(f"{TOP}/folder/", kind=b"5"))),
    "a folder, the old way": packed(good(raw(f"{TOP}/folder/", magic=bytes(8)))),
    "a size in base 256": packed(
        good(header(f"{TOP}/a", 1, size=b"\x80" + bytes(10) + b"\1") + b"x" + bytes(511))
    ),
    "no user, group and time": packed(
        good(raw(f"{TOP}/a", uid=bytes(8), gid=bytes(8), mtime=bytes(12)))
    ),
    "a contiguous file": packed(good(raw(f"{TOP}/a", b"x", b"7"))),
    "dots and slashes inside": packed(good(raw(f"{TOP}/.//a"))),
    "a backslash in a file's name": packed(good(WINDOWS)),
    "a colon in a file's name": packed(good(raw(f"{TOP}/std::vec.html"))),
    "bytes that are no text in a name": packed(good(gnu(f"{TOP}/a").replace(b"/a\0", b"/\xe9\0"))),
    "two names that differ in case": packed(good(raw(f"{TOP}/A") + raw(f"{TOP}/a/b"))),
    "links inside": packed(
        good(
            raw(f"{TOP}/LICENSE")
            + raw(f"{TOP}/sub/LICENSE", kind=b"2", link="../LICENSE")
            + raw(f"{TOP}/again", kind=b"1", link=f"{TOP}/LICENSE")
        )
    ),
} | {
    f"a manifest that is left to cargo: {name}": packed(good(text=text))
    for name, text in LEAVE_IT_TO_CARGO.items()
}


@pytest.mark.parametrize("data", FINE.values(), ids=FINE)
def test_what_cargo_builds_passes(data):
    check(data)


def test_the_name_in_the_manifest_has_the_case_of_the_index_line():
    data = crate_bytes("Inflector", "0.1.0+a.1")
    check_archive(CrateId("Inflector", "0.1.0+a.1"), io.BytesIO(data), ArchiveLimits())


def test_a_manifest_that_costs_time_is_not_read():
    text = OWN + b"a." * 400_000 + b"a = 1\n"
    began = time.process_time()
    assert manifest_owner(text) is None
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "tail",
    {
        "deep paths": b"".join(gnu(f"{TOP}/{n}/" + "a/" * 1_900 + "b") for n in range(2_000)),
        "deep links": b"".join(
            gnu(f"{n}/" + "a/" * 1_900 + "b", b"K", entry=raw(f"{TOP}/l{n}", kind=b"2"))
            for n in range(2_000)
        ),
    }.items(),
    ids=lambda item: item[0],
)
def test_names_alone_cannot_fill_the_memory(tail):
    data = packed(good(tail[1]))
    tracemalloc.start()
    with pytest.raises(ArchiveError, match="names of"):
        check(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000_000


def test_a_crate_at_each_limit_passes_and_one_beyond_does_not():
    data = packed(good())
    size = len(gzip.decompress(data))
    check(data, ArchiveLimits(unpacked_max_bytes=size, entries_max=2))
    with pytest.raises(ArchiveError):
        check(data, ArchiveLimits(unpacked_max_bytes=size - 1))
    with pytest.raises(ArchiveError):
        check(data, ArchiveLimits(entries_max=1))


# What an operator accepts


def entry_of(data):
    line = index_line("demo", "1.0.0", hashlib.sha256(data).hexdigest())
    return parse_index_file(CrateName("demo"), line, IndexLimits()).entries[0]


def test_an_accepted_archive_is_not_looked_into():
    data = BAD["a character device"].data
    with pytest.raises(ArchiveError):
        verify_crate(entry_of(data), data, ArchiveLimits())
    assert verify_crate(entry_of(data), data, ArchiveLimits(), accepted=True).data == data


def test_an_accepted_archive_has_its_checksum_and_its_size_all_the_same():
    data = BAD["a character device"].data
    with pytest.raises(CksumMismatchError):
        verify_crate(entry_of(data), data + b"\0", ArchiveLimits(), accepted=True)
    with pytest.raises(ArchiveError):
        verify_crate(entry_of(data), data, ArchiveLimits(file_max_bytes=10), accepted=True)
