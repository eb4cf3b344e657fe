"""What became of one package on this machine's disk, in a form for tables and programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mirror.client.commands.compare import Difference
from mirror.errors import CratesealError, ProofError, UnreachableError


@dataclass(frozen=True, slots=True)
class Checked:
    """One package in a folder, and everything about it that is not proven.

    Its `errors` name the files: a `ProofError` has the path in `where`.
    """

    package: str
    """`serde 1.0.200`; or the folder's name where it does not say what it holds."""
    where: str
    """The folder or file that was looked at."""
    errors: tuple[CratesealError, ...] = ()
    files: int = 0
    """How many files were compared."""
    not_covered: str = ""
    """Why nothing was looked at, though nothing is wrong with that."""
    note: str = ""
    """What else to tell, e.g. that the lock does not name it."""

    @property
    def is_proven(self) -> bool:
        """Whether every byte of it is what was signed."""
        return not self.errors and not self.not_covered

    @property
    def exit_code(self) -> int:
        """0; 1 a finding; 3 nothing worse than a mirror that gave no answer."""
        if any(not isinstance(error, UnreachableError) for error in self.errors):
            return ProofError.exit_code
        return UnreachableError.exit_code if self.errors else 0


def as_error(package: str, folder: Path, difference: Difference, advice: str) -> ProofError:
    """Return the finding that a difference is."""
    where = str(folder / difference.path) if difference.path else str(folder)
    return ProofError(
        package, shown(where), shown(difference.expected), shown(difference.got), advice
    )


def shown(text: str) -> str:
    """Return a file's name so that it can be written anywhere: names need not be text."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
