"""The draft: one JSON file that travels from signer to signer.

    {"format": 1, "delegation": NAME, "base": null or {ROLE: FILE, …}, "roles": {ROLE: FILE, …}}

`base` is the whole of root, `targets` and the role below as they are in force, so that a signer who
has nothing else sees what changes; `roles` has the files that are to come. A FILE is
`{"signatures": […], "signed": {…}}`, from which its bytes follow (signing.py).

Rule: a draft comes from strangers. What is not exactly of this form is refused; nothing is guessed.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from securesystemslib.signer import Signature

from tuf_repo.core.numbers import LIMIT
from tuf_repo.core.roles import ROOT, TARGETS
from tuf_repo.core.root import Json
from tuf_repo.errors import CeremonyError, TargetError
from tuf_repo.signing import canonical, file_bytes

FORMAT = 1
DRAFT_MAX_BYTES = 2_000_000
_LONG_NUMBER_DIGITS = 17
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class RoleFile:
    """One metadata file, taken apart."""

    signed: Json
    signatures: Mapping[str, str] = field(default_factory=dict)
    """Keyid -> signature in hex digits, in the order of the file."""

    @property
    def payload(self) -> bytes:
        """The bytes that are signed."""
        return canonical(self.signed)

    @property
    def data(self) -> bytes:
        """The file's bytes."""
        signatures = [Signature(keyid, text) for keyid, text in self.signatures.items()]
        return file_bytes(self.payload, signatures)

    def with_signatures(self, more: Mapping[str, str]) -> RoleFile:
        """Return it with further signatures; in order of keyid, so that the order tells nothing."""
        return replace(self, signatures=dict(sorted({**more, **self.signatures}.items())))


@dataclass(frozen=True, slots=True)
class Draft:
    """What is proposed, and what it starts from."""

    delegation: str
    base: Mapping[str, RoleFile] | None
    roles: Mapping[str, RoleFile]

    @property
    def files(self) -> Mapping[str, RoleFile]:
        """The three files as they will be in force: new where there are new ones."""
        return {**(self.base or {}), **self.roles}

    def same_proposal(self, other: Draft) -> bool:
        """Whether two are copies of one draft, whoever has signed them."""
        return (
            self.delegation == other.delegation
            and self.base == other.base
            and {role: file.signed for role, file in self.roles.items()}
            == {role: file.signed for role, file in other.roles.items()}
        )

    def with_signatures(self, more: Mapping[str, Mapping[str, str]]) -> Draft:
        """Return it with further signatures: role -> keyid -> signature."""
        roles = {
            role: file.with_signatures(more.get(role, {})) for role, file in self.roles.items()
        }
        return replace(self, roles=roles)


# ---- bytes


def parse_role_file(where: str, data: bytes) -> RoleFile:
    """Read a metadata file whose bytes are the ones that we would write.

    Raises:
        CeremonyError: they are not.
    """
    file = _role_file(where, _load(where, data))
    if file.data != data:
        raise CeremonyError(where, "the bytes that this program writes", "others")
    return file


def parse(where: str, data: bytes) -> Draft:
    """Read a draft; `where` names it in errors.

    Raises:
        CeremonyError: it is none, or of a newer format.
    """
    value = _load(where, data)
    if not isinstance(value, dict) or "format" not in value:
        raise CeremonyError(where, "a draft", "something else; make one with `tuf-repo init`")
    number = value["format"]
    if type(number) is not int or number < FORMAT:
        raise CeremonyError(where, f"format {FORMAT}", repr(number))
    if number > FORMAT:
        raise CeremonyError(
            where, f"format {FORMAT}", f"format {number}, of a newer program; install that one"
        )
    _expect_fields(where, value, {"format", "delegation", "base", "roles"})
    delegation = value["delegation"]
    if not isinstance(delegation, str) or not delegation or not delegation.isprintable():
        raise CeremonyError(where, "the name of the delegation", repr(delegation))
    base = value["base"] if value["base"] is None else _role_files(f"{where}: base", value["base"])
    draft = Draft(delegation, base, _role_files(f"{where}: roles", value["roles"]))
    _expect_roles(where, draft)
    return draft


def to_bytes(draft: Draft) -> bytes:
    """Return the file of a draft: the same for the same draft and signatures."""
    value = {
        "format": FORMAT,
        "delegation": draft.delegation,
        "base": None if draft.base is None else _fields(draft.base),
        "roles": _fields(draft.roles),
    }
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def merged(drafts: Sequence[tuple[str, Draft]]) -> Draft:
    """Return the first with the signatures of all; pairs of name and draft.

    Raises:
        CeremonyError: they are not copies of one draft.
    """
    name, whole = drafts[0]
    for other_name, other in drafts[1:]:
        if not whole.same_proposal(other):
            raise CeremonyError(other_name, f"another copy of {name}", "a different draft")
        whole = whole.with_signatures({role: file.signatures for role, file in other.roles.items()})
    return whole


def _load(where: str, data: bytes) -> Any:
    if len(data) > DRAFT_MAX_BYTES:
        raise CeremonyError(where, f"at most {DRAFT_MAX_BYTES} bytes", "more")

    def refuse(what: str) -> NoReturn:
        raise CeremonyError(where, "JSON that every reader reads alike", what)

    def once(pairs: list[tuple[str, Any]]) -> Json:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            refuse(f"{next(name for name in names if names.count(name) > 1)!r} twice")
        return dict(pairs)

    def exact(text: str) -> int:
        if len(text) > _LONG_NUMBER_DIGITS or abs(int(text)) >= LIMIT:
            refuse(f"the number {text[:24]}, which is not below {LIMIT}")
        return int(text)

    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=once,
            parse_int=exact,
            parse_float=lambda text: refuse(f"the fraction {text[:24]}"),
            parse_constant=refuse,
        )
        # A half of a character, spelled \ud800, is text for json but can be written by nobody.
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise CeremonyError(where, "JSON, in UTF-8", "something else") from None
    return value


def _role_files(where: str, value: object) -> dict[str, RoleFile]:
    if not isinstance(value, dict):
        raise CeremonyError(where, "files by role", type(value).__name__)
    return {role: _role_file(f"{where}: {role}", each) for role, each in value.items()}


def _role_file(where: str, value: object) -> RoleFile:
    _expect_fields(where, value, {"signatures", "signed"})
    assert isinstance(value, dict)
    signed, listed = value["signed"], value["signatures"]
    if not isinstance(signed, dict) or not isinstance(listed, list):
        raise CeremonyError(where, "an object `signed` and a list `signatures`", "others")
    signatures: dict[str, str] = {}
    for each in listed:
        _expect_fields(where, each, {"keyid", "sig"})
        keyid, text = each["keyid"], each["sig"]
        if not isinstance(keyid, str) or not isinstance(text, str) or not _HEX.issuperset(text):
            raise CeremonyError(where, "signatures of a keyid and hex digits", "another")
        if keyid in signatures:
            raise CeremonyError(where, "one signature by each key", f"two by {keyid[:8]}")
        signatures[keyid] = text
    try:
        canonical(signed)
    except TargetError as error:
        raise CeremonyError(where, error.expected, error.got) from None
    return RoleFile(signed, signatures)


def _expect_fields(where: str, value: object, fields: set[str]) -> None:
    if not isinstance(value, dict) or set(value) != fields:
        got = ", ".join(sorted(map(str, value))) if isinstance(value, dict) else "no object"
        raise CeremonyError(where, f"the fields {', '.join(sorted(fields))}", got or "none")


def _expect_roles(where: str, draft: Draft) -> None:
    files = {ROOT, TARGETS, draft.delegation}
    if len(files) < 3:
        raise CeremonyError(where, "a delegation with a name of its own", draft.delegation)
    complete = set(draft.roles) if draft.base is None else set(draft.base)
    if complete != files:
        raise CeremonyError(where, f"all of {', '.join(sorted(files))}", _listed(complete))
    if not draft.roles or not files.issuperset(draft.roles):
        raise CeremonyError(where, f"some of {', '.join(sorted(files))}", _listed(draft.roles))


def _listed(names: Mapping[str, object] | set[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _fields(files: Mapping[str, RoleFile]) -> dict[str, Json]:
    return {
        role: {
            "signatures": [{"keyid": k, "sig": text} for k, text in file.signatures.items()],
            "signed": file.signed,
        }
        for role, file in files.items()
    }


# ---- disk


def read(path: Path) -> Draft:
    """Read a draft file.

    Raises:
        CeremonyError: it is none.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return parse(str(path), file.read(DRAFT_MAX_BYTES + 1))


def write_new(path: Path, draft: Draft) -> None:
    """Write a draft under a name that is free; a whole one or none.

    Raises:
        CeremonyError: the name is taken.
        OSError: the disk.
    """
    with _temporary(path, to_bytes(draft)) as temporary:
        try:
            # link(2), not rename(2): it never takes the place of what lies there.
            os.link(temporary, path)
        except FileExistsError:
            raise CeremonyError(
                str(path), "a free name", "a file; choose another --out, or remove it"
            ) from None
    _sync_folder(path.parent)


def update(path: Path, change: Callable[[Draft], Draft]) -> Draft:
    """Read a draft, change it and put it back by one rename, with nobody else in between.

    Returns:
        What now lies there.

    Raises:
        CeremonyError: it is no draft, or what `change` raises; nothing was changed then.
        OSError: the disk.
    """
    with _locked(path):
        draft = read(path)
        changed = change(draft)
        if changed != draft:
            with _temporary(path, to_bytes(changed)) as temporary:
                os.rename(temporary, path)
            _sync_folder(path.parent)
        return changed


def write_all(folder: Path, files: Sequence[tuple[str, bytes]]) -> None:
    """Write files, all of them durable before the first has its name; the names in this order.

    As root, they are given to the owner of the folder: the signer must be able to take them away.

    Raises:
        OSError: the disk; the files before the failed one are there.
    """
    if not folder.exists():
        folder.mkdir(parents=True)
        _give_to_owner_of(folder.parent, folder)
    with ExitStack() as stack:
        whole = [
            (stack.enter_context(_temporary(folder / name, data)), folder / name)
            for name, data in files
        ]
        for temporary, path in whole:
            _give_to_owner_of(folder, temporary)
            os.rename(temporary, path)
    _sync_folder(folder)


def _give_to_owner_of(folder: Path, path: Path) -> None:
    if os.geteuid() == 0:
        owner = os.stat(folder)
        os.chown(path, owner.st_uid, owner.st_gid)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    while True:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            # Who held it before us has put another file under this name: lock that one.
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                yield
                return
        finally:
            os.close(fd)


@contextmanager
def _temporary(path: Path, data: bytes) -> Iterator[Path]:
    """Write a file beside `path`, durable; what is left of it at the end is removed."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
