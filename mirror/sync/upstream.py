"""Upstream: one sparse index over HTTP, and the place where it keeps its crates.

Every method gives a whole answer within all limits, or raises an `UpstreamError`. Formats: the
cargo book, chapters "Registry Index" (config.json, `dl`) and "Sparse protocol".
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import httpx

from mirror.config import Config
from mirror.core.batch import Outcome
from mirror.core.index import IndexLimits, parse_index_file
from mirror.core.names import CrateId, CrateName, index_path
from mirror.core.plan import seconds_left
from mirror.errors import RejectedError, UpstreamAnswerError, UpstreamUnreachableError
from mirror.sync import answers, transport
from mirror.sync.contact import Contact
from mirror.sync.hops import Hops

logger = logging.getLogger(__name__)

# crates.io refuses user agents that do not say whose they are.
PROJECT_URL = "https://github.com/crateseal/crateseal"
REDIRECTS_MAX = 5
CONFIG_MAX_BYTES = 1_000_000
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
        clock: Callable[[], float],
    ) -> None:
        self.source = config.upstream
        self.contact = contact
        self._config = config
        self._client = client
        self._clock = clock
        self._index = httpx.URL(config.upstream.removeprefix("sparse+"))
        self._prefix = str(self._index)
        self._hops = Hops(self._index)
        self._dl = ""
        self._dl_since = 0.0
        self._dl_lock = asyncio.Lock()
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

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def fetch_index(
        self, name: CrateName, etag: str = "", last_modified: str = ""
    ) -> IndexAnswer:
        """Fetch one index file, conditionally where a validator is given."""
        subject = f"index file {name}"
        headers = list(self._ask_gzip)
        if etag:
            headers.append(("if-none-match", etag))
        if last_modified:
            headers.append(("if-modified-since", last_modified))
        async with self._get(self._prefix + index_path(name), headers, subject) as response:
            if response.status_code == 304 and (etag or last_modified):
                return UNCHANGED
            if response.status_code in answers.GONE_STATUSES:
                return GONE
            if response.status_code != 200:
                raise answers.refuse_status(response, subject)
            data = await answers.read_body(response, subject, self._config.index_max_bytes)
            answers.refuse_no_index(response, data, subject)
            return IndexAnswer(
                Outcome.BYTES,
                data,
                answers.validator(response, "etag"),
                answers.validator(response, "last-modified"),
            )

    async def fetch_crate(self, crate: CrateId, file: Path) -> int | None:
        """Write one crate to a new file; return its length, or None where upstream has none."""
        subject = f"crate {crate}"
        url = await self._crate_url(crate, subject)
        async with self._get(url, self._ask_identity, subject) as response:
            if response.status_code in answers.GONE_STATUSES:
                return None
            if response.status_code != 200:
                raise answers.refuse_status(response, subject)
            return await answers.save_body(response, subject, self._config.crate_max_bytes, file)

    async def fetch_page(self, url: str, max_bytes: int) -> Page:
        """Fetch something that is neither index file nor crate, from where our operator says."""
        async with self._get(url, self._ask_gzip, url, operators=True) as response:
            if response.status_code != 200:
                raise answers.refuse_status(response, url)
            data = await answers.read_body(response, url, max_bytes)
            return Page(data, answers.validator(response, "last-modified"))

    @asynccontextmanager
    async def _get(
        self, url: str, headers: list[tuple[str, str]], subject: str, *, operators: bool = False
    ) -> AsyncIterator[httpx.Response]:
        """Give the answer at the end of the redirects; its body is read inside the block.

        `operators`: the address is in our own settings, not upstream's word.
        """
        limit = self._config.total_timeout
        try:
            async with asyncio.timeout(limit):
                start = _url(url, subject)
                if not operators:
                    await self._hops.check(start, subject)
                response = await self._follow(start, headers, subject)
                try:
                    yield response
                finally:
                    await _close(response)
        except TimeoutError as error:
            raise UpstreamAnswerError(f"{subject}: not whole after {limit:g} s") from error
        except httpx.RequestError as error:
            raise UpstreamAnswerError(f"{subject}: {transport.describe(error)}") from error

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
                raise UpstreamAnswerError(f"{subject}: redirected to {location!r}") from error
            await self._hops.check_redirect(url, onward, subject)
            url = onward
        raise UpstreamAnswerError(f"{subject}: more than {REDIRECTS_MAX} redirects")

    async def _send(
        self, url: httpx.URL, headers: list[tuple[str, str]], subject: str, *, again: bool = True
    ) -> httpx.Response:
        answers_before = self.contact.answers
        with self.contact.attempt(subject):
            try:
                response = await self._client.handle_async_request(
                    httpx.Request("GET", url, headers=headers)
                )
            except httpx.RequestError as error:
                # An idle connection may be closed just as it is used: that says nothing.
                if not (again and transport.closed_without_answer(error)):
                    raise self._failure(error, subject, answers_before) from error
            else:
                self.contact.reached()
                return response
        return await self._send(url, headers, subject, again=False)

    def _failure(
        self, error: httpx.RequestError, subject: str, answers_before: int
    ) -> UpstreamUnreachableError | UpstreamAnswerError:
        reason = transport.describe(error)
        if transport.failed_to_connect(error):
            self.contact.lost(f"no connection to {self._index.host}: {reason}")
            return UpstreamUnreachableError(f"{subject}: no connection to upstream: {reason}")
        if not transport.timed_out(error):
            return UpstreamAnswerError(f"{subject}: no answer: {reason}")
        text = f"no answer within {self._config.stall_timeout:g} s"
        if self.contact.answers > answers_before:
            # Others were answered meanwhile, so it is about this one.
            return UpstreamAnswerError(f"{subject}: {text}")
        self.contact.lost(f"{self._index.host}: {text}")
        return UpstreamUnreachableError(f"{subject}: {text}")

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
            raise UpstreamAnswerError(f"{subject}: expected JSON with `dl`: {error!r}") from error
        if needs_login:
            raise UpstreamAnswerError(
                f"{subject}: it wants a login (auth-required), which Crateseal cannot give"
            )
        # Where it leads is looked at once it is filled in, for each crate.
        if not isinstance(dl, str) or not dl.startswith(("http://", "https://")):
            raise UpstreamAnswerError(f"{subject}: expected a URL as `dl`, got {str(dl)[:200]!r}")
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
