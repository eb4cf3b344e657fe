"""`tuf-repo`: the table of commands, exit codes, and the one place that reads the clock."""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tuf_repo import ceremony, drafting, drafts, keyfiles, options, secrets, standing, uris
from tuf_repo.check import check_data
from tuf_repo.core import words
from tuf_repo.core.roles import Policy
from tuf_repo.drafts import Draft, RoleFile
from tuf_repo.errors import CeremonyError, UsageError
from tuf_repo.exits import INTERRUPTED, exit_code_of, in_one_line
from tuf_repo.folder import DataFolder
from tuf_repo.options import Command
from tuf_repo.proposal import read_proposal
from tuf_repo.storage import MetadataFolder


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    verbose = 0
    # No dump of this process, which knows passphrases and keys for a while, ever lies on a disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that knows few letters gets the others spelled out.
            stream.reconfigure(errors="backslashreplace")
    try:
        arguments = options.parse(sys.argv[1:] if argv is None else argv, COMMANDS)
        verbose = arguments.verbose
        code = COMMANDS[arguments.command].run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Who read our output has enough; what happens at exit must not write either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as error:  # noqa: BLE001 - the one place that turns errors into exit codes
        if verbose > 1:
            traceback.print_exc()
        sys.stderr.write(f"tuf-repo: {in_one_line(error)}\n")
        return exit_code_of(error)
    return code


def _say(arguments: argparse.Namespace, *lines: str) -> None:
    if not arguments.quiet:
        # Names of files and keys are others' words: none may move the cursor, or be no text at all.
        sys.stdout.writelines(f"{words.printable(line, len(line))}\n" for line in lines)


# ---- keys


def _key_new(arguments: argparse.Namespace) -> int:
    path: Path = arguments.file
    public = path.with_name(f"{path.name}.pub")
    for each in (path, public):
        _refuse_taken(each, "FILE")
    passphrase = secrets.new_passphrase(arguments.passphrase_fd, str(path))
    key = keyfiles.create(path, arguments.kind, passphrase)
    keyfiles.write_public(public, key, arguments.name)
    _say(
        arguments,
        f"{path}: the private key, encrypted; it never leaves your hands",
        f"{public}: the public half, for whoever drafts",
        f"keyid {words.spelled(key.keyid)}",
    )
    return 0


def _key_show(arguments: argparse.Namespace) -> int:
    key = uris.load_public(arguments.uri, secrets.asker(arguments.passphrase_fd))
    sys.stdout.write(json.dumps(keyfiles.public_fields(key, arguments.name), indent=2) + "\n")
    return 0


# ---- drafting


def _init(arguments: argparse.Namespace) -> int:
    if arguments.online is None:
        raise UsageError("init: --online FILE is missing; `crateseal init` prints what goes there")
    half = drafting.read_online(arguments.online)
    edits = options.edits_from(arguments)
    policy = options.policy_from(arguments, half.delegation)
    return _write(arguments, lambda: drafting.init(half, edits, now=time.time(), policy=policy))


def _draft(arguments: argparse.Namespace) -> int:
    base, edits = _base(arguments), options.edits_from(arguments)
    policy = _policy(arguments, base)
    half = drafting.read_online(arguments.online) if arguments.online else None
    return _write(
        arguments, lambda: drafting.draft(base, edits, half, now=time.time(), policy=policy)
    )


def _rotate(arguments: argparse.Namespace) -> int:
    base, roles = _base(arguments), arguments.roles
    edits = options.edits_from(arguments, roles[0] if len(roles) == 1 else None)
    policy = _policy(arguments, base)
    keys = DataFolder(arguments.data).keys if arguments.data else None
    return _write(
        arguments,
        lambda: drafting.rotate(base, roles, edits, keys, now=time.time(), policy=policy),
    )


def _resign(arguments: argparse.Namespace) -> int:
    base = _base(arguments)
    policy = _policy(arguments, base)
    return _write(
        arguments,
        lambda: drafting.resign(base, arguments.roles, now=time.time(), policy=policy),
    )


def _adopt(arguments: argparse.Namespace) -> int:
    data, edits = DataFolder(arguments.data), options.edits_from(arguments)
    policy = _policy(arguments, ceremony.read_base(MetadataFolder(data.metadata)))
    return _write(arguments, lambda: drafting.adopt(data, edits, now=time.time(), policy=policy))


def _base(arguments: argparse.Namespace) -> Mapping[str, RoleFile]:
    return ceremony.read_base(options.metadata_from(arguments))


def _policy(arguments: argparse.Namespace, base: Mapping[str, RoleFile]) -> Policy:
    return options.policy_from(arguments, ceremony.offline_of(base).delegation)


def _refuse_taken(path: Path, option: str) -> None:
    if path.exists():
        raise UsageError(f"{option} {path}: a file is there; choose another name, or remove it")


def _write(arguments: argparse.Namespace, make: Callable[[], Draft]) -> int:
    out: Path = arguments.out
    _refuse_taken(out, "--out")
    # Before it is made: it may make keys, which nobody needs where it cannot be written.
    with drafts.new_file(out) as put:
        draft = make()
        put(draft)
    proposal = read_proposal(draft)
    _say(arguments, *proposal.words(), "", *standing.who(proposal), "")
    if getattr(arguments, "data", None):
        _say(arguments, *drafting.services_left(DataFolder(arguments.data).keys, proposal))
    _say(arguments, f"{out}: give each of them a copy, to `tuf-repo sign {out.name} --key FILE`")
    return 0


# ---- signing


def _sign(arguments: argparse.Namespace) -> int:
    path: Path = arguments.draft
    seen = ceremony.look(path, arguments.root, now=time.time())
    _say(arguments, *seen.words(), "", *standing.to_compare(seen, arguments.root))
    signer = uris.load_signer(arguments.key, secrets.asker(arguments.passphrase_fd))
    roles = ceremony.roles_of(seen, signer.public_key)
    what = " and ".join(f"{role} {seen.after[role].version}" for role in roles)
    if not arguments.yes and not _agrees(f"Sign {what} with key {signer.public_key.keyid[:8]}?"):
        sys.stderr.write("tuf-repo: nothing was signed\n")
        return 1
    proposal = read_proposal(ceremony.add_signatures(path, seen, signer))
    _say(
        arguments,
        f"signed {what} with key {signer.public_key.keyid[:8]}",
        "",
        *standing.who(proposal),
    )
    return 0


def _agrees(question: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("sign: nobody to ask here; read what it changes, then add --yes")
    sys.stdout.write(f"{words.printable(question, len(question))} [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _merge(arguments: argparse.Namespace) -> int:
    proposal = ceremony.merge(arguments.draft, arguments.others)
    _say(arguments, *standing.who(proposal))
    return 0


def _status(arguments: argparse.Namespace) -> int:
    if not arguments.drafts and arguments.data is None:
        raise UsageError("status: a DRAFT, or --data DIR, is missing; see `tuf-repo status --help`")
    proposal = ceremony.status(arguments.drafts) if arguments.drafts else None
    keys = ceremony.idle_keys(DataFolder(arguments.data)) if arguments.data else None
    if arguments.json:
        sys.stdout.write(json.dumps(standing.as_json(proposal, keys), indent=2) + "\n")
        return 0
    if proposal:
        _say(arguments, *proposal.words(), "", *standing.who(proposal))
    if keys is not None:
        _say(arguments, *standing.idle(keys, proposal))
    return 0


# ---- finishing


def _finish(arguments: argparse.Namespace) -> int:
    data = DataFolder(arguments.data) if arguments.data else None
    out: Path = data.ceremony if data else arguments.out
    done = ceremony.finish(arguments.drafts, data=data, out=out, now=time.time())
    if done.is_in_force:
        _say(arguments, "this very draft is in force already: there was nothing left to do")
    else:
        _say(arguments, *(f"{out / file}" for file in done.files))
    _warn_of_unseen(done)
    _say(arguments, f"root {done.root_version}, sha256 {done.root_sha256}")
    if data and not done.is_in_force:
        _say(arguments, "the signer (`crateseal up`) takes these files with its next publication")
    return 0


def _warn_of_unseen(done: ceremony.Finished) -> None:
    for key in done.unseen:
        sys.stdout.flush()
        line = f"nobody here may see whether the signer has {key}: compare it on that machine"
        sys.stderr.write(f"tuf-repo: {words.printable(line, len(line))}\n")


def _check(arguments: argparse.Namespace) -> int:
    folder = DataFolder(arguments.data)
    found = 0
    for finding in check_data(folder, now=time.time()):
        found += 1
        text = str(finding)
        sys.stdout.write(f"{words.printable(text, len(text))}\n")
    if found:
        raise CeremonyError(str(folder.path), "a sound repository", f"{found} findings, above")
    _say(arguments, f"{folder.path}: sound, from the root down")
    return 0


# ---- the table

_ONE_EACH = (
    "--key root=ana.pub --key targets=ana.pub --key crates=ben.pub"
    " --threshold root=1 --threshold targets=1 --threshold crates=1"
)
_SOURCE = "--data DIR | --metadata DIR"
_EDITS = (options.add_edits, options.add_drops, options.add_online, options.add_out)

COMMANDS = {
    "key new": Command(
        "make a key of your own, encrypted, and its public half beside it",
        "FILE [--type ed25519|ecdsa] [--name TEXT] [--passphrase-fd N]",
        ("tuf-repo key new ana", 'tuf-repo key new ben --type ecdsa --name "Ben Okafor"'),
        _key_new,
        (options.add_new_key, options.add_name, options.add_passphrase),
    ),
    "key show": Command(
        "print the public half of a key that is there: in a file, a token, a key service",
        "URI [--name TEXT] [--passphrase-fd N]",
        ("tuf-repo key show ana", "tuf-repo key show hsm:2 --name Ana > ana.pub"),
        _key_show,
        (options.add_uri, options.add_name, options.add_passphrase),
    ),
    "init": Command(
        "draft a new repository: who signs what",
        "--online FILE --key ROLE=FILE.pub … [--threshold ROLE=N] [--bin-bits N] --out DRAFT",
        (f"tuf-repo init --online online.json {_ONE_EACH} --out draft.json",),
        _init,
        (options.add_online, options.add_edits, options.add_out),
    ),
    "draft": Command(
        "draft a change: keys in and out, thresholds, bins, new online keys",
        f"{_SOURCE} [--key ROLE=FILE.pub] [--drop ROLE=KEYID] [--threshold ROLE=N]"
        " [--bin-bits N] [--online FILE] --out DRAFT",
        (
            "tuf-repo draft --data /srv/crates --key root=zo.pub --drop root=1a2b --out draft.json",
            "tuf-repo draft --metadata metadata --threshold targets=3 --out draft.json",
        ),
        _draft,
        (options.add_source, *_EDITS),
    ),
    "rotate": Command(
        "draft a new key in the place of an old one; online ones are made where none is given",
        f"ROLE … {_SOURCE} [--drop KEYID --key FILE.pub] [--bin-bits N] --out DRAFT",
        (
            "tuf-repo rotate root --drop 1a2b --key zoe.pub --data /srv/crates --out draft.json",
            "tuf-repo rotate snapshot timestamp bins --data /srv/crates --out draft.json",
        ),
        _rotate,
        (options.add_rotated, options.add_source, *_EDITS[:2], options.add_out),
    ),
    "resign": Command(
        "draft the same again, to live longer",
        f"[ROLE …] {_SOURCE} [--days ROLE=N] --out DRAFT",
        (
            "tuf-repo resign --data /srv/crates --out draft.json",
            "tuf-repo resign root --metadata metadata --out draft.json",
        ),
        _resign,
        (options.add_roles, options.add_source, options.add_days, options.add_out),
    ),
    "adopt": Command(
        "draft the step from a trial to people with keys of their own; all keys are replaced",
        "--data DIR --key ROLE=FILE.pub … [--threshold ROLE=N] [--bin-bits N] --out DRAFT",
        (f"tuf-repo adopt --data crateseal-data {_ONE_EACH} --out draft.json",),
        _adopt,
        (options.add_data, options.add_edits, options.add_out),
    ),
    "sign": Command(
        "say in plain words what a draft changes, ask, and add your signature to it",
        "DRAFT --key URI [--root FILE|DIR] [--passphrase-fd N] [--yes]",
        (
            "tuf-repo sign draft.json --key ana",
            "tuf-repo sign draft.json --key hsm:2 --root kept",
        ),
        _sign,
        (options.add_draft, options.add_signing, options.add_passphrase),
    ),
    "merge": Command(
        "take the signatures of other copies into a draft",
        "DRAFT OTHER …",
        ("tuf-repo merge draft.json from-ana.json from-ben.json",),
        _merge,
        (options.add_draft, options.add_others),
    ),
    "status": Command(
        "say what a draft changes, who has signed, who is missing; and which online keys lie idle",
        "DRAFT … [--data DIR] [--json]",
        (
            "tuf-repo status draft.json",
            "tuf-repo status from-*.json --json",
            "tuf-repo status --data /srv/crates",
        ),
        _status,
        (options.add_any_copies, options.add_any_data, options.add_json),
    ),
    "finish": Command(
        "check a draft that enough have signed, and hand its files to the signer",
        "DRAFT … --data DIR | --out DIR",
        (
            "tuf-repo finish draft.json --data /srv/crates",
            "tuf-repo finish from-ana.json from-ben.json --out signed",
        ),
        _finish,
        (options.add_copies, options.add_target),
    ),
    "check": Command(
        "check published metadata from the root down; exit 1 names each wrong file",
        "--data DIR",
        ("tuf-repo check --data /srv/crates",),
        _check,
        (options.add_data,),
    ),
}
