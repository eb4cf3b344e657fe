"""The online keys at hand, of which the metadata names some: files, and keys of a service.

A role's first key is `ROLE.pem`; one made later beside it, for a draft that is not signed yet, is
`ROLE-KEYID8.pem`. Only a key that was named once and is no longer is ever removed: a draft may
travel for weeks, and what it is for must be there when it comes back.

`ROLE.json` or `ROLE-….json` says where else a key is: `{"uri": …, "public": {keyid, keytype,
scheme, keyval}}`, and `"secret_file"`, a file (0600, one line) with the PIN, where one is needed.

Rule: what lies in the folder counts when it is asked for, not when the process started.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import Key, Signer

from tuf_repo import durable, keyfiles
from tuf_repo.core.publickeys import ED25519, same_key
from tuf_repo.core.roles import SNAPSHOT, TIMESTAMP
from tuf_repo.errors import KeyFileError
from tuf_repo.keys import BINS_KEY, ONLINE_ROLES, OnlineSigners
from tuf_repo.loading import Trust
from tuf_repo.uris import load_signer

_KEYID_CHARS = 8


@dataclass(frozen=True, slots=True)
class OnlineKeys:
    """The keys in a folder."""

    folder: Path

    @classmethod
    def load(cls, folder: Path) -> OnlineKeys:
        """Return the keys of a folder that is there.

        Raises:
            KeyFileError: it is not, or may not be looked into.
        """
        try:
            os.listdir(folder)
        except OSError as error:
            got = error.strerror or "nothing"
            raise KeyFileError(str(folder), "the folder of the online keys", got) from None
        return cls(folder)

    def signers_for(self, trust: Trust) -> OnlineSigners:
        """Return, for each role, what signs with a key that the metadata names.

        Raises:
            KeyFileError: a role has none here that can be used.
        """
        named = named_keys(trust)
        return OnlineSigners(*(_pick(self.folder, role, named[role]) for role in ONLINE_ROLES))


def named_keys(trust: Trust) -> dict[str, list[Key]]:
    """The keys that clients trust for each online role, in the metadata's order."""
    named = {
        role: [trust.root.get_key(keyid) for keyid in trust.root.roles[role].keyids]
        for role in (SNAPSHOT, TIMESTAMP)
    }
    delegations = trust.delegate.delegations
    succinct = delegations and delegations.succinct_roles
    if delegations and succinct:
        named[BINS_KEY] = [delegations.keys[keyid] for keyid in succinct.keyids]
    return named


def make_beside(folder: Path, roles: Iterable[str]) -> dict[str, Key]:
    """Make a new key for each role, durable and 0600; those that are there stay.

    Raises:
        KeyFileError: one of them is no online role.
    """
    made: dict[str, Key] = {}
    for role in roles:
        if role not in ONLINE_ROLES:
            raise KeyFileError(role, " or ".join(ONLINE_ROLES), "another role")
        # The name is the key's, which is not known before it is made.
        first = folder / f".{role}.new.pem"
        first.unlink(missing_ok=True)
        key = keyfiles.create(first, ED25519, None)
        os.rename(first, file_beside(folder, role, key.keyid))
        durable.sync_folder(folder)
        made[role] = key
    return made


def file_beside(folder: Path, role: str, keyid: str) -> Path:
    """Where a key lies that was made beside others."""
    return folder / f"{role}-{keyid[:_KEYID_CHARS]}.pem"


def unnamed_keys(folder: Path, trust: Trust) -> dict[Path, Key]:
    """Return the online keys that the metadata does not name; what cannot be read is left out."""
    named = [key for keys in named_keys(trust).values() for key in keys]
    found: dict[Path, Key] = {}
    for path in sorted(path for role in ONLINE_ROLES for path in _files(folder, role)):
        with suppress(KeyFileError):
            key = _public(path)
            if not any(same_key(key, each) for each in named):
                found[path] = key
    return found


def at_hand(folder: Path, role: str) -> list[Key] | None:
    """Return the keys of a role that lie in a folder, or that a file there says where they are.

    None: whoever asks may not look.
    """
    try:
        os.listdir(folder)
    except OSError:
        return None
    found: list[Key] = []
    for path in _files(folder, role):
        if not os.access(path, os.R_OK):
            return None
        with suppress(KeyFileError):
            found.append(_public(path))
    return found


def references(folder: Path) -> dict[str, str]:
    """Return where the keys are that are elsewhere: keyid -> URI."""
    found: dict[str, str] = {}
    for path in (path for role in ONLINE_ROLES for path in _named(folder, role, "json")):
        with suppress(KeyFileError):
            uri, public, _ = _read_reference(path)
            found[public.keyid] = uri
    return found


def remove_replaced(
    folder: Path,
    past: Container[str],
    trust: Trust,
    *,
    remove: Callable[[Path], object] = os.unlink,
) -> list[str]:
    """Remove the private keys that were named once and are not now; return their files' names.

    To be called after a commit; safe to call again. A file that cannot be read stays, as nobody
    knows whose key it holds; so does a `.json`, which holds none.

    Args:
        folder: the online keys.
        past: keyids that were named at any time.
        trust: what was committed.
        remove: takes a file away.
    """
    named = [key for keys in named_keys(trust).values() for key in keys]
    removed = []
    for path in sorted(path for role in ONLINE_ROLES for path in _private_files(folder, role)):
        try:
            key = keyfiles.load(path, None).public_key
        except KeyFileError:
            continue
        if key.keyid in past and not any(same_key(key, each) for each in named):
            remove(path)
            removed.append(path.name)
    if removed:
        durable.sync_folder(folder)
    return removed


def _pick(folder: Path, role: str, named: Iterable[Key]) -> Signer:
    """Return a signer for one of the keys; what cannot be read matters where there is none."""
    at_hand: list[Signer] = []
    problems: list[KeyFileError] = []
    for path in _files(folder, role):
        try:
            at_hand.append(_load(path))
        except KeyFileError as error:
            problems.append(error)
    for key in named:
        for signer in at_hand:
            if signer.public_key.keyid == key.keyid and same_key(signer.public_key, key):
                return signer
    raise problems[0] if problems else _none_named(folder, role, named, at_hand)


def _none_named(
    folder: Path, role: str, named: Iterable[Key], at_hand: list[Signer]
) -> KeyFileError:
    wanted = " or ".join(f"{key.keyid[:8]}…" for key in named)
    got = ", ".join(f"{signer.public_key.keyid[:8]}…" for signer in at_hand) or "none"
    return KeyFileError(
        f"{role} key in {folder}",
        f"one that the metadata names (keyid {wanted}; bring it back, or draft another)",
        f"keyid {got}",
    )


def _load(path: Path) -> Signer:
    if path.suffix == ".json":
        return _load_reference(path)
    return keyfiles.load(path, None)


def _public(path: Path) -> Key:
    if path.suffix == ".json":
        return _read_reference(path)[1]
    return keyfiles.load(path, None).public_key


def _read_reference(path: Path) -> tuple[str, Key, str | None]:
    fields = keyfiles.parse_object(str(path), keyfiles.read_private(path, "a reference to a key"))
    uri, secret_file = fields.get("uri"), fields.get("secret_file")
    if not isinstance(uri, str) or set(fields) - {"uri", "public", "secret_file"}:
        raise KeyFileError(str(path), "uri, public, and perhaps secret_file", ", ".join(fields))
    if not isinstance(secret_file, str | None):
        raise KeyFileError(str(path), "a path as secret_file", type(secret_file).__name__)
    return uri, keyfiles.parse_public(str(path), fields.get("public")), secret_file


def _load_reference(path: Path) -> Signer:
    uri, public, secret_file = _read_reference(path)

    def ask(what: str) -> bytes:
        if secret_file is None:
            raise KeyFileError(str(path), f"a secret_file with the {what}", "none")
        return keyfiles.read_private(path.parent / secret_file, f"the {what}").removesuffix(b"\n")

    return load_signer(uri, ask, public)


def _files(folder: Path, role: str) -> list[Path]:
    return [*_private_files(folder, role), *_named(folder, role, "json")]


def _private_files(folder: Path, role: str) -> list[Path]:
    return _named(folder, role, "pem")


def _named(folder: Path, role: str, ending: str) -> list[Path]:
    return sorted([*folder.glob(f"{role}.{ending}"), *folder.glob(f"{role}-*.{ending}")])
