"""What cargo left in the overlay: whatever came from elsewhere than our proxy is found here.

Cargo names the folder of each registry after its address, so a folder that is not ours is the trace
of a bypass: a cargo that cargo started and that a project's configuration led elsewhere, a command
that follows no replacement of crates.io. Three kinds of them:

- registries that the lock, the command line or the user's own configuration names: what came from
  there is *not covered*; a crate of crates.io found there is a finding all the same;
- registries that an earlier run of another project named: remembered in `.crateseal/others/`, of no
  interest until this run adds to them;
- all others: a finding. Told once, and moved to `.crateseal/foreign-N/` as soon as no other run
  uses the overlay, so that no later build, offline or not, takes anything from there.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from mirror.client.home.folders import make_private
from mirror.client.home.overlay import OWN, Overlay
from mirror.client.sealed.light_lock import Package, printable
from mirror.client.sealed.traces import (
    AREAS,
    OTHERS,
    Entry,
    Seen,
    entries_of,
    names_in,
    our_folders,
)

_NAMED_MAX = 5
_CHUNK_BYTES = 1 << 20
# A name has no dot, so the version begins with the digits before the first one.
_CRATE = r"([A-Za-z0-9_-]+)-(\d+\..+?)(?:\.crate)?\Z"


class Finding(NamedTuple):
    """Something that did not come the way it should have."""

    subject: str
    where: str
    expected: str
    got: str
    advice: str

    def __str__(self) -> str:
        return (
            f"{self.subject}: {self.where}: expected {self.expected}, got {self.got}; {self.advice}"
        )


class Admitted(NamedTuple):
    """What else than ours a run may leave."""

    folders: frozenset[str]
    """Registries that the lock, the command line or the user's own configuration names."""
    crates: frozenset[str]
    """`NAME VERSION` that the lock takes from crates.io and from nowhere else."""
    elsewhere: frozenset[str]
    """`NAME VERSION` that the lock takes from elsewhere: told of already."""
    git: frozenset[str]
    """What cargo calls the repositories that the lock names, before their hashes."""


def admitted_by(packages: Iterable[Package], folders: frozenset[str]) -> Admitted:
    """Return what a lock of these packages allows, and registries with these folders."""
    crates, elsewhere, git = set[str](), set[str](), set[str]()
    for each in packages:
        (crates if each.is_of_crates_io else elsewhere).add(str(each))
        if each.source is not None and each.source.startswith("git+"):
            git.add(_git_ident(each.source))
    return Admitted(folders, frozenset(crates - elsewhere), frozenset(elsewhere), frozenset(git))


def left_behind(overlay: Overlay, seen: Seen) -> tuple[list[Finding], Seen]:
    """Find what an earlier run left and nobody told; while others run, it is theirs to tell.

    Returns:
        The findings, and what is left when the folders were moved away.
    """
    strange = seen.folders - seen.others.keys()
    if not strange or not overlay.is_alone():
        return [], seen
    entries = frozenset(each for each in seen.entries if each.folder in strange)
    findings = set_aside(overlay, sorted(strange), "an earlier run, ended before it could say so")
    overlay.share()
    return findings, seen._replace(entries=seen.entries - entries)


def set_aside(overlay: Overlay, folders: Iterable[str], by: str) -> list[Finding]:
    """Move these folders to where no cargo looks, and return a finding for each."""
    folders = tuple(folders)
    entries = entries_of(overlay, folders)
    place = move_away(overlay, folders)
    return [_finding(folder, entries, place, by) for folder in folders]


def judge(
    overlay: Overlay, before: Seen, after: Seen, admitted: Admitted
) -> tuple[list[Finding], list[str]]:
    """Return what this run's cargo took from elsewhere: findings, and what is not covered.

    The folders of findings are moved away unless another run uses the overlay.
    """
    new = after.entries - before.entries
    wrong, not_covered = {}, set()
    for folder in sorted({each.folder for each in new}):
        entries = frozenset(each for each in new if each.folder == folder)
        if folder not in admitted.folders:
            if not _is_of_another_run(overlay, folder, before, after):
                wrong[folder] = entries
            continue
        of_crates_io = frozenset(each for each in entries if _crate(each) in admitted.crates)
        if of_crates_io:
            wrong[folder] = of_crates_io
        crates = _crates(entries - of_crates_io) - admitted.elsewhere
        not_covered |= {f"{crate} (registry {folder})" for crate in crates}
    place = None
    if wrong:
        place = move_away(overlay, wrong) if overlay.is_alone() else None
        overlay.share()
    findings = [_finding(folder, each, place, "cargo") for folder, each in wrong.items()]
    for name in sorted(after.git - before.git):
        if name.rpartition("-")[0] not in admitted.git:
            not_covered.add(f"{printable(name)} (a git repository that the lock does not name)")
    return findings, sorted(not_covered)


def move_away(overlay: Overlay, folders: Iterable[str]) -> Path:
    """Move these folders to where no cargo looks; return the place."""
    own = overlay.folder / OWN
    taken = [int(each[8:]) for each in names_in(own) if re.fullmatch(r"foreign-\d{1,9}", each)]
    place = make_private(own / f"foreign-{max(taken, default=0) + 1}")
    for area in AREAS:
        for folder in folders:
            source = overlay.folder / "registry" / area / folder
            if os.path.lexists(source):
                make_private(place / area)
                os.rename(source, place / area / folder)
    return place


def changed_crates(overlay: Overlay, root_id: str, packages: Iterable[Package]) -> list[Finding]:
    """Compare what cargo keeps of a lock's crates, in our folders, with the lock's checksums."""
    cache = overlay.folder / "registry" / "cache"
    folders = sorted(set(names_in(cache)) & our_folders(overlay, root_id))
    findings = []
    for each in packages:
        if not each.is_of_crates_io or each.checksum is None or not _is_plain(each):
            continue
        for folder in folders:
            file = cache / folder / f"{each.name}-{each.version}.crate"
            unpacked = overlay.folder / "registry" / "src" / folder / file.name[: -len(".crate")]
            got = _sha256(file)
            if got is not None and got != each.checksum:
                advice = (
                    "it was changed here; delete it and"
                    f" {printable(str(unpacked))}, and find out by whom"
                )
                expected = f"sha256 {printable(each.checksum)} (Cargo.lock)"
                where = printable(str(file))
                findings.append(Finding(printable(str(each)), where, expected, got, advice))
    return findings


def unread_lock(path: Path) -> Finding:
    """Return what there is to say of a lock that vouches for nothing here."""
    return Finding(
        "Cargo.lock",
        printable(str(path)),
        "a lock that can be read here",
        "one that only cargo may be able to read",
        "offline and on build machines it is what vouches for the crates that cargo keeps; have"
        " cargo write it anew",
    )


def _finding(folder: str, entries: frozenset[Entry], place: Path | None, by: str) -> Finding:
    mine = frozenset(each for each in entries if each.folder == folder)
    crates = sorted(_crates(mine)) or sorted({printable(each.name) for each in mine})
    more = f" and {len(crates) - _NAMED_MAX} more" if len(crates) > _NAMED_MAX else ""
    if place is None:
        then = "it stays until a run that is alone, since another one goes on (is it of that one?)"
    else:
        then = f"moved to {place}, where no cargo looks; delete it when you have looked"
    return Finding(
        ", ".join(crates[:_NAMED_MAX]) + more or "no package",
        f"registry folder {printable(folder)}",
        "nothing from another registry than ours",
        f"what {by} fetched past the proxy, unverified",
        f"do not use what was built; look for `[source]` in .cargo/config.toml; {then}",
    )


def _is_of_another_run(overlay: Overlay, folder: str, before: Seen, after: Seen) -> bool:
    """Whether another run, at the same time as ours, named this registry: it has told of it."""
    if folder not in after.others:
        return False
    if after.others[folder] != before.others.get(folder):
        return True
    path = overlay.folder / OWN / OTHERS / folder
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _crates(entries: Iterable[Entry]) -> set[str]:
    return {crate for each in entries if (crate := _crate(each)) is not None}


def _crate(entry: Entry) -> str | None:
    """Return `NAME VERSION` of what lies in `cache` or `src`."""
    found = None if entry.area == "index" else re.match(_CRATE, entry.name)
    return f"{found[1]} {found[2]}" if found else None


def _is_plain(package: Package) -> bool:
    """Whether it is a name for a file and nothing else: it comes from a stranger's lock."""
    return "/" not in package.name + package.version


def _git_ident(source: str) -> str:
    """Return what cargo calls a repository: the end of its path (`ident` in `git/source.rs`)."""
    path = source.partition("#")[0].partition("?")[0].rstrip("/")
    return path.rpartition("/")[2].removesuffix(".git") or "_empty"


def _sha256(file: Path) -> str | None:
    """Return the sha256 of a regular file, or what is there instead; None: nothing is."""
    import hashlib  # noqa: PLC0415 - seldom wanted

    digest = hashlib.sha256()
    try:
        # O_NONBLOCK: opening a fifo must not hang us.
        fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as opened:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return "no regular file"
            while chunk := opened.read(_CHUNK_BYTES):
                digest.update(chunk)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"nothing that can be read ({error.strerror})"
    except ValueError:  # a NUL, or what is no text in UTF-8
        return "what can be no file's name"
    return digest.hexdigest()
