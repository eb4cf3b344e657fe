"""The server: one ASGI application on one worker of uvicorn, from start to drain.

It reads `www/`, connects to `run/sync.sock`, and opens nothing else of the data folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any

import uvicorn
import uvloop
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import PlainTextResponse, Response
from starlette.exceptions import HTTPException as RoutingError

from mirror.config import Config
from mirror.errors import PublicationError
from mirror.seam import SYNC_SOCKET
from mirror.serve.answers import Message, Receive, Scope, Send
from mirror.serve.api import Api, error, on_http_error, on_publication_error
from mirror.serve.clients import Clients
from mirror.serve.files import Files
from mirror.serve.hints import Advice
from mirror.serve.hot import Hot
from mirror.serve.pages import Pages
from mirror.serve.protocol import Protocol
from mirror.serve.site import Site
from mirror.serve.want import Wants
from mirror.store.publication import Publications

LOG = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 125
"""cargo's curl reuses a connection for 118 s at most: so it is never we who hang up on it."""
DESCRIPTORS_MAX = 65_536
LINGER_SECONDS = 0.3
"""On the way out: for requests that are already on the wire, on connections that look idle."""
GRACEFUL_SECONDS = 5
"""On the way out: for answers that are being sent."""


class App:
    """The hot path in front of everything else."""

    def __init__(self, hot: Hot, web: FastAPI, wants: Wants) -> None:
        self._hot = hot
        self._web = web
        self._wants = wants
        self._draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self._draining:
            send = _last_on_its_connection(send)
        if not await self._hot.answer(scope, send):
            await self._web(scope, receive, send)

    def drain(self) -> None:
        """Answer those who wait for a fetch, and make every answer the last of its connection."""
        self._draining = True
        self._wants.close()


def build_app(
    config: Config, clock: Callable[[], float], monotonic: Callable[[], float] = time.monotonic
) -> App:
    """Put the parts together. `clock` is for what is signed, `monotonic` for how long ago."""
    site = Site(config.www, Publications(config.www), Files(config.www), offline=config.offline)
    clients, advice = Clients(config.trusted_proxies), Advice(config.url)
    wants = Wants(config.run / SYNC_SOCKET, config.max_hold, monotonic)
    web = FastAPI(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        exception_handlers={
            RoutingError: _routing_errors(advice),
            HTTPException: on_http_error,
            PublicationError: on_publication_error,
            Exception: _on_mistake,
        },
    )
    web.include_router(Api(site, wants, clients, config.url, clock).router())
    web.include_router(Pages(site, config.url, clock).router())
    return App(Hot(site, wants, clients, config.url), web, wants)


def run_server(
    config: Config, clock: Callable[[], float], sock: socket.socket, stop: threading.Event
) -> None:
    """Serve on a listening socket until told to stop, then drain."""
    if config.port == 0:
        config = replace(config, port=sock.getsockname()[1])
    _allow_many_connections()
    _say_if_nothing_is_there(config)
    app = build_app(config, clock)
    uvloop.run(_Server(app, stop).serve(sockets=[sock]))


def _say_if_nothing_is_there(config: Config) -> None:
    try:
        Publications(config.www).current()
    except PublicationError as error:
        LOG.warning(
            "%s; every answer is 503 until there is a mirror in %s: `crateseal up` makes one,"
            " --data names another folder",
            error,
            config.data,
        )


def _allow_many_connections() -> None:
    """Take all the descriptors that this process may have: the usual 1,024 are soon held."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_MAX if most == resource.RLIM_INFINITY else min(most, DESCRIPTORS_MAX)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def server_settings(app: object) -> uvicorn.Config:
    """Return uvicorn's settings: nothing between the socket and us, no word for each request."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        interface="asgi3",
        http=Protocol,
        ws="none",
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
    )


class _Server(uvicorn.Server):
    """uvicorn, ended by an event, and slower to hang up."""

    def __init__(self, app: App, stop: threading.Event) -> None:
        super().__init__(server_settings(app))
        self._app = app
        self._stop = stop

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to those who made the event."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Look ten times a second whether it is time to go."""
        return await super().on_tick(counter) or self._stop.is_set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new connection, answer what is under way, then close."""
        for server in self.servers:
            server.close()
        self._app.drain()
        await asyncio.sleep(LINGER_SECONDS)
        await super().shutdown(sockets)


def _last_on_its_connection(send: Send) -> Send:
    async def send_last(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)

    return send_last


def _routing_errors(
    advice: Advice,
) -> Callable[[Request, Exception], Coroutine[Any, Any, Response]]:
    async def on_routing_error(request: Request, raised: Exception) -> Response:
        assert isinstance(raised, RoutingError)
        path = request.url.path
        line = advice.on(path) if raised.status_code == 404 else str(raised.detail)
        headers = dict(raised.headers or {})
        if path.startswith("/api/"):
            return error(raised.status_code, line, headers)
        return _text(raised.status_code, line, headers)

    return on_routing_error


async def _on_mistake(request: Request, _raised: Exception) -> Response:
    # uvicorn logs it: starlette raises it again behind this answer.
    line = "a mistake of this server; its log says more"
    return error(500, line) if request.url.path.startswith("/api/") else _text(500, line)


def _text(status: int, line: str, headers: dict[str, str] | None = None) -> PlainTextResponse:
    plain = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **(headers or {})}
    return PlainTextResponse(f"{line}\n", status_code=status, headers=plain)
