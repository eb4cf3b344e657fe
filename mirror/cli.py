"""The command line: commands, logging, and the one place that reads the clock.

Rooms are imported inside the command that enters them, so that `--help` and the parent of `up` stay
quick and small.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from mirror.children import Inherited
from mirror.client.home.settings import CARGO_CONFIG, PROXY, TRUST, VENDOR, VERIFY, own_variables
from mirror.config import SERVE, SIGN, SYNC, UP, Config
from mirror.errors import RejectedError, UsageError
from mirror.exits import INTERRUPTED, exit_code_of, in_one_line
from mirror.options import LISTEN_FD_VARIABLE, load_config
from mirror.parser import (
    Command,
    add_accepted,
    add_crate,
    add_denied,
    add_json,
    add_keep,
    add_once,
    add_trial,
    add_trust,
    add_vendor,
    add_verify,
    add_write,
    parse,
)

LOG = logging.getLogger("crateseal")

_OF_THE_MIRROR = ("uvloop", "pyreqwest", "uvicorn", "fastapi")

_TALKATIVE_LIBRARIES = ("httpx", "httpcore", "uvicorn", "asyncio", "tuf", "securesystemslib")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    arguments = argparse.Namespace(verbose=0)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal or log that knows ASCII only gets a `?` for a `…`, not an end in the middle.
        sys.stdout.reconfigure(errors="replace")
    try:
        arguments = parse(sys.argv[1:] if argv is None else argv, _COMMANDS)
        _set_up_logging(arguments)
        code = _COMMANDS[arguments.command].run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who read our output has enough (`crateseal status | head`); exit must not write either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        # The one place that turns errors into exit codes.
        if arguments.verbose > 1:
            LOG.exception("where it went wrong")
        sys.stderr.write(f"crateseal: {in_one_line(error)}\n")
        return exit_code_of(error)
    return code


def commands() -> tuple[str, ...]:
    """Return the names of all commands, in the order of the help."""
    return tuple(_COMMANDS)


# ---- logging


def _set_up_logging(arguments: argparse.Namespace) -> None:
    is_long = _COMMANDS[arguments.command].is_long
    level = logging.INFO if is_long or arguments.verbose else logging.WARNING
    if arguments.quiet:
        level = logging.WARNING if is_long else logging.ERROR
    if (arguments.verbose and is_long) or arguments.verbose > 1:
        level = logging.DEBUG
    logging.basicConfig(
        stream=sys.stderr,
        level=level,
        format=f"%(asctime)s {arguments.command:<5} %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
    )
    for name in _TALKATIVE_LIBRARIES:
        logging.getLogger(name).setLevel(
            logging.DEBUG if arguments.verbose > 1 else logging.WARNING
        )


def _inherited(arguments: argparse.Namespace) -> Inherited:
    verbose: int = arguments.verbose
    return Inherited(os.environ, ("-v",) * verbose + (("-q",) if arguments.quiet else ()))


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _say_nothing(_text: str) -> None:
    pass


# ---- commands


def _require_the_mirror() -> None:
    """Make sure that what `pip install crateseal` leaves out is there.

    Raises:
        UsageError: it is not.
    """
    if any(find_spec(name) is None for name in _OF_THE_MIRROR):
        raise UsageError(
            "this is the far side alone; for a mirror: pip install 'crateseal[mirror]'"
        )


def _config(arguments: argparse.Namespace) -> Config:
    if arguments.command in {UP, SYNC, SERVE}:
        _require_the_mirror()
    config = load_config(vars(arguments), os.environ, folder=Path(), foreign=own_variables())
    if arguments.command in {UP, SYNC} and config.mode == "index" and config.names is None:
        raise UsageError("mode index follows a list of names; say which with --names FILE or URL")
    if config.lock and config.mode != "list":
        raise UsageError(f"--lock is for mode list, and this is mode {config.mode}: --mode list")
    if config.names and "://" not in config.names and not Path(config.names).is_file():
        raise UsageError(f"--names {config.names}: no such file; name a file or URL of names")
    return config


def _demo(arguments: argparse.Namespace) -> int:
    from mirror.demo.story import run_demo  # noqa: PLC0415

    return run_demo(sys.stdout, keep=arguments.keep)


def _up(arguments: argparse.Namespace) -> int:
    from mirror import up  # noqa: PLC0415

    return up.run_up(_config(arguments), _inherited(arguments), _say)


def _init(arguments: argparse.Namespace) -> int:
    from mirror import folder, wiring  # noqa: PLC0415

    config = _config(arguments)
    folder.require_writable(config.data)
    say = _say_nothing if arguments.quiet else _say
    if arguments.trial:
        return wiring.init_trial(config, time.time, say=say)
    return wiring.init_keys(config, say=say)


def _sync(arguments: argparse.Namespace) -> int:
    from mirror import lifeline, wiring  # noqa: PLC0415

    config = _config(arguments)
    stop = lifeline.listen(os.environ)
    if not arguments.once:
        return wiring.sync(config, time.time, stop)
    say = _say_nothing if arguments.quiet else _say
    return wiring.sync_once(config, time.time, stop, _inherited(arguments), say)


def _sign(arguments: argparse.Namespace) -> int:
    from mirror import lifeline, wiring  # noqa: PLC0415

    return wiring.sign(_config(arguments), time.time, lifeline.listen(os.environ))


def _serve(arguments: argparse.Namespace) -> int:
    from mirror import lifeline, up, wiring  # noqa: PLC0415

    config = _config(arguments)
    given = os.environ.get(LISTEN_FD_VARIABLE)
    if given is None and config.workers > 1:
        return up.run_servers(config, _inherited(arguments))
    stop = lifeline.listen(os.environ)
    return wiring.serve(config, time.time, stop, listener_fd=int(given) if given else None)


def _status(arguments: argparse.Namespace) -> int:
    from mirror import status  # noqa: PLC0415

    return status.show(_config(arguments), now=time.time(), as_json=arguments.json, out=sys.stdout)


def _check(arguments: argparse.Namespace) -> int:
    from mirror import wiring  # noqa: PLC0415

    return wiring.check(_config(arguments), now=time.time(), as_json=arguments.json, say=_say)


def _recover(arguments: argparse.Namespace) -> int:
    from mirror import wiring  # noqa: PLC0415
    from mirror.seam import Recover  # noqa: PLC0415

    say = _say_nothing if arguments.quiet else _say
    return wiring.decide(_config(arguments), Recover(), time.time, say=say)


def _decide(arguments: argparse.Namespace) -> int:
    from mirror import wiring  # noqa: PLC0415
    from mirror.core.names import parse_subject  # noqa: PLC0415
    from mirror.seam import Order, Verb  # noqa: PLC0415

    try:
        name, version = parse_subject(arguments.crate)
    except RejectedError as error:
        raise UsageError(f"{error}; give NAME or NAME@VERSION") from error
    verb = Verb(arguments.command)
    reason = arguments.reason if verb is Verb.DENY else ""
    sha256 = (arguments.sha256 or "") if verb is Verb.ACCEPT else ""
    say = _say_nothing if arguments.quiet else _say
    order = Order(verb, name, version, reason, sha256)
    return wiring.decide(_config(arguments), order, time.time, say=say)


def _client(arguments: argparse.Namespace) -> int:
    from mirror.client_commands import Outside, run_client  # noqa: PLC0415

    return run_client(arguments, Outside(os.environ, time.time, sys.stdout))


_COMMANDS = {
    "demo": Command(
        "the whole story on six real crates, with no network, in seconds",
        ("crateseal demo", "crateseal demo --keep"),
        _demo,
        add_keep,
        is_mirrors=False,
    ),
    UP: Command(
        "everything at once: create what is missing, then sync, sign and serve",
        (
            "crateseal up",
            "crateseal up --mode index --names names.txt --port 8480",
            "crateseal up --data /srv/crates --public-url https://crates.example.org",
        ),
        _up,
        is_long=True,
    ),
    "init": Command(
        "make keys; with --trial a whole repository for a first try",
        ("crateseal init --trial", "crateseal init --trial --data /srv/crates --bin-bits 12"),
        _init,
        add_trial,
    ),
    SYNC: Command(
        "follow upstream into the spool; no keys",
        ("crateseal sync", "crateseal sync --once --mode index --names names.txt"),
        _sync,
        add_once,
        is_long=True,
    ),
    SIGN: Command(
        "audit what sync brought, sign it and publish it; keys, no network",
        ("crateseal sign", "crateseal sign --data /srv/crates"),
        _sign,
        is_long=True,
    ),
    SERVE: Command(
        "answer clients, read-only; no keys, no writes",
        ("crateseal serve", "crateseal serve --host 0.0.0.0 --port 80 --workers 4"),
        _serve,
        is_long=True,
    ),
    "status": Command(
        "what is published, how old it is, what expires when, what is quarantined and why",
        ("crateseal status", "crateseal status --json | jq .quarantined"),
        _status,
        add_json,
    ),
    "check": Command(
        "check everything on disk, from the root down; exit 1 names each wrong file",
        ("crateseal check", "crateseal check --json --data /srv/crates"),
        _check,
        add_json,
    ),
    "deny": Command(
        "withdraw a crate or a version now, and refuse it from now on, with a public reason",
        (
            'crateseal deny evil-crate --reason "malware, see RUSTSEC-2026-0001"',
            'crateseal deny serde@1.0.171 --reason "ships a binary"',
        ),
        _decide,
        add_denied,
        operands="NAME[@VERSION] --reason TEXT",
    ),
    "allow": Command(
        "take a denial back",
        ("crateseal allow evil-crate", "crateseal allow serde@1.0.171"),
        _decide,
        add_crate,
        operands="NAME[@VERSION]",
    ),
    "recover": Command(
        "go on after a restored backup, or after a second signer was seen (end that one first)",
        ("crateseal recover", "crateseal recover --data /srv/crates"),
        _recover,
    ),
    "accept": Command(
        "let a quarantined change through, after a look at what `status` shows",
        (
            "crateseal accept serde",
            "crateseal accept serde --sha256 3f7a91c2",
            "crateseal accept old-crate@0.1.0",
        ),
        _decide,
        add_accepted,
        operands="NAME[@VERSION]",
    ),
    TRUST: Command(
        "remember a mirror, or several of one repository, and its root; list what is trusted",
        (
            "crateseal trust https://crates.example.org --root-sha256 3f7a…",
            "crateseal trust https://a.example.org https://b.example.org --root ci/1.root.json",
            "crateseal trust",
            "crateseal trust --forget https://crates.example.org",
        ),
        _client,
        add_trust,
        operands="[URL…]",
        is_mirrors=False,
        is_clients=True,
    ),
    VERIFY: Command(
        "prove a lock file, single crates, a vendor folder or cargo's own cache",
        (
            "crateseal verify",
            "crateseal verify serde@1.0.200",
            "crateseal verify --vendor vendor --cache",
            "crateseal verify --lock Cargo.lock --data crateseal-data",
            "crateseal verify --mirror https://crates.example.org --root-sha256 3f7a…",
        ),
        _client,
        add_verify,
        operands="[CRATE[@VERSION]…]",
        is_mirrors=False,
        is_clients=True,
    ),
    PROXY: Command(
        "a registry on this machine's loopback for an unmodified cargo; all it answers is verified",
        ("crateseal proxy", "crateseal proxy --port 8471"),
        _client,
        is_mirrors=False,
        is_clients=True,
        is_long=True,
    ),
    VENDOR: Command(
        "write a folder that plain cargo builds from, each file of it verified",
        ("crateseal vendor vendor", "crateseal vendor third-party --lock ../Cargo.lock"),
        _client,
        add_vendor,
        operands="DIR",
        is_mirrors=False,
        is_clients=True,
    ),
    CARGO_CONFIG: Command(
        "what cargo's own configuration needs to use `crateseal proxy` for good, for an IDE",
        ("crateseal cargo-config", "crateseal cargo-config --write"),
        _client,
        add_write,
        is_mirrors=False,
        is_clients=True,
    ),
}
