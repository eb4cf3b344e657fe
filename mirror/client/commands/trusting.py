"""`crateseal trust`: remember mirrors of one repository with its root; list them; forget them.

Rule: nothing is remembered before it verified, from the root that the user named down to what the
mirror says now. A root comes from the user; only if the user says so from the mirror itself, and
that is said in every later output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO
from urllib.parse import urlsplit

from tuf.api.exceptions import RepositoryError

from mirror.client.commands.trusted import tell_trusts
from mirror.client.fetch.fetcher import HttpFetcher, one_line
from mirror.client.home.remembered import read_root, root_id_of
from mirror.client.home.settings import ClientSettings, parse_mirror
from mirror.client.source.source import open_source
from mirror.client.trust.memory import EphemeralMemory, Remembered, version_of
from mirror.client.trust.roots import check_root, next_root
from mirror.client.trust.store import How, NewTrust, Trust, TrustStore, fetch_limits
from mirror.client.trust.trust import TrustedRoot, other_root, served_roots
from mirror.core.addresses import is_loopback
from mirror.core.layout import METADATA_DIR
from mirror.errors import ExpiredError, ProofError, UnreachableError, UsageError
from mirror.store.roots import to_pin

_HOW = (
    "say which root you trust: --root FILE (one of its roots), --root-sha256 HEX (the fingerprint"
    " of one), both from its operator and not from the mirror; or --on-first-use"
)
_NOTHING_REMEMBERED = "nothing is remembered; leave this mirror out, or ask its operator"


@dataclass(frozen=True, slots=True)
class TrustOptions:
    """What the user said, beside the settings `root` and `root_sha256`."""

    urls: tuple[str, ...] = ()
    on_first_use: bool = False
    replace: bool = False
    forget: tuple[str, ...] = ()
    json: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A mirror, and the roots it serves from version 1 on, unverified; or why it serves none."""

    url: str
    roots: tuple[bytes, ...] = ()
    away: str = ""

    def where(self, version: int) -> str:
        """Return the address of a root."""
        return f"{self.url}{METADATA_DIR}/{version}.root.json"


@dataclass(frozen=True, slots=True)
class Start:
    """Where trust begins, or goes on."""

    named: bytes
    """The root that the user named."""
    initial: bytes
    """The one that ROOTID comes from: that, or the one of the trust that is joined."""
    newest: bytes
    """The newest that is known so far."""
    how: How


def run_trust(
    options: TrustOptions, settings: ClientSettings, clock: Callable[[], float], out: TextIO
) -> int:
    """Remember, list or forget; tell it on `out`; return the exit code.

    Raises:
        UsageError: no root was said, or a mirror is known with another; or the options contradict.
        ProofError: a mirror is not of that repository, or what it says does not verify.
        UnreachableError: no mirror gave an answer.
        MachineError: a folder of ours is not this user's alone.
    """
    store = TrustStore(settings.config_dir)
    urls, forget = _mirrors(options.urls), _mirrors(options.forget)
    if forget:
        if urls:
            raise UsageError("trust: either URLs to trust, or --forget")
        store.forget(forget)
    if not urls:
        tell_trusts(store.all(), out, as_json=options.json)
        return 0
    new, warnings = _verified(urls, options, settings, store.all(), clock)
    trust = store.remember(new, instead=options.replace)
    tell_trusts((trust,), out, as_json=options.json, warnings=warnings)
    return 0


def _verified(
    urls: tuple[str, ...],
    options: TrustOptions,
    settings: ClientSettings,
    known: Sequence[Trust],
    clock: Callable[[], float],
) -> tuple[NewTrust, tuple[str, ...]]:
    """Return what may be remembered of these mirrors, and what to say of it.

    1. The user names a root: a file, a fingerprint, what the mirror shows, or, with a mirror that
       is trusted already, none.
    2. A trust that this root is one of the chain of is the trust to join.
    3. Each mirror that answers serves a chain that goes on from there, unbroken, and what it says
       now verifies under its newest root.
    4. At least one does; those that are away are only warned of.
    """
    _check_options(options, settings)
    asked = tuple(_ask(url, settings) for url in urls)
    # 1.
    root, how = _root_named(urls, options, settings, asked, known)
    # 2.
    joined = _trust_with(root, asked, known)
    start = Start(root, root, root, how)
    if joined is not None:
        start = Start(root, joined.initial.data, joined.memory.load().root, how)
    # 3.
    newest: list[Remembered] = []
    away: list[tuple[str, ProofError | UnreachableError]] = []
    for each in asked:
        try:
            newest.append(_verify_mirror(each, start, settings, clock))
        except (ProofError, UnreachableError) as error:
            # What an old mirror says need not verify under a root that it has not heard of.
            is_behind = len(each.roots) < version_of(start.newest)
            if not (is_behind or isinstance(error, ExpiredError | UnreachableError)):
                raise
            away.append((each.url, error))
    # 4.
    if not newest:
        raise away[0][1]
    warnings = tuple(f"{url}: not verified yet: {error}" for url, error in away)
    return NewTrust(start.initial, urls, how, max(newest, key=_age)), warnings


def _verify_mirror(
    asked: Asked, start: Start, settings: ClientSettings, clock: Callable[[], float]
) -> Remembered:
    """Verify a mirror by itself, from its roots to what it says now; return the newest of it."""
    if asked.away:
        raise UnreachableError(asked.away)
    for root in (start.named, start.newest):
        _check_of_the_repository(root, asked)
    memory = EphemeralMemory(_newest(start.newest, asked))
    initial = TrustedRoot(start.initial)
    trust = Trust(root_id_of(initial.data), initial, (asked.url,), start.how, memory)
    # A cache of its own: what another mirror gave says nothing of this one.
    with TemporaryDirectory(prefix="crateseal-") as folder:
        alone = settings._replace(cache_dir=Path(folder) / "cache")
        with open_source(alone, clock, trust=trust) as source:
            source.refresh()
    return memory.load()


def _age(remembered: Remembered) -> tuple[int, int]:
    timestamp = remembered.timestamp
    return version_of(remembered.root), version_of(timestamp) if timestamp else 0


def _check_options(options: TrustOptions, settings: ClientSettings) -> None:
    said = (settings.root, settings.root_sha256, options.on_first_use or None)
    if sum(each is not None for each in said) > 1:
        raise UsageError("--root, --root-sha256 and --on-first-use: say one of them")
    for url in _mirrors(options.urls) if options.on_first_use else ():
        parts = urlsplit(url)
        if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
            raise UsageError(
                f"{url}: --on-first-use is for https or this machine only: over http anybody on the"
                " way could show a root of their own; use https, or --root-sha256"
            )


def _ask(url: str, settings: ClientSettings) -> Asked:
    with closing(HttpFetcher(url, fetch_limits(settings))) as fetcher:
        try:
            return Asked(url, tuple(served_roots(fetcher)))
        except UnreachableError as error:
            return Asked(url, away=one_line(str(error)))


def _root_named(
    urls: tuple[str, ...],
    options: TrustOptions,
    settings: ClientSettings,
    asked: Sequence[Asked],
    known: Sequence[Trust],
) -> tuple[bytes, How]:
    if settings.root is not None:
        return _self_signed(read_root(settings.root), str(settings.root)), How.FILE
    if settings.root_sha256 is not None:
        return _of_fingerprint(settings.root_sha256, asked), How.FINGERPRINT
    if options.on_first_use:
        first = _answering(asked)[0]
        version, root = _to_pin(first)
        return _self_signed(root, first.where(version), version), How.FIRST_USE
    for trust in known:
        if set(trust.mirrors) & set(urls):
            return trust.initial.data, trust.how
    raise UsageError(f"{urls[0]}: not trusted yet; {_HOW}")


def _of_fingerprint(sha256: str, asked: Sequence[Asked]) -> bytes:
    """Return the root of whatever version, of whichever mirror, that has this fingerprint."""
    for each in (answering := _answering(asked)):
        for version, data in enumerate(each.roots, 1):
            # All of it: a root that shares a part is quickly made.
            if TrustedRoot(data).sha256 == sha256:
                return _self_signed(data, each.where(version), version)
    raise other_root(answering[0].where(1), sha256, TrustedRoot(answering[0].roots[0]))


def _answering(asked: Sequence[Asked]) -> tuple[Asked, ...]:
    found = tuple(each for each in asked if each.roots)
    if not found:
        raise UnreachableError(asked[0].away)
    return found


def _to_pin(asked: Asked) -> tuple[int, bytes]:
    try:
        return to_pin(asked.roots)
    except ValueError as error:
        raise ProofError(
            "root", asked.where(1), "a root", "something else", _NOTHING_REMEMBERED
        ) from error


def _self_signed(root: bytes, where: str, version: int | None = None) -> bytes:
    try:
        check_root(root, version)
    except RepositoryError as error:
        got = one_line(str(error))
        raise ProofError(
            "root", where, "a root that its keys have signed", got, _NOTHING_REMEMBERED
        ) from error
    return root


def _trust_with(root: bytes, asked: Sequence[Asked], known: Sequence[Trust]) -> Trust | None:
    """Return the trust that this root belongs to: a chain of signatures leads from it to here."""
    for trust in known:
        if root in (trust.initial.data, trust.memory.load().root):
            return trust
        if any(root in _chain(trust.initial.data, each.roots) for each in asked):
            return trust
    return None


def _chain(begin: bytes, served: Sequence[bytes]) -> Iterator[bytes]:
    """Yield the roots that verify one after the other; ends at the first that does not."""
    current = begin
    for data in served[version_of(begin) :]:
        found = next_root(current, [("", data)]).root
        if found is None:
            return
        current = found
        yield current


def _newest(begin: bytes, asked: Asked) -> bytes:
    """Return the newest root of a mirror that shows no other than those that verify.

    Raises:
        ProofError: one of its roots does not follow from the one before.
    """
    current = begin
    for version, data in tuple(enumerate(asked.roots, 1))[version_of(begin) :]:
        found = next_root(current, [(asked.url, data)])
        if found.root is None:
            expected, _, got = found.wrong[0][1].partition(", got ")
            raise ProofError(
                "root",
                asked.where(version),
                expected.removeprefix("expected "),
                got or "another",
                _NOTHING_REMEMBERED,
            )
        current = found.root
    return current


def _check_of_the_repository(root: bytes, asked: Asked) -> None:
    """Make sure that a mirror which serves a root of this version serves this very one."""
    version = version_of(root)
    if version > len(asked.roots) or asked.roots[version - 1] == root:
        return
    raise ProofError(
        "root",
        asked.where(version),
        f"the fingerprint {TrustedRoot(root).sha256}",
        TrustedRoot(asked.roots[version - 1]).sha256,
        f"this is a mirror of another repository; {_NOTHING_REMEMBERED}",
    )


def _mirrors(urls: Sequence[str]) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(parse_mirror(url) for url in urls))
    except ValueError as error:
        raise UsageError(
            f"mirror {str(error)!r}: expected a URL such as https://crates.example.org"
        ) from error
