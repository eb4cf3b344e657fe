"""`crateseal verify --cache`: what was changed in cargo's own cache is found, and named."""

import os
import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from mirror.client.commands.cargo_cache import (
    cargo_homes,
    check_cache,
    our_registry_folders,
    parse_stem,
)
from mirror.client.commands.files import read_file
from mirror.client.commands.unpack import CARGO_OK
from mirror.core.cargo_folders import registry_folders
from mirror.core.lockfile import parse_lock
from mirror.errors import AbsentError, ProofError, UnreachableError
from tests.fakes.holding import HoldingSource
from tests.support.bad_archives import Matrix, manifest, packed
from tests.support.crates import crate_bytes
from tests.support.mirror_folder import locked

ROOT_ID = "0123456789abcdef"
REGISTRIES = our_registry_folders(ROOT_ID)
(FOLDER, *_) = sorted(registry_folders("sparse+https://index.crates.io/"))
(OURS, *_) = sorted(registry_folders(f"sparse+http://127.0.0.1:8471/{ROOT_ID}/index/"))
PAIR = (("alpha", "1.0.0"), ("beta", "0.2.0"))


@pytest.fixture
def source():
    source = HoldingSource()
    for crate in PAIR:
        source.hold(*crate)
    return source


class Home:
    """A home of cargo, with what cargo would have put there."""

    def __init__(self, path, registry=FOLDER):
        self.path = path
        self.cache = path / "registry/cache" / registry
        self.src = path / "registry/src" / registry
        self.cache.mkdir(parents=True)
        self.src.mkdir(parents=True)

    def put(self, name, version, data=None):
        data = crate_bytes(name, version) if data is None else data
        stem = f"{name}-{version}"
        (self.cache / f"{stem}.crate").write_bytes(data)
        (self.src / stem / "src").mkdir(parents=True)
        text = f'[package]\nname = "{name}"\nversion = "{version}"\nedition = "2021"\n'
        (self.src / stem / "Cargo.toml").write_text(text)
        (self.src / stem / "src/lib.rs").write_text("pub fn answer() -> u8 { 42 }\n")
        (self.src / stem / CARGO_OK).write_text('{"v":1}')
        return self.src / stem


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "home")
    for crate in PAIR:
        home.put(*crate)
    return home


def check(home, source, lock=None):
    return list(check_cache([home.path], REGISTRIES, lock, source))


def findings(home, source, lock=None):
    """Return (package, file) of everything that is wrong."""
    return [
        (each.package, Path(error.where)) for each in check(home, source, lock)
        for error in each.errors
    ]  # fmt: skip


def lock_of(*crates, **sums):
    text = "\n".join(
        locked(name, version, sums.get(name) or sha256(crate_bytes(name, version)).hexdigest())
        for name, version in crates
    )
    return parse_lock("Cargo.lock", f"version = 4\n\n{text}".encode())


def test_a_cache_as_cargo_left_it_is_proven(home, source):
    checked = check(home, source)
    assert [each.package for each in checked] == ["alpha 1.0.0", "beta 0.2.0"]
    assert all(each.is_proven and each.files == 2 for each in checked)


def test_with_a_lock_only_what_it_names_is_looked_at(home, source):
    assert [each.package for each in check(home, source, lock_of(PAIR[1]))] == ["beta 0.2.0"]


CHANGES = {
    "a changed file": lambda src: (src / "src/lib.rs").write_text("evil"),
    "a build script more": lambda src: (src / "build.rs").write_text("fn main() {}"),
    "a hidden file": lambda src: (src / ".hidden").write_text(""),
    "a file named like cargo's, further down": lambda src: (src / "src" / CARGO_OK).write_text(""),
    "a removed file": lambda src: (src / "src/lib.rs").unlink(),
    "a link": lambda src: (src / "link").symlink_to("src"),
    "cargo's mark as a link": lambda src: (
        (src / CARGO_OK).unlink(), (src / CARGO_OK).symlink_to("Cargo.toml")
    ),
    "cargo's mark as a fifo": lambda src: ((src / CARGO_OK).unlink(), os.mkfifo(src / CARGO_OK)),
    "a fifo in a file's place": lambda src: (
        (src / "src/lib.rs").unlink(), os.mkfifo(src / "src/lib.rs")
    ),
    "a fifo": lambda src: os.mkfifo(src / "pipe"),
    "a folder in a file's place": lambda src: (
        (src / "src/lib.rs").unlink(), (src / "src/lib.rs").mkdir()
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_each_change_in_what_was_unpacked_is_a_finding_that_names_the_file(what, home, source):
    src = home.src / "alpha-1.0.0"
    CHANGES[what](src)
    ((package, file),) = findings(home, source)
    assert package == "alpha 1.0.0"
    assert file.is_relative_to(src)
    assert file != src


def test_a_changed_crate_file_is_a_finding(home, source):
    file = home.cache / "alpha-1.0.0.crate"
    file.write_bytes(packed(Matrix("alpha").good()))
    assert findings(home, source) == [("alpha 1.0.0", file)]


def test_a_lock_that_was_changed_with_it_does_not_help(home, source):
    file = home.cache / "alpha-1.0.0.crate"
    file.write_bytes(evil := packed(Matrix("alpha").good()))
    lock = lock_of(PAIR[0], alpha=sha256(evil).hexdigest())
    assert findings(home, source, lock) == [
        ("alpha 1.0.0", Path("the lock file")),
        ("alpha 1.0.0", file),
    ]


def test_what_was_unpacked_is_compared_though_the_crate_file_is_gone_or_wrong(home, source):
    (home.src / "alpha-1.0.0/build.rs").write_text("fn main() {}")
    (home.cache / "alpha-1.0.0.crate").unlink()
    assert len(findings(home, source)) == 1
    (home.cache / "alpha-1.0.0.crate").write_bytes(b"other")
    assert len(findings(home, source)) == 2


def test_a_crate_file_that_is_a_link_is_a_finding(home, source):
    file = home.cache / "alpha-1.0.0.crate"
    os.rename(file, home.path / "real")
    file.symlink_to(home.path / "real")
    assert findings(home, source) == [("alpha 1.0.0", file)]


def test_a_crate_file_that_is_a_fifo_is_a_finding_and_nobody_waits_at_it(home, source):
    file = home.cache / "alpha-1.0.0.crate"
    file.unlink()
    os.mkfifo(file)
    assert findings(home, source) == [("alpha 1.0.0", file)]


def test_a_file_is_read_to_a_limit(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert read_file(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="longer than 4 bytes"):
        read_file(tmp_path / "file", 4)


def test_a_folder_of_sources_that_is_a_link_is_a_finding(home, source):
    src = home.src / "alpha-1.0.0"
    os.rename(src, home.path / "real")
    src.symlink_to(home.path / "real")
    assert findings(home, source) == [("alpha 1.0.0", src)]


def test_a_crate_that_was_not_unpacked_is_proven_by_its_file(home, source):
    shutil.rmtree(home.src / "alpha-1.0.0")
    assert check(home, source)[0].is_proven


def test_what_cargo_did_not_finish_it_does_again(home, source):
    # A download cut short is empty; without its mark a folder is unpacked anew, over what is there.
    (home.cache / "beta-0.2.0.crate").write_bytes(b"")
    (home.src / "alpha-1.0.0" / CARGO_OK).unlink()
    (home.src / "alpha-1.0.0/src/lib.rs").unlink()
    assert findings(home, source) == []
    (home.src / "alpha-1.0.0/build.rs").write_text("it would stay")
    assert len(findings(home, source)) == 1


def test_what_the_mirror_does_not_hold_is_told_and_not_proven(home, source):
    home.put("gamma", "1.0.0")
    gamma = check(home, source)[2]
    assert isinstance(gamma.errors[0], AbsentError)
    assert not gamma.is_proven


def test_a_mirror_that_gives_no_answer_is_no_finding(home):
    class Away(HoldingSource):
        def entry(self, crate):
            raise UnreachableError(f"{crate}: no answer")

    assert {each.exit_code for each in check(home, Away())} == {3}


def test_an_archive_that_is_unsafe_to_read_is_a_finding(home, source):
    bad = Matrix("demo").all()["a symlink out"].data
    source.hold("demo", "1.0.0", bad)
    home.put("demo", "1.0.0", bad)
    demo = check(home, source)[2]
    assert isinstance(demo.errors[0], ProofError)


def test_links_that_an_older_cargo_unpacked_from_the_crate_are_right(home, source):
    matrix = Matrix("demo")
    data = packed(matrix.good(matrix.link("l", "src/lib.rs")))
    source.hold("demo", "1.0.0", data)
    src = home.put("demo", "1.0.0", data)
    (src / "Cargo.toml").write_bytes(manifest("demo"))
    (src / "src/lib.rs").write_bytes(b"//\n")
    (src / "l").symlink_to("src/lib.rs")
    assert findings(home, source) == []


def test_registries_that_are_not_crates_io_are_not_looked_into(tmp_path, source):
    home = Home(tmp_path / "home", "github.com-0123456789abcdef")
    home.put("alpha", "1.0.0", b"another registry's alpha")
    assert check(home, source) == []


def test_folders_of_our_proxy_on_any_of_its_ports_and_of_the_mirror_itself_are_looked_into():
    for url in (
        f"http://127.0.0.1:8471/{ROOT_ID}/index/",
        f"http://127.0.0.1:8499/{ROOT_ID}/index/",
        f"http://127.0.0.1:9000/{ROOT_ID}/index/",
        "https://crates.example.org/index/",
        "https://index.crates.io/",
    ):
        ours = our_registry_folders(ROOT_ID, ["https://crates.example.org/"], [9000])
        assert registry_folders(f"sparse+{url}") <= ours
    assert not registry_folders("sparse+http://127.0.0.1:9000/other/index/") & ours
    assert registry_folders("registry+https://github.com/rust-lang/crates.io-index") <= ours


def test_names_and_versions_are_told_apart_as_cargo_puts_them_together():
    for name, version in (
        ("serde", "1.0.0"), ("foo-1", "1.0.0"), ("foo-", "1.0.0"), ("a", "1.0.0-1.0.0"),
        ("x_y", "0.1.0+build-1.2"),
    ):  # fmt: skip
        crate = parse_stem(f"{name}-{version}")
        assert (crate.name, crate.version) == (name, version)
    for stem in ("serde", "serde-1", "-1.0.0", "..", "1.0.0", "serde-1.0.0/../x"):
        assert parse_stem(stem) is None


def test_homes_are_those_of_cargo_sealed_and_the_users_own(tmp_path):
    trust = tmp_path / "cache"
    overlays = (Home(trust / "cargo-home").path, Home(trust / "cargo-home-2").path)
    own = Home(tmp_path / "user/.cargo").path
    user = {"HOME": str(tmp_path / "user")}
    assert cargo_homes(user, trust) == (*overlays, own)
    assert cargo_homes(user, tmp_path / "none") == (own,)
    assert cargo_homes(user | {"CARGO_HOME": str(own)}, trust) == (*overlays, own)
    assert cargo_homes({"HOME": str(tmp_path)}, tmp_path / "none") == ()


# ---- cargo's copy of the index


def keep_index(home, name, *lines, head=b"\x03\x02\0\0\0etag: x\0"):
    """Put cargo's copy of an index file where cargo would."""
    folder = home.path / f"registry/index/{OURS}/.cache/{name[:2]}/{name[2:4]}"
    folder.mkdir(parents=True, exist_ok=True)
    data = b"".join(version.encode() + b"\0" + line + b"\0" for version, line in lines)
    (folder / name).write_bytes(head + data)
    return folder / name


def signed_line(source, name):
    return source.index_file(name).data.splitlines()[0]


def test_a_copy_of_the_index_as_cargo_left_it_is_no_finding(home, source):
    line = signed_line(source, "alpha")
    keep_index(home, "alpha", ("1.0.0", line))
    assert findings(home, source) == []
    # It may be older than a yank.
    keep_index(home, "alpha", ("1.0.0", line.replace(b'"yanked":false', b'"yanked":true')))
    assert findings(home, source) == []
    keep_index(home, "alpha", head=b"")
    assert findings(home, source) == []


LINES = {
    "another checksum": lambda line: [("1.0.0", line.replace(b'"cksum":"', b'"cksum":"0'))],
    "a feature more": lambda line: [("1.0.0", line.replace(b":{}", b':{"x":[]}'))],
    "a version more": lambda line: [("1.0.0", line), ("9.0.0", line.replace(b"1.0.0", b"9.0.0"))],
    "kept for another version": lambda line: [("9.0.0", line)],
    "no JSON": lambda _: [("1.0.0", b"{")],
    "no object": lambda _: [("1.0.0", b"[]")],
}  # fmt: skip


@pytest.mark.parametrize("how", LINES)
def test_a_line_in_cargos_copy_of_the_index_that_was_not_signed_is_found(home, source, how):
    file = keep_index(home, "alpha", *LINES[how](signed_line(source, "alpha")))
    assert findings(home, source) == [("alpha (index)", file)]
    assert findings(home, source, lock_of(PAIR[1])) == []


def test_a_copy_of_the_index_that_is_no_such_file_is_found(home, source):
    line = ("1.0.0", signed_line(source, "alpha"))
    for head in (b"\x04\0\0\0\0x\0", b"\x03\0\0\0\0"):
        file = keep_index(home, "alpha", line, head=head)
        assert findings(home, source) == [("alpha (index)", file)]
    file.unlink()
    os.mkfifo(file)
    assert findings(home, source) == [("alpha (index)", file)]
    file.unlink()
    file.symlink_to(home.path / "elsewhere")
    assert findings(home, source) == [("alpha (index)", file)]
