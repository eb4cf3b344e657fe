"""The demo's child processes: the real commands, in an environment of their own, ended for sure."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirror.demo import stranger
from mirror.errors import FindingError
from mirror.seam import SIGN_SOCKET, SYNC_SOCKET

START_SECONDS = 12.0
STOP_SECONDS = 10.0
RUN_SECONDS = 60.0
CARGO_OLDEST = (1, 68)

CRATESEAL = (sys.executable, "-P", "-m", "mirror")
_SOCKETS = (SYNC_SOCKET, SIGN_SOCKET)

# What the user has set must neither reach the demo's mirror nor steer its cargo around it.
_DROPPED = ("CRATESEAL_", "CARGO_", "RUSTFLAGS", "RUSTC")
_DROPPED_LOWER = ("http_proxy", "https_proxy", "all_proxy")


class NoCargoError(Exception):
    """There is no cargo to show anything with: no failure of ours."""


def clean_environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the user's settings for mirror, cargo and proxies."""
    kept = {
        name: value
        for name, value in given.items()
        if not name.startswith(_DROPPED) and name.lower() not in _DROPPED_LOWER
    }
    return kept | dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")


@dataclass(frozen=True, slots=True)
class Mirror:
    """A running `crateseal up`."""

    url: str
    data: Path
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def root(self) -> Path:
        """Its first root, as it lies in its folder."""
        return self.data / "www" / "tuf" / "metadata" / "1.root.json"

    def listeners(self) -> list[str]:
        """Name the sockets that somebody listens on."""
        return [name for name in _SOCKETS if _listens(self.data / "run" / name)]

    def stop(self) -> int:
        """Press Ctrl-C on it; return its exit code."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise FindingError(f"`up` did not end within {STOP_SECONDS:.0f} s") from error


@contextmanager
def running_mirror(folder: Path, upstream: str, environment: Mapping[str, str]) -> Iterator[Mirror]:
    """Run `crateseal up` in a folder; it is gone when the block ends, however that ends.

    Raises:
        FindingError: it did not come up.
    """
    port, data, log = _free_port(), folder / "mirror", folder / "up.log"
    options = ("--data", str(data), "--port", str(port), "--upstream", upstream)
    with log.open("wb") as output:
        process = subprocess.Popen(
            (*CRATESEAL, "up", *options),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=dict(environment),
            # Ctrl-C on the terminal is for us; we then end it in good order.
            start_new_session=True,
        )
    mirror = Mirror(f"http://127.0.0.1:{port}", data, process, log)
    try:
        _wait_until_ready(mirror)
        yield mirror
    finally:
        _end(process)


def _wait_until_ready(mirror: Mirror) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _is_ready(mirror):
        if mirror.process.poll() is not None:
            raise FindingError(f"`up` ended with {mirror.process.returncode}:\n{log_tail(mirror)}")
        if time.monotonic() > deadline:
            raise FindingError(
                f"`up` was not ready after {START_SECONDS:.0f} s:\n{log_tail(mirror)}"
            )
        time.sleep(0.02)


def _is_ready(mirror: Mirror) -> bool:
    if len(mirror.listeners()) < len(_SOCKETS):
        return False
    with suppress(OSError):
        return get(f"{mirror.url}/readyz")[0] == 200
    return False


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except OSError:
            return False
    return True


def log_tail(mirror: Mirror, lines: int = 12) -> str:
    """Return the last lines that the mirror's processes wrote."""
    return "\n".join(mirror.log.read_text(errors="replace").splitlines()[-lines:])


def _end(process: subprocess.Popen[bytes]) -> None:
    # Its children see that it is gone, however it ends.
    for number, seconds in ((signal.SIGINT, STOP_SECONDS), (signal.SIGTERM, 2.0)):
        if process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
        except KeyboardInterrupt:  # A second Ctrl-C: at once, then.
            break
    process.kill()
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# ---- what is run once


def get(url: str) -> tuple[int, bytes]:
    """Ask a loopback URL, never through a proxy; return status and body.

    Raises:
        OSError: nobody answers.
    """
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def verify(
    mirror: Mirror, lock: Path, root_sha256: str, environment: Mapping[str, str]
) -> tuple[int, dict[str, Any]]:
    """Run `crateseal verify --json`; return its exit code and its report.

    Raises:
        FindingError: it gave no report.
    """
    options = ("--lock", str(lock), "--mirror", mirror.url, "--root-sha256", root_sha256)
    ran = run((*CRATESEAL, "verify", *options, "--json"), lock.parent, environment)
    if not ran.stdout:
        raise FindingError(f"`verify` said nothing but: {ran.stderr.strip()}")
    return ran.returncode, json.loads(ran.stdout)


def ask_a_stranger(
    mirror: Mirror, target: str, absent: str, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Let stock python-tuf, in a process without our code, look at the mirror.

    Raises:
        FindingError: it refused what it saw.
    """
    argv = (sys.executable, "-P", stranger.__file__, str(mirror.root), mirror.url, target, absent)
    ran = run(argv, mirror.data.parent, environment)
    if ran.returncode != 0:
        raise FindingError(f"stock python-tuf refused: {ran.stderr.strip().splitlines()[-1:]}")
    proven: dict[str, Any] = json.loads(ran.stdout)
    return proven


def find_cargo(environment: Mapping[str, str]) -> str:
    """Return the path of a cargo that works.

    Raises:
        NoCargoError: there is none; its text says why.
    """
    path = shutil.which("cargo", path=environment.get("PATH"))
    if path is None:
        raise NoCargoError("there is no cargo here")
    ran = run((path, "--version"), Path.cwd(), environment)
    found = re.match(r"cargo (\d+)\.(\d+)", ran.stdout)
    if not found:  # rustup's stand-in without a toolchain, for example
        raise NoCargoError(f"{path} does not say its version")
    if (int(found[1]), int(found[2])) < CARGO_OLDEST:
        raise NoCargoError(f"{ran.stdout.strip()} knows no sparse registries (1.68 and later do)")
    return path


def run(
    argv: tuple[str, ...], folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return what it said.

    Raises:
        FindingError: it did not end in time.
    """
    try:
        return subprocess.run(
            argv,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=RUN_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        program = os.path.basename(argv[0])
        raise FindingError(f"{program} did not end within {RUN_SECONDS:.0f} s") from error
