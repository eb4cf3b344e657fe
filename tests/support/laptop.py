"""A user's machine: a home, a real cargo with `cargo-sealed` in its PATH, projects; and traps."""

import os
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import need
from tests.support.processes import environment

RUSTUP_HOME = os.environ.get("RUSTUP_HOME") or str(Path.home() / ".rustup")
_ENTRY_POINT = f"""\
#!{sys.executable}
import sys
from mirror.client.sealed.cargo import main
sys.exit(main())
"""


class Laptop:
    def __init__(self, folder, variables=()):
        self.folder = folder
        self.home = folder / "home"
        self.users = self.home / ".cargo"
        self.users.mkdir(parents=True)
        self.cache = self.home / ".cache/crateseal"
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.program("cargo-sealed", _ENTRY_POINT)
        self.settings = dict(variables)

    def program(self, name, text):
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def trust(self, url, root):
        self.settings |= {"CRATESEAL_MIRROR": url, "CRATESEAL_ROOT": str(root)}
        return self

    def variables(self, **more):
        own = {"HOME": str(self.home), "RUSTUP_HOME": RUSTUP_HOME, "CARGO": None, "CI": None}
        own |= dict.fromkeys(("CARGO_HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"))
        own |= {"PATH": f"{self.bin}:{os.environ['PATH']}", "CARGO_NET_RETRY": "0"}
        return environment(**own | self.settings | more)

    def start(self, project, *words, **more):
        need("cargo")
        return subprocess.Popen(
            ["cargo", *words],
            cwd=project,
            env=self.variables(**more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def sealed(self, project, *words, timeout=60, **more):
        """Run `cargo sealed WORDS`; return the exit code, and all it printed."""
        return ended(self.start(project, "sealed", *words, **more), timeout)

    @property
    def trusted(self):
        (folder,) = (each for each in self.cache.iterdir() if len(each.name) == 16)
        return folder

    @property
    def overlay(self):
        return self.trusted / "cargo-home"

    @property
    def log(self):
        path = self.trusted / "proxy.log"
        return path.read_text() if path.exists() else ""

    def registries(self):
        registry = self.overlay / "registry"
        return {
            each.name for area in ("index", "cache", "src") for each in registry.glob(f"{area}/*")
        }


def ended(process, timeout=60):
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return process.returncode, out + (err or "")


def package(folder, *dependencies, name="project", more="", **files):
    """Make a package; a dependency is `NAME` (any version) or a line of TOML."""
    (folder / "src").mkdir(parents=True)
    lines = [each if "=" in each else f'{each} = "1"' for each in dependencies]
    manifest = f'[package]\nname = "{name}"\nversion = "0.1.0"\nedition = "2021"\n{more}\n'
    (folder / "Cargo.toml").write_text(manifest + "\n".join(["[dependencies]", *lines]) + "\n")
    (folder / "src/lib.rs").write_text("")
    for file, text in files.items():
        (folder / f"{file}.rs").write_text(text)
    return folder


def configure(folder, text):
    """Write `.cargo/config.toml` in a folder."""
    (folder / ".cargo").mkdir(exist_ok=True)
    (folder / ".cargo/config.toml").write_text(text)


@contextmanager
def trap():
    """Listen on loopback, answer nothing of use; yield the address and what was said there."""
    said = []

    def listen():
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                peer.settimeout(5)
                said.append(peer.recv(4096).decode(errors="replace").partition("\r\n")[0])
                peer.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", said
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextmanager
def squatter(port):
    """Be a stranger on a port."""
    with socket.create_server(("127.0.0.1", port)):
        yield port


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]
