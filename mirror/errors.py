"""Every error that Crateseal raises, drawn as a tree.

    CratesealError
    ├── MalformedMessageError      a message or batch between our own processes: fetch again
    ├── RejectedError              bad bytes: quarantine, report, never retry blindly
    │   ├── InvalidNameError
    │   ├── InvalidVersionError
    │   ├── MalformedIndexError
    │   ├── AuditError             a change crates.io would not make (`crateseal accept`)
    │   │   ├── CksumChangedError
    │   │   ├── VersionVanishedError
    │   │   ├── DuplicateVersionError
    │   │   ├── DepsChangedError
    │   │   ├── FeaturesChangedError
    │   │   ├── LinksChangedError
    │   │   ├── PubtimeChangedError
    │   │   ├── UnreadableFieldError
    │   │   ├── LostRecordError
    │   │   └── ReturnedError
    │   ├── LockMismatchError
    │   ├── CksumMismatchError
    │   ├── ArchiveError
    │   ├── DeniedError
    │   ├── OwnMistakeError
    │   └── UnsignedError
    ├── UpstreamError              not there or not well: retry with back-off
    │   ├── UpstreamUnreachableError
    │   └── UpstreamAnswerError
    │       └── UpstreamBusyError
    ├── FindingError               exit 1: something on disk or on the wire does not verify
    │   ├── ProofError             what a mirror gave is not what was signed
    │   │   ├── NotHeldError       the mirror has nothing signed to prove it with
    │   │   │   ├── WithheldError  its operator refuses it, with a signed reason
    │   │   │   └── AbsentError    signed metadata does not name it
    │   │   └── ExpiredError       what was signed is too old to count
    │   └── PublicationError       metadata on disk that cannot be read as such
    │       └── NoPublicationError
    ├── UsageError                 exit 2: wrong options or configuration
    ├── UnreachableError           exit 3: upstream or mirror not reached
    ├── BusyError                  exit 4: another process holds the lock or the port
    └── MachineError               exit 5: disk, clock, permissions

Rule for this file: an error carries its parts as attributes, and its text says what, where, and
what to do next where there is something to do.
"""

import re


class CratesealError(Exception):
    """The root of the tree; `exit_code` is what a command ends with."""

    exit_code = 1


class MismatchError(CratesealError):
    """Something is not what it should be.

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

    @property
    def rule(self) -> str:
        """The rule that refused it, e.g. `cksum-changed`, from the class's name."""
        words = re.findall(r"[A-Z][a-z]+", type(self).__name__.removesuffix("Error"))
        return "-".join(words).lower()


class RejectedError(MismatchError):
    """Bytes or a name from upstream or a client that must not be stored, signed or served."""


class MalformedMessageError(MismatchError):
    """A message on a socket, or a batch, that does not read as one: says nothing about a crate."""


class InvalidNameError(RejectedError):
    """Not a name that a crate can have."""


class InvalidVersionError(RejectedError):
    """Not a semantic version."""


class MalformedIndexError(RejectedError):
    """The bytes are not an index file of that crate."""


class AuditError(RejectedError):
    """An index file says what crates.io would not say after what it said before."""


class CksumChangedError(AuditError):
    """A version that was published before came back with another checksum."""


class VersionVanishedError(AuditError):
    """A version that was published before is no longer in the index file."""


class DuplicateVersionError(AuditError):
    """A version is given once more than before, with another checksum."""


class DepsChangedError(AuditError):
    """The dependencies of a published version are others."""


class FeaturesChangedError(AuditError):
    """The features of a published version are others, or its format is."""


class LinksChangedError(AuditError):
    """The native library that a published version links is another."""


class PubtimeChangedError(AuditError):
    """The time at which a version was published is another."""


class ReturnedError(AuditError):
    """A crate that upstream deleted is back, and may be somebody else's: held."""


class UnreadableFieldError(AuditError):
    """A field that may change became one that cargo cannot read: the version is as good as gone."""


class LostRecordError(AuditError):
    """What was published is lost on our own disk, so that there is nothing to compare with."""


class LockMismatchError(RejectedError):
    """Upstream's checksum is not the one in the lock file that lists the crate."""


class CksumMismatchError(RejectedError):
    """The bytes are not the ones the index promised."""


class DeniedError(RejectedError):
    """The operator denies it. Nothing is wrong that upstream could mend: no finding."""


class OwnMistakeError(RejectedError):
    """A mistake of ours that some bytes brought out; they are refused, their neighbours go on."""


class UnsignedError(RejectedError):
    """No signed index line names it. Whoever asked was wrong; nothing is wrong with a crate."""


class ArchiveError(RejectedError):
    """The crate file is not a safe gzip tar under one folder `name-version/`."""


class UpstreamError(CratesealError):
    """Upstream did not give a usable answer; asking again later may help.

    Attributes:
        short: what many such errors have in common, to stand behind their number: `of 500`.
    """

    exit_code = 3

    def __init__(self, text: str, short: str = "without a usable answer") -> None:
        self.short = short
        super().__init__(text)


class UpstreamUnreachableError(UpstreamError):
    """No connection, or no answer in time: this says something about upstream as a whole."""


class UpstreamAnswerError(UpstreamError):
    """An answer about one object that cannot be used: a status, a length, a page of HTML."""


class UpstreamBusyError(UpstreamAnswerError):
    """Upstream asks to be left alone for a while (429, or 503 with Retry-After).

    Attributes:
        retry_after: seconds.
    """

    def __init__(self, text: str, retry_after: float, short: str = "of 429") -> None:
        self.retry_after = retry_after
        super().__init__(text, short)


class FindingError(CratesealError):
    """Something that was published does not verify."""

    exit_code = 1


class ProofError(FindingError):
    """What a mirror gave is not what was signed, or not what was locked.

    Attributes:
        subject: what was to be proven, e.g. `serde 1.0.200`.
        where: the file or URL that was looked at.
        expected: what would have proven it.
        got: what was there; cut short where it is long.
        advice: what to do next.
    """

    def __init__(self, subject: str, where: str, expected: str, got: str, advice: str) -> None:
        self.subject = subject
        self.where = where
        self.expected = expected
        self.got = got if len(got) <= 200 else got[:200] + "…"
        self.advice = advice
        super().__init__(f"{subject}: {where}: expected {expected}, got {self.got}; {advice}")


class NotHeldError(ProofError):
    """The mirror says, signed, that it holds no such thing, or does not have the bytes."""


class WithheldError(NotHeldError):
    """The mirror's operator refuses it, and says so in a signed note.

    Attributes:
        reason: the note's, on one line.
    """

    def __init__(self, subject: str, where: str, expected: str, reason: str) -> None:
        self.reason = reason
        super().__init__(subject, where, expected, f"withheld: {reason}", "ask its operator")


class AbsentError(NotHeldError):
    """Signed metadata does not name it.

    Attributes:
        proved: whether that is the signer's word that what it follows has no such thing; else it
            only means: not asked for yet.
    """

    def __init__(  # noqa: PLR0913 - the five parts of every finding, and what is ours
        self, subject: str, where: str, expected: str, got: str, advice: str, *, proved: bool
    ) -> None:
        self.proved = proved
        super().__init__(subject, where, expected, got, advice)


class ExpiredError(ProofError):
    """What was signed is too old to count: the signer has not run, or somebody shows an old state.

    Attributes:
        expired_at: when it expired, in seconds since 1970.
    """

    def __init__(  # noqa: PLR0913 - as AbsentError
        self, subject: str, where: str, expected: str, got: str, advice: str, *, expired_at: float
    ) -> None:
        self.expired_at = expired_at
        super().__init__(subject, where, expected, got, advice)


class PublicationError(FindingError):
    """A metadata file under the web root is missing, or is none.

    Attributes:
        subject: the file.
        expected: what it would have been.
        got: what was there.
    """

    def __init__(self, subject: str, expected: str, got: str) -> None:
        self.subject = subject
        self.expected = expected
        self.got = got
        super().__init__(f"{subject}: expected {expected}, got {got}; see `crateseal check`")


class NoPublicationError(PublicationError):
    """Nothing was published in this folder yet."""


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
