"""What `trust/` says, without verifying anything: which mirrors, under which ROOTID, and why.

Light imports only: `cargo sealed` needs no more than this before each build. What is verified, and
against what, is for `store.py` and beyond.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mirror.client.home.folders import is_private
from mirror.client.home.settings import ClientSettings, parse_mirror
from mirror.errors import UsageError

TRUST = "trust"
TRUST_FILE = "trust.json"
FORMAT = 1
ROOT_ID_DIGITS = 16
ROOT_MAX_BYTES = 512_000
_TRUST_MAX_BYTES = 1_000_000

FILE, FINGERPRINT, FIRST_USE = "file", "fingerprint", "first use"
OWN_FOLDER, COMMAND_LINE = "own folder", "command line"
"""Why a root is trusted (`store.How`)."""

ADVICE = (
    "`crateseal trust URL --root-sha256 HEX` remembers a mirror, with the fingerprint that its"
    " operator tells you"
)


class LightTrust(NamedTuple):
    """One repository that the user trusts."""

    root_id: str
    """The first 16 hex digits of the sha256 of the root that trust begins with."""
    mirrors: tuple[str, ...]
    """Each ends with a slash; with `www` there may be none."""
    how: str
    folder: Path | None = None
    """Where it is remembered; None: only for this one command."""
    www: Path | None = None
    """With `--data`: the web root that files are read from."""


def root_id_of(root: bytes) -> str:
    """Return the ROOTID of a root."""
    import hashlib  # noqa: PLC0415 - 3 ms, and what is remembered has its ROOTID as its name

    return hashlib.sha256(root).hexdigest()[:ROOT_ID_DIGITS]


def light_trusts(config: Path) -> tuple[LightTrust, ...]:
    """Return all that is remembered in a config folder.

    Raises:
        MachineError: the folder, or `trust/` in it, is not this user's alone.
        UsageError: what stands there was edited, so that it cannot be read.
    """
    trust = config / TRUST
    if not is_private(config) or not is_private(trust):
        return ()
    names = sorted(entry.name for entry in os.scandir(trust) if _is_root_id(entry.name))
    found = (_read(trust / name) for name in names)
    return tuple(each for each in found if each is not None)


def light_trust(settings: ClientSettings) -> LightTrust:
    """Return the one repository that these settings mean.

    Raises:
        UsageError: there is none, or more than one; or a file named cannot be read.
        MachineError: the config folder is not this user's alone.
    """
    if settings.data is not None:
        if settings.root is not None or settings.root_sha256 is not None:
            raise UsageError("--data is trusted as it stands: leave --root and --root-sha256 out")
        return _of_own_folder(settings.data / "www", settings.mirror)
    if settings.root is not None and settings.root_sha256 is not None:
        raise UsageError("--root and --root-sha256: say one of them")
    if settings.root_sha256 is not None:
        root_id = settings.root_sha256[:ROOT_ID_DIGITS].lower()
    elif settings.root is not None:
        root_id = root_id_of(read_root(settings.root))
    else:
        return choose(light_trusts(settings.config_dir), settings.mirror)
    if not settings.mirror:
        raise UsageError("--root and --root-sha256 need --mirror URL: which mirror has it?")
    return LightTrust(root_id, settings.mirror, COMMAND_LINE)


def choose(trusts: Iterable[LightTrust], mirrors: tuple[str, ...]) -> LightTrust:
    """Return the one that has all these mirrors, with these only; without any: the only one.

    Raises:
        UsageError: there is none, or more than one.
    """
    trusts = tuple(trusts)
    for mirror in mirrors:
        if not any(mirror in trust.mirrors for trust in trusts):
            raise UsageError(f"{mirror}: not a mirror that you trust; {ADVICE}")
    fitting = [trust for trust in trusts if set(mirrors) <= set(trust.mirrors)]
    if not trusts:
        raise UsageError(f"no mirror is trusted yet; {ADVICE}")
    if not fitting:
        raise UsageError(f"{' and '.join(mirrors)}: mirrors of different repositories; say one")
    if len(fitting) > 1:
        known = ", ".join(mirror for trust in fitting for mirror in trust.mirrors[:1])
        raise UsageError(f"several repositories are trusted; say one with --mirror: {known}")
    return fitting[0]._replace(mirrors=mirrors) if mirrors else fitting[0]


def read_root(path: Path) -> bytes:
    """Return the bytes of a root file that the user names.

    Raises:
        UsageError: it cannot be read, or is too large to be one.
    """
    try:
        with path.open("rb") as file:
            data = file.read(ROOT_MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > ROOT_MAX_BYTES:
        raise UsageError(f"{path}: larger than {ROOT_MAX_BYTES} bytes, so no root")
    return data


def _of_own_folder(www: Path, mirrors: tuple[str, ...]) -> LightTrust:
    root = www / "tuf" / "metadata" / "1.root.json"
    try:
        data = read_root(root)
    except UsageError as error:
        raise UsageError(
            f"{root}: no root there; --data takes the folder that `crateseal up` made"
        ) from error
    return LightTrust(root_id_of(data), mirrors, OWN_FOLDER, www=www)


def _is_root_id(name: str) -> bool:
    return len(name) == ROOT_ID_DIGITS and not set(name) - set("0123456789abcdef")


def _read(folder: Path) -> LightTrust | None:
    """Return what stands in a trust's folder; None: it was forgotten this moment."""
    path = folder / TRUST_FILE
    if not is_private(folder):
        return None
    try:
        mirrors, how = _fields(json.loads(read_private(path, _TRUST_MAX_BYTES)))
    except (OSError, ValueError, LookupError, TypeError) as error:
        if not is_private(folder):
            return None
        raise UsageError(
            f"{path}: not as `crateseal trust` wrote it ({' '.join(str(error).split())[:120]});"
            f" delete {folder} and trust the mirror again"
        ) from error
    return LightTrust(folder.name, mirrors, how, folder)


def _fields(said: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    if said["format"] != FORMAT:
        raise ValueError(f"format {said['format']!r}")
    mirrors = tuple(parse_mirror(str(mirror)) for mirror in said["mirrors"])
    if not mirrors:
        raise ValueError("no mirrors")
    if said["how"] not in {FILE, FINGERPRINT, FIRST_USE}:
        raise ValueError(f"how {said['how']!r}")
    return mirrors, said["how"]


def read_private(path: Path, max_bytes: int) -> bytes:
    """Return a file of ours; no link is followed, nothing waits.

    Raises:
        OSError: not there, or a link.
        ValueError: no regular file, or too large.
    """
    # O_NONBLOCK: opening a fifo must not hang us.
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        state = os.fstat(fd)
        if state.st_mode & 0o170000 != 0o100000 or state.st_size > max_bytes:
            raise ValueError(f"{path.name}: no file of at most {max_bytes} bytes")
        return file.read(max_bytes)
