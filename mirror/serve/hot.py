"""What cargo and TUF clients ask for, as raw ASGI: a framework would cost four fifths of the speed.

The path is judged once, after percent-decoding, and only ever compared: with the paths that signed
metadata names, or with the patterns of mirror/core/layout.py. What fits neither is 404.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import lru_cache

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
from mirror.serve.files import SMALL_MAX_BYTES, Opened, Stored
from mirror.serve.hints import did_you_mean
from mirror.serve.site import Site, may_come
from mirror.serve.want import Became, Outcome, Wants
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
Find = Callable[[str, bool], Awaitable[Reply]]


class Hot:
    """`/index/`, `/crates/` and `/tuf/`."""

    def __init__(self, site: Site, wants: Wants, public_url: str) -> None:
        self._site = site
        self._wants = wants
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
            reply = await self._found(find, path, gzip)
        await self._send(reply, condition, method == "HEAD", send)
        return True

    async def _found(self, find: Find, path: str, gzip: bool) -> Reply:
        """Look something up; errors become answers here and nowhere else."""
        try:
            return await find(path, gzip)
        except PublicationError as error:
            # The log says which file; that is nobody else's business.
            LOG.warning("%s", error)
            return try_later(f"this mirror cannot read what it published: no {error.expected}")
        except OSError as error:
            # Not "no such file" (files.py), so it says nothing about what is published.
            LOG.warning("%s", error)
            return try_later(f"this mirror cannot read its files: {error.strerror}")
        except Exception:
            LOG.exception("a mistake of ours at %s", path)
            return text(500, "a mistake of this server; its log says more")

    # The index

    async def _index(self, path: str, gzip: bool) -> Reply:
        publication = self._site.current()
        stored = self._site.index_file(publication, path[1:], gzip=gzip)
        if stored is not None:
            self._wants.seen(CrateName(path[path.rindex("/") + 1 :]))
            return stored
        if path[1:] == CONFIG_JSON:
            return self._config_json
        try:
            name = parse_index_path(path.removeprefix("/index/"))
        except RejectedError:
            return text(404, did_you_mean(path))
        return await self._missing_index_file(publication, name, gzip)

    async def _missing_index_file(
        self, publication: Publication, name: CrateName, gzip: bool
    ) -> Reply:
        refusal = self._refusal(publication, name)
        if refusal is not None:
            return refusal
        if not may_come(publication):
            return _absent(name, publication)
        outcome = await self._wants.index_file(name)
        # An answer is a hint; what counts is what is published.
        publication = self._site.current()
        stored = self._site.index_file(publication, target_path(name), gzip=gzip)
        if stored is not None:
            return stored
        return self._refusal(publication, name) or _lacking(name, outcome)

    def _refusal(self, publication: Publication, name: CrateName) -> Answer | None:
        note = self._site.note(publication, name)
        if note is None:
            return None
        self._wants.seen(name)  # upstream may have mended it meanwhile
        return text(403, note)

    # Crates

    async def _crate(self, path: str, _gzip: bool) -> Reply:
        try:
            crate = _crate_at(path)
        except RejectedError:
            return text(404, did_you_mean(path))
        publication = self._site.current()
        reply = self._held_crate(publication, crate)
        if reply is not None:
            return reply
        if publication.target(target_path(crate.canonical_name)) is None:
            refusal = self._refusal(publication, crate.canonical_name)
            if refusal is not None:
                return refusal
            if not may_come(publication):
                return _absent(crate.canonical_name, publication)
        return await self._missing_crate(crate)

    async def _missing_crate(self, crate: CrateId) -> Reply:
        outcome = await self._wants.crate(crate)
        publication = self._site.current()
        reply = self._held_crate(publication, crate)
        if reply is not None:
            return reply
        if publication.target(target_path(crate.canonical_name)) is None:
            refusal = self._refusal(publication, crate.canonical_name)
            if refusal is not None:
                return refusal
        elif self._site.line(publication, crate) is None and outcome.became is Became.PUBLISHED:
            outcome = Outcome(Became.ABSENT)  # looked at again, and still not in the index file
        return _lacking(crate, outcome)

    def _held_crate(self, publication: Publication, crate: CrateId) -> Reply | None:
        line = self._site.line(publication, crate)
        if line is None:
            return None
        if line.crate != crate:
            return text(404, f"no such crate file; did you mean /{crate_file(line.crate)}?")
        return self._site.crate(line)

    # TUF

    async def _tuf(self, path: str, gzip: bool) -> Reply:
        _, _, kind, *rest = path.split("/", 3)
        stored = None
        if kind == "metadata" and rest:
            stored = self._site.metadata(rest[0])
        elif kind == "targets" and rest:
            stored = self._site.target(rest[0], gzip=gzip)
        return stored or text(404, did_you_mean(path))

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


def _lacking(what: CrateName | CrateId, outcome: Outcome) -> Answer:
    match outcome.became:
        case Became.ABSENT:
            return text(404, f"{what}: upstream has no such crate, or it is not mirrored here")
        case Became.REFUSED:
            return text(403, f"{what} is refused by this mirror: {outcome.reason}")
        case Became.FAILED:
            return try_later(f"{what}: {outcome.reason}")
        case other:
            return try_later(f"{what}: {_TRY_LATER[other]}")


def _absent(name: CrateName, publication: Publication) -> Answer:
    as_of = publication.state.get("complete_as_of")
    return text(404, f"{name} is not in the index that this mirror follows, complete as of {as_of}")


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
