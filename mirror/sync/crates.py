"""Crates: fetched whole into a folder beside the batches, and offered behind their index files."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import count

from mirror.core.names import CrateId
from mirror.core.plan import Known
from mirror.errors import UpstreamError
from mirror.sync.flights import Flight
from mirror.sync.parts import BroughtCrate, Parts
from mirror.sync.slots import Turn
from mirror.sync.values import ABSENT, NOT_READ, Kind, Result

INCOMING = "incoming.tmp"
"""Folder in the spool for crates under way; its ending makes the next start clear it."""


class Crates:
    """All fetches of crates of one process."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._incoming = parts.life.config.spool / INCOMING
        self._file_numbers = count()

    def open(self) -> None:
        """Make the folder for crates under way."""
        self._incoming.mkdir(parents=True, exist_ok=True)

    def lack(self, crate: CrateId) -> Result | Flight | None:
        """Say what is known of a crate that somebody lacks; None: it must be fetched."""
        flight = self._parts.flights.get(str(crate))
        if flight is not None:
            if flight.offered and not flight.urgent:
                # It waits among what a sweep found; somebody in front of it cannot.
                self._parts.outbox.hurry()
            flight.urgent = flight.wanted = True
            return flight
        if not self._parts.following.is_known:
            return NOT_READ
        if not self._parts.following.may_fetch_crate(crate):
            return ABSENT
        return self._parts.remembered.get(str(crate))

    async def fetch(self, crate: CrateId, turn: Turn | None = None) -> BroughtCrate | None:
        """Fetch one; None: upstream has no such crate. `turn`: the caller has one already.

        Raises:
            UpstreamError: no usable answer.
            OSError: the disk does not take it.
        """
        file = self._incoming / f"{next(self._file_numbers)}.crate"
        try:
            length = await self._parts.upstream.fetch_crate(crate, file, turn=turn)
        except BaseException:
            file.unlink(missing_ok=True)
            raise
        return None if length is None else BroughtCrate(crate, file, length)

    def put(self, brought: BroughtCrate) -> None:
        """Offer a crate behind its index file, without which the signer cannot compare it.

        Raises:
            OSError: the spool does not take it.
        """
        key = str(brought.crate)
        own, index = (
            self._parts.flights.get(key),
            self._parts.flights.get(brought.crate.canonical_name),
        )
        urgent = own is None or own.urgent
        if index is not None and not _may_follow(index, urgent=urgent):
            self._parts.tasks.create_task(self._put_after(index, brought, urgent=urgent))
            return
        result = self._refusal(brought, index)
        try:
            if result is None:
                self._parts.outbox.add_crate(
                    brought.crate, brought.file, brought.length, urgent=urgent
                )
                self._parts.flights.note_offered(key)
        except OSError:
            brought.file.unlink(missing_ok=True)
            raise
        if result is not None:
            brought.file.unlink(missing_ok=True)
            self._parts.flights.land(key, result)

    async def _put_after(self, index: Flight, brought: BroughtCrate, *, urgent: bool) -> None:
        await index.sent.wait()
        if urgent and not _may_follow(index, urgent=urgent):
            # It lies in a bulk batch, and what is urgent would come before it.
            self._parts.outbox.hurry()
            await asyncio.wait([index.future])
        with suppress(UpstreamError), self._parts.flights.fetching(str(brought.crate)):
            self.put(brought)

    def _refusal(self, brought: BroughtCrate, flight: Flight | None) -> Result | None:
        """Return what to answer for a crate whose index file is not to be had."""
        name = brought.crate.canonical_name
        cursor = self._parts.cursors.get(name)
        if flight is not None or (cursor is not None and cursor.known is Known.PUBLISHED):
            return None
        if cursor is not None and cursor.known is Known.REFUSED:
            # An earlier good version of the file may be published: the signer knows.
            return None
        return self._parts.remembered.get(name) or Result(
            Kind.FAILED,
            f"crate {brought.crate}: its index file could not be fetched",
            short="without an index file",
        )


def _may_follow(index: Flight, *, urgent: bool) -> bool:
    """Whether a crate that is offered now comes to the signer behind its index file, or with it."""
    return index.offered and (index.urgent or not urgent)
