"""`cargo sealed COMMAND`: any cargo command, fetching through a proxy that verifies every byte.

Rule: light imports only, before cargo runs and where nothing is wrong: `cargo sealed build` with
everything cached is to cost no more than a few dozen milliseconds over `cargo build`.

How: cargo gets a CARGO_HOME of its own (`overlay.py`), inherited by every cargo that it starts, and
the same on its command line, where no project's configuration can undo it; the port it is sent to
is held by us from before its start to after its end (`gate.py`, `keeper.py`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mirror.client.home.overlay import users_home
from mirror.client.home.settings import leading_options, read_settings
from mirror.client.sealed import child
from mirror.client.sealed.cargo_words import Words, take_option, unsealed, working_folder
from mirror.client.sealed.sealing import Call, program_of, run_sealed
from mirror.errors import UsageError
from mirror.exits import INTERRUPTED, exit_code_of, in_one_line

USAGE = """\
cargo sealed [OPTIONS] [+toolchain] COMMAND …

Runs any cargo command; what it fetches from crates.io comes through a proxy on this machine that
verifies every byte against the mirror you trust (`crateseal trust`). Cargo.lock stays as it is.

  cargo sealed build --locked
  cargo sealed --strict +nightly clippy
  cargo sealed --mirror https://crates.example.org install ripgrep

Options, before the command:
  --strict                   what no signature covers (git, other registries) is an error, exit 1,
                             and a bypass of the proxy fails instead of fetching
  --strict-absence           refuse a crate whose absence nobody signed
  --accept-stale-until DATE  accept timestamp and snapshot that have expired, until then
  --mirror URL               which of the mirrors you trust; may be repeated
  --data DIR                 a mirror's own folder on this machine, trusted as it stands
  --port N                   the proxy's port, no other
  --json                     the summary on stderr is one line of JSON

publish, owner, yank, login and logout go to cargo as they are, unsealed.
Exit: cargo's own; 1 also where cargo ended well and something came past the proxy.
"""


class _Asked(NamedTuple):
    """Our own options, and cargo's words."""

    ours: dict[str, str | list[str]]
    json: bool
    help: bool
    words: Words


def main(argv: Sequence[str]) -> int:
    """Run one cargo command; return the exit code."""
    try:
        asked = _parse([*argv])
        if asked.help:
            sys.stdout.write(USAGE)
            return 0
        if asked.words.is_unsealed:
            return _unsealed(asked.words, os.environ)
        return child.end_like(_sealed(asked, os.environ))
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the one place that turns errors into exit codes
        sys.stderr.write(f"cargo sealed: {in_one_line(error)}\n")
        return exit_code_of(error)


def _sealed(asked: _Asked, environment: Mapping[str, str]) -> int:
    settings = read_settings(asked.ours, environment)
    # Who calls us from within, a build script, is to find the settings of this command line.
    inherited = settings.child_environment(environment) if asked.ours else environment
    folder = working_folder(asked.words, Path(_working_folder()))
    return run_sealed(Call(asked.words, settings, inherited, folder, asked.json))


# ---- the command line


def _parse(argv: list[str]) -> _Asked:
    """Take the command line apart: ours first, then cargo's.

    Raises:
        UsageError: an option is neither ours nor cargo's, or there is no command.
    """
    if argv[:1] == ["sealed"]:
        del argv[0]  # Cargo calls `cargo-sealed sealed …`.
    ours: dict[str, str | list[str]] = {}
    as_json, toolchain, options = False, None, []
    while argv:
        found, argv = leading_options(argv)
        ours |= found
        if not argv:
            break
        word, taken = argv[0], take_option(argv)
        if word == "--json":
            as_json = True
        elif word in {"-h", "--help"}:
            return _Asked({}, json=False, help=True, words=Words(None, (), None, ()))
        elif word.startswith("+") and toolchain is None:
            toolchain = word
        elif taken:
            options += argv[:taken]
        elif word.startswith("-"):
            raise UsageError(
                f"{word}: no option of `cargo sealed`, nor one that cargo takes before its command;"
                " see `cargo sealed --help`"
            )
        else:
            break
        del argv[: max(taken, 1)]
    if not argv and not {"--version", "-V", "--list"} & {*options}:
        raise UsageError(
            "which cargo command? e.g. `cargo sealed build`; see `cargo sealed --help`"
        )
    words = Words(toolchain, tuple(options), argv[0] if argv else None, tuple(argv[1:]))
    return _Asked(ours, as_json, help=False, words=words)


def _working_folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError as error:
        raise UsageError("the working folder is gone; go to another one") from error


# ---- unsealed


def _unsealed(words: Words, environment: Mapping[str, str]) -> int:
    sys.stderr.write(
        f"sealed: `cargo {words.command}` goes to its registry as it is, past the proxy\n"
    )
    sys.stderr.flush()
    home = users_home(environment, Path(_working_folder()))
    own = {**environment}
    if "CARGO_HOME" in own:
        own["CARGO_HOME"] = str(home)
    return child.replace_us(program_of(words, environment), unsealed(words), own)
