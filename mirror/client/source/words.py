"""What went wrong with a file of a mirror's, as errors of ours: which file, what, what to do."""

from __future__ import annotations

from collections.abc import Sequence

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)

from mirror.client.fetch.fetcher import BadAnswerError, one_line
from mirror.client.source.look import BehindError, PastError, WrongRoleError
from mirror.core.times import rfc3339
from mirror.errors import (
    AbsentError,
    CratesealError,
    ExpiredError,
    MalformedIndexError,
    NotHeldError,
    ProofError,
    UnreachableError,
)

_OTHER_KEYS = (
    "do not build from it: somebody stands between, or the mirror began anew with other keys; if"
    " its operator says so, `crateseal trust URL --root-sha256 HEX --replace`"
)
LOOK_THERE = "do not build from it; run `crateseal check` on the mirror"
RUN_THE_SIGNER = (
    "the mirror's signer has not run in time, or somebody shows you an old state: see"
    " `crateseal status` on the mirror, and this machine's clock"
)

# What python-tuf refuses, the most special first: what a good file would have had.
_EXPECTED: tuple[tuple[type[RepositoryError], str], ...] = (
    (UnsignedMetadataError, "enough signatures of the keys that are trusted"),
    (BadVersionNumberError, "the version that was signed"),
    (LengthOrHashMismatchError, "the bytes that were signed"),
    (RepositoryError, "metadata that verifies"),
)


def in_plain_words(subject: str, where: str, error: Exception) -> CratesealError:
    """Turn what went wrong with one file into an error of ours; ours stay as they are.

    Args:
        subject: what was to be proven.
        where: the file's address.
        error: a `RepositoryError`, a `DownloadError`, or ours.
    """
    match error:
        case CratesealError():
            return error
        case RepositoryError():
            return _refused(subject, where, error)
        case DownloadHTTPError():
            return ProofError(
                subject,
                where,
                "a file that signed metadata names",
                f"{error.status_code} ({_without(where, error)})",
                "is this the right URL or folder? if so, run `crateseal check` on the mirror",
            )
        case DownloadLengthMismatchError():
            return ProofError(
                subject, where, "a file of its signed length", _without(where, error), LOOK_THERE
            )
        case BadAnswerError():
            return ProofError(subject, where, error.expected, error.got, LOOK_THERE)
        case DownloadError():
            return UnreachableError(f"{_chain(error)}; {_what_now(error)}")
    raise error


def _what_now(error: DownloadError) -> str:
    if ": answered " in str(error):
        return "try again in a while, or see why in the mirror's status"
    return "is the mirror running, and this its address?"


def absent(where: str, name: str, *, proved: bool) -> AbsentError:
    """Return what to say of a crate that signed metadata does not name."""
    if proved:
        advice = "the mirror holds all that it follows, and this is not among it"
    else:
        advice = (
            "the mirror has not fetched it (or its source has no such crate):"
            " let cargo ask for it once, then verify again"
        )
    expected, got = "its index file", "signed metadata without it"
    return AbsentError(name, where, expected, got, advice, proved=proved)


def expired(where: str, when: float) -> ExpiredError:
    """Return what to say when all that is known has expired."""
    expected, got = "metadata that has not expired", f"metadata that held until {rfc3339(when)}"
    return ExpiredError("the mirror", where, expected, got, RUN_THE_SIGNER, expired_at=when)


def no_index_file(subject: str, where: str, error: MalformedIndexError) -> ProofError:
    """Return what to say of a signed index file that is none."""
    advice = "the mirror signed a file that is none: tell its operator"
    return ProofError(subject, where, error.expected, error.got, advice)


def gravest(errors: Sequence[CratesealError]) -> CratesealError:
    """Return the one to tell of what several mirrors did: a lie before a lack before a silence."""
    return min(errors, key=_rank)


def in_short(error: CratesealError) -> str:
    """Return what was wrong with a mirror, to stand behind its URL."""
    if isinstance(error.__cause__, BehindError):
        return f"behind: {error.__cause__}"
    if isinstance(error, ProofError):
        return f"{error.subject}: {error.where}: expected {error.expected}, got {error.got}"
    return str(error)


def _rank(error: CratesealError) -> int:
    match error:
        case NotHeldError():
            return 2
        case ExpiredError():
            return 1
        case ProofError():
            return 0
        case _:
            return 3


def _refused(subject: str, where: str, error: RepositoryError) -> ProofError:
    match error:
        case PastError(expired_at=when):
            expected = "metadata that has not expired"
            return ExpiredError(
                subject, where, expected, str(error), RUN_THE_SIGNER, expired_at=when
            )
        case WrongRoleError():
            expected = f"metadata of the role {error.role}"
            got = f"metadata signed for the role {error.said!r}"
            return ProofError(subject, where, expected, got, LOOK_THERE)
        case BehindError():
            return ProofError(
                subject,
                where,
                "what was seen before, or newer",
                str(error),
                "the mirror is behind, or somebody shows you an old state: ask its operator",
            )
    expected = next(words for kind, words in _EXPECTED if isinstance(error, kind))
    advice = _OTHER_KEYS if isinstance(error, UnsignedMetadataError) else LOOK_THERE
    return ProofError(subject, where, expected, _chain(error), advice)


def _without(where: str, error: Exception) -> str:
    return one_line(str(error)).removeprefix(f"{where}: ").removeprefix("answered ")


def _chain(error: BaseException) -> str:
    """Return what an error says, and what the one behind it says where that adds something."""
    text, cause = one_line(str(error)), error.__cause__
    if cause is None or isinstance(cause, OSError) or one_line(str(cause)) in text:
        return text
    return f"{text} ({one_line(str(cause))})"
