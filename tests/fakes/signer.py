"""A signer that takes every batch and writes down what was in it: for tests of `sync` alone."""

import asyncio
import contextlib
import json
from collections import Counter

from mirror.core.batch import Outcome, Settled
from mirror.core.layout import METADATA_DIR, crate_file
from mirror.core.names import CrateId
from mirror.seam import SIGN_SOCKET, encode, parse_offer
from mirror.store.spool import open_batch


class Seen:
    """One batch, read as the signer reads it."""

    def __init__(self, reader):
        self.batch = reader.batch
        self.files = {
            look.name: reader.read(look)
            for look in reader.batch.looks
            if look.outcome is Outcome.BYTES
        }
        self.gone = [look.name for look in reader.batch.looks if look.outcome is Outcome.GONE]
        self.crates = {}
        for fetched in reader.batch.crates:
            with reader.open_crate(fetched.file) as file:
                self.crates[str(fetched.crate)] = file.read()


class FakeSigner:
    """An async context manager: listens on sign.sock of a mirror's folder."""

    def __init__(self, config, *, keep=True, takes=0.0):
        self._config = config
        self._keep = keep
        self._takes = takes
        self.batches = []
        self.offers = []
        self._published = config.www / METADATA_DIR / "timestamp.json"
        self.timestamp = self._read_timestamp()
        self.refuse = {}
        """Name, or `name version` -> reason."""
        self.denied = ()
        """Those of them that the operator denies."""
        self.policy = ""
        """The digest of the rules, as the timestamp says it."""
        self.doubt = {}
        """Name -> when to look again, where a batch says that it is gone."""
        self.stop = ""
        """Why the next batch that is part of a sweep ends it, unexamined."""
        self.refuse_whole = []
        """Reasons: each next batch is refused whole with one of them."""
        self.refused_whole = []
        """The batches that were."""
        self.silent = 0
        """So many next offers get no answer at all."""
        self.free = asyncio.Event()
        """While it is clear, no offer is answered."""
        self.free.set()
        self.at_once = Counter()
        self._open = 0

    async def __aenter__(self):
        self._config.run.mkdir(parents=True, exist_ok=True)
        path = self._config.run / SIGN_SOCKET
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._take, str(path))
        return self

    async def __aexit__(self, *_):
        self._server.close()

    @property
    def files(self):
        """Every index file that was ever offered, the newest bytes of each."""
        return {name: data for seen in self.batches for name, data in seen.files.items()}

    @property
    def with_bytes(self):
        """The batches that had something to sign."""
        return [seen for seen in self.batches if seen.files or seen.crates or seen.gone]

    @property
    def sweeps(self):
        return [seen.batch.sweep for seen in self.batches if seen.batch.sweep]

    async def _take(self, reader, writer):
        self._open += 1
        self.at_once[self._open] += 1
        try:
            with contextlib.suppress(ConnectionError):
                await self._answer(reader, writer)
        finally:
            self._open -= 1
            writer.close()

    async def _answer(self, reader, writer):
        number = parse_offer(await reader.readline()).batch
        self.offers.append(number)
        if self.silent:
            self.silent -= 1
            await reader.read()
            return
        await self.free.wait()
        await asyncio.sleep(self._takes)
        settled = self._settle(number)
        writer.write(encode(settled))
        await writer.drain()

    def _settle(self, number):
        if self.refuse_whole:
            self.refused_whole.append(number)
            return Settled(number, self.timestamp, refused_whole=self.refuse_whole.pop(0))
        if not self._keep:
            return self._take_over(
                Settled(number, self.timestamp + 1, self.refuse, denied=tuple(self.denied))
            )
        with open_batch(self._config.spool, number) as batch:
            seen = Seen(batch)
        if self.stop and seen.batch.sweeping:
            unexamined = tuple(look.name for look in seen.batch.looks)
            return Settled(number, self.timestamp, stopped=self.stop, unexamined=unexamined)
        self.batches.append(seen)
        self._place(seen.crates)
        doubted = {name: self.doubt[name] for name in seen.gone if name in self.doubt}
        return self._take_over(
            Settled(
                number,
                self.timestamp + 1,
                self.refuse,
                doubted=doubted,
                denied=tuple(self.denied),
            )
        )

    def decide(self, policy):
        """Publish that the rules are others now."""
        self.policy = policy
        self._publish()

    def _take_over(self, settled):
        self.timestamp = settled.timestamp
        self._publish()
        return settled

    def _place(self, crates):
        for key, data in crates.items():
            if key not in self.refuse:
                file = self._config.www / crate_file(CrateId(*key.split()))
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)

    def _publish(self):
        self._published.parent.mkdir(parents=True, exist_ok=True)
        signed = {"version": self.timestamp, "x-crateseal": {"policy": self.policy}}
        self._published.write_text(json.dumps({"signed": signed}))

    def _read_timestamp(self):
        with contextlib.suppress(OSError, ValueError):
            return json.loads(self._published.read_text())["signed"]["version"]
        return 100
