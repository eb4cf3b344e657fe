"""What an attack on the far side plays on: a tiny signed mirror, and a user of it.

The mirror holds alpha, beta and delta, each in a bin of its own, and a second version of beta. The
user's project depends on alpha (which depends on beta) and on delta, and has a lock file.
"""

import gzip
import hashlib
import io
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

from mirror.client.home.settings import read_settings
from mirror.core.layout import config_json, crate_file, target_file, target_path
from mirror.core.names import CrateId, CrateName
from tests.support.cargo import make_project
from tests.support.crates import crate_bytes, index_line
from tests.support.forging import Keys, committed, signed_part
from tests.support.mirror_folder import CRATES_IO, MirrorFolder
from tests.support.tar import Entry
from tuf_repo.core.bins import BinLayout

PACKAGES = ("alpha", "beta", "delta")
HELD = (("alpha", "1.0.0"), ("beta", "1.0.0"), ("beta", "1.1.0"), ("delta", "1.0.0"))
NEEDS = {"alpha": ("beta",)}
_LAYOUT = BinLayout("crates", 2)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def small_crate(name, version, text="good"):
    """Return a crate that builds; its source says who made it."""
    top = f"{name}-{version}"
    manifest = f'[package]\nname = "{name}"\nversion = "{version}"\nedition = "2021"\n'
    manifest += "".join(f'[dependencies.{dep}]\nversion = "1"\n' for dep in NEEDS.get(name, ()))
    files = {"Cargo.toml": manifest, "src/lib.rs": f"// {text} {name} {version}\n"}
    entries = [Entry(f"{top}/{path}", data.encode()) for path, data in files.items()]
    return crate_bytes(name, version, entries=entries)


def line(name, version, cksum=None, **more):
    """Return a crate's index line; the checksum is the good crate's unless told."""
    cksum = cksum or sha256(small_crate(name, version))
    return index_line(name, version, cksum, deps=NEEDS.get(name, ()), **more)


def lines(*each):
    return b"".join(data + b"\n" for data in each)


GOOD_CRATES = {(name, version): small_crate(name, version) for name, version in HELD}
GOOD_INDEX = {name: lines(*(line(*held) for held in HELD if held[0] == name)) for name in PACKAGES}
DENIED = lines(line("delta", "1.0.0", yanked=True))
"""Delta's index file once its operator denies it."""


class Stage:
    """A mirror's folder, with verbs for who holds its machine, or its keys."""

    def __init__(self, mirror):
        self.mirror = mirror
        self.www, self.metadata = mirror.www, mirror.metadata
        self.root = mirror.data / "root.json"
        """The root that users are given: somebody handed it to them before all this."""

    @classmethod
    def made(cls, folder, now=None):
        """Publish everything, honestly."""
        mirror = MirrorFolder(folder, trial=False, now=now)
        (folder / "offline").symlink_to("offline-keys")
        stage = cls(mirror)
        for (name, version), data in GOOD_CRATES.items():
            stage.put(crate_file(CrateId(name, version)), data)
        mirror.publish(GOOD_INDEX)
        stage.root.write_bytes((stage.metadata / "1.root.json").read_bytes())
        return stage

    def copied(self, folder):
        """Return a stage of its own with all that is published here."""
        return Stage(self.mirror.copied(folder))

    def at(self, folder):
        """Return the stage in this folder, a copy that was made of this one."""
        return Stage(self.mirror.at(folder))

    @property
    def repository(self):
        return self.mirror.repository

    def put(self, path, data):
        """Write a file under the web root, or in the place of one."""
        file = self.www / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    def publish(self, files):
        """Publish index files, signed; also where cargo asks a mirror without a proxy."""
        self.mirror.publish(files)

    def for_plain_cargo(self, url):
        """Put the index where a cargo that verifies nothing looks for it."""
        for name in PACKAGES:
            self.put(target_path(CrateName(name)), self.index_file(name).read_bytes())
        self.put("index/config.json", config_json(url))

    def put_crate(self, name, data, version="1.0.0"):
        self.put(crate_file(CrateId(name, version)), data)

    def sign_anew(self, *roles, change=None, number=None):
        """Sign these roles, snapshot and timestamp once more, each by its key, a number higher.

        `change(role, signed)` has its way with each of them before.
        """
        change = change or (lambda _role, _signed: None)
        keys, snapshot = Keys(self.repository), signed_part(self.current("snapshot"))
        number = number or signed_part(self.current("timestamp"))["version"]
        for role in roles:
            number += 1  # No number is used twice: our client would not mind, but `check` does.
            signed = signed_part(self.current(role)) | {"version": number}
            change(role, signed)
            data = keys.sign(role, signed)
            (self.metadata / f"{number}.{role}.json").write_bytes(data)
            meta = snapshot["meta"][f"{role}.json"]
            meta |= _described(data, number) if "hashes" in meta else {"version": number}
        snapshot["version"] = number + 1
        change("snapshot", snapshot)
        data = keys.sign("snapshot", snapshot)
        (self.metadata / f"{number + 1}.snapshot.json").write_bytes(data)
        self.stamp({"snapshot.json": _described(data, number + 1)}, number + 1)

    def say(self, **state):
        """Let the mirror's signer say something of itself."""
        self.stamp(signed_part(self.current("timestamp"))["meta"], state=state)

    def stamp(self, meta, number=None, state=None):
        """Sign a timestamp that names this snapshot."""
        signed = signed_part(self.current("timestamp"))
        signed |= {"version": number or signed["version"] + 1, "meta": meta}
        signed |= {"x-crateseal": state} if state else {}
        data = Keys(self.repository).sign("timestamp", signed)
        self.current("timestamp").write_bytes(data)

    # ---- where things lie

    def index_file(self, name):
        """Return the newest index file of a crate, where signed metadata has it."""
        path = target_path(CrateName(name))
        signed = signed_part(self.current(self.bin_of(name)))["targets"][path]
        return self.www / target_file(path, signed["hashes"]["sha256"])

    def crate(self, name, version="1.0.0"):
        return self.www / crate_file(CrateId(name, version))

    def bins(self):
        return _LAYOUT.names()

    def bin_of(self, name):
        return _LAYOUT.bin_of(target_path(CrateName(name)))

    def current(self, role):
        """Return the file of a role that the committed timestamp names."""
        if role == "timestamp":
            return self.metadata / "timestamp.json"
        return self.metadata / committed(self.repository)[role]

    def on(self, file):
        """Return a pattern for requests for this file, and no other."""
        return f"^GET .*/{file.name.replace('.', '[.]').replace('+', '[+]')}$"


def _described(data, version):
    return {"version": version, "length": len(data), "hashes": {"sha256": sha256(data)}}


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    text: str
    """Everything it printed."""


class User:
    """Somebody with a project, and folders of his own; knows the mirror by URL and root."""

    def __init__(self, folder, lock=None):
        self.folder = folder
        self.home = folder / "home"
        self.cargo_home = self.home / ".cargo"
        self.cargo_home.mkdir(parents=True)
        self.run = folder / "run"
        self.run.mkdir(mode=0o700)
        self.cache = self.home / ".cache" / "crateseal"
        self.config = self.home / ".config" / "crateseal"
        self.project = make_project(
            folder / "p", dict.fromkeys(("alpha", "delta"), "1"), lock or lock_text()
        )

    @property
    def lock(self):
        return self.project / "Cargo.lock"

    def want(self, names):
        """Depend on these, too."""
        with (self.project / "Cargo.toml").open("a") as manifest:
            manifest.writelines(f'{name} = "1"\n' for name in names)

    def variables(self, **more):
        """Return what a process of this user's finds in its environment."""
        rustup = os.environ.get("RUSTUP_HOME", str(Path.home() / ".rustup"))
        return {
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.home / ".config"),
            "XDG_CACHE_HOME": str(self.home / ".cache"),
            "XDG_RUNTIME_DIR": str(self.run),
            "CARGO_HOME": str(self.cargo_home),
            "RUSTUP_HOME": rustup,
            "CARGO_NET_RETRY": "0",
            "CI": "",
            **more,
        }

    def settings(self, **more):
        """Return what one of our processes in this environment has for its settings."""
        return read_settings({}, self.variables(**more))

    def received(self):
        """Return the files that any cargo of this user's holds: path -> bytes."""
        folders = (self.cargo_home, *self.cache.glob("*/cargo-home"), self.folder / "vendor")
        return {file: data for folder in folders for file, data in files_below(folder).items()}


def files_below(folder):
    """Return the files below a folder, links left out: path -> bytes."""
    files = (file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    return {file: file.read_bytes() for file in files}


def lock_text(checksums=None, more=()):
    """Return the lock of the project, that depends on `more` beside alpha and delta.

    `checksums` has the ones that are not the good crates'.
    """
    packages = []
    for name in sorted((*PACKAGES, *more)):
        checksum = (checksums or {}).get(name) or sha256(GOOD_CRATES[name, "1.0.0"])
        packages.append(
            f'[[package]]\nname = "{name}"\nversion = "1.0.0"\nsource = "{CRATES_IO}"\n'
            f'checksum = "{checksum}"\n{_needs(NEEDS.get(name, ()))}'
        )
    packages.append(
        f'[[package]]\nname = "project"\nversion = "0.1.0"\n{_needs(("alpha", "delta", *more))}'
    )
    return "version = 4\n\n" + "\n".join(packages)


def _needs(names):
    return (
        "dependencies = [\n" + "".join(f' "{name}",\n' for name in names) + "]\n" if names else ""
    )


# ---- what cargo holds, against what was signed

_LINES = {each for data in (*GOOD_INDEX.values(), DENIED) for each in data.splitlines()}


def unverified(files, *, crates=(), lines=(), signed=()):
    """Return which of what cargo holds was never signed, or is not to be had.

    Looked at: the index cache, crate files, unpacked crates, a vendor folder. Of `crates` there
    must be no crate at all, of `lines` no index file; `signed` are lines beside the good ones.
    """
    known = {*_LINES, *signed}
    return [
        str(file) for file, data in files.items() if not _is_good(file, data, crates, lines, known)
    ]


def _is_good(file, data, crates, lines, known):
    for top in ("registry", "vendor"):
        if top in file.parts:
            kind, *inner = file.parts[file.parts.index(top) :]
            break
    else:
        return b"evil" not in data
    if kind == "registry":
        kind, _name, *inner = inner if len(inner) > 1 else (*inner, "")
    if kind == "index" and ".cache" in inner:
        # cargo keeps version, NUL, line, NUL … behind a short head.
        held = [each for each in data.split(b"\0") if each.startswith(b"{")]
        return known.issuperset(held) and not (held and file.name in lines)
    if kind == "cache":
        return data in GOOD_CRATES.values() and file.name.partition("-")[0] not in crates
    if kind in {"src", "vendor"}:
        return inner[0].partition("-")[0] not in crates and _is_of_a_crate(*inner, data=data)
    return b"evil" not in data


def _is_of_a_crate(top, *inner, data):
    """Whether a file below a crate's folder is as in the good crate."""
    path = "/".join(inner)
    if path in {".cargo-ok", ".cargo-checksum.json", ""}:
        return b"evil" not in data
    return data in [
        unpacked(crate).get(path)
        for (name, version), crate in GOOD_CRATES.items()
        if top in {f"{name}-{version}", name}
    ]


def unpacked(crate):
    """Return the files of a crate: path below its own folder -> bytes."""
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(crate))) as archive:
        return {
            member.name.partition("/")[2]: archive.extractfile(member).read() for member in archive
        }
