"""What we count as absent in an index file, the real cargo of this machine does not use either."""

import tomllib

import pytest

from mirror.core.index import IndexLimits, parse_index_file
from mirror.core.names import CrateName, index_path
from tests.fakes.upstream import FakeUpstream
from tests.support.cargo import cargo, make_project, use_mirror
from tests.support.crates import index_line
from tests.unit.test_index import UNUSED, USED, with_raw

# Lines that older cargos use and newer ones do not, or only those to come.
NOT_BY_EVERY_CARGO = {
    "a field twice that only newer cargos know",
    "a field of newer cargos with a wrong type",
    "a dependency's field of newer cargos with a wrong type",
    "a format from the future",
}
LIMITS = IndexLimits()


def locked(tmp_path, files):
    """Let cargo resolve a project that wants every crate; return name -> (version, cksum)."""
    for name, data in {**files, "d": index_line("d", "1.0.0")}.items():
        path = tmp_path / "upstream/index" / index_path(CrateName(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    project = make_project(tmp_path / "project", dict.fromkeys(files, "*"))
    with FakeUpstream(tmp_path / "upstream") as upstream:
        use_mirror(project, upstream.source.removeprefix("sparse+").removesuffix("/index/"))
        done = cargo(project, tmp_path / "home", "generate-lockfile")
    assert done.returncode == 0, done.stderr
    packages = tomllib.loads((project / "Cargo.lock").read_text())["package"]
    return {p["name"]: (p["version"], p["checksum"]) for p in packages if "checksum" in p}


def ours(name, data):
    """Return what we would have cargo take: the highest version that counts."""
    entry = parse_index_file(CrateName(name), data, LIMITS).newest()
    return entry.crate.version, entry.cksum


def case(number, line):
    """Return a crate of its own: a low version that is good, and then the line."""
    name = f"case{number}"
    own = line.replace(b'"demo"', b'"%s"' % name.encode())
    return name, index_line(name, "0.1.0") + b"\n" + own + b"\n"


@pytest.mark.timeout(120)
def test_cargo_takes_just_the_lines_that_we_take(tmp_path):
    lines = {**UNUSED, **USED}
    told = [what for what in lines if what not in NOT_BY_EVERY_CARGO]
    files = dict(case(number, lines[what]) for number, what in enumerate(told))
    versions = locked(tmp_path, files)
    for number, what in enumerate(told):
        name = f"case{number}"
        assert versions[name] == ours(name, files[name]), what
        assert (versions[name][0] == "1.0.0") is (what in USED), what


def test_of_a_version_given_twice_cargo_takes_the_last_line(tmp_path):
    one, two = index_line("demo", "1.0.0", "1" * 64), index_line("demo", "1.0.0", "2" * 64)
    strange = with_raw(b'"x"', b'"\xff"', with_raw(b'"x"', b"1e999", two))
    files = dict(
        case(number, one + b"\n" + line)
        for number, line in enumerate([two, strange, two.replace(b'"1.0.0"', b'"1.0.\\u0030"')])
    )
    versions = locked(tmp_path, files)
    for name, data in files.items():
        assert versions[name] == ours(name, data) == ("1.0.0", "2" * 64)
