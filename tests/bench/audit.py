"""The audit of a whole index, lines a second on one core, beside the raw cost of reading JSON.

    python -m tests.bench.audit --index FOLDER

FOLDER holds index files in the real layout (`se/rd/serde`). Each row goes over all files, one at a
time: read from disk, audited, thrown away. The marks: 10,000 lines a second; memory flat, so its
peak is shown after each tenth of the first audit.
"""

import argparse
import resource
import time
from contextlib import suppress
from pathlib import Path

import orjson

from mirror.core.audit import audit_index_file
from mirror.core.index import IndexLimits
from mirror.core.names import CrateName
from mirror.errors import DuplicateVersionError

LIMITS = IndexLimits()


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def index_files(folder):
    """Return the paths of all index files; the bytes are read one file at a time."""
    # config.json and README.md lie at the root.
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.parent != folder)


# What was accepted before, made of what is fetched now.


def itself(data):
    return data


def all_but_the_last_line(data):
    return data[: data.rstrip(b"\n").rfind(b"\n") + 1] or None


def keys_in_another_order(data):
    """As after every line was written anew: no line is equal in bytes, all are in meaning."""
    lines = (orjson.loads(line) for line in data.split(b"\n") if line)
    return b"".join(orjson.dumps(line, option=orjson.OPT_SORT_KEYS) + b"\n" for line in lines)


def other_spaces(data):
    """As no registry writes it, so that lines are read the slow way."""
    return data.replace(b":null", b": null").replace(b'"yanked":', b'"yanked" :')


def audit(name, before, data):
    # Some old crates end with a twin in all but build metadata, which is a finding today.
    with suppress(DuplicateVersionError):
        audit_index_file(name, before, data, LIMITS, {})


def json_alone(_name, _before, data):
    for line in data.split(b"\n"):
        if line:
            orjson.loads(line)


def run(files, make_before, work=audit, after_tenth=lambda: None):
    """Return the number of lines, and how many a second of this process's own time."""
    lines = 0
    spent = 0.0
    for number, path in enumerate(files, start=1):
        data = path.read_bytes()
        before = make_before(data)
        lines += data.count(b"\n")
        began = time.process_time()
        work(CrateName(path.name.lower()), before, data)
        spent += time.process_time() - began
        if number % max(1, len(files) // 10) == 0:
            after_tenth()
    return lines, lines / spent


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--index", type=Path, required=True)
    files = index_files(parser.parse_args().index.resolve())
    peaks = [peak_mb()]
    lines, speed = run(files, itself, after_tenth=lambda: peaks.append(peak_mb()))
    print(f"{len(files)} index files, {lines} lines, one core; accepted before:\n")
    rows = {"the same bytes": speed}
    rows["all but the last line of each"] = run(files, all_but_the_last_line)[1]
    rows["every line, its keys in another order"] = run(files, keys_in_another_order)[1]
    rows["every line, with spaces nobody writes"] = run(files, other_spaces)[1]
    rows["raw limit: orjson reads each line once"] = run(files, itself, json_alone)[1]
    for what, row in rows.items():
        print(f"{what:42}{row:10,.0f} lines/s")
    print(f"\npeak memory, MB, by tenths of the first: {' '.join(f'{mb:.0f}' for mb in peaks)}")
    print(f"peak memory at the end: {peak_mb():.0f} MB")


if __name__ == "__main__":
    main()
