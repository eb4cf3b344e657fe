"""Every byte of what a mirror serves, changed one at a time.

Each change is refused, or it makes no difference, as some letters may be large or small. Then
what comes out is bit for bit what the honest mirror's files give.
"""

import time
from contextlib import contextmanager

import pytest
from tuf.api.exceptions import DownloadHTTPError

from mirror.client.fetch.fetcher import MirrorFetcher
from mirror.client.source.cache import open_cache
from mirror.client.source.source import Source
from mirror.client.trust.store import resolve_trust
from mirror.core.names import CrateId, CrateName
from mirror.errors import ProofError
from tests.support.stage import GOOD_CRATES, GOOD_INDEX, Stage, User

ALPHA = CrateId("alpha", "1.0.0")
MASKS = (0x01, 0x20)
"""The lowest bit, and what makes a capital of a small letter: by turns."""


class FromMemory(MirrorFetcher):
    """A mirror whose files are in a dict."""

    base = "http://mirror.example/"

    def __init__(self, www):
        self.files = {
            str(file.relative_to(www)): file.read_bytes()
            for file in www.rglob("*")
            if file.is_file()
        }

    def read(self, path, max_bytes, *, compressed=False, seconds=None):
        if path not in self.files:
            raise DownloadHTTPError(f"{path}: not there", 404)
        return self.files[path]

    @contextmanager
    def changed(self, path, offset):
        """Change one byte of a file for a while."""
        good = self.files[path]
        bad = bytearray(good)
        bad[offset] ^= mask_of(offset)
        self.files[path] = bytes(bad)
        try:
            yield
        finally:
            self.files[path] = good


def mask_of(offset):
    return MASKS[offset % len(MASKS)]


@pytest.fixture
def stage(folder):
    return Stage.made(folder / "m")


@pytest.fixture
def settings(folder, stage):
    return User(folder / "u").settings(
        CRATESEAL_MIRROR="http://mirror.example", CRATESEAL_ROOT=str(stage.root)
    )


@contextmanager
def opened(settings, mirror, folder):
    """A client that has never looked at anything; its cache is empty."""
    with open_cache(folder, 10**9) as cache:
        source = Source(resolve_trust(settings), cache, [mirror], settings, time.time)
        try:
            yield source
        finally:
            source.close()


def result(source):
    return source.index_file(CrateName("alpha")).data, source.crate(ALPHA)


HONEST = (GOOD_INDEX["alpha"], GOOD_CRATES["alpha", "1.0.0"])


def unrefused(stage, settings, folder, path, offsets):
    """Change a file at each of these; return those that the client did not refuse.

    What it handed on then is the honest mirror's.
    """
    mirror, harmless = FromMemory(stage.www), []
    for offset in offsets:
        with (
            mirror.changed(path, offset),
            opened(settings, mirror, folder / "c" / f"{offset}") as source,
        ):
            try:
                got = result(source)
            except ProofError:
                continue
            assert got == HONEST
            harmless.append(offset)
    return harmless


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "bin"])
def test_any_changed_byte_of_metadata_is_refused_or_makes_no_difference(
    stage, settings, folder, role
):
    file = stage.current(stage.bin_of("alpha") if role == "bin" else role)
    data = file.read_bytes()
    harmless = unrefused(
        stage, settings, folder, str(file.relative_to(stage.www)), range(len(data))
    )
    assert [data[:at] for at in harmless if not is_another_spelling(data, at)] == []


@pytest.mark.parametrize("kind", ["index file", "crate"])
def test_any_changed_byte_of_what_is_handed_on_is_refused(stage, settings, folder, kind):
    file = stage.crate("alpha") if kind == "crate" else stage.index_file("alpha")
    size = file.stat().st_size
    offsets = range(0, size, size // 100) if kind == "crate" else range(size)
    assert len(offsets) >= 100
    assert unrefused(stage, settings, folder, str(file.relative_to(stage.www)), offsets) == []


def is_another_spelling(data, offset):
    """Whether this only makes a capital of a hexadecimal digit of the signature, or a small letter
    of the T or the Z in a time: python-tuf reads these as the same, and signs one way of writing.
    """
    letter = data[offset : offset + 1]
    return mask_of(offset) == 0x20 and any(
        start <= offset < data.index(b'"', start) and letter in letters
        for start, letters in (
            (data.index(b'"sig": "') + len(b'"sig": "'), b"abcdef"),
            (data.index(b'"expires":"') + len(b'"expires":"'), b"TZ"),
        )
    )
