"""The command line's words: what a command is, what it takes, and one line for each wrong use.

Which commands there are, and what they do, stands in cli.py.
"""

from __future__ import annotations

import argparse
import difflib
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from securesystemslib.signer import Key, SSlibKey

from tuf_repo import keyfiles
from tuf_repo.core.edits import Edits
from tuf_repo.core.names import NAME_KIND
from tuf_repo.core.roles import ROOT, TARGETS, Policy
from tuf_repo.core.root import ONLINE, X_NAME
from tuf_repo.core.times import DAY
from tuf_repo.errors import UsageError
from tuf_repo.folder import DataFolder
from tuf_repo.storage import MetadataFolder

Add = Callable[[argparse.ArgumentParser], None]


@dataclass(frozen=True, slots=True)
class Command:
    """One row of the table of commands."""

    summary: str
    operands: str
    """What follows the command's name, as its usage shows it."""
    examples: tuple[str, ...]
    run: Callable[[argparse.Namespace], int]
    takes: tuple[Add, ...] = ()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`")


def parse(argv: Sequence[str], commands: Mapping[str, Command]) -> argparse.Namespace:
    """Read a command line: the command's name is `command` of what is returned.

    Raises:
        UsageError: it is not one of ours.
    """
    words = list(argv)
    families = {name.partition(" ")[0] for name in commands if " " in name}
    if words and words[0] in families:
        words[:2] = [" ".join(words[:2])]
    if words and words[0].startswith("-") and words[0] not in {"-h", "--help"}:
        raise UsageError(f"unknown option {words[0]!r}; options follow the command")
    if words and not words[0].startswith("-") and words[0] not in commands:
        hint = difflib.get_close_matches(words[0], commands, 1) or ["tuf-repo --help"]
        raise UsageError(f"unknown command {words[0]!r}; did you mean `{hint[0]}`?")
    parser = _build(commands)
    arguments = parser.parse_args(words)
    if arguments.command is None:
        parser.print_help(sys.stderr)
        raise UsageError("no command given")
    return arguments


def _build(commands: Mapping[str, Command]) -> _Parser:
    parser = _Parser(
        prog="tuf-repo",
        description="The offline roles of a TUF repository, signed by people with their own keys.",
        epilog="A ceremony from its first key to the end: deploy/ceremony.md.",
        allow_abbrev=False,
    )
    rows = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", parser_class=_Parser
    )
    for name, command in commands.items():
        own = rows.add_parser(
            name,
            help=command.summary,
            usage=f"tuf-repo {name} {command.operands}".rstrip(),
            description=command.summary[0].upper() + command.summary[1:] + ".",
            epilog="examples:\n" + "\n".join(f"  {line}" for line in command.examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        own.add_argument(
            "-v", "--verbose", action="count", default=0, help="say more; twice: tracebacks, too"
        )
        own.add_argument("-q", "--quiet", action="store_true", help="say less")
        for add in command.takes:
            add(own)
    return parser


# ---- what commands take


def add_new_key(parser: argparse.ArgumentParser) -> None:
    """`key new`: where, and of which kind."""
    parser.add_argument("file", metavar="FILE", type=Path, help="the private key; FILE.pub beside")
    parser.add_argument("--type", choices=("ed25519", "ecdsa"), default="ed25519", dest="kind")


def add_name(parser: argparse.ArgumentParser) -> None:
    """A name for a public key."""
    parser.add_argument(
        "--name", metavar="TEXT", type=_name, help="whose key it is; everybody sees it"
    )


def add_uri(parser: argparse.ArgumentParser) -> None:
    """`key show`: which key."""
    parser.add_argument("uri", metavar="URI", help=_URI_HELP)


def add_signing(parser: argparse.ArgumentParser) -> None:
    """`sign`: with which key, and what the signer knows."""
    parser.add_argument("--key", metavar="URI", required=True, help=_URI_HELP)
    parser.add_argument(
        "--root",
        metavar="FILE|DIR",
        type=Path,
        help="the newest root that you keep, or a folder with the newest root, targets and role"
        " below: refuse a draft that starts from others",
    )
    parser.add_argument("--yes", action="store_true", help="sign without asking")


def add_passphrase(parser: argparse.ArgumentParser) -> None:
    """Where a passphrase or PIN comes from."""
    parser.add_argument(
        "--passphrase-fd",
        metavar="N",
        type=int,
        help="read passphrase or PIN as one line from file descriptor N, not on the terminal",
    )


def add_draft(parser: argparse.ArgumentParser) -> None:
    """One draft."""
    parser.add_argument("draft", metavar="DRAFT", type=Path, help="the draft's file")


def add_copies(parser: argparse.ArgumentParser) -> None:
    """A draft, and copies of it."""
    parser.add_argument(
        "drafts", metavar="DRAFT", type=Path, nargs="+", help="the draft, and copies of it"
    )


def add_any_copies(parser: argparse.ArgumentParser) -> None:
    """`status`: a draft and copies of it, or none."""
    parser.add_argument(
        "drafts", metavar="DRAFT", type=Path, nargs="*", help="the draft, and copies of it"
    )


def add_any_data(parser: argparse.ArgumentParser) -> None:
    """`status`: the signing machine's folder, where its keys are asked for."""
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        help=f"{_DATA_HELP}: list the online keys there that nothing published names",
    )


def add_others(parser: argparse.ArgumentParser) -> None:
    """`merge`: the copies to take signatures from."""
    parser.add_argument("others", metavar="OTHER", type=Path, nargs="+", help="copies of it")


def add_roles(parser: argparse.ArgumentParser) -> None:
    """`resign`: which files."""
    parser.add_argument("roles", metavar="ROLE", nargs="*", help="default: all that people sign")


def add_rotated(parser: argparse.ArgumentParser) -> None:
    """`rotate`: whose keys."""
    parser.add_argument("roles", metavar="ROLE", nargs="+", help="whose key is replaced")


def add_data(parser: argparse.ArgumentParser) -> None:
    """The signing machine's folder."""
    parser.add_argument("--data", metavar="DIR", type=Path, required=True, help=_DATA_HELP)


def add_source(parser: argparse.ArgumentParser) -> None:
    """Where what is in force is read from."""
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--data", metavar="DIR", type=Path, help=_DATA_HELP)
    group.add_argument(
        "--metadata", metavar="DIR", type=Path, help="a folder with its published metadata"
    )


def add_target(parser: argparse.ArgumentParser) -> None:
    """`finish`: where the signed files go."""
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--data", metavar="DIR", type=Path, help=f"{_DATA_HELP}; to its ceremony/")
    group.add_argument("--out", metavar="DIR", type=Path, help="a folder to carry there")


def add_out(parser: argparse.ArgumentParser) -> None:
    """Where a new draft goes."""
    parser.add_argument(
        "--out", metavar="DRAFT", type=Path, required=True, help="the draft to write; a new file"
    )


def add_online(parser: argparse.ArgumentParser) -> None:
    """The online keys' public halves."""
    parser.add_argument(
        "--online", metavar="FILE", type=Path, help="what `crateseal init` printed: its new keys"
    )


def add_edits(parser: argparse.ArgumentParser) -> None:
    """Keys, thresholds, bins and days."""
    parser.add_argument(
        "--key",
        metavar="ROLE=FILE.pub",
        action="append",
        default=[],
        help="a key for a role: root, targets, the delegation's name, snapshot, timestamp, bins",
    )
    parser.add_argument(
        "--threshold",
        metavar="ROLE=N",
        action="append",
        default=[],
        help="how many of its keys must sign",
    )
    parser.add_argument("--bin-bits", metavar="N", type=int, help="2 to the power of N bins")
    add_days(parser)


def add_days(parser: argparse.ArgumentParser) -> None:
    """How long what is signed now lives."""
    parser.add_argument(
        "--days",
        metavar="ROLE=N",
        action="append",
        default=[],
        help="how long it lives (default: root 180, the others 365)",
    )


def add_drops(parser: argparse.ArgumentParser) -> None:
    """Keys that go."""
    parser.add_argument(
        "--drop",
        metavar="ROLE=KEYID",
        action="append",
        default=[],
        help="a key that goes, by the first digits of its keyid, or by its FILE.pub",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Let the answer be JSON."""
    parser.add_argument("--json", action="store_true", help="answer in JSON")


_URI_HELP = "a key's file, or hsm:, gcpkms:, awskms:, azurekms:, hv: and what follows there"
_DATA_HELP = "the signing machine's folder"


# ---- what they mean


def edits_from(arguments: argparse.Namespace, sole_role: str | None = None) -> Edits:
    """Read keys, drops, thresholds and bits; `sole_role` is what a text without `ROLE=` is about.

    Raises:
        UsageError: a text is not of its form.
        KeyFileError: a file is no public key.
    """
    added: dict[str, list[Key]] = {}
    for role, file in _pairs("--key", arguments.key, sole_role):
        added.setdefault(role, []).append(read_key(Path(file)))
    dropped: dict[str, list[str]] = {}
    for role, text in _pairs("--drop", getattr(arguments, "drop", []), sole_role):
        keyid = (
            keyfiles.read_public(Path(text)).keyid
            if text.endswith(".pub")
            else text.replace(" ", "")  # As it is shown, in groups.
        )
        dropped.setdefault(role, []).append(keyid)
    thresholds = {
        role: _number("--threshold", text)
        for role, text in _once_each("--threshold", arguments.threshold, sole_role)
    }
    return Edits(added, dropped, thresholds=thresholds, bits=arguments.bin_bits)


def policy_from(arguments: argparse.Namespace, delegation: str) -> Policy:
    """Return how long the offline roles live.

    Raises:
        UsageError: a text is not of its form, or names a role that is none.
    """
    fields = {ROOT: "root_seconds", TARGETS: "targets_seconds", delegation: "delegation_seconds"}
    policy = Policy()
    for role, text in _once_each("--days", arguments.days, None):
        seconds = _number("--days", text) * DAY
        if seconds <= 0 or role in ONLINE:
            raise UsageError(f"--days {role}={text}: expected a day or more, for an offline role")
        if role not in fields:
            near = difflib.get_close_matches(role.lower(), fields, 1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(fields)}"
            raise UsageError(f"--days {role}={text}: no such role; {hint}")
        policy = replace(policy, **{fields[role]: seconds})
    return policy


def metadata_from(arguments: argparse.Namespace) -> MetadataFolder:
    """Return where what is in force lies."""
    folder: Path = arguments.metadata or DataFolder(arguments.data).metadata
    return MetadataFolder(folder)


def read_key(path: Path) -> Key:
    """Read a public key; whose it is becomes a field of it that is signed along.

    Raises:
        KeyFileError: it is none.
    """
    key, name = keyfiles.read_public_named(path)
    fields = {} if name is None else {X_NAME: name}
    return SSlibKey(key.keyid, key.keytype, key.scheme, key.keyval, fields)


def _pairs(option: str, texts: Iterable[str], sole_role: str | None) -> list[tuple[str, str]]:
    pairs = []
    for text in texts:
        role, sign, value = text.partition("=")
        if sole_role is not None and (not sign or role != sole_role):
            role, value = sole_role, text
        if not role or not value:
            raise UsageError(f"{option} {text}: expected {option} ROLE=…, as in {option} root=…")
        pairs.append((role, value))
    return pairs


def _once_each(option: str, texts: Iterable[str], sole_role: str | None) -> list[tuple[str, str]]:
    pairs = _pairs(option, texts, sole_role)
    roles = [role for role, _ in pairs]
    for role in roles:
        if roles.count(role) > 1:
            raise UsageError(f"{option} {role}=…: expected once, got it twice")
    return pairs


def _name(text: str) -> str:
    # Some keyboards write a letter and its mark apart.
    usual = unicodedata.normalize("NFC", text)
    if not keyfiles.is_name(usual):
        raise argparse.ArgumentTypeError(f"expected {NAME_KIND}")
    return usual


def _number(option: str, text: str) -> int:
    if not text.isdecimal() or not text.isascii() or len(text) > 5:
        raise UsageError(f"{option}: expected a number, got {text!r}")
    return int(text)
