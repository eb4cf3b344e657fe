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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from securesystemslib.signer import Signature

from tuf_repo import durable, strict
from tuf_repo.core.roles import ROOT, TARGETS
from tuf_repo.core.root import Json
from tuf_repo.errors import CeremonyError, TargetError
from tuf_repo.signing import canonical, file_bytes

FORMAT = 1
DRAFT_MAX_BYTES = 2_000_000
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
            and _data(self.base) == _data(other.base)
            and {role: file.payload for role, file in self.roles.items()}
            == {role: file.payload for role, file in other.roles.items()}
        )

    def with_signatures(self, more: Mapping[str, Mapping[str, str]]) -> Draft:
        """Return it with further signatures: role -> keyid -> signature."""
        roles = {
            role: file.with_signatures(more.get(role, {})) for role, file in self.roles.items()
        }
        return replace(self, roles=roles)


# ---- bytes


def parse_role_file(where: str, data: bytes) -> RoleFile:
    """Read a published file whose bytes are the ones that we would write.

    What stands among its signatures and is none counts for nothing, and is kept: its digest is the
    one that people know the file by, and a repository that published such a file must be able to
    move on from it.

    Raises:
        CeremonyError: they are not.
    """
    file = _role_file(where, _load(where, data), is_published=True)
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
    base = value["base"]
    if base is not None:
        base = _role_files(f"{where}: base", base, is_published=True)
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
    try:
        return strict.load(data)
    except ValueError as error:
        raise CeremonyError(
            where, "JSON, in UTF-8, that every reader reads alike", str(error)
        ) from None


def _role_files(where: str, value: object, *, is_published: bool = False) -> dict[str, RoleFile]:
    if not isinstance(value, dict):
        raise CeremonyError(where, "files by role", type(value).__name__)
    return {
        role: _role_file(f"{where}: {role}", each, is_published=is_published)
        for role, each in value.items()
    }


def _role_file(where: str, value: object, *, is_published: bool = False) -> RoleFile:
    _expect_fields(where, value, {"signatures", "signed"})
    assert isinstance(value, dict)
    signed, listed = value["signed"], value["signatures"]
    if not isinstance(signed, dict) or not isinstance(listed, list):
        raise CeremonyError(where, "an object `signed` and a list `signatures`", "others")
    signatures: dict[str, str] = {}
    for each in listed:
        _expect_fields(where, each, {"keyid", "sig"})
        keyid, text = each["keyid"], each["sig"]
        is_text = isinstance(keyid, str) and isinstance(text, str)
        if not is_text or not (is_published or _HEX.issuperset(text)):
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


def _data(files: Mapping[str, RoleFile] | None) -> dict[str, bytes] | None:
    # Bytes, as Python takes 1 and true for the same.
    return None if files is None else {role: file.data for role, file in files.items()}


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
    with new_file(path) as put:
        put(draft)


@contextmanager
def new_file(path: Path) -> Iterator[Callable[[Draft], None]]:
    """Hold a name that is free for a draft that is still to be made.

    So whatever is made for it, a key say, is made only where it can be written. What is yielded
    writes it; where that does not come about, nothing lies there in the end.

    Raises:
        CeremonyError: the name is taken.
        OSError: the disk.
    """
    with ExitStack() as held:
        try:
            held.enter_context(durable.claimed(path))
        except FileExistsError:
            raise CeremonyError(
                str(path), "a free name", "a file; choose another --out, or remove it"
            ) from None
        yield lambda draft: durable.replace(path, to_bytes(draft))


def update(path: Path, change: Callable[[Draft], Draft]) -> Draft:
    """Read a draft, change it and put it back by one rename, with nobody else in between.

    Where a link lies, that is the file which it leads to. Mode and, where possible, owner stay.

    Returns:
        What now lies there.

    Raises:
        CeremonyError: it is no draft, or what `change` raises; nothing was changed then.
        OSError: the disk.
    """
    path = Path(os.path.realpath(path, strict=True))
    with _locked(path):
        draft = read(path)
        changed = change(draft)
        if changed != draft:
            durable.replace(path, to_bytes(changed))
        return changed


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    while True:
        fd = _open_to_lock(path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            # Who held it before us has put another file under this name: lock that one.
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                yield
                return
        finally:
            os.close(fd)


def _open_to_lock(path: Path) -> int:
    try:
        # For writing: a network folder locks nothing else.
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
