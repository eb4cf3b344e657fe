"""What cargo and TUF clients ask for, as raw ASGI: a framework would cost four fifths of the speed.

The path is judged once, after percent-decoding, and only ever compared: with the paths that signed
metadata names, or with the patterns of mirror/core/layout.py. What fits neither is 404.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import NamedTuple

from mirror.core.layout import (
    CONFIG_JSON,
    config_json,
    crate_file,
    parse_crate_path,
    parse_index_path,
    target_path,
)
from mirror.core.names import CrateId, CrateName
from mirror.errors import PublicationError, RejectedError
from mirror.serve.answers import (
    NO_BODY,
    Answer,
    Message,
    Scope,
    Send,
    accepts_gzip,
    body_of,
    matches,
    start_of,
    text,
    try_later,
)
from mirror.serve.clients import Clients
from mirror.serve.files import SMALL_MAX_BYTES, Opened, Stored
from mirror.serve.hints import Advice
from mirror.serve.site import Site
from mirror.serve.want import OVER_BUDGET, Became, Outcome, Wants
from mirror.store.publication import Publication

LOG = logging.getLogger(__name__)

_TRY_LATER = {
    Became.PUBLISHED: "it was fetched, but is not published yet",
    Became.TOO_LONG: "it is still being fetched",
    Became.NOBODY_THERE: "this mirror does not hold it, and its fetching side is not running",
    Became.TOO_MANY: "this mirror is fetching too much at once",
    Became.CLOSING: "this server is going away",
}

Reply = Stored | Answer


class Asked(NamedTuple):
    """What of a request counts here; one is made for each, so a tuple, which costs least."""

    path: str
    gzip: bool
    """Whether it is welcome."""
    scope: Scope


Find = Callable[[Asked], Awaitable[Reply]]


class Hot:
    """`/index/`, `/crates/` and `/tuf/`."""

    def __init__(self, site: Site, wants: Wants, clients: Clients, public_url: str) -> None:
        self._site = site
        self._wants = wants
        self._clients = clients
        self._advice = Advice(public_url)
        self._config_json = _config_json(public_url)

    async def answer(self, scope: Scope, send: Send) -> bool:
        """Answer a request that is ours; return False, nothing sent, for any other."""
        path: str = scope["path"]
        if path.startswith("/index/"):
            find: Find = self._index
        elif path.startswith("/crates/"):
            find = self._crate
        elif path.startswith("/tuf/"):
            find = self._tuf
        else:
            return False
        method = scope["method"]
        if method not in {"GET", "HEAD"}:
            reply: Reply = text(405, f"{method} is not for this path", (b"allow", b"GET, HEAD"))
            condition = b""
        else:
            gzip, condition = _wishes(scope)
            reply = await self._found(find, Asked(path, gzip, scope))
        await self._send(reply, condition, method == "HEAD", send)
        return True

    async def _found(self, find: Find, asked: Asked) -> Reply:
        """Look something up; errors become answers here and nowhere else."""
        try:
            return await find(asked)
        except PublicationError as error:
            # The log says which file; that is nobody else's business.
            LOG.warning("%s", error)
            return try_later(f"this mirror cannot read what it published: no {error.expected}")
        except OSError as error:
            # Not "no such file" (files.py), so it says nothing about what is published.
            LOG.warning("%s", error)
            return try_later(f"this mirror cannot read its files: {error.strerror}")
        except Exception:
            LOG.exception("a mistake of ours at %s", asked.path)
            return text(500, "a mistake of this server; its log says more")

    # The index

    async def _index(self, asked: Asked) -> Reply:
        path = asked.path[1:]
        publication = self._site.current()
        stored = self._site.index_file(publication, path, gzip=asked.gzip)
        if stored is not None:
            self._wants.seen(CrateName(path[path.rindex("/") + 1 :]))
            return stored
        if path == CONFIG_JSON:
            return self._config_json
        try:
            name = parse_index_path(path.removeprefix("index/"))
        except RejectedError:
            return self._nothing_at(asked)
        return await self._missing_index_file(publication, name, asked)

    async def _missing_index_file(
        self, publication: Publication, name: CrateName, asked: Asked
    ) -> Reply:
        refusal = self._refusal(publication, name)
        if refusal is not None:
            return refusal
        if not self._site.may_come(publication):
            return text(404, self._site.why_absent(publication, name))
        outcome = await self._wants.index_file(name, self._clients.of(asked.scope))
        # An answer is a hint; what counts is what is published.
        publication = self._site.current()
        stored = self._site.index_file(publication, target_path(name), gzip=asked.gzip)
        if stored is not None:
            return stored
        return self._refusal(publication, name) or self._lacking(publication, name, outcome)

    def _refusal(self, publication: Publication, name: CrateName) -> Answer | None:
        """Return the answer about a crate of which nothing is published, where a note says why."""
        note = self._site.note(publication, name)
        if note is None:
            return None
        self._wants.seen(name)  # upstream may have mended it meanwhile
        return text(403, note.about_crate(name))

    # Crates

    async def _crate(self, asked: Asked) -> Reply:
        try:
            crate = _crate_at(asked.path)
        except RejectedError:
            return self._nothing_at(asked)
        publication = self._site.current()
        reply = self._known_crate(publication, crate)
        if reply is not None:
            return reply
        if publication.target(target_path(crate.canonical_name)) is None:
            refusal = self._refusal(publication, crate.canonical_name)
            if refusal is not None:
                return refusal
            if not self._site.may_come(publication):
                return text(404, self._site.why_absent(publication, crate.canonical_name))
        if not self._site.may_crate_come(publication):
            return text(404, self._site.why_absent(publication, crate))
        return await self._missing_crate(crate, asked)

    async def _missing_crate(self, crate: CrateId, asked: Asked) -> Reply:
        client = self._clients.of(asked.scope)
        if self._site.lacks_line(self._site.current(), crate):
            # A version may be made up: upstream is asked for none that its index does not name.
            outcome = await self._wants.index_file(crate.canonical_name, client)
            publication = self._site.current()
            reply = self._crate_now(publication, crate)
            if reply is not None:
                return reply
            if self._site.lacks_line(publication, crate):
                return self._lacking(publication, crate, _without_line(outcome))
        outcome = await self._wants.crate(crate, client)
        publication = self._site.current()
        reply = self._crate_now(publication, crate)
        if reply is not None:
            return reply
        path = target_path(crate.canonical_name)
        if publication.target(path) and self._site.line(publication, crate) is None:
            outcome = _without_line(outcome)
        return self._lacking(publication, crate, outcome)

    def _crate_now(self, publication: Publication, crate: CrateId) -> Reply | None:
        """Return what a publication after a want says of a crate; None: it does not lie here."""
        reply = self._known_crate(publication, crate)
        if reply is None and publication.target(target_path(crate.canonical_name)) is None:
            return self._refusal(publication, crate.canonical_name)
        return reply

    def _known_crate(self, publication: Publication, crate: CrateId) -> Reply | None:
        """Return the file or what is said in its place; None: it does not lie here."""
        note = self._site.note(publication, crate.canonical_name)
        if note is not None:
            refused = note.about_version(crate.name, crate.version)
            if refused is not None:
                return text(403, refused)
        line = self._site.line(publication, crate)
        if line is None:
            return None
        if line.crate != crate:
            better = self._advice.address(crate_file(line.crate))
            return text(404, f"no such crate file; did you mean {better}?")
        return self._site.crate(line)

    def _lacking(
        self, publication: Publication, what: CrateName | CrateId, outcome: Outcome
    ) -> Answer:
        match outcome.became:
            case Became.ABSENT:
                return text(404, self._site.why_absent(publication, what))
            case Became.REFUSED:
                return text(403, f"{what} is refused by this mirror: {outcome.reason}")
            case Became.OVER_BUDGET:
                return try_later(f"{what}: {OVER_BUDGET}", 429)
            case Became.FAILED:
                return try_later(f"{what}: {outcome.reason}")
            case other:
                return try_later(f"{what}: {_TRY_LATER[other]}")

    # TUF

    async def _tuf(self, asked: Asked) -> Reply:
        _, _, kind, *rest = asked.path.split("/", 3)
        stored = None
        if kind == "metadata" and rest:
            if asked.gzip:
                stored = await self._site.packed_metadata(rest[0])
            stored = stored or self._site.metadata(rest[0])
        elif kind == "targets" and rest:
            stored = self._site.target(rest[0], gzip=asked.gzip)
        return stored or self._nothing_at(asked)

    def _nothing_at(self, asked: Asked) -> Answer:
        return text(404, self._advice.on(asked.path))

    # Sending

    async def _send(self, reply: Reply, condition: bytes, head: bool, send: Send) -> None:
        if isinstance(reply, Answer):
            await _send_both(send, reply.start, NO_BODY if head else reply.body)
        elif condition and matches(condition, reply.tag):
            await _send_both(send, reply.unchanged, NO_BODY)
        elif head:
            await _send_both(send, reply.found, NO_BODY)
        elif reply.body is not None:
            await _send_both(send, reply.found, reply.body)
        else:
            await self._stream(reply, send)

    async def _stream(self, stored: Stored, send: Send) -> None:
        try:
            fd = self._site.files.open(stored.path)
        except OSError as error:
            LOG.warning("%s", error)
            fd = None
        if fd is None:  # removed since we looked, or no descriptor is left
            gone = try_later("this file cannot be read just now")
            await _send_both(send, gone.start, gone.body)
            return
        file, sent = Opened(fd), 0
        try:
            await send(stored.found)
            while left := stored.length - sent:
                # Not from memory perhaps: the others go on while the disk is read.
                data = await asyncio.to_thread(file.read, min(left, SMALL_MAX_BYTES), sent)
                if not data:
                    break  # cut short under our hands; the server ends the connection
                sent += len(data)
                await send(body_of(data, more=sent < stored.length))
        finally:
            file.close()


async def _send_both(send: Send, start: Message, body: Message) -> None:
    # Both in one turn of the loop: uvloop sends them in one write.
    await send(start)
    await send(body)


def _wishes(scope: Scope) -> tuple[bool, bytes]:
    """Return whether gzip is welcome, and the request's `If-None-Match`."""
    gzip, condition = False, b""
    for name, value in scope["headers"]:
        if name == b"accept-encoding":
            gzip = accepts_gzip(value)
        elif name == b"if-none-match":
            condition = value
    return gzip, condition


def _without_line(outcome: Outcome) -> Outcome:
    """Return what it means that an index file was looked at again and still lacks the version."""
    return Outcome(Became.ABSENT) if outcome.became is Became.PUBLISHED else outcome


@lru_cache(maxsize=10_000)
def _crate_at(path: str) -> CrateId:
    return parse_crate_path(path.removeprefix("/crates/"))


def _config_json(public_url: str) -> Answer:
    data = config_json(public_url)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(data)).encode()),
        (b"cache-control", b"public, max-age=5"),
    ]
    return Answer(start_of(200, headers), body_of(data))
