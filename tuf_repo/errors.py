"""Every error that `tuf_repo` raises, drawn as a tree.

    RepositoryError
    ├── MetadataError      a file is missing, or does not verify
    ├── TargetError        a change that stock clients could not read, or would never look at
    ├── KeyFileError       a key is missing, readable for others, not a key, or not the one trusted
    ├── CounterError       no number can be handed out
    ├── ClockError         the clock stands before the last signature: wait, sign nothing
    ├── StaleStateError    somebody else committed meanwhile: open the repository again
    ├── OtherSignerError   somebody else signs with our keys: nothing is signed until a recovery
    └── CeremonyError      a draft, or what came of one, cannot be used
        └── EditError      what was asked for cannot be drafted: ask for something else
    UsageError             a command line that says nothing we know

Rule for this file: an error carries its parts as attributes; none ever holds private material.
"""

from __future__ import annotations


class RepositoryError(Exception):
    """The root of the tree.

    Attributes:
        subject: what was looked at, e.g. `7.snapshot.json`.
        expected: what a good one would have been.
        got: what was there; cut short where it is long.
    """

    def __init__(self, subject: str, expected: str, got: str) -> None:
        self.subject = subject
        self.expected = expected
        self.got = got if len(got) <= 200 else got[:200] + "…"
        super().__init__(f"{subject}: expected {expected}, got {self.got}")


class MetadataError(RepositoryError):
    """A metadata file is missing, or does not verify."""


class TargetError(RepositoryError):
    """A change or an extra field that cannot be published so that stock clients read it."""


class KeyFileError(RepositoryError):
    """A key is missing, open to others, not a key, or not the one that the metadata names."""


class CounterError(RepositoryError):
    """No number can be handed out."""


class ClockError(RepositoryError):
    """The clock stands before the last signature; nothing is signed until it has passed that."""


class StaleStateError(RepositoryError):
    """The committed timestamp is not the one that was built upon; open the repository again."""


class OtherSignerError(RepositoryError):
    """A timestamp was seen that our key signed and we did not; nothing more is signed for now."""


class CeremonyError(RepositoryError):
    """A draft, or what came of one, is not complete, not for this repository, or was changed."""


class EditError(CeremonyError):
    """What was asked for breaks a rule, so that no draft was made of it."""


class UsageError(Exception):
    """A command line that cannot be read; the text says which word, and what to do instead."""
