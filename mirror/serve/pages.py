"""The front page, rendered here, with nothing from elsewhere and no script.

What it shows comes from upstream and from people (a quarantine's reason may hold anything): the
template escapes all of it, and the policy lets the browser load and run nothing but our style.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mirror.core.expiry import Expiry, expiries
from mirror.core.layout import STATUS_JSON
from mirror.core.times import rfc3339
from mirror.errors import PublicationError
from mirror.serve.site import Site
from mirror.serve.status import status_of

SHOWN_MAX = 200
"""Crates of each kind on the page; the status has them all."""

_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


class Pages:
    """The pages for people."""

    def __init__(self, site: Site, public_url: str, clock: Callable[[], float]) -> None:
        self._site = site
        self._public_url = public_url
        self._clock = clock
        style = files("mirror.serve").joinpath("templates", "style.css").read_text()
        environment = Environment(
            loader=PackageLoader("mirror.serve"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._template = environment.get_template("front.html")
        self._style = Markup(style)  # noqa: S704 - a file of ours
        self._headers = _headers(style)

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter()
        router.add_api_route("/", self.front, methods=["GET", "HEAD"])
        router.add_api_route(f"/{STATUS_JSON}", self.heartbeat, methods=["GET", "HEAD"])
        return router

    async def front(self) -> HTMLResponse:
        """Say what this mirror is, how to use it, and how it is."""
        now = self._clock()
        status, trouble = self._status(now)
        page = self._template.render(
            style=self._style,
            url=self._public_url,
            status=status,
            trouble=trouble,
            withheld=_withheld(status),
            shown_max=SHOWN_MAX,
            expiries=_expiries(status, now),
            moment=lambda text: _moment(text, now),
            rfc3339=rfc3339,
            grouped=_grouped,
            shown_url=_shown_url,
        )
        return HTMLResponse(page, status_code=200 if status else 503, headers=self._headers)

    async def heartbeat(self) -> Response:
        """Pass the signer's `status.json` on, as a static server would."""
        data = self._site.files.read(STATUS_JSON)
        if data is None:
            return Response(b"no status yet\n", 404, media_type="text/plain")
        headers = {"Cache-Control": "no-store"}
        return Response(data, media_type="application/json", headers=headers)

    def _status(self, now: float) -> tuple[dict[str, Any], str | None]:
        try:
            status = status_of(self._site, self._public_url, now)
        except PublicationError as error:
            return {}, f"No publication can be read: expected {error.expected}."
        return status, status["not_ready"] or status["trouble"]


def _headers(style: str) -> dict[str, str]:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return {
        "Content-Security-Policy": (
            f"default-src 'none'; style-src 'sha256-{digest}'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        "Cache-Control": "no-cache",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


def _expiries(status: Mapping[str, Any], now: float) -> list[Expiry]:
    """Return how long each role will do, the first to expire first."""
    return expiries(status.get("expires", {}), status.get("renew_from", {}), now)


def _withheld(status: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Return what is withheld, by kind: each has a section of its own."""
    offered = status.get("quarantined", [])
    return {
        "quarantined": [item for item in offered if item["kind"] != "hold"],
        "held": [item for item in offered if item["kind"] == "hold"],
        "denied": status.get("denied", []),
    }


@dataclass(frozen=True, slots=True)
class _Moment:
    """A point in time, as people read it."""

    clock: str
    distance: str
    is_past: bool


def _moment(text: object, now: float) -> _Moment | None:
    try:
        at = datetime.fromisoformat(str(text)).astimezone(UTC)
    except ValueError:
        return None
    seconds = at.timestamp() - now
    return _Moment(f"{at:%Y-%m-%d %H:%M} UTC", _distance(seconds), seconds <= 0)


def _distance(seconds: float) -> str:
    for size, unit in _UNITS:
        count = int(abs(seconds) // size)
        if count:
            words = f"{count} {unit}{'s' if count > 1 else ''}"
            return f"in {words}" if seconds > 0 else f"{words} ago"
    return "now"


def _grouped(digest: object) -> list[str]:
    """Return a digest in groups of eight, as people compare them."""
    return [str(digest)[start : start + 8] for start in range(0, len(str(digest)), 8)]


def _shown_url(url: object) -> str:
    """Return an upstream as people name it: `index.crates.io`."""
    return str(url).removeprefix("sparse+").removeprefix("https://").rstrip("/")
