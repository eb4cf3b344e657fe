"""A client of the far side in folders of its own, and a look at a mirror through it."""

import json
import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace

from mirror.client.fetch.fetcher import FetchLimits, HttpFetcher
from mirror.client.home.remembered import root_id_of
from mirror.client.home.settings import ClientSettings
from mirror.client.source.cache import own_cache
from mirror.client.source.source import Source, open_source
from mirror.client.trust.memory import EphemeralMemory
from mirror.client.trust.store import How, Trust
from mirror.client.trust.trust import TrustedRoot
from tests.support.mirror_folder import answering, from_folder

QUICK = FetchLimits(connect_seconds=2.0, stall_seconds=2.0, total_seconds=10.0)


def client_settings(home, **said):
    """Return settings whose folders lie under `home`; `mirror` may be one URL."""
    if isinstance(said.get("mirror"), str):
        said["mirror"] = (said["mirror"].rstrip("/") + "/",)
    folders = {
        name: home / f"client-{name[:-4]}" for name in ("config_dir", "cache_dir", "run_dir")
    }
    return ClientSettings(**folders | said)


def trusting(held, home, *urls, **said):
    """Return settings of a client that was given this mirror's first root, as a file."""
    mirrors = tuple(url.rstrip("/") + "/" for url in urls)
    return client_settings(home, mirror=mirrors, root=held.metadata / "1.root.json", **said)


@contextmanager
def looking(held, home, *urls, clock=time.time, trust=None, **said):
    """Yield a source that looks at these URLs, or at the mirror's folder."""
    if urls:
        settings = trusting(held, home, *urls, **said)
    else:
        settings = client_settings(home, data=held.data, **said)
    with open_source(settings, clock, trust=trust) as source:
        yield source


def trust_in(held, *urls, memory=None):
    """Return a trust that begins with this mirror's first root."""
    root = (held.metadata / "1.root.json").read_bytes()
    mirrors = tuple(url.rstrip("/") + "/" for url in urls)
    memory = memory or EphemeralMemory(root)
    return Trust(root_id_of(root), TrustedRoot(root), mirrors, How.GIVEN, memory)


@contextmanager
def source_over(held, home, *fetchers, clock=time.time, memory=None, cache=None, **said):
    """Yield a source over these fetchers, which it closes; its cache is gone afterwards."""
    settings = client_settings(home, **said)
    trust = trust_in(held, *(each.base for each in fetchers), memory=memory)
    with own_cache() if cache is None else nullcontext(cache) as kept:
        source = Source(trust, kept, fetchers, settings, clock)
        try:
            yield source
        finally:
            source.close()


class Recorder:
    """Serves a mirror's folder; counts what is asked, and lies where it is told to.

    Attributes:
        asked: the paths, in order, a want as `want NAME NAME`.
        lies: path ending -> answer `(status, headers, body)`, or a function of the honest body.
        want: answers a want: names -> JSON.
    """

    def __init__(self, held):
        self._honest = from_folder(held.www)
        self.asked = []
        self.lies = {}
        self.want = lambda _names: {"pending": []}

    @contextmanager
    def serve(self):
        with answering(self._answer, self._answer_want) as self.url:
            yield self

    def drain(self):
        """Return what was asked since, shortened to what follows `tuf/metadata/` and the like."""
        asked, self.asked = self.asked, []
        short = (
            path.removeprefix("/tuf/metadata/").removeprefix("/tuf/targets/") for path in asked
        )
        return list(short)

    def fetcher(self, **limits):
        return HttpFetcher(self.url, replace(QUICK, **limits), sleep=lambda _seconds: None)

    def _answer(self, path):
        self.asked.append(path)
        answer = self._honest(path)
        for ending, lie in self.lies.items():
            if path.endswith(ending):
                return (200, {}, lie(answer[2])) if callable(lie) else lie
        return answer

    def _answer_want(self, body):
        names = json.loads(body)["names"]
        self.asked.append("want " + " ".join(names))
        return 200, {}, json.dumps(self.want(names)).encode()


def flipped(body):
    """Return these bytes with one bit changed in their middle."""
    return body[: len(body) // 2] + bytes([body[len(body) // 2] ^ 1]) + body[len(body) // 2 + 1 :]
