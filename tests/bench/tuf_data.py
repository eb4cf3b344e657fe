"""Names, publications and popularity for the benches of `tuf_repo`: real ones, padded to size.

Paths come from the caller; files may be packed with zstd (the program `zstd` unpacks them).
"""

import gzip
import hashlib
import json
import random
import re
import subprocess
from pathlib import Path

from mirror.core.names import index_path
from tuf_repo.core.update import Target

NAMES = "crate-names-2024-04-29.tsv"
TRACE = "publish-trace-2024-04-29--2024-07-08.jsonl"
POPULAR = "popular-crates.tsv"
PATTERNS = ("index/*/*", "index/*/*/*")
EXTRA = {
    "x-crateseal": {
        "signed_at": "2024-04-29T12:00:00Z",
        "upstream": "sparse+https://index.crates.io/",
        "mode": "index",
        "complete_as_of": "2024-04-29T12:00:00Z",
        "upstream_confirmed": "2024-04-29T12:00:00Z",
        "policy": "0" * 64,
        "held": {"index": 250_000, "withheld": 12},
    }
}
"""The extra signed fields of a timestamp, as long as a mirror's."""
_SEED = 3724


def add_data_option(parser):
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help=f"folder with {NAMES}, {TRACE}, {POPULAR}; each may end in .zst",
    )


def read_lines(path):
    """The lines of a file that is plain or packed."""
    packed = path.with_name(f"{path.name}.zst")
    if not path.exists() and packed.exists():
        done = subprocess.run(["zstd", "-dc", packed], stdout=subprocess.PIPE, check=True)
        return done.stdout.decode().splitlines()
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes()).decode().splitlines()
    return path.read_text().splitlines()


def crate_names(folder, count):
    """So many names: the real ones first, in a mixed order that is always the same."""
    real = [line.partition("\t")[0] for line in read_lines(folder / NAMES)[1:]]
    random.Random(_SEED).shuffle(real)
    return real[:count] + list(_more_names(real, count - len(real)))


def _more_names(real, count):
    """Yield names of the same shape: the head of one real name, the tail of another."""
    dice = random.Random(_SEED + 1)
    parts = [re.fullmatch(r"(.[^-_]*)(.*)", name).groups() for name in real]
    taken = {folded(name) for name in real}
    while count > 0:
        name = dice.choice(parts)[0] + dice.choice(parts)[1]
        if len(name) <= 64 and folded(name) not in taken:
            taken.add(folded(name))
            count -= 1
            yield name


def folded(name):
    return name.lower().replace("-", "_")


def target_path(name):
    return f"index/{index_path(name.lower())}"


def target(name, generation):
    """What the signed metadata says of an index file in one of its generations."""
    digest = hashlib.sha256(f"{name} {generation}".encode()).hexdigest()
    return Target(500 + int(digest[:4], 16) % 30_000, digest)


def first_targets(names):
    return {target_path(name): target(name, 0) for name in names}


def looks(path):
    """Yield (unix seconds, names whose index file changed) for each look of a publish trace."""
    for line in read_lines(path):
        look = json.loads(line)
        pairs = look["publish"] + look["yank"]
        yield look["t"], sorted({name for name, _ in pairs} | set(look["remove"]))


def popular(folder):
    """Yield (name, weight), the most popular first; a score is a sum of logarithms."""
    for line in read_lines(folder / POPULAR)[1:]:
        _, name, score, *_ = line.split("\t")
        yield name, 2.0 ** (float(score) / 6)
