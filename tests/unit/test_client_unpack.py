"""Unpacking a crate on the far side: all bad archives, and what comes of good ones."""

import contextlib
import hashlib
import io
import os
import stat
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.client.commands.unpack import (
    Folders,
    archive_files,
    limits_of_clients,
    opened,
    plain_files,
    unpack_crate,
    write_entry,
)
from mirror.core.archive import ArchiveLimits
from mirror.core.names import CrateId
from mirror.core.tar import FILE, TarEntry
from mirror.errors import ArchiveError
from tests.support.bad_archives import ENTRIES_MAX, UNPACKED_MAX_BYTES, Matrix, manifest, packed
from tests.support.crates import crate_bytes
from tests.support.tar import Entry, gnu, pax, raw

CRATE = CrateId("demo", "1.0.0")
DEMO = Matrix("demo")
TOP, good = DEMO.top, DEMO.good
SMALL = ArchiveLimits(unpacked_max_bytes=UNPACKED_MAX_BYTES, entries_max=ENTRIES_MAX)
BAD = DEMO.all() | DEMO.no_archives()


@contextlib.contextmanager
def folder_of(path):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def unpack(folder, data, limits=None, **more):
    """Unpack into `folder/inside/demo-1.0.0`; return that folder."""
    inside = folder / "inside"
    inside.mkdir(exist_ok=True)
    with folder_of(inside) as parent:
        unpack_crate(CRATE, data, (parent, TOP), limits or limits_of_clients(), **more)
    return inside / TOP


def files_below(folder):
    """Return path -> bytes of everything but folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if not path.is_dir()
    }


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_of_a_bad_archive_nothing_at_all_is_written(bad, tmp_path):
    with pytest.raises(ArchiveError):
        unpack(tmp_path, bad.data, SMALL)
    assert files_below(tmp_path) == {}
    assert os.listdir(tmp_path / "inside") == []


def test_a_path_never_leads_through_a_link(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "top").mkdir()
    (tmp_path / "top/way").symlink_to(tmp_path / "outside")
    with folder_of(tmp_path) as parent, opened("top", parent) as top, Folders(top) as folders:
        for path in ("way", "way/further"):
            with pytest.raises(OSError):
                folders.open(path)
        with pytest.raises(ValueError, match="no way up"):
            folders.open("../outside/further")
    assert os.listdir(tmp_path / "outside") == []


def test_a_link_in_a_files_place_is_replaced_and_never_followed(tmp_path):
    (tmp_path / "outside").write_bytes(b"whole")
    (tmp_path / "file").symlink_to("outside")
    with folder_of(tmp_path) as top, Folders(top) as folders:
        write_entry(folders, "file", TarEntry("x/file", FILE, 1, "", b"n"))
    assert (tmp_path / "outside").read_bytes() == b"whole"
    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"n"


LINKS = {
    "a symlink": DEMO.link("l", "src/lib.rs"),
    "a symlink to a folder": DEMO.link("l", "src"),
    "a hard link": DEMO.link("l", f"{TOP}/src/lib.rs", b"1"),
}


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
def test_links_are_not_unpacked_as_a_current_cargo_refuses_them_too(link, tmp_path):
    data = packed(good(link))
    with pytest.raises(ArchiveError, match="a link 'l'"):
        unpack(tmp_path, data)
    assert os.listdir(tmp_path / "inside") == []
    # Those that an older cargo has unpacked can be compared.
    contents = archive_files(CRATE, data, limits_of_clients())
    assert "l" in contents.files or "l" in contents.links


def test_a_hard_link_is_the_file_that_stands_there_by_then():
    link = DEMO.link("l", f"{TOP}/src/../a", b"1")
    data = packed(good(DEMO.file("a", b"first") + link + DEMO.file("a", b"second")))
    files = archive_files(CRATE, data, limits_of_clients()).files
    assert files["l"] == hashlib.sha256(b"first").hexdigest()
    assert files["a"] == hashlib.sha256(b"second").hexdigest()
    with pytest.raises(ArchiveError, match="before them"):
        archive_files(CRATE, packed(good(link)), limits_of_clients())


def test_an_ordinary_crate_is_unpacked_byte_by_byte(tmp_path):
    data = crate_bytes("demo", "1.0.0")
    folder = unpack(tmp_path, data)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        expected = {
            member.name.removeprefix(f"{TOP}/"): archive.extractfile(member).read()
            for member in archive.getmembers()
        }
    assert files_below(folder) == expected


ODD = {
    "a long name": (gnu(f"{TOP}/{'a' * 200}", entry=raw("x", b"1")), {"a" * 200: b"1"}),
    "a path by pax": (pax(path=f"{TOP}/pax") + raw("other", b"y"), {"pax": b"y"}),
    "dots and slashes": (raw(f"{TOP}/.//a/./b", b"z"), {"a/b": b"z"}),
    "a backslash": (raw(f"{TOP}/a\\b", b"x"), {"a\\b": b"x"}),
    "a file given twice": (DEMO.file("a", b"1") + DEMO.file("a", b"2"), {"a": b"2"}),
    "a mark of cargo's": (DEMO.file(".cargo-ok", b"x") + DEMO.file("a/.cargo-ok", b"x"), {}),
    "an empty file": (DEMO.file("empty"), {"empty": b""}),
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_but_harmless_entries_become_the_files_that_cargo_makes_of_them(odd, tmp_path):
    tail, more = ODD[odd]
    data = packed(good(tail))
    folder = unpack(tmp_path, data)
    expected = {"Cargo.toml": manifest("demo"), "src/lib.rs": b"//\n"} | more
    assert files_below(folder) == expected
    assert plain_files(CRATE, data, limits_of_clients()).files == {
        path: hashlib.sha256(text).hexdigest() for path, text in expected.items()
    }


def test_empty_folders_are_made(tmp_path):
    folder = unpack(tmp_path, packed(good(raw(f"{TOP}/some/folder/", kind=b"5"))))
    assert (folder / "some/folder").is_dir()


def test_what_is_not_wanted_is_not_written(tmp_path):
    tail = DEMO.file("docs/a", b"1") + raw(f"{TOP}/docs/b/", kind=b"5")
    folder = unpack(tmp_path, packed(good(tail)), wanted=lambda path: not path.startswith("docs"))
    assert set(files_below(folder)) == {"Cargo.toml", "src/lib.rs"}
    assert not (folder / "docs").exists()


def test_modes_are_two_and_less_the_umask_and_owner_and_time_are_ours(tmp_path):
    tail = DEMO.file("run", mode=b"0006777\0", uid=b"0001750\0") + DEMO.file("r", mode=b"0000400\0")
    tail += DEMO.file("strange", mode=b"zzzzzzzz")
    old = os.umask(0o022)
    try:
        folder = unpack(tmp_path, packed(good(tail)))
        os.umask(0o077)
        private = unpack(tmp_path / "inside", packed(good(tail)))
    finally:
        os.umask(old)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}
    assert modes["run"] == modes["src"] == 0o755
    assert modes["r"] == modes["strange"] == modes["Cargo.toml"] == 0o644
    assert stat.S_IMODE((private / "run").stat().st_mode) == 0o700
    assert stat.S_IMODE((private / "r").stat().st_mode) == 0o600
    assert (folder / "run").stat().st_uid == os.getuid()
    assert (folder / "run").stat().st_mtime > 1_000_000_000


def test_what_is_there_is_never_written_into(tmp_path):
    data = crate_bytes("demo", "1.0.0")
    folder = unpack(tmp_path, data)
    with pytest.raises(FileExistsError):
        unpack(tmp_path, data)
    assert len(files_below(folder)) == 2
    other = tmp_path / "other"
    (other / "inside").mkdir(parents=True)
    (other / "inside" / TOP).symlink_to(tmp_path)
    with pytest.raises(FileExistsError):
        unpack(other, data)
    assert sorted(os.listdir(tmp_path)) == ["inside", "other"]


NAMES = st.text(st.characters(codec="ascii", exclude_characters="\0/"), min_size=1, max_size=12)
PATHS = st.lists(NAMES | st.sampled_from(["..", ".", "", "src"]), min_size=1, max_size=4)


@given(st.lists(st.tuples(PATHS, st.sampled_from([b"0", b"1", b"2", b"5"]), PATHS), max_size=6))
def test_no_archive_whatsoever_writes_outside_its_folder(tmp_path_factory, entries):
    folder = tmp_path_factory.mktemp("any")
    tail = b"".join(
        raw(f"{TOP}/{'/'.join(path)}"[:100], kind=kind, link="/".join(link)[:100])
        for path, kind, link in entries
    )
    with contextlib.suppress(ArchiveError):
        unpack(folder, packed(good(tail)))
    assert os.listdir(folder) == ["inside"]
    assert set(os.listdir(folder / "inside")) <= {TOP}
    assert not any(path.is_symlink() for path in folder.rglob("*"))


def test_many_crates_are_unpacked_at_once_without_running_out_of_descriptors(tmp_path):
    entries = [Entry(f"{TOP}/Cargo.toml", manifest("demo"))]
    entries += [Entry(f"{TOP}/a{number}/b/c/file", b"x") for number in range(40)]
    data = crate_bytes("demo", "1.0.0", entries=entries)
    before = len(os.listdir("/proc/self/fd"))
    parents = [tmp_path / str(number) for number in range(8)]
    for parent in parents:
        parent.mkdir()
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda parent: unpack(parent, data), parents))
    assert all(len(files_below(folder)) == 41 for folder in folders)
    assert len(os.listdir("/proc/self/fd")) <= before
