"""Upstream: one sparse index over HTTP, and the place where it keeps its crates.

Every method gives a whole answer within all limits, or raises an `UpstreamError`. Formats: the
cargo book, chapters "Registry Index" (config.json, `dl`) and "Sparse protocol".
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import httpx

from mirror.config import Config
from mirror.core.batch import Outcome
from mirror.core.index import IndexLimits, parse_index_file
from mirror.core.names import CrateId, CrateName, index_path
from mirror.core.plan import seconds_left
from mirror.errors import (
    RejectedError,
    UpstreamAnswerError,
    UpstreamBusyError,
    UpstreamUnreachableError,
)
from mirror.sync import answers, transport
from mirror.sync.contact import Contact
from mirror.sync.hops import ELSEWHERE, Hops
from mirror.sync.slots import HeardBody, Slots, Turn

logger = logging.getLogger(__name__)

# crates.io refuses user agents that do not say whose they are.
PROJECT_URL = "https://github.com/crateseal/crateseal"
REDIRECTS_MAX = 5
CONFIG_MAX_BYTES = 1_000_000
PROBE_SECONDS = 2.0
"""So long upstream has to show that it is there, after a request that it did not answer."""
NO_ANSWER, STALLED, TOO_SLOW = "without an answer", "stalled", "too slow"
SLOW = frozenset({NO_ANSWER, STALLED, TOO_SLOW})
"""What took all the time it was given."""
_BAD_CONFIG = "without an address in config.json"
_MARKERS = ("{crate}", "{version}", "{prefix}", "{lowerprefix}", "{sha256-checksum}")


@dataclass(frozen=True, slots=True)
class Page:
    """A body that is no index file."""

    data: bytes
    last_modified: str


@dataclass(frozen=True, slots=True)
class IndexAnswer:
    """What upstream says about one index file."""

    outcome: Outcome
    data: bytes = b""
    etag: str = ""
    last_modified: str = ""


GONE = IndexAnswer(Outcome.GONE)
UNCHANGED = IndexAnswer(Outcome.UNCHANGED)


class Upstream:
    """One upstream. It opens no connection before it is asked for something."""

    def __init__(
        self,
        config: Config,
        client: httpx.AsyncBaseTransport,
        contact: Contact,
        slots: Slots,
        clock: Callable[[], float],
    ) -> None:
        self.source = config.upstream
        self.contact = contact
        self._slots = slots
        self._config = config
        self._client = client
        self._clock = clock
        self._index = httpx.URL(config.upstream.removeprefix("sparse+"))
        self._prefix = str(self._index)
        self._hops = Hops(self._index)
        self._dl = ""
        self._dl_since = 0.0
        self._dl_lock = asyncio.Lock()
        self._probe_lock = asyncio.Lock()
        agent = user_agent(config.contact)
        common = [("user-agent", agent), ("accept", "*/*")]
        self._ask_gzip = [*common, ("accept-encoding", "gzip")]
        self._ask_identity = [*common, ("accept-encoding", "identity")]

    async def greet(self) -> None:
        """Ask for upstream's config.json: it is needed soon, and tells whether upstream is there.

        Raises:
            UpstreamError: it is not, or not well.
        """
        await self._current_dl()

    async def has_same_config(self) -> bool:
        """Ask for config.json; whether it says the same as last time, if there was one.

        Raises:
            UpstreamError: no usable answer.
        """
        return await self._fetch_dl() == self._dl or not self._dl

    @property
    def client(self) -> httpx.AsyncBaseTransport:
        """What sends requests; closed with this."""
        return self._client

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def fetch_index(
        self,
        name: CrateName,
        etag: str = "",
        last_modified: str = "",
        *,
        turn: Turn | None = None,
    ) -> IndexAnswer:
        """Fetch one index file, conditionally where a validator is given.

        `turn`: the caller has waited for one already.
        """
        subject = f"index file {name}"
        headers = list(self._ask_gzip)
        if etag:
            headers.append(("if-none-match", etag))
        if last_modified:
            headers.append(("if-modified-since", last_modified))
        url = self._prefix + index_path(name)
        async with self._get(url, headers, subject, turn=turn) as response:
            if response.status_code == 304 and (etag or last_modified):
                return UNCHANGED
            if response.status_code in answers.GONE_STATUSES:
                return GONE
            if response.status_code != 200:
                raise answers.refuse_status(response, subject, now=self._clock())
            data = await answers.read_body(response, subject, self._config.index_max_bytes)
            answers.refuse_no_index(response, data, subject)
            return IndexAnswer(
                Outcome.BYTES,
                data,
                answers.validator(response, "etag"),
                answers.validator(response, "last-modified"),
            )

    async def fetch_crate(
        self, crate: CrateId, file: Path, *, turn: Turn | None = None
    ) -> int | None:
        """Write one crate to a new file; return its length, or None where upstream has none."""
        subject = f"crate {crate}"
        url = await self._crate_url(crate, subject)
        async with self._get(url, self._ask_identity, subject, turn=turn) as response:
            if response.status_code in answers.GONE_STATUSES:
                return None
            if response.status_code != 200:
                raise answers.refuse_status(response, subject, now=self._clock())
            return await answers.save_body(response, subject, self._config.crate_max_bytes, file)

    async def fetch_page(self, url: str, max_bytes: int) -> Page:
        """Fetch something that is neither index file nor crate, from where our operator says."""
        async with self._get(url, self._ask_gzip, url, operators=True) as response:
            if response.status_code != 200:
                raise answers.refuse_status(response, url, now=self._clock())
            data = await answers.read_body(response, url, max_bytes)
            return Page(data, answers.validator(response, "last-modified"))

    @asynccontextmanager
    async def bulk_turn(self) -> AsyncIterator[Turn]:
        """Stand around one request that nobody waits for: it comes when upstream may be asked."""
        while True:
            await self.contact.wait_if_busy()
            async with self._slots.turn(bulk=True) as turn:
                if not self.contact.seconds_to_wait():
                    yield turn
                    return

    @asynccontextmanager
    async def _get(
        self,
        url: str,
        headers: list[tuple[str, str]],
        subject: str,
        *,
        operators: bool = False,
        turn: Turn | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """Give the answer at the end of the redirects; its body is read inside the block.

        `operators`: the address is in our own settings, not upstream's word.
        """
        limit = self._config.total_timeout
        async with nullcontext(turn) if turn else self._slots.turn(bulk=False) as own:
            try:
                async with asyncio.timeout(limit):
                    start = _url(url, subject)
                    if not operators:
                        await self._hops.check(start, subject)
                    response = await self._follow(start, headers, subject)
                    own.begun()
                    assert isinstance(response.stream, httpx.AsyncByteStream)
                    response.stream = HeardBody(response.stream, own)
                    try:
                        yield response
                    finally:
                        await _close(response)
            except TimeoutError as error:
                text = f"{subject}: not whole after {limit:g} s"
                raise UpstreamAnswerError(text, TOO_SLOW) from error
            except httpx.RequestError as error:
                short = STALLED if transport.timed_out(error) else "cut off"
                raise UpstreamAnswerError(
                    f"{subject}: {transport.describe(error)}", short
                ) from error
            except UpstreamBusyError as error:
                self.contact.asked_to_wait(error.retry_after)
                raise

    async def _follow(
        self, url: httpx.URL, headers: list[tuple[str, str]], subject: str
    ) -> httpx.Response:
        for _ in range(REDIRECTS_MAX + 1):
            response = await self._send(url, headers, subject)
            if response.status_code not in answers.REDIRECT_STATUSES:
                return response
            await _close(response)
            location = response.headers.get("location", "")
            try:
                onward = url.join(location)
            except (httpx.InvalidURL, ValueError) as error:
                text = f"{subject}: redirected to {location!r}"
                raise UpstreamAnswerError(text, ELSEWHERE) from error
            await self._hops.check_redirect(url, onward, subject)
            url = onward
        raise UpstreamAnswerError(f"{subject}: more than {REDIRECTS_MAX} redirects", ELSEWHERE)

    async def _send(
        self, url: httpx.URL, headers: list[tuple[str, str]], subject: str
    ) -> httpx.Response:
        if not self._is_upstream(url):
            return await self._send_elsewhere(url, headers, subject)
        answers_before = self.contact.answers
        with self.contact.attempt(subject):
            try:
                response = await self._ask(url, headers)
            except httpx.RequestError as error:
                raise await self._failure(error, subject, answers_before) from error
            self.contact.reached()
            return response

    async def _send_elsewhere(
        self, url: httpx.URL, headers: list[tuple[str, str]], subject: str
    ) -> httpx.Response:
        """Ask another host, where crates lie or a redirect leads: it tells nothing of upstream."""
        try:
            return await self._ask(url, headers)
        except httpx.RequestError as error:
            text = f"{subject}: {url.host}: {transport.describe(error)}"
            raise UpstreamAnswerError(text, NO_ANSWER) from error

    async def _ask(self, url: httpx.URL, headers: list[tuple[str, str]]) -> httpx.Response:
        try:
            return await self._client.handle_async_request(
                httpx.Request("GET", url, headers=headers)
            )
        except httpx.RequestError as error:
            if not transport.closed_without_answer(error):
                raise
        # An idle connection may be closed just as it is used: that says nothing.
        return await self._client.handle_async_request(httpx.Request("GET", url, headers=headers))

    async def _failure(
        self, error: httpx.RequestError, subject: str, answers_before: int
    ) -> UpstreamUnreachableError | UpstreamAnswerError:
        reason = transport.describe(error)
        if transport.failed_to_connect(error):
            self.contact.lost(f"no connection to {self._index.host}: {reason}")
            return UpstreamUnreachableError(
                f"{subject}: no connection to upstream: {reason}", NO_ANSWER
            )
        if not transport.timed_out(error):
            return UpstreamAnswerError(f"{subject}: no answer: {reason}", "cut off")
        if await self._is_there(answers_before):
            # Others are answered, so it is about this one.
            return UpstreamAnswerError(f"{subject}: {reason}", NO_ANSWER)
        self.contact.lost(f"{self._index.host}: {reason}")
        return UpstreamUnreachableError(f"{subject}: {reason}", NO_ANSWER)

    async def _is_there(self, answers_before: int) -> bool:
        """Whether upstream answered since; if it was not asked anything else, ask for a file."""
        async with self._probe_lock:
            if self.contact.answers > answers_before or self.contact.is_down:
                return self.contact.answers > answers_before
            url = httpx.URL(self._prefix + "config.json")
            try:
                async with asyncio.timeout(PROBE_SECONDS):
                    await _close(await self._ask(url, self._ask_gzip))
            except (TimeoutError, httpx.RequestError):
                return False
            self.contact.reached()
            return True

    def _is_upstream(self, url: httpx.URL) -> bool:
        here = self._index
        return (url.scheme, url.host, url.port) == (here.scheme, here.host, here.port)

    async def _crate_url(self, crate: CrateId, subject: str) -> str:
        dl = await self._current_dl()
        cksum = ""
        if "{sha256-checksum}" in dl:
            cksum = await self._cksum(crate, subject)
        return crate_url(dl, crate, cksum)

    async def _current_dl(self) -> str:
        async with self._dl_lock:
            now = self._clock()
            if not self._dl or not seconds_left(self._dl_since, self._config.max_age, now=now):
                self._dl = await self._fetch_dl()
                self._dl_since = self._clock()
            return self._dl

    async def _fetch_dl(self) -> str:
        subject = "upstream's config.json"
        page = await self.fetch_page(self._prefix + "config.json", CONFIG_MAX_BYTES)
        try:
            fields = json.loads(page.data)
            dl = fields["dl"]
            needs_login = fields.get("auth-required", False)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            text = f"{subject}: expected JSON with `dl`: {error!r}"
            raise UpstreamAnswerError(text, _BAD_CONFIG) from error
        if needs_login:
            raise UpstreamAnswerError(
                f"{subject}: it wants a login (auth-required), which Crateseal cannot give",
                "behind a login",
            )
        # Where it leads is looked at once it is filled in, for each crate.
        if not isinstance(dl, str) or not dl.startswith(("http://", "https://")):
            text = f"{subject}: expected a URL as `dl`, got {str(dl)[:200]!r}"
            raise UpstreamAnswerError(text, _BAD_CONFIG)
        return dl

    async def _cksum(self, crate: CrateId, subject: str) -> str:
        """Look up the checksum that some registries have in their download addresses."""
        answer = await self.fetch_index(crate.canonical_name)
        limits = IndexLimits(file_max_bytes=self._config.index_max_bytes)
        try:
            entries = parse_index_file(crate.canonical_name, answer.data, limits).by_version()
        except RejectedError as error:
            raise UpstreamAnswerError(
                f"{subject}: no address without its entry: {error}"
            ) from error
        if crate.version not in entries:
            raise UpstreamAnswerError(f"{subject}: no address: the index has no such version")
        return entries[crate.version].cksum


def crate_url(dl: str, crate: CrateId, cksum: str) -> str:
    """Fill in the markers of `dl`; without any, `/{crate}/{version}/download` is appended."""
    if not any(marker in dl for marker in _MARKERS):
        return f"{dl}/{crate.name}/{crate.version}/download"
    prefix = index_path(CrateName(crate.name)).rpartition("/")[0]
    values = (crate.name, crate.version, prefix, prefix.lower(), cksum)
    for marker, value in zip(_MARKERS, values, strict=True):
        dl = dl.replace(marker, value)
    return dl


def user_agent(contact: str | None) -> str:
    """Say who asks, and whom to complain to."""
    about = f"+{PROJECT_URL}" + (f"; {contact}" if contact else "")
    return f"crateseal/{version('crateseal')} ({about})"


def _url(text: str, subject: str) -> httpx.URL:
    try:
        return httpx.URL(text)
    except (httpx.InvalidURL, ValueError) as error:
        raise UpstreamAnswerError(f"{subject}: {error}: {text[:200]!r}") from error


async def _close(response: httpx.Response) -> None:
    if isinstance(response.stream, httpx.AsyncByteStream):
        await response.stream.aclose()
