"""The user's three folders: what is trusted, what is kept, what runs. Light imports only.

Rule: each is made with mode 0700, is ours, and is no link; else nothing in it is used.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from mirror.errors import MachineError, UsageError

CONFIG_HOME = "CRATESEAL_CONFIG_HOME"
"""Names the config folder itself; for tests and build machines."""
_NAME = "crateseal"


def config_folder(environment: Mapping[str, str]) -> Path:
    """Return where settings and trust lie; nothing is made or looked at.

    Raises:
        UsageError: CRATESEAL_CONFIG_HOME is relative, so a checkout could bring its own.
        MachineError: this user has no home.
    """
    said = environment.get(CONFIG_HOME)
    if not said:
        return _base(environment, "XDG_CONFIG_HOME", ".config") / _NAME
    if not os.path.isabs(said):
        raise UsageError(f"{CONFIG_HOME}: expected an absolute path, got {said!r}")
    return Path(said)


def cache_folder(environment: Mapping[str, str], cache_dir: Path | None) -> Path:
    """Return where verified files are kept; `cache_dir` is the setting.

    Raises:
        MachineError: this user has no home.
    """
    if cache_dir is not None:
        return cache_dir.absolute()
    return _base(environment, "XDG_CACHE_HOME", ".cache") / _NAME


def run_folder(environment: Mapping[str, str], cache: Path) -> Path:
    """Return where sockets lie: the session's folder if that is private, else one in the cache."""
    session = environment.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(session) and _what_is_wrong(Path(session)) == "":
        return Path(session) / _NAME
    return cache / "run"


def make_private(folder: Path) -> Path:
    """Make a folder that only this user can enter; return it. What is there must be such a one.

    Raises:
        MachineError: it is somebody else's, others can enter it, it is a link or no folder, or it
            cannot be made.
    """
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
    except OSError as error:
        raise MachineError(f"{folder}: cannot be made: {error.strerror}") from error
    is_private(folder)
    return folder


def is_private(folder: Path) -> bool:
    """Whether the folder is there, and then private.

    Raises:
        MachineError: it is there, and is not.
    """
    wrong = _what_is_wrong(folder)
    if wrong is None:
        return False
    if wrong:
        raise MachineError(f"{folder}: {wrong}")
    return True


def _what_is_wrong(folder: Path) -> str | None:
    """Return why nothing in this folder is to be believed; "" if it is well, None: not there."""
    try:
        state = os.lstat(folder)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return f"cannot be looked at: {error.strerror}"
    wrong = ""
    if stat.S_ISLNK(state.st_mode):
        wrong = "a link, which could be led elsewhere; put a folder of your own there"
    elif not stat.S_ISDIR(state.st_mode):
        wrong = "not a folder; move it away"
    elif state.st_uid != os.geteuid():
        wrong = f"belongs to user {state.st_uid}; remove it, or name another place for it"
    elif state.st_mode & 0o077:
        mode = f"{state.st_mode & 0o777:04o}"
        wrong = f"others can enter it (mode {mode}); see what they left there, then `chmod 700` it"
    return wrong


def _base(environment: Mapping[str, str], variable: str, default: str) -> Path:
    # A relative one is to be ignored (XDG Base Directory Specification).
    said = environment.get(variable, "")
    if os.path.isabs(said):
        return Path(said)
    home = environment.get("HOME", "")
    if not os.path.isabs(home):
        home = _home_of_this_user()
    return Path(home) / default


def _home_of_this_user() -> str:
    import pwd  # noqa: PLC0415 - seldom wanted

    try:
        home = pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        home = ""
    if not os.path.isabs(home):
        raise MachineError("this user has no home folder; set HOME")
    return home
