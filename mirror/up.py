"""`crateseal up`: the parent of everything. Standard library only, so that it stays small.

The order is a promise: first the port, then the folder, then (where there is no repository yet)
keys and a trial repository, then the processes. What fails leaves nothing of later steps behind.
"""

from __future__ import annotations

import hashlib
import logging
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mirror import listener, locks
from mirror.children import (
    ChildFailedError,
    Inherited,
    Lifeline,
    Program,
    Supervisor,
    mirror_program,
)
from mirror.config import Config
from mirror.core.layout import METADATA_DIR
from mirror.errors import UsageError
from mirror.folder import has_keys_of_a_ceremony, missing_root, require_writable
from mirror.options import LISTEN_FD_VARIABLE
from mirror.store.roots import is_trial, root_to_pin

LOG = logging.getLogger("crateseal")

PATIENCE_SECONDS = 15.0
"""After so long the first steps are shown though not everything is there yet."""
UP_LOCK = "up.lock"
SYNC_SOCKET, SIGN_SOCKET = "sync.sock", "sign.sock"
"""As in mirror/seam.py, which would bring asyncio and ssl into the parent: 8 MB for two names."""


def run_up(config: Config, inherited: Inherited, say: Callable[[str], None]) -> int:
    """Run a whole mirror until it is told to end; return the exit code.

    `say` shows a person what to do next.

    Raises:
        CratesealError: nothing was started.
    """
    with listener.listen(config.host, config.port) as sock:
        config = replace(config, port=sock.getsockname()[1])
        require_writable(config.data)
        lock = config.run / UP_LOCK
        with locks.hold(lock, "another `crateseal up`"):
            lock.touch()
            make_repository(config, inherited)
            programs = [
                *_servers(config, sock, inherited),
                mirror_program("sync", config, inherited, stage=1),
                mirror_program("sign", config, inherited, stage=2),
            ]
            greeting = _Greeting(config, say)
            return Supervisor(programs, on_tick=greeting.tick).run()


def run_servers(config: Config, inherited: Inherited) -> int:
    """Run `config.workers` servers on one socket until told to end; return the exit code."""
    with listener.listen(config.host, config.port) as sock:
        config = replace(config, port=sock.getsockname()[1])
        return Supervisor(_servers(config, sock, inherited)).run()


def make_repository(config: Config, inherited: Inherited) -> None:
    """Make online keys and a trial repository where there is none yet.

    Raises:
        ChildFailedError: the child that does it failed, and said why.
        UsageError: keys were made for a ceremony that has not ended.
    """
    if (config.www / METADATA_DIR / "timestamp.json").exists():
        return
    if (config.ceremony / "1.root.json").exists():
        return  # The signer begins with that.
    if has_keys_of_a_ceremony(config.data):
        raise UsageError(missing_root(config.data))
    LOG.info("no repository in %s yet: making keys and a trial repository", config.data)
    program = mirror_program("init", config, inherited, "--trial", "-q")
    lifeline = Lifeline()
    try:
        code = lifeline.start(program).wait()
    finally:
        lifeline.close()
    if code != 0:
        raise ChildFailedError("init", code)


def _servers(config: Config, sock: socket.socket, inherited: Inherited) -> list[Program]:
    program = mirror_program("serve", config, inherited)
    shared = {**program.environment, LISTEN_FD_VARIABLE: str(sock.fileno())}
    names = ["serve"] if config.workers == 1 else [f"serve {n + 1}" for n in range(config.workers)]
    return [
        replace(program, name=name, environment=shared, keep_fds=(sock.fileno(),)) for name in names
    ]


class _Greeting:
    """Waits until all is ready, then tells a person what to do next; once."""

    def __init__(self, config: Config, say: Callable[[str], None]) -> None:
        self._config = config
        self._say = say
        self._began: float | None = None

    def tick(self, now: float) -> bool:
        """Look once; return whether to be called again."""
        self._began = now if self._began is None else self._began
        if not (self._config.www / METADATA_DIR / "timestamp.json").exists():
            return True  # The signer is about to begin, or said why it cannot.
        missing = [name for name, is_there in self._checks() if not is_there]
        if missing and now - self._began < PATIENCE_SECONDS:
            return True
        self._say(first_steps(self._config))
        if missing:
            LOG.warning("not ready yet: %s; the log says why", ", ".join(missing))
        return False

    def _checks(self) -> list[tuple[str, bool]]:
        run = self._config.run
        return [
            ("serve", _answers(self._config.host, self._config.port)),
            ("sync", _is_newer(run / SYNC_SOCKET, run / UP_LOCK)),
            ("sign", _is_newer(run / SIGN_SOCKET, run / UP_LOCK)),
        ]


def first_steps(config: Config) -> str:
    """Return what a person does with a new mirror: use it, check it, look at it."""
    file, root = root_to_pin(config.www)
    trial = is_trial(root)
    kind = "a trial: every key lies in this one folder" if trial else "made in a ceremony"
    return f"""
Your mirror is ready: {config.url}
mode {config.mode}, upstream {config.upstream}{", offline" if config.offline else ""}

  Let cargo use it: put this into .cargo/config.toml beside your Cargo.toml

    [source.crates-io]
    replace-with = "crateseal"

    [source.crateseal]
    registry = "sparse+{config.url}/index/"

  Or build with everything verified, here and on other machines:

    crateseal trust {config.url} \\
        --root-sha256 {hashlib.sha256(root).hexdigest()}
    cargo sealed build

  Prove what you built:  crateseal verify --lock Cargo.lock --data {config.data.absolute()}
  See how it is:         crateseal status --data {config.data.absolute()}    or {config.url}/
  Root fingerprint:      sha256 {hashlib.sha256(root).hexdigest()}
                         of {file}, {kind}
  Stop:                  Ctrl-C

"""


def _answers(host: str, port: int) -> bool:
    """Whether a server answers `GET /healthz` with 200 within half a second."""
    question = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection((host or "localhost", port), timeout=0.5) as connection:
            connection.sendall(question)
            return connection.recv(64).split(b" ")[1:2] == [b"200"]
    except OSError:
        return False


def _is_newer(path: Path, start: Path) -> bool:
    """Whether a socket was made since our start; one from a crash before may still lie there."""
    try:
        return path.stat().st_mtime_ns >= start.stat().st_mtime_ns
    except FileNotFoundError:
        return False
