"""A signer on a folder of its own, without processes: what is offered is settled at once."""

import hashlib
from contextlib import contextmanager
from pathlib import Path

from mirror.config import Config
from mirror.core.batch import Batch, FetchedCrate, Look, Outcome
from mirror.core.names import CrateId, CrateName
from mirror.sign.check import Checker
from mirror.sign.heartbeat import Beat, put_config, put_heartbeat
from mirror.sign.opening import init_repository, open_parts
from mirror.sign.orders import obey_again
from mirror.sign.recover import end_well, recover
from mirror.sign.signer import Signer
from mirror.store.ledger import LedgerReader
from mirror.store.spool import BatchWriter, drop_batch

START = 1_800_000_000.0


class Workbench:
    """One data folder; `now` is set by hand."""

    def __init__(self, folder: Path, *, disk=None, **settings):
        self.config = Config(data=folder, **({"bin_bits": 5} | settings))
        self.now = START
        self.disk = disk
        self._next_batch = 1

    def clock(self):
        return self.now

    def init(self):
        init_repository(self.config, self.clock)

    def open(self):
        self.parts = open_parts(self.config, self.clock, self.disk)
        self.signer = Signer(self.parts)
        recover(self.parts, self.signer, now=self.now)
        obey_again(self.parts, self.signer, now=self.now)
        put_config(self.parts)
        put_heartbeat(
            self.parts, self.signer.rules, trouble=None, beat=Beat(self.now, self.config.url)
        )
        return self

    def close(self):
        end_well(self.parts, self.signer)
        self.parts.ledger.close()

    def offer(self, files=None, crates=None, gone=(), sweep=None, sweeping=None, seen=""):
        """Write a batch: index files by name, crate files by (name, version)."""
        number, self._next_batch = self._next_batch, self._next_batch + 1
        writer = BatchWriter(self.config.spool, number)
        looks = [
            Look(
                CrateName(name),
                self.now,
                Outcome.BYTES,
                writer.add(data),
                len(data),
                hashlib.sha256(data).hexdigest(),
            )
            for name, data in (files or {}).items()
        ]
        looks += [Look(CrateName(name), self.now, Outcome.GONE) for name in gone]
        fetched = []
        for position, ((name, version), data) in enumerate((crates or {}).items()):
            (writer.folder / f"{position}.crate").write_bytes(data)
            fetched.append(FetchedCrate(CrateId(name, version), f"{position}.crate", len(data)))
        source = self.config.upstream
        writer.finish(
            Batch(number, source, tuple(looks), tuple(fetched), sweep, self.now, sweeping, seen)
        )
        return number

    def settle(self, *args, **kwargs):
        """Offer one batch and settle it; return what was refused."""
        self.now += 1
        number = self.offer(*args, **kwargs)
        settled = self.signer.settle([number], now=self.now)
        drop_batch(self.config.spool, number)
        self.signer.swap_links()
        return dict(settled[0].refused)

    def findings(self):
        """Everything on disk, from the root down: the invariants."""
        ledger = LedgerReader(self.config.ledger)
        try:
            return list(Checker(self.config.www, ledger, now=self.now).findings())
        finally:
            ledger.close()

    def www(self, path):
        return self.config.www / path


@contextmanager
def at_work(folder: Path, **settings):
    """A workbench with a repository, open for the time of a block."""
    bench = Workbench(folder, **settings)
    bench.init()
    try:
        yield bench.open()
    finally:
        bench.parts.ledger.close()
