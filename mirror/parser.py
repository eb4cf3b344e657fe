"""The command line's words: what a command is, its help, and one line for each wrong use.

Which commands there are, and what they do, stands in cli.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from mirror.client.home.settings import ABOUT, ClientSettings, option_of
from mirror.errors import UsageError
from mirror.kinds import FLAG
from mirror.options import add_options, nearest, show_value


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`")

    def long_options(self) -> list[str]:
        return [option for option in self._option_string_actions if option.startswith("--")]


@dataclass(frozen=True, slots=True)
class Command:
    """One row of the table of commands."""

    summary: str
    examples: tuple[str, ...]
    run: Callable[[argparse.Namespace], int]
    add_own: Callable[[argparse.ArgumentParser], None] = lambda _parser: None
    operands: str = ""
    """What follows the command's name, as its usage shows it."""
    is_mirrors: bool = True
    """Whether it works on a mirror's folder, and so reads `mirror.toml` where it stands."""
    is_clients: bool = False
    """Whether it belongs to the far side, and so has a client's settings."""
    is_long: bool = False
    """Whether it goes on until it is told to end, and so logs what it does."""


def parse(argv: Sequence[str], commands: Mapping[str, Command]) -> argparse.Namespace:
    """Read a command line: the command's name is `command` of what is returned.

    Raises:
        UsageError: it is not one of ours; the text says which word is wrong.
    """
    parser = _build_parser(commands)
    first = argv[0] if argv else ""
    if first.startswith("-") and first not in {"-h", "--help", "--version"}:
        raise UsageError(f"unknown option {first!r}; options follow the command")
    if first and not first.startswith("-") and first not in commands:
        raise UsageError(f"unknown command {first!r}; {nearest(first, commands)}")
    arguments, rest = parser.parse_known_args(argv)
    if arguments.command is None:
        parser.print_help(sys.stderr)
        raise UsageError("no command given; `crateseal demo` is a good first one")
    if rest:
        known: _Parser = arguments.parser
        word = rest[0].partition("=")[0]
        hint = nearest(word, known.long_options()) if word.startswith("-") else "leave it out"
        raise UsageError(f"{arguments.command}: unknown argument {word!r}; {hint}")
    return arguments


def _build_parser(commands: Mapping[str, Command]) -> _Parser:
    parser = _Parser(
        prog="crateseal",
        description="A mirror of crates.io that can be trusted without trusting its machine.",
        epilog="Begin with `crateseal demo`, then `crateseal up`. Each command has a --help.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="say which version it is")
    rows = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", parser_class=_Parser
    )
    for name, command in commands.items():
        own = rows.add_parser(
            name,
            help=command.summary,
            usage=" ".join(filter(None, ("crateseal", name, command.operands, "[options]"))),
            description=command.summary[0].upper() + command.summary[1:] + ".",
            epilog="examples:\n" + "\n".join(f"  {line}" for line in command.examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        _add_common(own, command)
        command.add_own(own)
        if command.is_mirrors:
            add_options(own, name)
        if command.is_clients:
            add_client_settings(own, name)
        own.set_defaults(parser=own)
    return parser


class _ShowVersion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_rest: object) -> None:
        from importlib.metadata import version  # noqa: PLC0415 - slow to load, seldom wanted

        parser.exit(message=f"crateseal {version('crateseal')}\n")


def _add_common(parser: argparse.ArgumentParser, command: Command) -> None:
    if command.is_mirrors:
        parser.add_argument(
            "--config", metavar="FILE", help="settings (default: mirror.toml if it is there)"
        )
        parser.add_argument(
            "--data", metavar="DIR", help="the mirror's folder (default: crateseal-data)"
        )
    parser.add_argument(
        "-v", "--verbose", action="count", default=0, help="say more; twice: tracebacks, too"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="say less")


# ---- what single commands take


def add_json(parser: argparse.ArgumentParser) -> None:
    """Let the answer be JSON."""
    parser.add_argument("--json", action="store_true", help="answer in JSON")


def add_keep(parser: argparse.ArgumentParser) -> None:
    """`demo`: leave its folder."""
    parser.add_argument("--keep", action="store_true", help="keep its folder, to look around in")


def add_trial(parser: argparse.ArgumentParser) -> None:
    """`init`: with all keys, or with the online ones only."""
    parser.add_argument(
        "--trial",
        action="store_true",
        help="make a whole repository for a first try, all keys in the mirror's folder",
    )


def add_once(parser: argparse.ArgumentParser) -> None:
    """`sync`: one look, or for good."""
    parser.add_argument(
        "--once",
        action="store_true",
        help="look at everything that is followed once, then end; starts a signer if none runs",
    )


def add_crate(parser: argparse.ArgumentParser) -> None:
    """A crate, or one version of it."""
    parser.add_argument("crate", metavar="NAME[@VERSION]", help="the crate, or one version of it")


def add_accepted(parser: argparse.ArgumentParser) -> None:
    """`accept`: which crate, and which of its refused bytes."""
    add_crate(parser)
    parser.add_argument(
        "--sha256",
        metavar="HEX",
        help="only if this is still what is quarantined (its first digits, from `status`)",
    )


def add_denied(parser: argparse.ArgumentParser) -> None:
    """`deny`: which crate, and the public reason."""
    add_crate(parser)
    parser.add_argument("--reason", metavar="TEXT", required=True, help="why; everybody sees it")


def add_lock(parser: argparse.ArgumentParser) -> None:
    """Let a lock file be named."""
    parser.add_argument(
        "--lock",
        metavar="FILE",
        help="the lock file whose packages are meant (default: Cargo.lock)",
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    """`trust`: which mirrors, and why their root is believed (--root, --root-sha256)."""
    parser.add_argument(
        "url",
        metavar="URL",
        nargs="*",
        help="mirrors of one repository; none: list what is trusted",
    )
    parser.add_argument(
        "--on-first-use",
        action="store_true",
        help="take the root that the mirror shows; nobody vouches for it; https or loopback only",
    )
    parser.add_argument(
        "--replace", action="store_true", help="a mirror that is known with another root: take this"
    )
    parser.add_argument(
        "--forget",
        metavar="URL",
        action="append",
        help="trust this mirror no longer; again for more",
    )
    add_json(parser)


def add_verify(parser: argparse.ArgumentParser) -> None:
    """`verify`: what is to be proven."""
    parser.add_argument(
        "crates", metavar="CRATE[@VERSION]", nargs="*", help="prove these, and no lock file"
    )
    add_lock(parser)
    parser.add_argument("--vendor", metavar="DIR", help="prove the files of a vendor folder")
    parser.add_argument(
        "--cache",
        action="store_true",
        help="prove what lies in cargo's own cache, packed and unpacked",
    )
    add_json(parser)


def add_vendor(parser: argparse.ArgumentParser) -> None:
    """`vendor`: of what, and where to."""
    parser.add_argument("folder", metavar="DIR", help="the folder to write")
    add_lock(parser)


def add_write(parser: argparse.ArgumentParser) -> None:
    """`cargo-config`: show, write or take out."""
    parser.add_argument(
        "--write", action="store_true", help="write it to cargo's own config.toml; comments survive"
    )
    parser.add_argument("--remove", action="store_true", help="take out what --write has put there")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="with --write: in place of another source for crates.io",
    )


# ---- a client's settings


def add_client_settings(parser: argparse.ArgumentParser, command: str) -> None:
    """Give a command of the far side the options of all settings that are of use to it."""
    group = parser.add_argument_group("settings (also in client.toml, or as CRATESEAL_… variables)")
    for name, about in ABOUT.items():
        if about.only and command not in about.only:
            continue
        default = _default(name)
        note = f" (default: {default})" if default and about.kind is not FLAG else ""
        text = about.help.replace("%", "%%") + note
        if about.kind is FLAG:
            group.add_argument(
                option_of(name), dest=name, action="store_const", const="true", help=text
            )
        else:
            action = "append" if about.kind.separator else "store"
            metavar = about.kind.metavar
            group.add_argument(
                option_of(name), dest=name, action=action, metavar=metavar, help=text
            )


def client_settings_table() -> str:
    """Return the list of a client's settings as a Markdown table, for the README."""
    lines = ["| key | default | what it is |", "| --- | --- | --- |"]
    for name, about in ABOUT.items():
        default = f"`{_default(name)}`" if _default(name) else ""
        option = f" (option `{option_of(name)}`)" if about.option else ""
        lines.append(f"| `{name}` | {default} | {about.help}{option} |")
    return "\n".join(lines) + "\n"


def _default(name: str) -> str:
    default = ClientSettings._field_defaults.get(name)
    return "" if default in (None, ()) else show_value(default, ABOUT[name].kind)
