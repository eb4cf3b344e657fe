"""What somebody wants goes to `sync` by name; what comes back is a hint.

Each name is asked for once however many wait for it, whoever they are: the first one's budget pays.
Nobody waits longer than `max_hold`, and the number of questions at a time is limited, in all and
for each client. Whoever gets an answer looks at the publication again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple

from mirror.core.names import CrateId, CrateName
from mirror.errors import MalformedMessageError
from mirror.seam import WANT_MAX_NAMES, Want, WantAnswer, ask, parse_want_answer

LOG = logging.getLogger(__name__)

HINT_DELAY_SECONDS = 0.005
HINTS_MAX = 50_000
"""Names of which we remember when they were last told as seen."""
FRESH_SECONDS = 60.0
"""For so long a hint lasts on which `sync` has not said for how long."""
OVER_BUDGET = (
    "this mirror lacks it, and your address has asked for too many crates that it lacked within"
    " the last ten minutes; ask again later"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be asked at a time."""

    questions_max: int = 512
    """Questions open; each is a connection to `sync`."""
    client_questions_max: int = 128
    """Of these, one client's; what it wants beyond them stands in line, and holds up nobody."""
    line_max: int = 1_024
    """What one client may have open and in line: a cold build of that many crates passes."""


LIMITS = Limits()


class Became(Enum):
    """What became of a want."""

    PUBLISHED = auto()
    ABSENT = auto()
    REFUSED = auto()
    FAILED = auto()
    TOO_LONG = auto()
    NOBODY_THERE = auto()
    TOO_MANY = auto()
    CLOSING = auto()
    OVER_BUDGET = auto()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a want, with the reason where it was refused or failed."""

    became: Became
    reason: str = ""


class Hints:
    """Which held names were asked for: each told at most once in a while, later, all together.

    `monotonic` never goes back: a wall clock that is set back would silence a name for so long.
    """

    def __init__(
        self,
        monotonic: Callable[[], float],
        tell: Callable[[list[CrateName]], None],
        names_max: int = HINTS_MAX,
    ) -> None:
        self._monotonic = monotonic
        self._tell = tell
        self._names_max = names_max
        self._again_at: dict[str, float] = {}
        self._waiting: list[CrateName] = []

    def seen(self, name: CrateName) -> None:
        """Note that a held name was asked for. Called for each request: it must cost nothing."""
        now = self._monotonic()
        if self._again_at.get(name, now) > now:
            return
        if len(self._again_at) >= self._names_max:
            del self._again_at[next(iter(self._again_at))]
        self._again_at[name] = now + FRESH_SECONDS
        self._waiting.append(name)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_later(HINT_DELAY_SECONDS, self._pass_on)

    def lasts(self, names: Iterable[CrateName], seconds: float) -> None:
        """Note for how long, from now on, nobody need say again that these were asked for."""
        again_at = self._monotonic() + seconds
        self._again_at.update((name, again_at) for name in names if name in self._again_at)

    def _pass_on(self) -> None:
        names, self._waiting = self._waiting, []
        for start in range(0, len(names), WANT_MAX_NAMES):
            self._tell(names[start : start + WANT_MAX_NAMES])


class _Line:
    """One client's turns, and how many have one or wait for one."""

    def __init__(self, turns: int) -> None:
        self.turns = asyncio.Semaphore(turns)
        self.members = 0


class Lines:
    """Each client's turns to have a question open: first come, first served."""

    def __init__(self, turns: int, members_max: int) -> None:
        self._turns = turns
        self._members_max = members_max
        self._lines: dict[str, _Line] = {}

    async def enter(self, client: str) -> bool:
        """Return once it is this client's turn, to be ended by `leave`; False: too many wait."""
        if not client:  # no address: anybody, so it is nobody's share
            return True
        line = self._lines.setdefault(client, _Line(self._turns))
        if line.members >= self._members_max:
            return False
        line.members += 1
        try:
            await line.turns.acquire()
        except asyncio.CancelledError:
            self._forget(client, line)
            raise
        return True

    def leave(self, client: str) -> None:
        """End a turn."""
        if client:
            line = self._lines[client]
            line.turns.release()
            self._forget(client, line)

    def _forget(self, client: str, line: _Line) -> None:
        line.members -= 1
        if not line.members:
            del self._lines[client]


class _Question(NamedTuple):
    task: asyncio.Task[WantAnswer | Became]
    client: str
    """Whose budget pays for it."""


class Wants:
    """The way to `sync`, for one worker."""

    def __init__(
        self,
        socket: Path,
        max_hold: float,
        monotonic: Callable[[], float],
        limits: Limits = LIMITS,
    ) -> None:
        self._socket = socket
        self._max_hold = max_hold
        self._questions_max = limits.questions_max
        self._open: dict[Want, _Question] = {}
        self._lines = Lines(limits.client_questions_max, limits.line_max)
        self._background: set[asyncio.Task[None]] = set()
        self._closing = False
        self._hints = Hints(monotonic, self._tell_seen)

    def seen(self, name: CrateName) -> None:
        """Say that a held index file was asked for, some time soon; nobody waits for that."""
        self._hints.seen(name)

    async def index_file(self, name: CrateName, client: str) -> Outcome:
        """Ask for an index file that is lacking."""
        answer = await self._answer_to(Want(names=(name,), client=client))
        return _outcome(answer, name)

    async def crate(self, crate: CrateId, client: str) -> Outcome:
        """Ask for a crate file that is lacking, and its index file if that lacks too."""
        answer = await self._answer_to(Want(crates=(crate,), client=client))
        return _outcome(answer, str(crate), crate.canonical_name)

    async def index_files(self, names: tuple[CrateName, ...], client: str) -> WantAnswer | Became:
        """Ask for many index files in one publication."""
        return await self._answer_to(Want(names=names, client=client))

    def close(self) -> None:
        """Answer everybody who still waits; from now on nobody does."""
        self._closing = True
        for task in (*(question.task for question in self._open.values()), *self._background):
            task.cancel()

    async def _answer_to(self, want: Want) -> WantAnswer | Became:
        """Join whoever asks the same, else ask."""
        try:
            async with asyncio.timeout(self._max_hold):
                question, answer = await self._joined(replace(want, client=""), want)
                if question and question.client != want.client and _is_over_budget(answer):
                    # Another client's budget is spent, which is no reason against this one.
                    _, answer = await self._joined(want, want)
        except TimeoutError:
            return Became.TOO_LONG
        return answer

    async def _joined(self, key: Want, want: Want) -> tuple[_Question | None, WantAnswer | Became]:
        question = self._open.get(key) or await self._begun(key, want)
        if isinstance(question, Became):
            return None, question
        task = question.task
        await asyncio.wait((task,))  # unlike `await task`: who leaves does not end it
        return question, Became.CLOSING if task.cancelled() else task.result()

    async def _begun(self, key: Want, want: Want) -> _Question | Became:
        """Ask, in this client's turn, what nobody asks yet.

        Whoever waits for a turn has no question that others could join: they would wait with it.
        """
        if not await self._lines.enter(want.client):
            return Became.TOO_MANY
        found: _Question | Became | None = self._open.get(key)  # asked meanwhile?
        if self._closing:
            found = Became.CLOSING
        elif found is None and len(self._open) >= self._questions_max:
            found = Became.TOO_MANY
        if found is not None:
            self._lines.leave(want.client)
            return found
        question = _Question(asyncio.create_task(self._ask(want)), want.client)
        self._open[key] = question
        question.task.add_done_callback(lambda _: self._ended(key, want.client))
        return question

    def _ended(self, key: Want, client: str) -> None:
        self._open.pop(key, None)
        self._lines.leave(client)

    async def _ask(self, want: Want) -> WantAnswer | Became:
        try:
            async with asyncio.timeout(self._max_hold):
                return parse_want_answer(await ask(self._socket, want))
        except TimeoutError:
            return Became.TOO_LONG
        except (OSError, ValueError, TypeError, MalformedMessageError) as error:
            LOG.debug("sync did not answer: %s", error)
            return Became.NOBODY_THERE

    def _tell_seen(self, names: list[CrateName]) -> None:
        if not self._closing:
            telling = asyncio.create_task(self._hint(Want(seen=tuple(names))))
            self._background.add(telling)
            telling.add_done_callback(self._background.discard)

    async def _hint(self, want: Want) -> None:
        answer = await self._ask(want)
        if isinstance(answer, WantAnswer) and answer.fresh_seconds > 0:
            self._hints.lasts(want.seen, answer.fresh_seconds)


def _is_over_budget(answer: WantAnswer | Became) -> bool:
    return isinstance(answer, WantAnswer) and bool(answer.over_budget)


def _outcome(answer: WantAnswer | Became, *keys: str) -> Outcome:
    if isinstance(answer, Became):
        return Outcome(answer)
    for key in keys:
        if key in answer.over_budget:
            return Outcome(Became.OVER_BUDGET)
        if key in answer.refused:
            return Outcome(Became.REFUSED, answer.refused[key])
        if key in answer.failed:
            return Outcome(Became.FAILED, answer.failed[key])
        if key in answer.absent:
            return Outcome(Became.ABSENT)
    return Outcome(Became.PUBLISHED)
