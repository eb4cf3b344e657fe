"""How a signer's parts come to be, from a `Config`: folders, keys, the committed repository."""

from __future__ import annotations

import logging
import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping
from typing import Any

from mirror.config import Config
from mirror.core.layout import DELEGATION, METADATA_DIR, TARGET_PATTERNS
from mirror.errors import MachineError, UsageError
from mirror.folder import missing_root
from mirror.sign.ceremony import read_files
from mirror.sign.parts import Parts
from mirror.sign.rules import first_digest
from mirror.sign.state import EXTRA, signed_state
from mirror.store.ledger import Ledger
from mirror.store.www import Www
from tuf_repo.core.roles import Policy
from tuf_repo.core.update import Counts
from tuf_repo.disk import Disk, PosixDisk
from tuf_repo.first import begin
from tuf_repo.folder import FINISHING
from tuf_repo.online import OnlineKeys
from tuf_repo.publisher import Publisher
from tuf_repo.storage import Storage
from tuf_repo.trial import TrialPlan, init_trial

_DISK_ERRORS = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)

log = logging.getLogger(__name__)

Clock = Callable[[], float]


def open_parts(
    config: Config,
    clock: Clock,
    disk: Disk | None = None,
    *,
    wait: Callable[[float], object] = time.sleep,
) -> Parts:
    """Load the committed repository and what the signer works with.

    `wait` sleeps for so many seconds, or less where the signer is told to end meanwhile.

    Raises:
        UsageError: there is no repository yet.
        MachineError: the ledger does not read.
        RepositoryError: what is committed does not verify, or the keys are not its own.
    """
    disk = disk or PosixDisk(config.data)
    _make_folders(config)
    if not (config.www / METADATA_DIR / "timestamp.json").exists():
        _begin(config, clock, disk, wait)
    publisher = Publisher.open(
        _storage(config, disk),
        OnlineKeys(config.keys),
        now=clock(),
        policy=Policy(),
        entropy=_entropy,
        wait=wait,
    )
    return Parts(config, disk, Www(config.www, config.staging, disk), _ledger(config), publisher)


def init_repository(config: Config, clock: Clock, disk: Disk | None = None) -> bool:
    """Make keys and a trial repository; return whether one was made (False: it was there).

    Safe to stop at any moment and to call again.
    """
    _make_folders(config)
    now = clock()
    plan = TrialPlan(
        DELEGATION,
        TARGET_PATTERNS,
        config.effective_bin_bits,
        root_extra={EXTRA: {"trial": True}},
        timestamp_extra=_first_state(config, now),
    )
    return init_trial(
        _storage(config, disk or PosixDisk(config.data)),
        config.keys,
        config.offline_keys,
        plan,
        now=now,
        policy=Policy(),
        entropy=_entropy,
        wait=time.sleep,
    )


def _begin(config: Config, clock: Clock, disk: Disk, wait: Callable[[float], object]) -> None:
    """Make the first publication of what a ceremony left.

    Raises:
        UsageError: there was none, or not enough of it.
    """
    files = read_files(config.ceremony)
    if "1.root.json" not in files:
        raise UsageError(missing_root(config.data))
    if (config.ceremony / FINISHING).exists():
        raise UsageError(f"{config.ceremony}: `tuf-repo finish` has not ended; run it again")
    begin(
        _storage(config, disk),
        OnlineKeys(config.keys),
        files,
        _first_state(config, clock()),
        now=clock(),
        policy=Policy(),
        entropy=_entropy,
        wait=wait,
    )
    log.info("the ceremony's result is published: %s", ", ".join(sorted(files)))


def _first_state(config: Config, now: float) -> Callable[[Counts], Mapping[str, Any]]:
    policy = first_digest(config)

    def state(held: Counts) -> Mapping[str, Any]:
        return signed_state(
            config, {}, policy=policy, held=held, sweep=None, confirmed=None, now=now
        )

    return state


def _make_folders(config: Config) -> None:
    for folder in (config.www, config.staging, config.spool, config.run):
        folder.mkdir(parents=True, exist_ok=True)


def _storage(config: Config, disk: Disk) -> Storage:
    return Storage(config.www / METADATA_DIR, config.staging, disk)


def _ledger(config: Config) -> Ledger:
    try:
        return Ledger(config.ledger)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF in _DISK_ERRORS:
            raise MachineError(f"{config.ledger}: {error}; make room, and start again") from error
        raise MachineError(
            f"{config.ledger}: {error}; put it back from a backup, or move it away to go on"
            " without what it remembers (quarantine, held crates, the log)"
        ) from error


def _entropy() -> int:
    return secrets.randbelow(2**32)
