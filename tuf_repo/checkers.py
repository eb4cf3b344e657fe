"""Signed bins are checked with stock python-tuf code, all of them, on every core there is.

The stock check of a bin costs more than making it. So where there are many, second processes read
what was written, verify it, and answer with the digest of what they verified; meanwhile the signer
goes on, and checks itself what they have no time for. They hold no key and write nothing. One that
dies or cannot be started is no error: what it leaves is checked here.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import select
import subprocess
import sys
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO, RawIOBase
from pathlib import Path
from typing import IO, Any

from tuf.api.metadata import Targets

from tuf_repo import verify
from tuf_repo.core import check
from tuf_repo.core.bins import BinLayout
from tuf_repo.core.update import BinFacts, file_name
from tuf_repo.errors import MetadataError, RepositoryError
from tuf_repo.loading import Trust, bin_facts, bin_layout
from tuf_repo.storage import MetadataFolder

BATCH = 8
"""So many bins are handed over at once."""
WORTH_A_START = 256
"""With fewer bins to sign no process is started."""
WORTH_ASKING = 16
"""With fewer none is asked that runs already."""
KEPT_SECONDS = 600
"""After a publication that was worth a start they stay so long: sweeps come in many parts."""
MOST_HELPERS = 3
_IN_FLIGHT = 2
"""So many batches a helper may have: neither side ever waits for room in a pipe."""
_PATIENCE_SECONDS = 5.0
"""To end, once no more requests come."""


@dataclass(frozen=True, slots=True)
class SignedBin:
    """A bin's file as it was written."""

    name: str
    version: int
    data: bytes = field(repr=False)


def check_bin(signed: SignedBin, delegate: Targets, layout: BinLayout) -> BinFacts:
    """Check one bin as a client would: its signature, its name, the place of each target.

    Raises:
        MetadataError: a client would refuse it, or look elsewhere.
    """
    file = file_name(signed.name, signed.version)
    checked = verify.targets(file, signed.data, signed.name, delegate, signed.version)
    check.refuse(check.bin_findings(file, signed.name, checked.targets, layout), MetadataError)
    return bin_facts(checked, signed.data)


class Checkers:
    """Keeps the second processes from one publication to the next; they end with this object."""

    def __init__(self, folder: Path, helpers: int | None = None) -> None:
        """Start nothing yet.

        Args:
            folder: where the bins are written.
            helpers: how many second processes at most; None for one for each further core.
        """
        self._folder = folder
        spare = len(os.sched_getaffinity(0)) - 1 if hasattr(os, "sched_getaffinity") else 0
        self._most = min(spare, MOST_HELPERS) if helpers is None else helpers
        self._helpers: list[_Helper] = []
        self._kept_until = 0.0

    def begin(self, trust: Trust, bins: int, *, now: float) -> BinCheck:
        """Begin to check about so many bins."""
        if bins >= WORTH_A_START:
            self._kept_until = now + KEPT_SECONDS
            self._start()
        elif now > self._kept_until:
            self._helpers = []
        if bins < WORTH_ASKING:
            return BinCheck(trust, [])
        for helper in self._helpers:
            helper.trust(trust)
        return BinCheck(trust, self._helpers)

    def _start(self) -> None:
        self._helpers = [each for each in self._helpers if each.answers]
        with suppress(OSError):
            while len(self._helpers) < self._most:
                self._helpers.append(_Helper(self._folder))


class BinCheck:
    """The check of one publication's bins: `add` each that was written, then ask for `facts`."""

    def __init__(self, trust: Trust, helpers: list[_Helper]) -> None:
        self._trust = trust
        self._helpers = helpers
        self._waiting: list[SignedBin] = []
        self._facts: dict[str, BinFacts] = {}

    def add(self, signed: SignedBin) -> None:
        """Check a bin now, or have it checked.

        Raises:
            MetadataError: this bin, or one that was added before, does not verify.
        """
        if not self._helpers:
            self._check(signed)
            return
        self._waiting.append(signed)
        if len(self._waiting) < BATCH:
            return
        batch, self._waiting = self._waiting, []
        for helper in self._helpers:
            self._take(helper.answers_so_far())
            if helper.has_room and helper.hand_over(batch):
                return
        for each in batch:
            self._check(each)

    def facts(self) -> dict[str, BinFacts]:
        """Wait for what is under way; return what is remembered of each bin, in their order.

        Raises:
            MetadataError: a bin does not verify.
        """
        for signed in self._waiting:
            self._check(signed)
        for helper in self._helpers:
            self._take(helper.all_answers())
            for signed in helper.unanswered():
                self._check(signed)
        return dict(sorted(self._facts.items()))

    def _check(self, signed: SignedBin) -> None:
        self._facts[signed.name] = check_bin(signed, self._trust.delegate, self._trust.layout)

    def _take(self, answers: Iterable[tuple[SignedBin, BinFacts]]) -> None:
        for signed, facts in answers:
            self._facts[signed.name] = facts


class _Helper:
    """One second process, as the signer sees it."""

    def __init__(self, folder: Path) -> None:
        # Its own session: who ends the signer from a terminal ends its standard input with it.
        # -P: nothing is imported from the folder we happen to work in.
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tuf_repo.checkers", folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        weakref.finalize(self, _end, process)
        assert process.stdin
        assert process.stdout
        self._requests: IO[bytes] = process.stdin
        self._answers = process.stdout.fileno()
        self._buffer = b""
        self._in_flight: deque[list[SignedBin]] = deque()
        self._started = False
        self.answers = True
        """False once it has died."""
        self.pid = process.pid

    @property
    def has_room(self) -> bool:
        """Whether it would begin soon with what it is handed."""
        return self.answers and self._started and len(self._in_flight) < _IN_FLIGHT

    def trust(self, trust: Trust) -> None:
        """Say whose signatures count from now on; what is under way counts no more."""
        while self.answers and self._in_flight:
            self._line()
            self._in_flight.popleft()
        self._in_flight.clear()
        self._ask({"delegation": trust.delegation, "delegate": trust.delegate.to_dict()})

    def hand_over(self, batch: list[SignedBin]) -> bool:
        """Have bins checked; False where it has died."""
        if self._ask({"bins": [(each.name, each.version) for each in batch]}):
            self._in_flight.append(batch)
        return self.answers

    def answers_so_far(self) -> Iterator[tuple[SignedBin, BinFacts]]:
        """Yield what it has verified, without waiting.

        Raises:
            MetadataError: it found a bin that does not verify.
        """
        while self.answers and self._has_line():
            yield from self._next_answer()

    def all_answers(self) -> Iterator[tuple[SignedBin, BinFacts]]:
        """Wait for everything under way.

        Raises:
            MetadataError: it found a bin that does not verify.
        """
        while self.answers and self._in_flight:
            yield from self._next_answer()

    def unanswered(self) -> list[SignedBin]:
        """What it died over."""
        return [signed for batch in self._in_flight for signed in batch]

    def _ask(self, request: object) -> bool:
        try:
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.flush()
        except OSError:
            self.answers = False
        return self.answers

    def _next_answer(self) -> Iterator[tuple[SignedBin, BinFacts]]:
        answer = json.loads(self._line() or b"null")
        if answer is None:
            return
        if "started" in answer:
            self._started = True
            return
        if "refused" in answer:
            raise MetadataError(*answer["refused"])
        for signed, fields in zip(self._in_flight.popleft(), answer["bins"], strict=True):
            yield signed, _facts_of(signed, fields)

    def _has_line(self) -> bool:
        while b"\n" not in self._buffer and select.select([self._answers], [], [], 0)[0]:
            if not self._read():
                return False
        return b"\n" in self._buffer

    def _line(self) -> bytes:
        while b"\n" not in self._buffer and self._read():
            pass
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line if self.answers else b""

    def _read(self) -> bool:
        data = os.read(self._answers, 65_536)
        self._buffer += data
        self.answers = bool(data)
        return self.answers


def _facts_of(signed: SignedBin, fields: Mapping[str, Any]) -> BinFacts:
    """Make the facts of an answer, if it is about the bytes that we wrote.

    Raises:
        MetadataError: others were read back.
    """
    digest = hashlib.sha256(signed.data)
    if fields["sha256"] != digest.hexdigest():
        file = file_name(signed.name, signed.version)
        raise MetadataError(file, f"sha256 {digest.hexdigest()}, as written", fields["sha256"])
    counts = tuple((part, count) for part, count in fields["counts"])
    return BinFacts(signed.version, fields["expires"], digest.digest(), counts)


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):
            if pipe:
                pipe.close()
    try:
        process.wait(_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def answer_requests(
    folder: MetadataFolder, requests: Iterable[bytes], answers: RawIOBase | BytesIO
) -> None:
    """Be a second process, until no requests come any more."""
    _say(answers, {"started": True})
    for line in requests:
        request = json.loads(line)
        if "delegate" in request:
            delegate = Targets.from_dict(request["delegate"])
            layout = bin_layout(request["delegation"], delegate)
            continue
        try:
            facts = [
                _fields(check_bin(SignedBin(name, version, data), delegate, layout))
                for name, version in request["bins"]
                for data in [folder.read(file_name(name, version))]
            ]
        except RepositoryError as error:
            _say(answers, {"refused": [error.subject, error.expected, error.got]})
        else:
            _say(answers, {"bins": facts})


def _fields(facts: BinFacts) -> Mapping[str, Any]:
    return {"expires": facts.expires, "sha256": facts.sha256.hex(), "counts": facts.counts}


def _say(answers: RawIOBase | BytesIO, answer: object) -> None:
    answers.write(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    # Nothing here is part of a cycle, and there is much of it.
    gc.disable()
    # The signer may be gone before we have answered.
    with open(1, "wb", buffering=0) as said, suppress(BrokenPipeError):
        answer_requests(MetadataFolder(Path(sys.argv[1])), sys.stdin.buffer, said)
