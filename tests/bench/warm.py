"""Warm requests a second of one worker, beside nginx and beside a bare ASGI answer.

    python -m tests.bench.warm [SECONDS]

Needs wrk and nginx. All run on this machine, the client too, so the numbers compare rather than
measure. Each figure is the best of three runs, the three servers taking turns.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import httpx

from tests.fakes.www import FakeWww, index_line
from tests.support.deployed_nginx import deployed_nginx
from tests.support.serve_alone import serving

ROUNDS = 3
CRATE = bytes(range(256)) * 160  # 40,960 bytes
TARGET = 0.5


def main(seconds):
    missing = [program for program in ("wrk", "nginx") if not shutil.which(program)]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)} (apt-get install {' '.join(missing)})")
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        folder.chmod(0o755)
        www = make_www(folder / "data/www")
        (folder / "nginx").mkdir()
        ours = stack.enter_context(serving(folder / "data"))[1]
        theirs = stack.enter_context(deployed_nginx(folder / "nginx", www.root))
        print(
            f"{'requests a second':28}{'ours':>9}{'bare':>9}{'nginx':>9}{'/bare':>8}{'/nginx':>8}"
        )
        for name, path, headers in cases():
            length = httpx.head(ours + path, headers=headers).headers["content-length"]
            size = 0 if name == "index 304" else int(length)
            row(name, size, (ours, path, headers), theirs, folder, seconds)


def make_www(root):
    """A web root of ordinary size: 4,096 bins, 2,000 index files."""
    www = FakeWww(root, bits=12)
    for number in range(2_000):
        name = f"crate-{number:04}"
        versions = number % 40 + 1
        lines = [
            index_line(name, f"1.{v}.0", CRATE, features={"a": ["b"]}) for v in range(versions)
        ]
        www.put_index(name, *lines)
    www.put_crate("crate-0010", "1.0.0", CRATE)
    www.publish()
    www.link_index()
    return www


def cases():
    gzip = {"Accept-Encoding": "gzip"}
    yield "index 200 (gzip)", "/index/cr/at/crate-0030", gzip
    yield "index 200 (plain)", "/index/cr/at/crate-0030", {"Accept-Encoding": "identity"}
    yield "index 304", "/index/cr/at/crate-0030", gzip
    yield "crate of 40 kB", "/crates/crate-0010/crate-0010-1.0.0.crate", {}


def row(name, size, ours, nginx_url, folder, seconds):
    url, path, headers = ours
    best = dict.fromkeys(("ours", "bare", "nginx"), 0.0)
    with serving(folder / "data", kind="bare", size=size) as (_, bare):
        for _ in range(ROUNDS):
            for who, where in (("ours", url), ("bare", bare), ("nginx", nginx_url)):
                tag = etag(where + path, headers) if name == "index 304" else {}
                rate = measure(where + path, {**headers, **tag}, seconds)
                best[who] = max(best[who], rate)
    to_bare, to_nginx = best["ours"] / best["bare"], best["ours"] / best["nginx"]
    verdict = "" if to_bare >= TARGET else f"  below {TARGET}"
    rates = "".join(f"{best[who]:9,.0f}" for who in ("ours", "bare", "nginx"))
    print(f"{f'{name}, {size} B':28}{rates}{to_bare:8.2f}{to_nginx:8.2f}{verdict}", flush=True)


def etag(url, headers):
    """The condition that gets 304 from whoever knows ETags; the bare answer has none."""
    return {"If-None-Match": httpx.get(url, headers=headers).headers.get("ETag", '"none"')}


def measure(url, headers, seconds):
    given = [f"-H{key}: {value}" for key, value in headers.items()]
    command = ["wrk", "-t1", "-c16", f"-d{seconds}s", *given, url]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in output and "If-None-Match" not in headers:
        sys.exit(f"{url}: not all answers were good:\n{output}")
    return float(re.search(r"Requests/sec:\s*([0-9.]+)", output)[1])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
