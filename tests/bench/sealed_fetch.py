"""`cargo sealed fetch` beside plain `cargo fetch`, of a lock with 400 packages, from one mirror.

    python -m tests.bench.sealed_fetch --sample FOLDER [--packages 400] [--delay 0 30] [--runs 3]

FOLDER holds real `crates/` and `index/` (as for cold_fetch); copies of them make a tree of so many
packages. The mirror holds all of it. Cold: an empty cargo home, and for ours an empty cache too,
with nothing but the trusted root. Plain cargo checks what the index says; ours proves the index.
With a delay there is a relay between, and a second peer: nginx with TLS and HTTP/2 on the same
folder. The last lines are what `cargo sealed` adds where everything is cached.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench.list_sync import sync_list
from tests.fakes.fast_upstream import fast_upstream
from tests.support.nginx import free_port, running_nginx
from tests.support.processes import Process, environment, wait_until
from tests.support.registry import tree_of_copies, write_tree_project
from tests.support.slow_link import slow_link

_TLS = """
  sendfile on; tcp_nodelay on; keepalive_requests 1000000; http2_max_concurrent_streams 256;
  server {{
    listen 127.0.0.1:{port} ssl http2 backlog=1024; root {www};
    ssl_certificate {work}/cert.pem; ssl_certificate_key {work}/key.pem;
    types {{ }} default_type application/octet-stream; gzip_static on;
    location = /index/config.json {{ default_type application/json; gzip_static off;
      return 200 '{{"dl":"{url}/crates/{{crate}}/{{crate}}-{{version}}.crate"}}'; }}
    location /tuf/metadata/ {{
      default_type application/json; gzip on; gzip_types application/json; }}
  }}
"""


class Customer:
    """Somebody with a project, a cargo home and, for ours, a home of their own."""

    def __init__(self, folder, project):
        self.folder = folder
        self.project = folder / "project"
        shutil.copytree(project, self.project)
        self.cargo_home = folder / "cargo-home"
        self.cargo_home.mkdir()
        self.settings = {
            "HOME": str(folder),
            "CARGO_HOME": str(self.cargo_home),
            "RUSTUP_HOME": os.environ.get("RUSTUP_HOME", str(Path.home() / ".rustup")),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "XDG_RUNTIME_DIR": str(folder / "no-such-folder"),
        }

    def use(self, url, more=""):
        """Let plain cargo take crates.io from there."""
        (self.cargo_home / "config.toml").write_text(
            '[source.crates-io]\nreplace-with = "m"\n'
            f'[source.m]\nregistry = "sparse+{url}/index/"\n{more}'
        )

    def run(self, *command, **more):
        """Run a command, with byte code kept as for any user; return its seconds."""
        began = time.perf_counter()
        done = subprocess.run(
            command,
            cwd=self.project,
            env=environment(**self.settings, **more) | {"PYTHONDONTWRITEBYTECODE": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        took = time.perf_counter() - began
        if done.returncode != 0:
            sys.exit(f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return took


@contextmanager
def customer(project):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield Customer(Path(folder), project)


def plain(project, url, more="", **environ):
    """Return the seconds of a cold and of a warm fetch."""
    with customer(project) as who:
        who.use(url, more)
        return [who.run("cargo", "fetch", "--locked", **environ) for _ in range(2)]


def sealed(project, url, root, **environ):
    with customer(project) as who:
        who.run("crateseal", "trust", url, "--root", str(root), **environ)
        shutil.rmtree(who.folder / "cache", ignore_errors=True)
        return [who.run("cargo-sealed", "fetch", "--locked", **environ) for _ in range(2)]


class Serve(Process):
    """`crateseal serve` on a data folder."""

    def __init__(self, folder, url, port, data="crateseal-data"):
        options = ("--data", data, "--port", port, "--public-url", url)
        super().__init__("serve", *options, cwd=folder)
        wait_until(lambda: _answers(port))


def _answers(port):
    done = subprocess.run(
        ["curl", "-sf", "-o", "/dev/null", f"http://127.0.0.1:{port}/index/config.json"],
        check=False,
    )
    return done.returncode == 0


@contextmanager
def http_mirror(work, delay):
    """Yield the URL of the mirror over plain http, with so many milliseconds of round trip."""
    port = free_port()
    with ExitStack() as stack:
        public = port
        if delay:
            public = stack.enter_context(slow_link(port, delay)).port
        url = f"http://127.0.0.1:{public}"
        process = Serve(work, url, port)
        stack.callback(process.end)
        yield url


@contextmanager
def tls_mirror(work, www, delay):
    """Yield the URL of an nginx with TLS and HTTP/2 over the same folder, and its certificate."""
    folder = work / "nginx"
    folder.mkdir(exist_ok=True)
    cert = folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    port = free_port()
    with slow_link(port, delay) as link:
        url = f"https://localhost:{link.port}"
        server = _TLS.format(port=port, www=www, work=folder, url=url)
        with running_nginx(folder, port, server):
            yield url, cert


def rows(work, project, delays):
    """Yield (name, target, function of one run: plain's and our pair of seconds)."""
    root = work / "crateseal-data/www/tuf/metadata/1.root.json"
    for delay in delays:
        with http_mirror(work, delay) as url:
            target = "1.3" if not delay else "0.5"
            yield (
                f"http, {delay:.0f} ms",
                target,
                lambda url=url: (
                    plain(project, url),
                    sealed(project, url, root),
                ),
            )
    delay = max(delays)
    if not delay:
        return
    with tls_mirror(work, work / "crateseal-data/www", delay) as (url, cert):
        environ = {"SSL_CERT_FILE": str(cert)}
        more = f'[http]\ncainfo = "{cert}"\n'
        yield (
            f"TLS and HTTP/2, {delay:.0f} ms",
            "1.3",
            lambda: (
                plain(project, url, more),
                sealed(project, url, root, **environ),
            ),
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=Path, required=True)
    parser.add_argument("--packages", type=int, default=400)
    parser.add_argument("--delay", type=float, nargs="+", default=[0, 30], help="milliseconds")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        registry = tree_of_copies(work / "registry", options.packages, options.sample)
        project = write_tree_project(registry, work / "project")
        with fast_upstream(registry.folder) as upstream:
            sync_list(work, upstream, project / "Cargo.lock")
        print(f"{'':24}{'plain':>9}{'sealed':>9}{'ratio':>8}{'target':>8}")
        warm = []
        for name, target, run in rows(work, project, options.delay):
            pairs = [run() for _ in range(options.runs)]
            show(f"cold, {name}", target, [(a[0], b[0]) for a, b in pairs])
            warm += [(a[1], b[1]) for a, b in pairs]
        show("warm", "1.1", warm)


def show(name, target, pairs):
    ours = statistics.median(b for _, b in pairs)
    theirs = statistics.median(a for a, _ in pairs)
    ratio = statistics.median(b / a for a, b in pairs)
    print(f"{name:24}{theirs:7.2f} s{ours:7.2f} s{ratio:8.2f}{target:>8}", flush=True)


if __name__ == "__main__":
    main()
