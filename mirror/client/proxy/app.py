"""The loopback registry for an unmodified cargo, as a plain ASGI application.

Rule: what is answered with 200 or 304 has verified, each time; all else says why not. Requests of
cargo are never passed on: the source makes its own, so no header of cargo's leaves this machine.

A path is never decoded and never corrected: it is the one path of what it names, or 404.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from mirror.client.fetch.fetcher import one_line
from mirror.client.proxy.answers import (
    Answer,
    crate_file,
    index_file,
    matches,
    refusal,
    tag_of,
    text,
    try_later,
    unchanged,
)
from mirror.client.proxy.work import Ahead, Looks, Work
from mirror.core.layout import CRATES_DIR, INDEX, config_json, parse_crate_path, parse_index_path
from mirror.core.names import CrateId, CrateName
from mirror.errors import CratesealError, ProofError, RejectedError

if TYPE_CHECKING:
    from mirror.client.home.settings import ClientSettings
    from mirror.client.source.source import Source, Verified
    from mirror.client.source.standing import Standing

LOG = logging.getLogger("crateseal.proxy")

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
T = TypeVar("T")

_PIECE_BYTES = 65_536
_STUCK_SECONDS = 60.0
"""A client that takes no byte for so long is given up: what it asked for would stay in memory."""
_LOGGED_MAX = 10_000
_CRATES_AT_ONCE = 16
"""So many crates are in memory at a time, as far as nobody has to wait `_ROOM_SECONDS` for it."""
_ROOM_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where this proxy answers."""

    port: int
    root_id: str
    """Of the trust it stands for, so that cargo's caches of two trusts never mix."""

    @property
    def host(self) -> str:
        """The one `Host` that is ours."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """What index and crates hang on; no slash at its end."""
        return f"http://{self.host}/{self.root_id}"


class Proxy:
    """The application. One for each process; it lives in one event loop."""

    def __init__(
        self,
        source: Source,
        settings: ClientSettings,
        place: Place,
        work: Work,
        clock: Callable[[], float],
    ) -> None:
        self._source = source
        self._settings = settings
        self._place = place
        self._work = work
        self._logged: set[str] = set()
        self._room = asyncio.Semaphore(_CRATES_AT_ONCE)
        self._clock = clock
        self._looks = Looks(source, settings.refresh_every, self._warn)
        self._ahead = Ahead(source, work)
        self._config_json = Answer(
            200,
            config_json(place.url),
            ((b"content-type", b"application/json"), (b"cache-control", b"no-cache")),
        )

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer one request; a body that it may have is not read."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        if scope["type"] != "http":
            return
        async with AsyncExitStack() as held:
            answer = self._guard(scope) or await self._answer(scope, held)
            await _send(answer, send, head=scope["method"] == "HEAD")

    def start(self) -> None:
        """Look at the mirrors before anybody asks; what fails is told to who asks."""
        self._work.start(self._looks.look)

    # Who may ask

    def _guard(self, scope: Scope) -> Answer | None:
        """Return what a request is told that is not for us; None: it is.

        1. A request for another server comes from a cargo that goes past the mirror: `--strict`
           makes this proxy its HTTP proxy, so that such a request ends here.
        2. `Host` is ours, so that no web page reaches us under a name of its own.
        3. Browsers say where a request comes from; cargo does not.
        4. Nothing here can be changed by anybody.
        """
        headers = scope["headers"]
        target = scope["raw_path"].decode("latin-1")
        # 1.
        if not target.startswith(("/", "*")):
            return self._past_the_mirror(target)
        # 2.
        hosts = [value for name, value in headers if name.lower() == b"host"]
        if hosts != [self._place.host.encode()]:
            return text(403, f"crateseal: this is {self._place.host}, and answers to no other name")
        # 3.
        for name, _ in headers:
            if name.lower() in {b"origin", b"sec-fetch-site"}:
                return text(403, "crateseal: this is for cargo, not for browsers")
        # 4.
        if scope["method"] not in {"GET", "HEAD"}:
            return text(405, "crateseal: GET and HEAD only", extra=((b"allow", b"GET, HEAD"),))
        return None

    def _past_the_mirror(self, target: str) -> Answer:
        shown = one_line(target)[:200]
        self._log(logging.WARNING, f"403 cargo tried to fetch {shown} past the mirror")
        self._source.tally.refused(shown, bypass(shown))
        return text(
            403,
            f"crateseal: cargo tried to fetch {shown} past the mirror",
            "refused because of --strict: it would not have been verified",
        )

    def _log(self, level: int, line: str) -> None:
        # Once: any user of this machine can ask for the same a million times.
        if line not in self._logged and len(self._logged) < _LOGGED_MAX:
            self._logged.add(line)
            LOG.log(level, "%s", line)

    def _warn(self, standing: Standing) -> None:
        for line in standing.warnings(self._clock()):
            self._log(logging.WARNING, line)

    # What is asked for

    async def _answer(self, scope: Scope, held: AsyncExitStack) -> Answer:
        """Look something up; errors become answers here and nowhere else."""
        try:
            return await self._found(scope, held)
        except CratesealError as error:
            answer = refusal(error, strict_absence=self._settings.strict_absence)
            level = logging.WARNING if answer.status == 403 else logging.INFO
            self._log(level, f"{answer.status} {answer.line}")
            return answer
        except TimeoutError:
            seconds = f"{self._settings.max_wait:.0f} s"
            return try_later(f"crateseal: not fetched and verified within {seconds}; it goes on")
        except OSError as error:
            LOG.warning("%s", error)
            return text(500, f"crateseal: this machine: {error.strerror or error}")
        except Exception:
            LOG.exception("a mistake of ours at %r", scope["raw_path"])
            return text(500, "crateseal: a mistake of ours; the proxy's log says more")

    async def _found(self, scope: Scope, held: AsyncExitStack) -> Answer:
        path = scope["raw_path"].decode("latin-1")
        start = f"/{self._place.root_id}/"
        if not path.startswith(start) or scope["query_string"]:
            return self._nothing_there()
        kind, _, rest = path[len(start) :].partition("/")
        if kind == INDEX and rest == "config.json":
            return self._config_json
        try:
            asked = _PARSERS[kind](rest)
        except (KeyError, RejectedError):
            return self._nothing_there()
        if isinstance(asked, CrateId):
            await self._take_room(held)
            return crate_file(await self._in_time(self._verified_crate, asked))
        return await self._index_file(asked, _condition(scope))

    async def _take_room(self, held: AsyncExitStack) -> None:
        """Wait for others to have sent their crates, for the sake of memory; not for long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_ROOM_SECONDS):
                await self._room.acquire()
                held.callback(self._room.release)

    def _nothing_there(self) -> Answer:
        return text(
            404, f"crateseal: nothing there; the index is at sparse+{self._place.url}/index/"
        )

    async def _index_file(self, name: CrateName, condition: bytes) -> Answer:
        if condition:
            sha256 = await self._in_time(self._signed_digest, name)
            if matches(condition, tag_of(sha256)):
                return unchanged(sha256)
        found = await self._in_time(self._verified_index_file, name)
        # Whoever has read an index file asks for those of its dependencies next.
        self._ahead.follow(name)
        return index_file(found.sha256, found.data)

    async def _in_time(self, function: Callable[..., T], what: object) -> T:
        return await self._work.in_time(self._settings.max_wait, function, what)

    # In threads

    def _signed_digest(self, name: CrateName) -> str:
        self._looks.look()
        return self._source.digest(name)

    def _verified_index_file(self, name: CrateName) -> Verified:
        self._looks.look()
        return self._source.index_file(name)

    def _verified_crate(self, crate: CrateId) -> bytes:
        self._looks.look()
        return self._source.crate(crate)


def bypass(target: str) -> ProofError:
    """Return the finding that cargo went past the mirror."""
    return ProofError(
        target,
        "cargo's own request",
        "nothing fetched past the mirror",
        "a request to another server",
        "see which source the project's configuration names; --strict refuses it",
    )


_PARSERS: dict[str, Callable[[str], CrateName | CrateId]] = {
    INDEX: parse_index_path,
    CRATES_DIR: parse_crate_path,
}


def _condition(scope: Scope) -> bytes:
    """Return a request's `If-None-Match`, empty where it has none."""
    return next((value for name, value in scope["headers"] if name == b"if-none-match"), b"")


async def _send(answer: Answer, send: Send, *, head: bool) -> None:
    start = {"status": answer.status, "headers": answer.all_headers()}
    await send({"type": "http.response.start", **start})
    body = b"" if head else answer.body
    try:
        # In pieces: the server keeps a copy of what it was given and could not send yet.
        for at in range(0, max(1, len(body)), _PIECE_BYTES):
            async with asyncio.timeout(_STUCK_SECONDS):
                end = at + _PIECE_BYTES
                await send(_piece(body[at:end], more=end < len(body)))
    except TimeoutError:
        LOG.info("a client took no byte for %.0f s, and is given up", _STUCK_SECONDS)


def _piece(data: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}
