"""What the user trusts, remembered in the config folder; never in the cache.

`trust/ROOTID/` holds `trust.json` (mirrors, and why), `initial.root.json` (the root that trust
began with, never changed) and what was verified last: `root.json`, `timestamp.json`,
`snapshot.json`. These protect against rollback, so they only ever go forward.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mirror.client.fetch.fetcher import FetchLimits, HttpFetcher
from mirror.client.home import remembered as light
from mirror.client.home.folders import make_private
from mirror.client.home.remembered import (
    ROOT_ID_DIGITS,
    LightTrust,
    choose,
    light_trusts,
    root_id_of,
)
from mirror.client.home.settings import ClientSettings
from mirror.client.trust.memory import (
    ANEW,
    EphemeralMemory,
    FileMemory,
    Memory,
    Remembered,
    locked,
    read_file,
    sync_folder,
    write_file,
)
from mirror.client.trust.trust import FIRST_ROOT, TrustedRoot, root_by_fingerprint
from mirror.errors import ProofError, UnreachableError, UsageError

_INITIAL = "initial.root.json"


class How(StrEnum):
    """Why a root is trusted."""

    FILE = light.FILE
    FINGERPRINT = light.FINGERPRINT
    FIRST_USE = light.FIRST_USE
    DATA = light.OWN_FOLDER
    GIVEN = light.COMMAND_LINE


@dataclass(frozen=True, slots=True)
class Trust:
    """One repository that the user trusts."""

    root_id: str
    """The first 16 hex digits of the initial root's sha256."""
    initial: TrustedRoot
    mirrors: tuple[str, ...]
    """Base URLs, each with a slash at its end; with `www` there may be none."""
    how: How
    memory: Memory
    www: Path | None = None
    """With `--data`: files are read from here first."""


@dataclass(frozen=True, slots=True)
class NewTrust:
    """What was verified and shall be remembered."""

    initial: bytes
    mirrors: tuple[str, ...]
    how: How
    newest: Remembered


class TrustStore:
    """All that is remembered, in the config folder. What changes it holds a lock."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._folder = config / light.TRUST

    def all(self) -> tuple[Trust, ...]:
        """Return every trust, by its ROOTID.

        Raises:
            UsageError: something there was edited.
            MachineError: a folder is not this user's alone.
        """
        return tuple(_opened(each) for each in light_trusts(self._config))

    def find(self, *mirrors: str) -> Trust:
        """Return the one with all these mirrors, with these only; without any, the only one.

        Raises:
            UsageError: there is none, or more than one; or something there was edited.
            MachineError: a folder is not this user's alone.
        """
        return _opened(choose(light_trusts(self._config), mirrors))

    def remember(self, new: NewTrust, *, instead: bool = False) -> Trust:
        """Remember a root and mirrors; where the root is known, only what is new; durable.

        Args:
            new: what was verified.
            instead: take these mirrors from the root that they are known with (`--replace`).

        Raises:
            UsageError: a mirror is known with another root, and not `instead`.
            MachineError: the disk, or a folder is not this user's alone.
        """
        root_id = root_id_of(new.initial)
        make_private(self._config)
        with locked(make_private(self._folder)):
            known = {each.root_id: each for each in light_trusts(self._config)}
            for other in known.values():
                if other.root_id != root_id and set(other.mirrors) & set(new.mirrors):
                    if not instead:
                        raise _other_root(other, new)
                    # First: after a crash a mirror is rather forgotten than of two roots.
                    self._keep_only(other, set(other.mirrors) - set(new.mirrors))
            folder = self._folder / root_id
            if root_id in known:
                _join(known[root_id], new)
            else:
                self._create(folder, new)
            (trust,) = (each for each in light_trusts(self._config) if each.root_id == root_id)
            opened = _opened(trust)
            opened.memory.save(new.newest)
            return opened

    def forget(self, mirrors: Iterable[str]) -> None:
        """Forget these mirrors, and with its last one a root.

        Raises:
            UsageError: one is not known.
        """
        asked = set(mirrors)
        known = light_trusts(self._config)
        unknown = asked - {mirror for each in known for mirror in each.mirrors}
        if unknown:
            raise UsageError(f"{min(unknown)}: not a mirror that you trust; see `crateseal trust`")
        with locked(self._folder):
            for each in light_trusts(self._config):
                if asked & set(each.mirrors):
                    self._keep_only(each, set(each.mirrors) - asked)

    def _keep_only(self, trust: LightTrust, mirrors: AbstractSet[str]) -> None:
        assert trust.folder is not None
        if mirrors:
            kept = tuple(mirror for mirror in trust.mirrors if mirror in mirrors)
            _write_trust(trust.folder, kept, trust.how)
            return
        # Its name first, so that a crash leaves no half of it.
        gone = self._folder / f".{trust.root_id}.{secrets.token_hex(4)}.gone"
        os.rename(trust.folder, gone)
        shutil.rmtree(gone)

    def _create(self, folder: Path, new: NewTrust) -> None:
        for left in self._folder.glob(f".{'?' * ROOT_ID_DIGITS}.*"):
            shutil.rmtree(left)  # A crash left it.
        made = self._folder / f".{folder.name}.{secrets.token_hex(4)}.new"
        make_private(made)
        write_file(made / _INITIAL, new.initial)
        _write_trust(made, new.mirrors, new.how)
        os.rename(made, folder)
        sync_folder(self._folder)


def resolve_trust(settings: ClientSettings) -> Trust:
    """Return the one repository that the settings mean; only a fingerprint asks the network.

    `--data`; else `--mirror` with `--root` or `--root-sha256`; else what is remembered.

    Raises:
        UsageError: there is none, or several; the text says what to do.
        ProofError: no root of these mirrors has the fingerprint.
        UnreachableError: none of them gave an answer.
        MachineError: a folder is not this user's alone.
    """
    found = light.light_trust(settings)
    if found.folder is not None:
        return _opened(found)
    if found.www is not None:
        root = light.read_root(found.www / FIRST_ROOT)
    elif settings.root is not None:
        root = light.read_root(settings.root)
    else:
        root = _root_of_fingerprint(settings)
    return Trust(
        root_id_of(root),
        TrustedRoot(root),
        found.mirrors,
        How(found.how),
        EphemeralMemory(root),
        found.www,
    )


def fetch_limits(settings: ClientSettings) -> FetchLimits:
    """Return the limits that the settings name."""
    return FetchLimits(settings.connect_timeout, settings.stall_timeout, settings.total_timeout)


def _root_of_fingerprint(settings: ClientSettings) -> bytes:
    assert settings.root_sha256 is not None
    errors: list[ProofError | UnreachableError] = []
    for mirror in settings.mirror:
        with closing(HttpFetcher(mirror, fetch_limits(settings))) as fetcher:
            try:
                return root_by_fingerprint(fetcher, settings.root_sha256).data
            except (ProofError, UnreachableError) as error:
                errors.append(error)
    # That a mirror has another root says more than that one is away.
    raise next((each for each in errors if isinstance(each, ProofError)), errors[0])


def _opened(found: LightTrust) -> Trust:
    assert found.folder is not None
    initial = read_file(found.folder / _INITIAL)
    if initial is None or root_id_of(initial) != found.root_id:
        raise UsageError(
            f"{found.folder / _INITIAL}: not the root that was trusted (its sha256 does not begin"
            f" with {found.root_id}); {ANEW}"
        )
    memory = FileMemory(found.folder, initial)
    return Trust(found.root_id, TrustedRoot(initial), found.mirrors, How(found.how), memory)


def _other_root(known: LightTrust, new: NewTrust) -> UsageError:
    mirror = next(each for each in new.mirrors if each in known.mirrors)
    return UsageError(
        f"{mirror}: known with another root (ROOTID {known.root_id}, this one has"
        f" {root_id_of(new.initial)}); if its operator says that it began anew: --replace"
    )


def _join(known: LightTrust, new: NewTrust) -> None:
    assert known.folder is not None
    mirrors = tuple(dict.fromkeys((*known.mirrors, *new.mirrors)))
    # Somebody vouches now for what was only seen before; never the other way.
    how = new.how if known.how == How.FIRST_USE else known.how
    if (mirrors, how) != (known.mirrors, known.how):
        _write_trust(known.folder, mirrors, how)


def _write_trust(folder: Path, mirrors: tuple[str, ...], how: str) -> None:
    fields = {"format": light.FORMAT, "mirrors": list(mirrors), "how": str(how)}
    write_file(folder / light.TRUST_FILE, json.dumps(fields, indent=2).encode() + b"\n")
