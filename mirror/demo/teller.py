"""How the story looks: headings, commands, what was proven, how long it took.

On a terminal in colour and with a spinner while something runs; elsewhere plain lines.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.text import Text

from mirror.terminal import Terminal

_WIDTH = 84


class Teller:
    """Prints the story to one stream."""

    def __init__(self, out: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = Terminal(out)
        self._clock = clock
        self._began = clock()
        self._last = self._began
        self.steps = 0
        fancy = not self._console.options.ascii_only
        self._yes, self._no, self._skip = ("✓", "✗", "○") if fancy else ("ok", "NO", "--")

    @property
    def seconds(self) -> float:
        """How long the story has taken so far."""
        return self._clock() - self._began

    def title(self, text: str, below: str) -> None:
        """Print the head of the story."""
        self._line(Text(text, style="bold"))
        self._line(Text(below, style="dim"))

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Tell one numbered step; what happens within is shown as going on."""
        self.steps += 1
        self._line(Text())
        self._line(Text(f"{self.steps}  ", style="bold cyan").append(title, "bold default"))
        self._last = self._clock()
        if self._console.is_terminal:
            with self._console.status(Text("working", style="dim")):
                yield
        else:
            yield

    def command(self, *words: str) -> None:
        """Show a command that is run for real."""
        self._line(Text("   $ ", style="dim").append(" ".join(words), "cyan"))

    def says(self, text: str) -> None:
        """Show what happens, or what a program said."""
        for line in text.splitlines():
            self._line(Text(f"   {line}", style="dim"))

    def proven(self, text: str) -> None:
        """Show what was just checked and holds, and the time since the last such line."""
        now = self._clock()
        spent = now - self._last
        self._last = now
        line = Text(f"   {self._yes} ", style="green").append(text, "default")
        line.pad_right(max(0, _WIDTH - len(line)))
        self._line(line.append(_in_words(spent), "dim"))

    def refused(self, text: str, parts: dict[str, str]) -> None:
        """Show what a client refused, and how it named it."""
        self._line(Text(f"   {self._no} ", style="bold red").append(text, "bold default"))
        for what, value in parts.items():
            self._line(Text(f"       {what:<9}", style="dim").append(shortened(value), "default"))

    def skipped(self, text: str) -> None:
        """Show what could not be done here, and is no failure."""
        self._line(Text(f"   {self._skip} skipped: ", style="yellow").append(text, "default"))

    def end(self, text: str, *, good: bool) -> None:
        """Print the last line."""
        self._line(Text())
        self._line(Text(text, style="bold green" if good else "bold red"))

    def _line(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)


def shortened(text: str) -> str:
    """Return the text with every digest in it cut."""
    return re.sub(r"([0-9a-f]{16})[0-9a-f]{48}", r"\1…", text)


def _in_words(seconds: float) -> str:
    return f"{seconds * 1000:4.0f} ms" if seconds < 1 else f"{seconds:4.1f} s"
