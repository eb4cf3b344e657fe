"""Every error that Crateseal raises, drawn as a tree.

    CratesealError
    ├── RejectedError              bad bytes: quarantine, report, never retry blindly
    │   ├── InvalidNameError
    │   ├── InvalidVersionError
    │   ├── MalformedIndexError
    │   ├── CksumChangedError
    │   ├── VersionVanishedError
    │   ├── CksumMismatchError
    │   ├── ArchiveError
    │   └── MalformedMessageError
    ├── UpstreamError              not there or not well: retry with back-off
    │   ├── UpstreamUnreachableError
    │   └── UpstreamAnswerError
    ├── FindingError               exit 1: something on disk or on the wire does not verify
    ├── UsageError                 exit 2: wrong options or configuration
    ├── UnreachableError           exit 3: upstream or mirror not reached
    ├── BusyError                  exit 4: another process holds the lock or the port
    └── MachineError               exit 5: disk, clock, permissions

Rule for this file: an error carries its parts as attributes, and its text says what, where, and
what to do next where there is something to do.
"""


class CratesealError(Exception):
    """The root of the tree; `exit_code` is what a command ends with."""

    exit_code = 1


class RejectedError(CratesealError):
    """Bytes or a name that must not be stored, signed or served.

    Attributes:
        subject: what was looked at, e.g. `serde 1.0.200`.
        expected: what a good one would have been.
        got: what was there; cut short where it is long.
    """

    def __init__(self, subject: str, expected: str, got: str) -> None:
        self.subject = subject
        self.expected = expected
        self.got = got if len(got) <= 200 else got[:200] + "…"
        super().__init__(f"{subject}: expected {expected}, got {self.got}")


class InvalidNameError(RejectedError):
    """Not a name that a crate can have."""


class InvalidVersionError(RejectedError):
    """Not a semantic version."""


class MalformedIndexError(RejectedError):
    """The bytes are not an index file of that crate."""


class CksumChangedError(RejectedError):
    """A version that was published before came back with another checksum."""


class VersionVanishedError(RejectedError):
    """A version that was published before is no longer in the index file."""


class CksumMismatchError(RejectedError):
    """The bytes are not the ones the index promised."""


class ArchiveError(RejectedError):
    """The crate file is not a safe gzip tar under one folder `name-version/`."""


class MalformedMessageError(RejectedError):
    """A message on a socket, or a batch, that does not read as one."""


class UpstreamError(CratesealError):
    """Upstream did not give a usable answer; asking again later may help."""

    exit_code = 3


class UpstreamUnreachableError(UpstreamError):
    """No connection, or no answer in time: this says something about upstream as a whole."""


class UpstreamAnswerError(UpstreamError):
    """An answer about one object that cannot be used: a status, a length, a page of HTML."""


class FindingError(CratesealError):
    """Something that was published does not verify."""

    exit_code = 1


class UsageError(CratesealError):
    """Wrong options, a wrong setting, or a folder that is not ours."""

    exit_code = 2


class UnreachableError(CratesealError):
    """Upstream or the mirror could not be reached."""

    exit_code = 3


class BusyError(CratesealError):
    """Another process holds the lock or the port."""

    exit_code = 4


class MachineError(CratesealError):
    """This machine: its disk is full, its clock is wrong, a permission is missing."""

    exit_code = 5
