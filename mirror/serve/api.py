"""The JSON side: status, what is known of a crate, and wants of many names at once.

Errors have crates.io's form, `{"errors":[{"detail":"…"}]}`, which cargo shows to people.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse, PlainTextResponse

from mirror.core.index import IndexFile
from mirror.core.layout import target_path
from mirror.core.names import CrateName, parse_name
from mirror.errors import PublicationError, RejectedError
from mirror.seam import WANT_MAX_NAMES, WantAnswer
from mirror.serve.answers import RETRY_AFTER_SECONDS, plain
from mirror.serve.clients import Clients
from mirror.serve.notes import Entry, Note
from mirror.serve.site import Site
from mirror.serve.status import findings_on, readiness, status_of
from mirror.serve.want import OVER_BUDGET, Became, Wants

BODY_MAX_BYTES = 256_000
"""2,000 names of 64 letters, in quotes and with room between them."""

_RETRY = {"Retry-After": str(RETRY_AFTER_SECONDS)}
_NO_STORE = {"Cache-Control": "no-store"}


def error(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return an error in the form that cargo reads."""
    fields = {"errors": [{"detail": plain(detail)}]}
    return JSONResponse(fields, status_code=status, headers={**_NO_STORE, **(headers or {})})


class Api:
    """The handlers, on what they need."""

    def __init__(
        self,
        site: Site,
        wants: Wants,
        clients: Clients,
        public_url: str,
        clock: Callable[[], float],
    ) -> None:
        self._site = site
        self._wants = wants
        self._clients = clients
        self._public_url = public_url
        self._clock = clock

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter()
        router.add_api_route("/healthz", self.healthz, methods=["GET", "HEAD"])
        router.add_api_route("/readyz", self.readyz, methods=["GET", "HEAD"])
        router.add_api_route("/api/v1/status", self.status, methods=["GET", "HEAD"])
        router.add_api_route("/api/v1/crates/{name}", self.crate, methods=["GET", "HEAD"])
        router.add_api_route("/api/v1/want", self.want, methods=["POST"])
        return router

    async def healthz(self) -> PlainTextResponse:
        """Say that this process answers."""
        return PlainTextResponse("ok\n", headers=_NO_STORE)

    async def readyz(self) -> PlainTextResponse:
        """Say whether clients get fresh metadata here."""
        reason = readiness(self._site, self._clock())
        if reason is None:
            return PlainTextResponse("ready\n", headers=_NO_STORE)
        return PlainTextResponse(f"{reason}\n", status_code=503, headers={**_NO_STORE, **_RETRY})

    async def status(self) -> JSONResponse:
        """Say how this mirror is."""
        fields = status_of(self._site, self._public_url, self._clock())
        return JSONResponse(fields, headers=_NO_STORE)

    async def crate(self, name: str) -> JSONResponse:
        """Say which versions of a crate are published here, and which crate files lie here."""
        canonical = _parsed(name)
        publication = self._site.current()
        note = self._site.note(publication, canonical)
        published = self._site.published_file(publication, canonical)
        if published is None:
            if note is not None:
                return error(403, note.about_crate(canonical))
            if not self._site.may_come(publication):
                return error(404, self._site.why_absent(publication, canonical))
            if self._site.is_list(publication):
                return error(404, self._site.why_absent(publication, canonical))
            later = "a request for its index file fetches it"
            return error(404, f"crate {canonical} is not published here; {later}")
        # The largest index files take milliseconds to parse: not on the loop. Look-ups stay here.
        file = await asyncio.to_thread(self._site.parsed, published, canonical)
        found = await asyncio.to_thread(findings_on, self._site, canonical)
        fields = {
            "name": file.entries[-1].crate.name,
            "timestamp": publication.timestamp_version,
            "withheld": _withheld(note, found),
            "versions": self._versions(file, note),
        }
        return JSONResponse(fields, headers=_NO_STORE)

    def _versions(self, file: IndexFile, note: Note | None) -> list[dict[str, Any]]:
        return [
            {
                "version": entry.crate.version,
                "yanked": entry.yanked,
                "cksum": entry.cksum,
                "held": self._site.holds_crate(entry.crate),
                "withheld": note.about_version(entry.crate.name, entry.crate.version)
                if note
                else None,
            }
            for entry in file.by_version().values()
        ]

    async def want(self, request: Request) -> JSONResponse:
        """Fetch these index files in one publication; a hint, no more."""
        names = _wanted(await _limited_body(request))
        fields: dict[str, Any] = {"timestamp": 0, "absent": [], "refused": {}}
        fields |= {"pending": [], "over_budget": []}
        lacking = self._sort(names, fields)
        if lacking:
            answer = await self._wants.index_files(lacking, self._clients.of(request.scope))
            if answer is Became.NOBODY_THERE:
                return error(503, "the fetching side of this mirror is not running", _RETRY)
            still_lacking = self._sort(names, fields)
            _judge(still_lacking, answer, fields)
            if lacking == still_lacking == tuple(fields["over_budget"]):
                return error(429, OVER_BUDGET, _RETRY)
        return JSONResponse(fields, headers=_NO_STORE)

    def _sort(self, names: tuple[CrateName, ...], fields: dict[str, Any]) -> tuple[CrateName, ...]:
        """Put down what the publication says of these names; return those it says nothing of."""
        publication = self._site.current()
        fields.update(timestamp=publication.timestamp_version, absent=[], refused={})
        lacking = []
        for name in names:
            if publication.target(target_path(name)) is not None:
                self._wants.seen(name)
            elif (note := self._site.note(publication, name)) is not None:
                self._wants.seen(name)
                fields["refused"][name] = plain(note.about_crate(name))
            elif self._site.may_come(publication):
                lacking.append(name)
            else:
                fields["absent"].append(name)
        return tuple(lacking)


def _withheld(note: Note | None, found: list[Entry]) -> list[dict[str, Any]]:
    """Return the note's entries, and findings that left the last good version published."""
    noted = note.entries if note else ()
    said = {(entry.kind, entry.rule) for entry in noted}
    entries = (*noted, *(entry for entry in found if (entry.kind, entry.rule) not in said))
    return [entry.as_fields() for entry in entries]


def _judge(
    lacking: tuple[CrateName, ...], answer: WantAnswer | Became, fields: dict[str, Any]
) -> None:
    """Put down what became of the names that are lacking still.

    Who is over budget is told to ask again later, like who came too early, and told why.
    """
    for name in lacking:
        if isinstance(answer, WantAnswer) and name in answer.refused:
            fields["refused"][name] = plain(answer.refused[name])
        elif isinstance(answer, WantAnswer) and name in answer.absent:
            fields["absent"].append(name)
        else:
            fields["pending"].append(name)
            if isinstance(answer, WantAnswer) and name in answer.over_budget:
                fields["over_budget"].append(name)


async def _limited_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_MAX_BYTES:
            # Closed, so that nobody has to read the rest.
            raise HTTPException(413, f"at most {BODY_MAX_BYTES} bytes", {"Connection": "close"})
    return bytes(body)


def _wanted(body: bytes) -> tuple[CrateName, ...]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as broken:
        raise HTTPException(400, f"the body is no JSON: {broken}") from broken
    names = fields.get("names") if isinstance(fields, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise HTTPException(400, 'expected {"names": [NAME, …]}')
    if len(names) > WANT_MAX_NAMES:
        raise HTTPException(400, f"expected at most {WANT_MAX_NAMES} names, got {len(names)}")
    return tuple(dict.fromkeys(_parsed(name) for name in names))


def _parsed(name: str) -> CrateName:
    try:
        return parse_name(name)
    except RejectedError as refused:
        raise HTTPException(400, str(refused)) from refused


async def on_http_error(_request: Request, raised: Exception) -> JSONResponse:
    """Give what a handler refused crates.io's form."""
    assert isinstance(raised, HTTPException)
    return error(raised.status_code, str(raised.detail), dict(raised.headers or {}))


async def on_publication_error(_request: Request, raised: Exception) -> JSONResponse:
    """Say that there is nothing to look things up in; the log says more than strangers need."""
    assert isinstance(raised, PublicationError)
    return error(503, f"no publication can be read: expected {raised.expected}", _RETRY)
