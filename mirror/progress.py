"""How far a long look at upstream has come: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mirror.sync.values import Progress

LOG = logging.getLogger("crateseal")

LINE_EVERY_SECONDS = 5.0

Report = Callable[["Progress"], None]


def in_lines(monotonic: Callable[[], float]) -> Report:
    """Return a report that logs one line every few seconds."""
    last_at = monotonic()

    def report(progress: Progress) -> None:
        nonlocal last_at
        if monotonic() - last_at >= LINE_EVERY_SECONDS:
            last_at = monotonic()
            LOG.info(
                "%s of %s names, %s", f"{progress.looked:,}", f"{progress.names:,}", _rest(progress)
            )

    return report


@contextmanager
def for_a_person(monotonic: Callable[[], float], *, quiet: bool) -> Iterator[Report]:
    """Report by a bar if stderr is a terminal, else in lines; quiet: not at all."""
    if quiet:
        yield lambda _progress: None
    elif sys.stderr.isatty():
        with _bar() as report:
            yield report
    else:
        yield in_lines(monotonic)


@contextmanager
def _bar() -> Iterator[Report]:
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("looking at upstream", total=None)

        def report(progress: Progress) -> None:
            bar.update(
                task,
                total=progress.names + progress.crates or None,
                completed=progress.looked + progress.stored,
                description=_rest(progress),
            )

        yield report


def _rest(progress: Progress) -> str:
    failed = f", {progress.failed:,} failed so far" if progress.failed else ""
    crates = f", {progress.stored:,} of {progress.crates:,} crates" if progress.crates else ""
    return f"{progress.changed:,} changed{crates}{failed}"
