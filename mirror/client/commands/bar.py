"""How far a long run has come: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

LINE_EVERY_SECONDS = 5.0

Step = Callable[[], None]
"""Says that one more is done. From one thread."""


@contextmanager
def counting(
    what: str, total: int, out: TextIO | None, monotonic: Callable[[], float]
) -> Iterator[Step]:
    """Show on `out` (None: nowhere) how many of `total` are done; yield what to call for each."""
    if out is None:
        yield lambda: None
    elif out.isatty():
        with _bar(what, total, out) as step:
            yield step
    else:
        yield _lines(what, total, out, monotonic)


def _lines(what: str, total: int, out: TextIO, monotonic: Callable[[], float]) -> Step:
    done, told_at = 0, monotonic()

    def step() -> None:
        nonlocal done, told_at
        done += 1
        if monotonic() - told_at >= LINE_EVERY_SECONDS:
            told_at = monotonic()
            out.write(f"{what}: {done:,} of {total:,}\n")
            out.flush()

    return step


@contextmanager
def _bar(what: str, total: int, out: TextIO) -> Iterator[Step]:
    from rich.console import Console  # noqa: PLC0415 - slow to load, for people only
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=out), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)
