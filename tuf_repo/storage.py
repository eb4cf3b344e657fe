"""The files of one repository: read, stage, promote, recover.

Everything in the metadata folder but `timestamp.json` is written once, under a name that holds its
number, and never changed; one rename of `timestamp.json` is the commit. In the state folder lie the
counter, the staged timestamp and roots, what was seen of another signer, and the mark of a set-up
that has not ended.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tuf_repo.core.numbers import Reservation
from tuf_repo.core.roles import FILE_MAX_BYTES
from tuf_repo.core.update import file_name
from tuf_repo.disk import Disk
from tuf_repo.errors import CounterError, MetadataError, StaleStateError

TIMESTAMP_FILE = "timestamp.json"
_COUNTER_FILE = "counter.json"
_SEEN_FILE = "other-signer.json"
_PROMOTION_FILE = "promotion.json"
_SETUP_MARK = "setup-unfinished"
_FORMAT = 1
"""Of the files in the state folder."""
_STAGED = re.compile(r"[0-9]+\.(timestamp|root)\.json\Z")
_NUMBERED = re.compile(r"([0-9]{1,16})\.(.+)\.json\Z")


def parse_file_name(file: str) -> tuple[str, int] | None:
    """Take `7.snapshot.json` apart into role and number; None for any other name."""
    found = _NUMBERED.match(file)
    return (found[2], int(found[1])) if found else None


class MetadataFolder:
    """The read side of a metadata folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, file: str) -> bytes:
        """Return a file's bytes.

        Raises:
            MetadataError: it is not there, or too large.
        """
        data = self.read_if_there(file)
        if data is None:
            raise MetadataError(file, "a file", "nothing")
        return data

    def read_if_there(self, file: str) -> bytes | None:
        """Return a file's bytes, None where there is no such file.

        Raises:
            MetadataError: it is too large.
        """
        try:
            with (self.path / file).open("rb") as opened:
                data = opened.read(FILE_MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        if len(data) > FILE_MAX_BYTES:
            raise MetadataError(file, f"at most {FILE_MAX_BYTES} bytes", "more")
        return data

    def files(self) -> set[str]:
        """Return the names of everything that lies there."""
        try:
            return set(os.listdir(self.path))
        except FileNotFoundError:
            return set()

    def timestamp_version(self) -> int:
        """Return the version of the committed timestamp, unverified; 0 where there is none.

        Raises:
            MetadataError: it does not read.
        """
        data = self.read_if_there(TIMESTAMP_FILE)
        if data is None:
            return 0
        try:
            return int(json.loads(data)["signed"]["version"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise MetadataError(TIMESTAMP_FILE, "a version", repr(error)) from error


class Storage(MetadataFolder):
    """The write side: the metadata folder, and the state folder that nobody else reads."""

    def __init__(self, metadata: Path, state: Path, disk: Disk) -> None:
        super().__init__(metadata)
        self._state = state
        self._disk = disk
        self._roots: dict[str, bytes] = {}
        """What was staged for the next promotion, oldest first."""

    def write(self, file: str, data: bytes) -> None:
        """Write a new metadata file; durable with the next commit."""
        self._disk.write_new(self.path / file, data)

    def remove(self, file: str) -> None:
        """Remove a metadata file that no timestamp names."""
        self._disk.remove(self.path / file)

    def stage_timestamp(self, version: int, data: bytes) -> None:
        """Write the next timestamp where no client sees it."""
        self._disk.write_new(self._staged(version), data)

    def stage_root(self, file: str, data: bytes) -> None:
        """Write a new root where no client sees it."""
        self._disk.remove(self._state / file)
        self._disk.write_new(self._state / file, data)
        self._roots[file] = data

    def note_promotion(self, base: int) -> None:
        """Note that new roots are about to go in place of what stands at timestamp `base`.

        Durable before the first of them: only then may a start find them without their timestamp.
        """
        self._disk.remove(self._state / _PROMOTION_FILE)
        fields = {"format": 1, "base": base}
        self._disk.write_new(self._state / _PROMOTION_FILE, json.dumps(fields).encode())

    def promotes_from(self, timestamp: int) -> bool:
        """Whether roots may have come in place that go with no timestamp yet."""
        data = MetadataFolder(self._state).read_if_there(_PROMOTION_FILE)
        try:
            return data is not None and json.loads(data) == {"format": 1, "base": timestamp}
        except (ValueError, RecursionError):  # torn: it was not durable, so no root was in place
            return False

    def discard_staged(self, version: int | None) -> None:
        """Remove a staged timestamp, and the roots staged beside it."""
        if version is not None:
            self._disk.remove(self._staged(version))
        for file in self._roots:
            self._disk.remove(self._state / file)
        self._roots = {}

    def promote(self, version: int, expected: int) -> None:
        """Make the staged timestamp the committed one, if that is still `expected`.

        All written so far is durable before the rename, so no crash shows a timestamp without what
        it names. Staged roots go first, oldest first: a client that finds the new root a moment
        too early asks again; a timestamp whose root is missing would be lost for all.

        Raises:
            StaleStateError: another one was committed meanwhile.
        """
        self._disk.sync()
        found = self.timestamp_version()
        if found != expected:
            raise StaleStateError(TIMESTAMP_FILE, f"version {expected}", str(found))
        roots, self._roots = self._roots, {}
        for file, data in roots.items():
            if MetadataFolder(self._state).read_if_there(file) != data:
                raise MetadataError(file, "the root that was staged", "another file")
        for file in roots:
            self._disk.rename(self._state / file, self.path / file)
        if roots:
            self._disk.sync()
        self._disk.rename(self._staged(version), self.path / TIMESTAMP_FILE)

    def settle(self) -> None:
        """Make the commit durable; only then may the note of a promotion go."""
        self._disk.sync()
        if (self._state / _PROMOTION_FILE).exists():
            self._disk.remove(self._state / _PROMOTION_FILE)

    def recover(self) -> None:
        """Remove the staged timestamps and roots that a crash left; their numbers stay used."""
        for file in MetadataFolder(self._state).files():
            if _STAGED.match(file):
                self._disk.remove(self._state / file)

    def highest_number(self) -> int:
        """The highest number in any file's name, roots aside; 0 where there is none."""
        names = (parse_file_name(file) for file in self.files())
        return max((name[1] for name in names if name and name[0] != "root"), default=0)

    def read_reservation(self) -> Reservation | None:
        """Return what is reserved, None before the first time.

        Raises:
            CounterError: the file does not read.
        """
        fields = self._get(
            _COUNTER_FILE,
            ("below", "at"),
            "the numbers used so far (remove the file to count on from the metadata)",
        )
        return Reservation(**fields) if fields else None

    def write_reservation(self, reservation: Reservation) -> None:
        """Replace what is reserved, durably."""
        self._put(_COUNTER_FILE, {"format": _FORMAT, **asdict(reservation)})

    def read_seen(self) -> int:
        """Return the highest number of a timestamp that another signer made; 0 for none.

        Raises:
            CounterError: the file does not read.
        """
        fields = self._get(_SEEN_FILE, ("number",), "a number (what another signer used)")
        return fields["number"] if fields else 0

    def write_seen(self, number: int) -> None:
        """Remember that another signer was seen at that number, durably."""
        self._put(_SEEN_FILE, {"format": _FORMAT, "number": number})

    def forget_seen(self) -> None:
        """Go on as if no other signer had been seen; durable with the next sync."""
        self._disk.remove(self._state / _SEEN_FILE)

    def mark_setup(self) -> None:
        """Say durably that what lies in the metadata folder is no repository yet."""
        if not self.setup_unfinished():
            self._disk.write_new(self._state / _SETUP_MARK, b"")
        self._disk.sync()

    def setup_unfinished(self) -> bool:
        """Whether a set-up began and was not seen to end."""
        return (self._state / _SETUP_MARK).exists()

    def clear_setup(self) -> None:
        """Take the mark away, if it is there."""
        if self.setup_unfinished():
            self._disk.remove(self._state / _SETUP_MARK)

    def _get(self, name: str, keys: Sequence[str], expected: str) -> dict[str, int] | None:
        data = MetadataFolder(self._state).read_if_there(name)
        if data is None:
            return None
        try:
            fields = json.loads(data)
            numbers = {key: int(fields[key]) for key in keys}
            # int() takes texts and booleans as well, and numbers below zero are none of ours.
            good = all(type(fields[key]) in {int, float} and numbers[key] >= 0 for key in keys)
            written_for = int(fields.get("format", _FORMAT))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise CounterError(str(self._state / name), expected, repr(error)) from error
        if written_for > _FORMAT:
            raise CounterError(
                str(self._state / name),
                f"format {_FORMAT}",
                f"{written_for}: a newer program wrote this, use that one",
            )
        if not good:
            raise CounterError(str(self._state / name), expected, repr(fields))
        return numbers

    def _put(self, name: str, fields: dict[str, int]) -> None:
        # Synced before the rename too: a crash leaves the old file or the new one, never half.
        temporary = self._state / f".{name}.tmp"
        self._disk.remove(temporary)
        self._disk.write_new(temporary, json.dumps(fields).encode())
        self._disk.sync()
        self._disk.rename(temporary, self._state / name)
        self._disk.sync()

    def _staged(self, version: int) -> Path:
        return self._state / file_name("timestamp", version)
