"""A CARGO_HOME of our own beside the user's: whatever cargo is started in it asks our proxy.

Rule: an overlay is for one home of the user's, with or without that home's configuration included,
at one port. Runs that differ in these have different overlays (`cargo-home`, `cargo-home-2`, …), so
that no run changes a configuration that a cargo of another run is about to read.

In `.crateseal/` of an overlay: `lock` (shared by all runs in it), `overlay.json` (what it is for),
`others/` and `foreign-N/` (see `aftermath.py`).

Light imports only: this is on the way of each build.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mirror.client.home.folders import make_private
from mirror.errors import MachineError

OWN = ".crateseal"
"""What of an overlay is ours, and unknown to cargo."""
_PREFIX = "cargo-home"
_ABOUT = "overlay.json"
_OVERLAYS_MAX = 1000
_ABOUT_MAX_BYTES = 65_536
# So that `cargo install` lands where it should, and logins are found.
_LINKS = ("bin", "credentials.toml", "credentials", ".crates.toml", ".crates2.json")


class Purpose(NamedTuple):
    """What an overlay is for."""

    home: str
    """The user's own CARGO_HOME."""
    include: str | None
    """The user's configuration, where cargo does not find it by itself."""
    port: int

    def shares_cache(self, other: Purpose) -> bool:
        """Whether an overlay for that one can become one for this one."""
        return (self.home, self.include) == (other.home, other.include)


class Overlay(NamedTuple):
    """An overlay that this run uses; its lock is held, shared, until `lock` is closed."""

    folder: Path
    purpose: Purpose
    lock: int

    def is_alone(self) -> bool:
        """Whether nobody else uses it; if so, nobody can begin to until `lock` is closed."""
        if _flock(self.lock, fcntl.LOCK_EX):
            return True
        self.share()  # what was held may be lost when more is not to be had: flock(2)
        return False

    def share(self) -> None:
        """Let others in again after `is_alone`."""
        fcntl.flock(self.lock, fcntl.LOCK_SH)

    def leave(self) -> None:
        """Have no more to do with it."""
        os.close(self.lock)


def users_home(environment: Mapping[str, str], folder: Path) -> Path:
    """Return the user's own CARGO_HOME; inside a sealed cargo, the one that its overlay is for."""
    said = environment.get("CARGO_HOME")
    if not said:
        return Path(environment.get("HOME") or os.path.expanduser("~")) / ".cargo"
    home = Path(os.path.abspath(folder / said))
    purpose = _read(home / OWN)
    return home if purpose is None else Path(purpose.home)


def users_config(home: Path) -> Path | None:
    """Return the configuration in a CARGO_HOME; the old name, without `.toml`, comes first."""
    for name in ("config", "config.toml"):
        if (home / name).is_file():
            return home / name
    return None


def to_include(home: Path, start: Path) -> Path | None:
    """Return the user's configuration if cargo, started in `start`, does not find it on its way up.

    Where it does, an `include` would count each of its lists twice.
    """
    config = users_config(home)
    if config is None:
        return None
    for folder in (start, *start.parents):
        if _is_same(folder / ".cargo", home):
            return None
    return config


def overlays(folder: Path) -> tuple[Path, ...]:
    """Return all overlays of one trust; `folder` is its folder in the cache."""
    try:
        names = [each for each in os.listdir(folder) if each.startswith(_PREFIX)]
    except FileNotFoundError:
        return ()
    return tuple(folder / name for name in sorted(names))


def enter(folder: Path, purpose: Purpose) -> Overlay:
    """Take an overlay of this purpose, or make one; `folder` is the trust's folder in the cache.

    Raises:
        MachineError: none can be made.
    """
    for number in range(1, _OVERLAYS_MAX):
        home = make_private(folder / (_PREFIX if number == 1 else f"{_PREFIX}-{number}"))
        overlay = _enter(home, purpose)
        if overlay is not None:
            return overlay
    raise MachineError(f"{folder}: {_OVERLAYS_MAX} overlays, all in use or of other homes")


def configure(overlay: Overlay, name: str, index: str) -> None:
    """Write the overlay's configuration anew, and set its links.

    Args:
        overlay: which.
        name: of the registry, drawn for this run.
        index: its address, `sparse+http://…`.

    Raises:
        MachineError: it cannot be written, or there is configuration that somebody else put there.
    """
    home = Path(overlay.purpose.home)
    # Cargo would take `config` for ours, and finds `.cargo` on its way up from here.
    for place in ("config", ".cargo", "../.cargo", "../../.cargo"):
        if os.path.lexists(overlay.folder / place):
            raise MachineError(f"{overlay.folder}/{place}: not ours, and cargo reads it; remove it")
    include = _includable(overlay)
    lines = ["# Written anew by each `cargo sealed`: what is changed here is lost."]
    if include is not None:
        lines.append(f"include = [{toml_text(include)}]")
    lines += ["[source.crates-io]", f"replace-with = {toml_text(name)}"]
    # Not `source.NAME.registry`: two runs may write two names for one address, and a source may
    # be defined only once.
    lines += [f"[registries.{name}]", f"index = {toml_text(index)}"]
    _replace(overlay.folder / "config.toml", "\n".join(lines) + "\n")
    for each in _LINKS:
        set_link(overlay.folder / each, str(home / each))


def make_install_root(home: Path) -> None:
    """Make what `cargo install` writes to in the user's home: cargo makes no folder through a link.

    Raises:
        MachineError: it cannot be made.
    """
    try:
        (home / "bin").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"{home}/bin: cannot be made: {error.strerror}") from error


def toml_text(text: str) -> str:
    """Return a text as TOML has it; JSON's strings are such, all but one character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise MachineError(f"{text!r}: a path that is not UTF-8 cannot stand in TOML") from error
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def set_link(path: Path, target: str) -> None:
    """Let `path` be a link to `target`, whatever it was."""
    try:
        if os.readlink(path) == target:
            return
    except OSError:
        pass  # not there, or no link
    new = _beside(path)
    try:
        os.symlink(target, new)
        os.replace(new, path)
    except OSError as error:
        raise MachineError(f"{path}: cannot be made a link: {error.strerror}") from error


def _includable(overlay: Overlay) -> str | None:
    """Return what to include. Cargo includes files that end in `.toml` only."""
    include = overlay.purpose.include
    if include is None or include.endswith(".toml"):
        return include
    link = overlay.folder / OWN / "users-config.toml"
    set_link(link, include)
    return str(link)


def _enter(home: Path, purpose: Purpose) -> Overlay | None:
    """Return the overlay in this folder, or None: it is for something else."""
    own = make_private(home / OWN)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    lock = os.open(own / "lock", flags, 0o600)
    if _flock(lock, fcntl.LOCK_EX):
        there = _read(own)
        if there is None or purpose.shares_cache(there) or not os.path.isdir(there.home):
            if there != purpose:
                _replace(own / _ABOUT, json.dumps(purpose._asdict()))
        else:
            os.close(lock)
            return None
    # Whoever held it alone held it for a moment only.
    fcntl.flock(lock, fcntl.LOCK_SH)
    if _read(own) == purpose:
        return Overlay(home, purpose, lock)
    os.close(lock)
    return None


def _read(own: Path) -> Purpose | None:
    try:
        with open(own / _ABOUT, "rb") as file:
            said = json.loads(file.read(_ABOUT_MAX_BYTES))
        home, include, port = said["home"], said["include"], said["port"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    if not isinstance(home, str) or not isinstance(port, int):
        return None
    return Purpose(home, include if isinstance(include, str) else None, port)


def _flock(lock: int, how: int) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EWOULDBLOCK, errno.EACCES}:
            return False
        raise
    return True


def _replace(path: Path, text: str) -> None:
    new = _beside(path)
    try:
        new.write_text(text, encoding="utf-8")
        os.replace(new, path)
    except OSError as error:
        raise MachineError(f"{path}: cannot be written: {error.strerror}") from error


def _beside(path: Path) -> Path:
    """Return a name that no other run has, nor had: process ids differ in one container only."""
    return path.with_name(f"{path.name}.{os.urandom(8).hex()}")


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
