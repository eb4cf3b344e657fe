"""How commands write for people: rich, with our words as they are."""

from __future__ import annotations

from typing import NoReturn, TextIO

from rich.console import Console


class Terminal(Console):
    """A console without markup, so that no word from outside is taken for a style.

    Colour is left out by itself where there is no terminal, or NO_COLOR is set.
    """

    def __init__(self, out: TextIO) -> None:
        super().__init__(file=out, highlight=False, markup=False, emoji=False)

    def on_broken_pipe(self) -> NoReturn:
        """Leave it to the command line: rich would end with the exit code of a finding."""
        raise BrokenPipeError
