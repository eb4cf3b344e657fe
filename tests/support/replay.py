"""A publish trace, played to a mirror: upstream as the trace tells it, and a ring on its clock.

    async with Ring(folder, upstream, start) as ring:
        replay = Replay(trace, upstream, ring)
        await replay.run()

The trace's format: one look a line, {"t": seconds, "publish": [[name, version], …],
"yank": [[name, version], …], "remove": [name, …]}.
"""

import asyncio
import hashlib
import json
import threading
from collections import defaultdict
from dataclasses import dataclass, field

from mirror.config import Config
from mirror.core.layout import INDEX, name_of_target, target_file
from mirror.core.names import CrateName, index_path
from mirror.core.times import rfc3339
from mirror.seam import (
    ADMIN_SOCKET,
    SIGN_SOCKET,
    SYNC_SOCKET,
    Order,
    Verb,
    Want,
    ask,
    parse_done,
    parse_want_answer,
)
from mirror.sign.check import Checker
from mirror.sign.opening import init_repository, open_parts
from mirror.sign.worker import run_signer
from mirror.store.ledger import LedgerReader
from mirror.store.publication import Publications
from mirror.sync.engine import run_sync
from tests.support.crates import index_line
from tests.support.syncing import QUICK, until

SECOND_LOOK_SECONDS = 960
"""Upstream is asked so late again for what was gone; 900 is the least that counts."""
BEFORE_SECONDS = 86_400
"""What the trace takes for granted was published so long before it."""
NAMES_AT_ONCE = 500


@dataclass
class Version:
    """One line of an index file."""

    name: str
    version: str
    life: int
    at: float
    yanked: bool = False

    def line(self):
        cksum = hashlib.sha256(f"{self.name} {self.version} {self.life}".encode()).hexdigest()
        return index_line(
            self.name, self.version, cksum, yanked=self.yanked, pubtime=rfc3339(self.at)
        )


class World:
    """Upstream's index, as a trace makes it look by look."""

    def __init__(self, trace):
        self.crates = defaultdict(dict)
        """Canonical name -> version -> Version."""
        self.lives = defaultdict(int)
        """Canonical name -> how often it was deleted."""
        self._assume(trace)

    def _assume(self, trace):
        """Publish what the trace yanks or removes and never published: it was there before."""
        start = trace[0]["t"] - BEFORE_SECONDS
        seen, alive = set(), set()
        for look in trace:
            for name, version in look["publish"]:
                seen.add((name.lower(), version))
                alive.add(name.lower())
            lacking = [(n, v) for n, v in look["yank"] if (n.lower(), v) not in seen]
            lacking += [(name, "0.0.0") for name in look["remove"] if name not in alive]
            for name, version in lacking:
                if self.lives[name.lower()] == 0:
                    self.publish(name, version, start)
                    seen.add((name.lower(), version))
                    alive.add(name.lower())
            for name in look["remove"]:
                self.lives[name] += 1
                alive.discard(name)
        self.lives.clear()

    def publish(self, name, version, at):
        """Publish a version; one that is there comes back from being yanked."""
        versions, life = self.crates[name.lower()], self.lives[name.lower()]
        if version in versions:
            versions[version].yanked = False
        else:
            versions[version] = Version(name, version, life, at)

    def apply(self, look):
        """Take over what one look of the trace saw; return the names it is about."""
        for name in look["remove"]:
            del self.crates[name]
            self.lives[name] += 1
        for name, version in look["publish"]:
            self.publish(name, version, look["t"])
        for name, version in look["yank"]:
            versions = self.crates.get(name.lower(), {})
            if version in versions:
                versions[version].yanked = True
        return {name.lower() for name, _ in look["publish"] + look["yank"]} | set(look["remove"])

    def file(self, name):
        """Return an index file's bytes; None: there is no such crate."""
        versions = self.crates.get(name)
        if not versions:
            return None
        return b"".join(each.line() + b"\n" for each in versions.values())


class Ring:
    """`sync` and the signer in one process, on a clock that is set by hand."""

    def __init__(self, folder, upstream, start, **settings):
        self.now = float(start)
        # The sample is made of names that are deleted: no limit on how many at once.
        defaults = {
            "max_age": 1.0,
            "recheck_every": 1e9,
            "grace": 3600.0,
            "findings_percent": 100.0,
        }
        self.config = Config(data=folder, upstream=upstream.source, **(defaults | settings))
        self._trouble = []

    def clock(self):
        return self.now

    async def __aenter__(self):
        init_repository(self.config, self.clock)
        self._stop_sign, self._stop_sync = threading.Event(), asyncio.Event()
        self._signer = threading.Thread(target=self._sign, daemon=True)
        self._signer.start()
        await until(lambda: (self.config.run / SIGN_SOCKET).exists() or self._trouble)
        self._sync = asyncio.create_task(
            run_sync(self.config, self.clock, self._stop_sync, pace=QUICK)
        )
        await until(lambda: (self.config.run / SYNC_SOCKET).exists() or self._sync.done())
        return self

    async def __aexit__(self, *_):
        self._stop_sync.set()
        await asyncio.wait_for(self._sync, 30)
        self._stop_sign.set()
        await asyncio.to_thread(self._signer.join, 30)
        assert not self._trouble, self._trouble

    def _sign(self):
        try:  # the ledger belongs to the thread that opens it
            run_signer(open_parts(self.config, self.clock), self.clock, self._stop_sign)
        except BaseException as error:
            self._trouble.append(error)
            raise

    async def look(self, names):
        """Let somebody want these names; return what was refused, once all is settled."""
        refused = {}
        listed = sorted(names)
        for at in range(0, len(listed), NAMES_AT_ONCE):
            want = Want(names=tuple(map(CrateName, listed[at : at + NAMES_AT_ONCE])))
            answer = parse_want_answer(await ask(self.config.run / SYNC_SOCKET, want))
            assert not answer.failed, answer.failed
            assert not answer.over_budget
            refused |= answer.refused
        return refused

    async def accept(self, name):
        """Let the operator accept what is held of a name."""
        order = Order(Verb.ACCEPT, CrateName(name))
        done = parse_done(await ask(self.config.run / ADMIN_SOCKET, order))
        assert done.exit_code == 0, done.text

    def ledger(self, question):
        """Return what `question` finds in the ledger, read as another process does."""
        reader = LedgerReader(self.config.ledger)
        try:
            return question(reader)
        finally:
            reader.close()

    def held(self):
        """Return the names that are held because they came back."""
        rows = self.ledger(LedgerReader.quarantined)
        return {row.subject for row in rows if (row.kind, row.rule) == ("hold", "returned")}

    def deletion(self, name):
        return self.ledger(lambda reader: reader.memory.deletion(CrateName(name)))

    def published(self):
        """Return the published index: name -> bytes, as the signed bins say."""
        targets = Publications(self.config.www).current().targets()
        return {
            name_of_target(path): (self.config.www / target_file(path, info.sha256)).read_bytes()
            for path, info in targets
            if path.startswith(f"{INDEX}/")
        }

    def notes(self):
        targets = Publications(self.config.www).current().targets()
        return sorted(path for path, _ in targets if not path.startswith(f"{INDEX}/"))

    def findings(self):
        """Return what `check` finds on disk."""
        return self.ledger(
            lambda reader: list(Checker(self.config.www, reader, now=self.now).findings())
        )


@dataclass
class Replay:
    """Plays a trace to a ring, and notes what the signer recorded of it."""

    trace: list
    upstream: object
    ring: Ring
    deletions: list = field(default_factory=list)
    """(name, when a look found it gone) of each that the ledger recorded as deleted."""
    returns: list = field(default_factory=list)
    """(name, when) of each that was held because it came back."""
    refused: dict = field(default_factory=dict)
    """What else was refused."""

    def __post_init__(self):
        self.world = World(self.trace)
        self._gone = []
        """(when, name) of what has to be looked at again."""
        self._back = set()

    async def run(self):
        """Play all of it; what is held at the end stays so."""
        await self._look_at(list(self.world.crates))
        for look in self.trace:
            await self._look_again_before(look["t"])
            # Who came back and goes again was accepted by then: else there is nothing to delete.
            for name in self.ring.held() & set(look["remove"]) if look["remove"] else ():
                await self.ring.accept(name)
            self.ring.now = float(look["t"])
            names = self.world.apply(look)
            await self._look_at(names)
            self._gone += [(look["t"], name) for name in look["remove"]]
        await self._look_again_before(float("inf"))

    async def _look_at(self, names):
        for name in names:
            self.upstream.put(f"/index/{index_path(CrateName(name))}", self.world.file(name))
        refused = await self.ring.look(names)
        held = self.ring.held() if refused else set()
        for name, reason in refused.items():
            life = (name, self.world.lives[name])
            if name not in held:
                self.refused[name] = reason
            elif life not in self._back:
                self._back.add(life)
                self.returns.append((name, self.ring.now))

    async def _look_again_before(self, at):
        """Ask a second time for what was gone, each when it is due."""
        while self._gone and (due := self._gone[0][0] + SECOND_LOOK_SECONDS) <= at:
            since = self._gone[0][0]
            names = {name for when, name in self._gone if when == since}
            self._gone = [each for each in self._gone if each[0] != since]
            self.ring.now = float(due)
            await self.ring.look(names)
            for name in names:
                found = self.ring.deletion(name)
                if found is not None and found.since == since:
                    self.deletions.append((name, since))


def load(lines):
    """Return a trace from its lines; what is removed by its canonical name."""
    looks = [json.loads(line) for line in lines]
    for look in looks:
        look["remove"] = [name.lower() for name in look["remove"]]
    return looks


def expected_deletions(trace):
    return sorted((name, look["t"]) for look in trace for name in look["remove"])


def expected_returns(trace):
    """Return (name, when) of each publication that follows a removal."""
    gone, found = set(), []
    for look in trace:
        back = {name.lower() for name, _ in look["publish"]} & gone
        found += [(name, look["t"]) for name in back]
        gone = (gone - back) | set(look["remove"])
    return sorted(found)
