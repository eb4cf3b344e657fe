"""Looks at our own public URL: is what is served there what was signed here?

Where a backup was restored, or started a second time, somebody else publishes with our keys. What
is seen there is passed on to the signer, which looks at the signature itself.
"""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import NoReturn

import httpx

from mirror.core.batch import SEEN_MAX_CHARS
from mirror.core.layout import METADATA_DIR
from mirror.sync.outbox import Outbox
from mirror.sync.values import Life

logger = logging.getLogger(__name__)

_PATH = f"{METADATA_DIR}/timestamp.json"
_PATIENCE_SECONDS = 10.0
_VERSION_MAX = 2**63


class Lookout:
    """Looks now and then. A URL that does not answer is nobody's trouble."""

    def __init__(self, life: Life, outbox: Outbox, client: httpx.AsyncBaseTransport) -> None:
        self._url = f"{life.config.public_url}/{_PATH}"
        self._ours: Path = life.config.www / _PATH
        self._every = life.pace.lookout
        self._outbox = outbox
        self._client = client

    async def work(self) -> NoReturn:
        """Look for ever."""
        while True:
            try:
                await self.look()
            except (OSError, TimeoutError, httpx.HTTPError, httpx.InvalidURL) as error:
                logger.debug("%s: %s", self._url, error)
            await asyncio.sleep(self._every)

    async def look(self) -> None:
        """Look once; pass on what is not of our making.

        Raises:
            OSError, TimeoutError, httpx.HTTPError, httpx.InvalidURL: it could not be seen, or not
                passed on; the next look may do better.
        """
        async with asyncio.timeout(_PATIENCE_SECONDS):
            seen = await self._fetch()
        if seen and _is_news(seen, self._ours.read_bytes()):
            logger.warning("%s: not what was signed here; the signer looks at it", self._url)
            await self._outbox.offer_notice(None, seen=seen.decode())

    async def _fetch(self) -> bytes:
        """Return what is served; nothing where that is no timestamp."""
        response = await self._client.handle_async_request(httpx.Request("GET", self._url))
        assert isinstance(response.stream, httpx.AsyncByteStream)
        data = b""
        try:
            async for piece in response.stream:
                data += piece
                if len(data) > SEEN_MAX_CHARS:
                    return b""
        finally:
            await response.stream.aclose()
        return data if response.status_code == 200 else b""


def _is_news(seen: bytes, ours: bytes) -> bool:
    """Whether it is newer than ours, or another one of our number."""
    (theirs, content), (own, our_content) = _signed(seen), _signed(ours)
    return theirs > own or (theirs == own and content != our_content)


def _signed(data: bytes) -> tuple[int, object]:
    """Return version and signed part of a timestamp; 0 and None for anything else.

    Not the whole file: what stands beside the signed part, whoever serves it may have written.
    """
    try:
        signed = json.loads(data.decode())["signed"]
        version = signed["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0, None
    return (version, signed) if type(version) is int and 0 < version < _VERSION_MAX else (0, None)
