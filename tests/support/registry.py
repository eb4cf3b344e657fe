"""Whole registries made to measure: a folder with `index/`, `crates/` and the lock of all of it."""

import gzip
import hashlib
import io
import json
import random
import tarfile
from dataclasses import dataclass
from pathlib import Path

from mirror.core.layout import crate_file
from mirror.core.names import CrateId, CrateName, index_path
from tests.support.crates import crate_bytes, index_line
from tests.support.mirror_folder import locked
from tests.support.tar import Entry

VERSION = "1.0.0"
TYPICAL_CRATE_BYTES = 35_000
"""About the median of real crates."""
TYPICAL_LINES = 40


def index_url(name):
    """Return the path of an index file on a server."""
    return f"/index/{index_path(CrateName(name.lower()))}"


def crate_url(name, version=VERSION):
    """Return the path of a crate on a server."""
    return f"/{crate_file(CrateId(name, version))}"


@dataclass(frozen=True)
class Registry:
    """What lies in a folder."""

    folder: Path
    names: tuple[str, ...]

    def write_lock(self, path, names=None):
        """Write a lock file that names these, or all; return its path."""
        packages = []
        for name in names or self.names:
            data = (self.folder / crate_url(name)[1:]).read_bytes()
            packages.append(locked(name, VERSION, hashlib.sha256(data).hexdigest()))
        path.write_text("version = 4\n\n" + "\n".join(packages))
        return path


def small_registry(folder, count):
    """Make crates of a few hundred bytes, each with an index file of one line."""
    names = tuple(f"crate{number:04}" for number in range(count))
    for name in names:
        data = crate_bytes(name, VERSION)
        line = index_line(name, VERSION, hashlib.sha256(data).hexdigest()) + b"\n"
        _write(folder, name, line, data)
    return Registry(folder, names)


def real_sized_registry(folder, count, sample=None):
    """Make crates of the sizes of real ones; with `sample`, drawn from that folder's."""
    names = tuple(f"crate{number:04}" for number in range(count))
    random_ = random.Random(7)
    shapes = _shapes_of(sample) if sample else [(TYPICAL_CRATE_BYTES, _typical_lines())]
    for name in names:
        size, lines = random_.choice(shapes)
        data = _crate_of_size(name, size, random_)
        cksum = hashlib.sha256(data).hexdigest()
        first = index_line(name, VERSION, cksum)
        others = (_renamed(line, name) for line in lines)
        _write(folder, name, b"\n".join([first, *others]) + b"\n", data)
    return Registry(folder, names)


def tree_of_copies(folder, count, sample):
    """Copy real crates, each with all its files and an index file of its own size, to a tree.

    Each depends on the two that follow it in the tree, so that `crate0000` brings all of them.
    """
    names = tuple(f"crate{number:04}" for number in range(count))
    originals = sorted((sample / "crates").glob("*/*.crate"))
    for number, name in enumerate(names):
        original = originals[number % len(originals)]
        below = names[2 * number + 1 : 2 * number + 3]
        data = _copied_crate(name, original, below)
        index = (sample / index_url(original.parent.name)[1:]).read_bytes().splitlines()
        lines = [json.loads(line) for line in index]
        others = (_renamed(line, name) for line in lines if line["vers"] != VERSION)
        own = index_line(name, VERSION, hashlib.sha256(data).hexdigest(), deps=below)
        _write(folder, name, b"\n".join([*others, own]) + b"\n", data)
    return Registry(folder, names)


def write_tree_project(registry, folder):
    """Write a project that depends on the tree, with its lock; return its folder."""
    (folder / "src").mkdir(parents=True)
    (folder / "src/lib.rs").write_text("")
    (folder / "Cargo.toml").write_text(
        '[package]\nname = "project"\nversion = "0.1.0"\nedition = "2021"\n'
        f'[dependencies]\n{registry.names[0]} = "{VERSION}"\n'
    )
    parts = [f'[[package]]\nname = "project"\nversion = "0.1.0"\n{_needs(registry.names[:1])}']
    for number, name in enumerate(registry.names):
        data = (registry.folder / crate_url(name)[1:]).read_bytes()
        below = registry.names[2 * number + 1 : 2 * number + 3]
        parts.append(locked(name, VERSION, hashlib.sha256(data).hexdigest()) + _needs(below))
    (folder / "Cargo.lock").write_text("version = 4\n\n" + "\n".join(parts))
    return folder


def _needs(names):
    return f"dependencies = {json.dumps(list(names))}\n" if names else ""


def _copied_crate(name, original, below):
    top = f"{name}-{VERSION}"
    needs = "".join(f'{each} = "1"\n' for each in below)
    manifest = (
        f'[package]\nname = "{name}"\nversion = "{VERSION}"\nedition = "2021"\n'
        f'[lib]\npath = "lib.rs"\n[dependencies]\n{needs}'
    )
    entries = [Entry(f"{top}/Cargo.toml", manifest.encode()), Entry(f"{top}/lib.rs", b"")]
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(original.read_bytes()))) as archive:
        for member in archive:
            path = member.name.partition("/")[2]
            if member.isfile() and path not in {"Cargo.toml", "lib.rs", "build.rs"}:
                entries.append(Entry(f"{top}/{path}", archive.extractfile(member).read()))
    return crate_bytes(name, VERSION, entries=entries)


def _shapes_of(sample):
    """Return (bytes of a crate, lines of its index file) for every crate of a sample."""
    shapes = []
    for crate in sorted((sample / "crates").glob("*/*.crate")):
        index = sample / index_url(crate.parent.name)[1:]
        lines = [json.loads(line) for line in index.read_bytes().splitlines()]
        # The one version whose crate there is gets a line of its own.
        shapes.append((crate.stat().st_size, [each for each in lines if each["vers"] != VERSION]))
    return shapes


def _typical_lines():
    return [json.loads(index_line("any", f"0.{minor}.0")) for minor in range(TYPICAL_LINES)]


def _renamed(fields, name):
    return json.dumps({**fields, "name": name}, separators=(",", ":")).encode()


def _crate_of_size(name, size, random_):
    top = f"{name}-{VERSION}"
    manifest = f'[package]\nname = "{name}"\nversion = "{VERSION}"\nedition = "2021"\n'
    entries = [
        Entry(f"{top}/Cargo.toml", manifest.encode()),
        Entry(f"{top}/src/lib.rs", b""),
        Entry(f"{top}/data", random_.randbytes(max(0, size - 300))),
    ]
    return crate_bytes(name, VERSION, entries=entries)


def _write(folder, name, index, crate):
    for url, data in ((index_url(name), index), (crate_url(name), crate)):
        file = folder / url[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
