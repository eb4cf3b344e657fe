"""Errors become exit codes and one line on stderr: both tables stand here.

The codes: 0 done, 1 a finding, 2 usage, 4 busy, 5 this machine.
"""

from __future__ import annotations

import errno

from tuf_repo import errors
from tuf_repo.core.words import printable
from tuf_repo.errors import UsageError

INTERRUPTED = 130
OUR_MISTAKE = 70  # EX_SOFTWARE of sysexits.h: none of the codes that mean something to a script
# A class counts by the first line that it is in.
_CODES: tuple[tuple[type[Exception], int], ...] = (
    (UsageError, 2),
    (errors.EditError, 2),
    (errors.KeyFileError, 5),
    (errors.CounterError, 5),
    (errors.ClockError, 5),
    (errors.StaleStateError, 4),
    (errors.RepositoryError, 1),
    # A path on the command line that leads nowhere.
    (FileNotFoundError, 2),
    (NotADirectoryError, 2),
    (IsADirectoryError, 2),
    (OSError, 5),
)
_ADVICE = {
    errno.ENOENT: "see whether the path is right",
    errno.ENOTDIR: "see whether the path is right",
    errno.EISDIR: "name a file",
    errno.ENOSPC: "make room on this disk and run it again",
    errno.EDQUOT: "make room in this quota and run it again",
    errno.EROFS: "choose another folder",
    errno.EACCES: "see owner and mode of that path, or run this as another user",
    errno.EPERM: "see owner and mode of that path, or run this as another user",
}


def exit_code_of(error: Exception) -> int:
    """Return what a command ends with after this error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), OUR_MISTAKE)


def in_one_line(error: Exception) -> str:
    """Return what went wrong, where, and what to do next where that is known."""
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        advice = _ADVICE.get(error.errno or 0, "run it again with -vv for more")
        line = f"{where}{error.strerror or error}; {advice}"
        return printable(line, len(line))
    text = " ".join(printable(str(error), len(str(error))).split())
    if exit_code_of(error) == OUR_MISTAKE:
        return f"a mistake of ours: {type(error).__name__}: {text}; run it with -vv and report it"
    return text
