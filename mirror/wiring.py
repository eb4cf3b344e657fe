"""From a `Config` to running rooms: where `sync`, `sign` and `serve` get what they need.

Each function is one command's work: it takes the command's lock or port where it has one, builds
what is needed, runs it, and gives back an exit code. Who starts processes of their own are others:
`up.py` all of them, `once.py` a signer beside one look.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import socket
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from mirror import folder, listener, locks
from mirror.children import Inherited
from mirror.config import DEFAULT_UPSTREAM, Config
from mirror.core.layout import DELEGATION, METADATA_DIR, TARGET_PATTERNS
from mirror.errors import BusyError, CratesealError, MachineError, UsageError
from mirror.lifeline import Stop
from mirror.once import a_signer, details_of_look, exit_code_of_look
from mirror.progress import Report, for_a_person, in_lines
from mirror.seam import ADMIN_SOCKET, Done, Order, Recover, ask, parse_done

if TYPE_CHECKING:
    from mirror.sync.values import SyncReport

LOG = logging.getLogger("crateseal")

Clock = Callable[[], float]
Say = Callable[[str], None]

SYNC_LOCK = "sync.lock"
SIGN_LOCK = "sign.lock"
_SIGNER = "a signer"
_SYNCER = "another `crateseal sync`"


def init_trial(config: Config, clock: Clock, *, say: Say) -> int:
    """Make all keys and a repository without targets; what is there stays as it is."""
    from mirror.sign.opening import init_repository  # noqa: PLC0415
    from mirror.store.publication import root_fingerprint  # noqa: PLC0415

    _leave_no_core_files()
    with locks.hold(config.run / SIGN_LOCK, _SIGNER):
        is_new = init_repository(config, clock)
    what = "made a trial repository" if is_new else "there is a repository already"
    file, sha256 = root_fingerprint(config.www)
    say(f"{config.data}: {what}; {file} has sha256 {sha256}\n")
    return 0


def init_keys(config: Config, *, say: Say) -> int:
    """Make the online keys that are missing; show what `tuf-repo init --online` takes."""
    from tuf_repo.core.words import spelled  # noqa: PLC0415
    from tuf_repo.keys import create_online_signers  # noqa: PLC0415

    _leave_no_core_files()
    with locks.hold(config.run / SIGN_LOCK, _SIGNER):
        signers = create_online_signers(config.keys)
    public = {
        "bins": signers.bins.public_key,
        "snapshot": signers.snapshot.public_key,
        "timestamp": signers.timestamp.public_key,
    }
    plan = {
        "format": 1,
        "delegation": DELEGATION,
        "paths": list(TARGET_PATTERNS),
        "bin_bits": config.effective_bin_bits,
        "keys": {role: {"keyid": key.keyid, **key.to_dict()} for role, key in public.items()},
    }
    say(json.dumps(plan, indent=1) + "\n")
    for role, key in public.items():
        # For people to compare, beside what a file may have become on its way.
        sys.stderr.write(f"{role:<10}{spelled(key.keyid)}\n")
    return 0


def sign(config: Config, clock: Clock, stop: Stop) -> int:
    """Sign until told to stop."""
    from mirror.sign.opening import open_parts  # noqa: PLC0415
    from mirror.sign.worker import run_signer  # noqa: PLC0415

    _leave_no_core_files()
    if not (config.ceremony / "1.root.json").exists():
        require_root(config)

    def run() -> None:
        with locks.hold(config.run / SIGN_LOCK, _SIGNER, pause=stop.event.wait):
            parts = open_parts(config, clock, wait=stop.event.wait)
            run_signer(parts, clock, stop.event)

    return _until_stopped(run, stop)


def sync(config: Config, clock: Clock, stop: Stop) -> int:
    """Follow upstream until told to stop."""
    folder.require_writable(config.data)
    if config.upstream == DEFAULT_UPSTREAM and config.contact is None and not config.offline:
        LOG.info(
            "crates.io asks who fetches from it to say whom to write to: set --contact, such as"
            " an e-mail address"
        )

    def run() -> None:
        with locks.hold(config.run / SYNC_LOCK, _SYNCER, pause=stop.event.wait):
            _run_sync(config, clock, stop, in_lines(time.monotonic), once=False)

    return _until_stopped(run, stop)


def sync_once(
    config: Config,
    clock: Clock,
    stop: Stop,
    inherited: Inherited,
    say: Say,
) -> int:
    """Look at everything that is followed once; return 1, 3 or 0 (once.py)."""
    require_root(config)
    reports: list[SyncReport] = []

    def run() -> None:
        with (
            locks.hold(config.run / SYNC_LOCK, _SYNCER, pause=stop.event.wait),
            a_signer(config, SIGN_LOCK, stop, inherited),
            for_a_person(time.monotonic, quiet="-q" in inherited.flags) as report,
        ):
            reports.append(_run_sync(config, clock, stop, report, once=True))

    if code := _until_stopped(run, stop):
        return code
    if not reports or stop.event.is_set():
        return 0
    say(f"{reports[0]}\n")
    for line in details_of_look(reports[0]):
        say(f"{line}\n")
    return exit_code_of_look(reports[0])


def _run_sync(
    config: Config, clock: Clock, stop: Stop, report: Report, *, once: bool
) -> SyncReport:
    import uvloop  # noqa: PLC0415

    from mirror.sync.engine import run_sync  # noqa: PLC0415

    async def run() -> SyncReport:
        return await run_sync(config, clock, stop.in_loop(), once=once, report=report)

    return uvloop.run(run())


def serve(config: Config, clock: Clock, stop: Stop, *, listener_fd: int | None) -> int:
    """Answer clients until told to stop, on a given listening socket or on one of our own."""
    from mirror.serve.app import run_server  # noqa: PLC0415

    folder.require_ours(config.data)

    def run() -> None:
        with _listener(config, stop, listener_fd) as sock:
            run_server(config, clock, sock, stop.event)

    return _until_stopped(run, stop)


def check(config: Config, *, now: float, as_json: bool, say: Say) -> int:
    """Look at everything on disk; say each finding; return 1 where there is one."""
    from mirror.sign.check import Checker, Finding, steady_findings  # noqa: PLC0415
    from mirror.store.ledger import LedgerReader  # noqa: PLC0415

    require_root(config)
    count = 0
    with closing(LedgerReader(config.ledger)) as ledger:

        def look() -> Iterable[Finding]:
            return Checker(config.www, ledger, now=now).findings()

        at_work = locks.is_held(config.run / SIGN_LOCK)
        for finding in steady_findings(look, time.sleep) if at_work else look():
            count += 1
            say(_finding(config.www, finding.path, finding.problem, as_json=as_json))
    if not as_json:
        say(f"{config.data}: {_in_words(count)}\n")
    return 1 if count else 0


def decide(config: Config, order: Order | Recover, clock: Clock, *, say: Say) -> int:
    """Have an operator's order carried out: by the signer that runs, or here where none does."""
    require_root(config)
    folder.require_writable(config.data)
    done = _order_by_socket(config, order)
    if done is None:
        # The lock waits for a signer that is on its way out, and says so if it stays.
        with locks.hold(config.run / SIGN_LOCK, _SIGNER):
            done = _order_here(config, order, clock)
    if done.exit_code:
        raise _DECIDE_ERRORS.get(done.exit_code, MachineError)(done.text)
    say(done.text + "\n")
    return 0


_DECIDE_ERRORS: dict[int, type[CratesealError]] = {2: UsageError}
_ORDER_SECONDS = 120.0


def _order_by_socket(config: Config, order: Order | Recover) -> Done | None:
    """Ask the signer; None: there is none."""

    async def order_it() -> Done:
        async with asyncio.timeout(_ORDER_SECONDS):
            return parse_done(await ask(config.run / ADMIN_SOCKET, order))

    try:
        return asyncio.run(order_it())
    except PermissionError as error:
        raise MachineError(
            f"{config.run / ADMIN_SOCKET}: {error.strerror}; only the signer's user may decide"
        ) from error
    except TimeoutError as error:
        raise MachineError(
            f"the signer did not answer within {_ORDER_SECONDS:.0f} s; see `crateseal status`"
        ) from error
    except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError):
        return None


def _order_here(config: Config, order: Order | Recover, clock: Clock) -> Done:
    from mirror.sign.opening import open_parts  # noqa: PLC0415
    from mirror.sign.worker import obey_alone  # noqa: PLC0415

    _leave_no_core_files()
    return obey_alone(open_parts(config, clock), order, clock)


def _leave_no_core_files() -> None:
    """Let a crash of this process write no core file: private keys are in its memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def require_root(config: Config) -> None:
    """Make sure that there is a repository to work on.

    Raises:
        UsageError: there is none.
    """
    for file in ("1.root.json", "timestamp.json"):
        path = config.www / METADATA_DIR / file
        if not path.exists():
            raise UsageError(f"{path}: missing; {folder.missing_root(config.data)}")


def _listener(config: Config, stop: Stop, fd: int | None) -> socket.socket:
    if fd is not None:
        return socket.socket(fileno=fd)
    return listener.listen(config.host, config.port, pause=stop.event.wait)


def _until_stopped(run: Callable[[], None], stop: Stop) -> int:
    """Run something long; told to stop while still waiting for a lock or port is no error."""
    try:
        run()
    except BusyError:
        if not stop.event.is_set():
            raise
    return stop.exit_code


def _finding(www: Path, path: str, problem: str, *, as_json: bool) -> str:
    if as_json:  # One object a line: a large mirror's findings come as they are found.
        return json.dumps({"path": path, "problem": problem}) + "\n"
    return f"{www / path}: {problem}\n"


def _in_words(count: int) -> str:
    if count == 0:
        return "everything is as it was signed"
    return "1 finding" if count == 1 else f"{count} findings"
