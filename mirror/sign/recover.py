"""At start: make the disk what the last commit says, with the code of normal work.

`staging/running` lies there while a signer runs: found at a start, the last one did not end well,
and the whole web root is compared with what the committed and the kept publications name.
`staging/at` tells up to which number the links were right.
"""

from __future__ import annotations

import hashlib
import logging

from mirror.core.layout import (
    CONFIG_JSON,
    CRATES_DIR,
    INDEX,
    METADATA_DIR,
    STATUS_JSON,
    crate_file,
    target_file,
    target_path,
)
from mirror.core.names import CrateName
from mirror.sign.holdings import Holdings
from mirror.sign.parts import Parts
from mirror.sign.signer import Signer

log = logging.getLogger(__name__)

SMALL_FILES = frozenset({CONFIG_JSON, STATUS_JSON, f"{METADATA_DIR}/timestamp.json"})


def recover(parts: Parts, signer: Signer, *, now: float) -> None:
    """Finish or undo what the last run left."""
    running, at = parts.config.staging / "running", parts.config.staging / "at"
    number = parts.publisher.timestamp_version
    parts.ledger.settle_at(number, at=now)
    # A new ledger knows nothing of kept files and held crates: it is filled from what is there.
    ended_well = not running.exists() and not parts.ledger.is_new
    links_right = at.exists() and at.read_bytes() == str(number).encode()
    if not (ended_well and links_right):
        if running.exists():
            log.info("the last signer did not end well; comparing everything with what is signed")
        _set_links_right(parts)
        _remove_orphans(parts)
        _compare_crates(parts)
        for leftover in parts.config.staging.glob("*.crate*"):
            parts.disk.remove(leftover)
        parts.disk.sync()
        signer.write_at()
    if not running.exists():
        parts.disk.write_new(running, b"")
    parts.disk.sync()


def end_well(parts: Parts, signer: Signer) -> None:
    """Leave nothing undone, and say so; the last thing a signer does."""
    signer.swap_links()
    signer.write_at()
    parts.disk.sync()
    parts.disk.remove(parts.config.staging / "running")


def _set_links_right(parts: Parts) -> None:
    for path, target in parts.publisher.targets():
        if path.startswith(f"{INDEX}/") and not parts.www.is_linked(path, target.sha256):
            try:
                parts.www.link_index(path, target.sha256)
            except FileNotFoundError:
                # One crate must not take all along: it is a finding of `crateseal check`.
                log.error("%s: its target is missing; run `crateseal check`", path)  # noqa: TRY400


def _remove_orphans(parts: Parts) -> None:
    """Remove what neither the commit nor a kept publication names."""
    named = set(SMALL_FILES)
    named.update(f"{METADATA_DIR}/{name}" for name in parts.publisher.current_files())
    named.update(item.file for item in parts.ledger.retired())
    for path, target in parts.publisher.targets():
        files = [target_file(path, target.sha256)]
        if path.startswith(f"{INDEX}/"):
            files.append(path)
        for file in files:
            named.update((file, f"{file}.gz"))
    there = set(parts.www.files())
    with parts.ledger.transaction():
        # A pruning that was cut off: the files are gone, their rows came back with the power.
        parts.ledger.revive([row.file for row in parts.ledger.retired() if row.file not in there])
    for file in there:
        if file not in named and not file.startswith(f"{CRATES_DIR}/"):
            log.info("removed %s: no publication names it", file)
            parts.www.remove(file)


def _compare_crates(parts: Parts) -> None:
    """Make the ledger's list of held crates and the files one again."""
    holdings = _holdings(parts)
    _promote_staged(parts, holdings)
    listed = dict(parts.ledger.crates())
    there = {file for file in parts.www.files() if file.startswith(f"{CRATES_DIR}/")}
    with parts.ledger.transaction():
        for file in listed.keys() - there:
            parts.ledger.drop_crate(file)
        for file in listed.keys() & there:
            if not holdings.may_differ(file) or listed[file] in holdings.cksums_of(file):
                continue
            log.info("removed %s: nothing that counts now names these bytes", file)
            parts.www.remove(file)
            parts.ledger.drop_crate(file)
        for file in there - listed.keys():
            data = (parts.config.www / file).read_bytes()
            sha256 = hashlib.sha256(data).hexdigest()
            if sha256 in holdings.cksums_of(file):
                parts.ledger.hold_crate(file, sha256, len(data))
            else:
                log.info("removed %s: no signed line names these bytes", file)
                parts.www.remove(file)


def _promote_staged(parts: Parts, holdings: Holdings) -> None:
    """Put in place the crates whose publication was committed just before the end."""
    for staged in parts.www.staged_crates():
        if staged.sha256 in holdings.cksums_of(crate_file(staged.crate)):
            parts.www.promote_crate(staged)


def _holdings(parts: Parts) -> Holdings:
    def index_file_of(name: CrateName) -> bytes | None:
        path = target_path(name)
        target = parts.publisher.lookup(path)
        return parts.www.read_target(path, target.sha256) if target else None

    return Holdings(parts.ledger.memory, index_file_of)
