"""Errors become exit codes and one line on stderr: both tables stand here.

The codes are in the README: 1 a finding, 2 usage, 3 unreachable, 4 busy, 5 this machine.
"""

from __future__ import annotations

import errno

from mirror.errors import CratesealError

INTERRUPTED = 130
THIS_MACHINE = 5
OUR_MISTAKE = 70  # EX_SOFTWARE of sysexits.h: none of the codes that mean something to a script

# What tuf_repo raises, by the name of the class: importing it would load what most commands never
# need. A class counts by its nearest ancestor in here.
_REPOSITORY_CODES = {
    "RepositoryError": 1,
    "KeyFileError": THIS_MACHINE,
    "CounterError": THIS_MACHINE,
    "ClockError": THIS_MACHINE,
    "StaleStateError": 4,  # another signer committed meanwhile
}

_ADVICE = {
    errno.ENOSPC: "make room on this disk and run it again",
    errno.EDQUOT: "make room in this quota and run it again",
    errno.EROFS: "choose another folder with --data",
    errno.EACCES: "see owner and mode of that path, or run this as another user",
    errno.EPERM: "see owner and mode of that path, or run this as another user",
    errno.EMFILE: "allow more open files with `ulimit -n`",
}


def exit_code_of(error: BaseException) -> int:
    """Return what a command ends with after this error."""
    if isinstance(error, CratesealError):
        return error.exit_code
    if isinstance(error, OSError):
        return THIS_MACHINE
    for ancestor in type(error).__mro__:
        if ancestor.__module__ == "tuf_repo.errors" and ancestor.__name__ in _REPOSITORY_CODES:
            return _REPOSITORY_CODES[ancestor.__name__]
    return OUR_MISTAKE


def in_one_line(error: BaseException) -> str:
    """Return what went wrong, where, and what to do next where that is known."""
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        advice = _ADVICE.get(error.errno or 0, "run it again with -vv for more")
        return f"{where}{error.strerror or error}; {advice}"
    text = " ".join(str(error).split())
    if exit_code_of(error) == OUR_MISTAKE:
        return f"a mistake of ours: {type(error).__name__}: {text}; run it with -vv and report it"
    return text
