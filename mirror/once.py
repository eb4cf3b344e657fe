"""`crateseal sync --once`: one look at everything that is followed, signed before it ends.

Where no signer runs, one is started for the time.
"""

from __future__ import annotations

import logging
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mirror import locks
from mirror.children import ChildFailedError, Inherited, Lifeline, mirror_program
from mirror.config import Config
from mirror.lifeline import Stop
from mirror.sync.values import without_subject

if TYPE_CHECKING:
    from mirror.sync.values import SyncReport

LOG = logging.getLogger("crateseal")

SIGNER_END_SECONDS = 30.0
DETAILS_MAX = 50


def exit_code_of_look(report: SyncReport) -> int:
    """Return 3 if upstream was not reached, 1 if something is missing or was refused, else 0."""
    if report.unreachable:
        return 3
    return 1 if report.missing or report.refused or report.stopped else 0


def details_of_look(report: SyncReport) -> Iterator[str]:
    """Go through what is missing or was refused, a line each; where it is much, only the first."""
    missing = {key: why for key, why in report.reasons.items() if key not in report.refused}
    for what, reasons in (("refused", report.refused), ("missing", missing)):
        for key in sorted(reasons)[:DETAILS_MAX]:
            yield f"{what}: {key}: {without_subject(key, reasons[key])}"
        if len(reasons) > DETAILS_MAX:
            yield f"{what}: and {len(reasons) - DETAILS_MAX:,} more"


@contextmanager
def a_signer(config: Config, lock: str, stop: Stop, inherited: Inherited) -> Iterator[None]:
    """Have a signer: the one that runs already, or one of our own until the end of the block.

    Raises:
        ChildFailedError: our own did not start, or died; it has said why.
    """
    if locks.is_held(config.run / lock):
        yield
        return
    program = mirror_program("sign", config, inherited, "-q")
    lifeline = Lifeline()
    process = lifeline.start(program)
    ours = threading.Event()
    # Without a signer the look would never end: so its death ends the look.
    threading.Thread(target=_watch, args=(process, ours, stop), daemon=True).start()
    try:
        yield  # It gets ready meanwhile: fetching can begin, offers wait for it.
        if process.poll() is not None:
            raise ChildFailedError("sign", process.returncode)
    finally:
        ours.set()
        _end(process)
        lifeline.close()


def _watch(process: subprocess.Popen[bytes], ours: threading.Event, stop: Stop) -> None:
    process.wait()
    if not ours.is_set():
        stop.request()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(SIGNER_END_SECONDS)
    except subprocess.TimeoutExpired:
        LOG.warning("the signer did not end in time and was killed")
        process.kill()
        process.wait()
