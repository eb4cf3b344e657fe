"""The sizes of a repository's metadata, and what a client fetches of it, counted without making it.

Held against real repositories and a real client by `tuf_cost.py --check`.
"""

import hashlib
import json
import random
import statistics
from array import array
from bisect import bisect_left
from dataclasses import dataclass

from tests.bench import tuf_data
from tuf_repo.core import update
from tuf_repo.core.bins import BinLayout
from tuf_repo.core.roles import Policy
from tuf_repo.core.update import BinFacts, FileFacts
from tuf_repo.signing import canonical

HOUR, DAY = 3_600, 86_400
MOST = 16
NUMBER = 12_345_678_901
"""Numbers of a mirror that was started some times: eleven digits."""
SIGNATURE = {"keyid": "0" * 64, "sig": "0" * 128}


@dataclass
class Cost:
    bytes: float = 0
    requests: float = 0

    def add(self, size):
        self.bytes += size
        self.requests += 1

    def text(self):
        return f"{self.bytes / 1e3:,.1f} {self.requests:7,.1f}"


def mean(costs):
    costs = list(costs)
    return Cost(
        statistics.fmean(cost.bytes for cost in costs),
        statistics.fmean(cost.requests for cost in costs),
    )


def index_of(path):
    """The bin of a path where there are 2**16; fewer bins are a shift."""
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:2])


def entry_bytes(path, length):
    # "PATH":{"hashes":{"sha256":"64 digits"},"length":LENGTH},
    return len(path) + 2 + len(':{"hashes":{"sha256":""},"length":},') + 64 + len(str(length))


class Registry:
    """How large each bin is, for any number of bins."""

    def __init__(self, names, times=1):
        self.crates = len(names) * times
        self._fine = array("q", bytes(8 << MOST))
        for name in names:
            path = tuf_data.target_path(name)
            self._fine[index_of(path)] += times * entry_bytes(path, tuf_data.target(name, 0).length)

    def bins(self, bits):
        """The size of every file."""
        per = 1 << (MOST - bits)
        frame = frame_bytes(bits)
        return [
            frame + max(0, sum(self._fine[at : at + per]) - 1) for at in range(0, 1 << MOST, per)
        ]


def file_size(signed):
    around = len('{"signatures":,"signed":}') + len(json.dumps([SIGNATURE]))
    return len(canonical(signed)) + around


def frame_bytes(bits):
    name = BinLayout("crates", bits).name(0)
    return file_size(update.next_bin(name, NUMBER, {}, 0, Policy()))


def snapshot(bits, fixed):
    """The signed part of a snapshot. Its numbers are those of bins signed at different times."""
    dice = random.Random(bits)
    bins = {
        name: BinFacts(NUMBER - dice.randrange(10**6), 0, b"", ())
        for name in BinLayout("crates", bits).names()
    }
    return update.next_snapshot(NUMBER, fixed, bins, 0, Policy())


@dataclass
class Above:
    """The sizes of what stands above the bins."""

    timestamp: int
    targets: int
    delegation: int

    def snapshot_bytes(self, bits):
        """The snapshot that lists it, and so many bins."""
        digest = "0" * 64
        fixed = {
            "targets": FileFacts(1, self.targets, digest),
            "crates": FileFacts(2, self.delegation, digest),
        }
        return file_size(snapshot(bits, fixed))


def client_cost(above, snapshot_bytes, sizes, wanted, *, cold):
    """What a client fetches that wants these bins of those sizes."""
    cost = Cost(0, 1)  # the root after the one it knows: there is none
    cost.add(above.timestamp)
    cost.add(snapshot_bytes)
    if cold:
        cost.add(above.targets)
        cost.add(above.delegation)
    for index in wanted:
        cost.add(sizes[index])
    return cost


class Trace:
    """What changed when, as bin numbers of 2**16."""

    def __init__(self, path):
        looks = [(t, names) for t, names in tuf_data.looks(path)]
        self.times = [t for t, _ in looks]
        self.names = [names for _, names in looks]
        self.indices = [
            [index_of(tuf_data.target_path(name)) for name in names] for names in self.names
        ]

    def window(self, dice, seconds, rate):
        """A random stretch: its start, and where it lies in the trace."""
        start = dice.randrange(self.times[0], self.times[-1] - seconds * rate)
        return (
            start,
            bisect_left(self.times, start),
            bisect_left(self.times, start + seconds * rate),
        )

    def changed(self, window, bits, seconds):
        start, low, high = window
        shift = MOST - bits
        bins = {index >> shift for at in range(low, high) for index in self.indices[at]}
        # Each bin is renewed at the beginning of one day of the thirty.
        for day in range(start // DAY + 1, (start + seconds) // DAY + 1):
            bins.update(range(day % 30, 1 << bits, 30))
        return bins


class Clients:
    """Draws of so many crates, as bin numbers of 2**16."""

    def __init__(self, folder):
        crates = list(tuf_data.popular(folder))
        self._paths = [tuf_data.target_path(name) for name, _ in crates]
        self._weights = [weight for _, weight in crates]

    def draw(self, count, seed):
        dice = random.Random(seed)
        # Weighted and without repetition: the largest of random ** (1 / weight).
        keys = [
            (dice.random() ** (1 / weight), path)
            for weight, path in zip(self._weights, self._paths, strict=True)
        ]
        return [path for _, path in sorted(keys)[-count:]]
