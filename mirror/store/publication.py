"""The read side of the web root: one publication, looked up and not verified.

The signed metadata is the only table of what there is. Who reads it here does not check a
signature: the server need not, clients do. What is not of the expected shape is an error that names
the file, never an absence.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from mirror.core.layout import DELEGATION, METADATA_DIR, STATE_FIELD, WITHHELD
from mirror.core.times import parse_rfc3339
from mirror.errors import NoPublicationError, PublicationError
from mirror.store.roots import root_to_pin

VERSION_LIMIT = 2**53
BINS_KEPT = 1024
FOUND_KEPT = 10_000

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class TargetInfo:
    """What a bin says about one target."""

    length: int
    sha256: str
    """64 lower-case hex digits."""


class Bins:
    """Bins as read from disk, the last used ones kept, shared by all publications; one thread's.

    A bin's file is immutable, so its name is its identity. With 250,000 targets in 4,096 bins, the
    1,024 bins kept take about 25 MB.
    """

    def __init__(self, metadata: Path, kept: int) -> None:
        self._metadata = metadata
        self._kept_max = kept
        self._kept: OrderedDict[str, dict[str, TargetInfo]] = OrderedDict()

    def get(self, file: str) -> Mapping[str, TargetInfo]:
        """Return the targets of the bin in `N.crates-0a3.json`."""
        targets = self._kept.get(file)
        if targets is None:
            targets = self._kept[file] = _read_bin(self._metadata / file)
            if len(self._kept) > self._kept_max:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(file)
        return targets


@dataclass(frozen=True, slots=True)
class Publication:
    """One committed timestamp and all it names. Look-ups change its caches: one thread's."""

    timestamp_version: int
    snapshot_version: int
    root_version: int
    trial: bool
    """The root says that it was made for a first try, its keys on this machine."""
    state: Mapping[str, Any]
    """The mirror's signed state, `x-crateseal` of the timestamp."""
    withholds: bool
    """Whether there may be a note `withheld/…`: False where the state counts none."""
    expires: Mapping[str, float]
    """Of root, targets, crates, snapshot and timestamp, in seconds since 1970."""
    bin_bits: int
    bin_prefix: str
    _versions: Mapping[str, Any]
    """The snapshot's `meta`; a bin's entry is looked at when the bin is."""
    _bins: Bins
    _found: dict[str, TargetInfo] = field(default_factory=dict, repr=False, compare=False)
    """What was asked for of late: four times as fast as by way of the bin."""

    def target(self, path: str) -> TargetInfo | None:
        """Return what the signed metadata says about a target path; None: no such target."""
        found = self._found.get(path)
        if found is None:
            # TAP 15: the leading bits of the path's digest are the number of its bin.
            digest = hashlib.sha256(path.encode(errors="replace")).digest()
            number = int.from_bytes(digest[:4], "big") >> (32 - self.bin_bits)
            found = self._bin(number).get(path)
            if found is not None:
                if len(self._found) >= FOUND_KEPT:
                    self._found.clear()
                self._found[path] = found
        return found

    def targets(self) -> Iterator[tuple[str, TargetInfo]]:
        """Yield every target path with its info, bin by bin."""
        for number in range(1 << self.bin_bits):
            yield from self._bin(number).items()

    def _bin(self, number: int) -> Mapping[str, TargetInfo]:
        width = (self.bin_bits + 3) // 4
        name = f"{self.bin_prefix}-{number:0{width}x}.json"
        return self._bins.get(f"{_version_in(self._versions, name)}.{name}")


class Publications:
    """Always the current publication of one web root."""

    def __init__(self, www: Path, bins_kept: int = BINS_KEPT) -> None:
        self._metadata = www / METADATA_DIR
        self._timestamp = str(self._metadata / "timestamp.json")
        self._bins = Bins(self._metadata, bins_kept)
        self._current: Publication | None = None
        self._key: tuple[int, int, int] | None = None

    def current(self) -> Publication:
        """Return what is published now, at the cost of one `stat` where nothing changed.

        Raises:
            NoPublicationError: nothing was published in this folder yet.
            PublicationError: a metadata file is missing, or is none.
        """
        try:
            stat = os.stat(self._timestamp)
        except OSError as error:
            raise NoPublicationError(
                self._timestamp, "a published timestamp", error.strerror or repr(error)
            ) from error
        # Taken before the file is read: what comes in between is seen at the next call.
        key = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        if self._current is None or key != self._key:
            root = self._current.root_version if self._current else 0
            self._current, self._key = _load(self._metadata, self._bins, root), key
        return self._current


def root_fingerprint(www: Path) -> tuple[str, str]:
    """Return name and sha256 of the root that people compare before they trust a mirror (roots.py).

    Raises:
        NoPublicationError: there is no root yet.
    """
    try:
        file, data = root_to_pin(www)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or repr(error)
        raise NoPublicationError(str(www / METADATA_DIR), "a readable root", reason) from error
    return file, hashlib.sha256(data).hexdigest()


def _load(metadata: Path, bins: Bins, known_root: int) -> Publication:
    timestamp = _read_signed(metadata / "timestamp.json", "timestamp")
    snapshot_version = _version_in(timestamp["meta"], "snapshot.json")
    snapshot = _read_signed(metadata / f"{snapshot_version}.snapshot.json", "snapshot")
    versions = snapshot["meta"]
    targets, crates = (
        _read_signed(metadata / f"{_version_in(versions, f'{role}.json')}.{role}.json", "targets")
        for role in ("targets", DELEGATION)
    )
    root_version = _newest_root(metadata, known_root)
    root = _read_signed(metadata / f"{root_version}.root.json", "root")
    roles = {
        "root": root,
        "targets": targets,
        DELEGATION: crates,
        "snapshot": snapshot,
        "timestamp": timestamp,
    }
    bits, prefix = _succinct_delegation(crates)
    state = _map(timestamp.get(STATE_FIELD))
    return Publication(
        timestamp_version=timestamp["version"],
        snapshot_version=snapshot_version,
        root_version=root_version,
        trial=_map(root.get(STATE_FIELD)).get("trial") is True,
        state=state,
        withholds=_map(state.get("held")).get(WITHHELD) != 0,
        expires={role: _expiry(role, signed) for role, signed in roles.items()},
        bin_bits=bits,
        bin_prefix=prefix,
        _versions=versions,
        _bins=bins,
    )


def _newest_root(metadata: Path, known: int) -> int:
    # TUF 5.3: roots are numbered without a gap; the snapshot does not name them.
    while os.path.exists(metadata / f"{known + 1}.root.json"):
        known += 1
    if known == 0:
        raise NoPublicationError(str(metadata / "1.root.json"), "a root", "no such file")
    return known


def _read_signed(path: Path, kind: str) -> dict[str, Any]:
    """Return the signed part of a metadata file; its `_type`, `version` and `meta` are in order."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PublicationError(
            str(path), "a readable file", error.strerror or repr(error)
        ) from error
    with _shape(str(path), f"metadata of type {kind}"):
        signed = orjson.loads(data)["signed"]
        if signed["_type"] != kind:
            raise ValueError(f"type {signed['_type']!r}")
        _checked_version(signed["version"])
        if kind in {"timestamp", "snapshot"} and not isinstance(signed["meta"], dict):
            raise TypeError("meta is no object")
        return dict(signed)


def _read_bin(path: Path) -> dict[str, TargetInfo]:
    signed = _read_signed(path, "targets")
    with _shape(str(path), "targets with length and sha256"):
        return {
            target: _checked_info(item["length"], item["hashes"]["sha256"])
            for target, item in signed["targets"].items()
        }


def _checked_info(length: object, sha256: object) -> TargetInfo:
    # Both become part of a path or of a header.
    if not isinstance(length, int) or isinstance(length, bool) or length < 0:
        raise ValueError(f"length {length!r}")
    if not isinstance(sha256, str) or not _SHA256.match(sha256):
        raise ValueError(f"sha256 {sha256!r}")
    return TargetInfo(length, sha256)


def _succinct_delegation(crates: Mapping[str, Any]) -> tuple[int, str]:
    with _shape(f"{DELEGATION}.json", "a succinct delegation to the bins"):
        roles = crates["delegations"]["succinct_roles"]
        bits, prefix = roles["bit_length"], roles["name_prefix"]
        if not isinstance(bits, int) or not 1 <= bits <= 32:
            raise ValueError(f"bit_length {bits!r}")
        if not isinstance(prefix, str) or not re.fullmatch(r"[a-z][a-z0-9-]*", prefix):
            raise ValueError(f"name_prefix {prefix!r}")
        return bits, prefix


def _version_in(meta: Mapping[str, Any], file: str) -> int:
    with _shape(file, "a version in the metadata that names it"):
        return _checked_version(meta[file]["version"])


def _checked_version(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < VERSION_LIMIT:
        raise ValueError(f"version {value!r}")
    return value


def _expiry(role: str, signed: Mapping[str, Any]) -> float:
    with _shape(f"{role}.json", "a time of expiry"):
        return parse_rfc3339(signed["expires"])


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


@contextmanager
def _shape(subject: str, expected: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PublicationError(subject, expected, repr(error)) from error
