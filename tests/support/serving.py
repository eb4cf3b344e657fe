"""A server on a fake web root, asked without a socket between."""

import asyncio
import hashlib

from mirror.seam import WantAnswer
from tests.fakes.sync import FakeSync, client_of
from tests.fakes.www import FakeWww, index_line

CRATE = b"\x1f\x8b not really a crate" * 9
LINES = index_line("serde", "1.0.0", CRATE), index_line("serde", "1.1.0+meta", CRATE)
SERDE = b"".join(LINES)
DIGEST = hashlib.sha256(SERDE).hexdigest()
PATH = "/index/se/rd/serde"
CRATE_PATH = "/crates/serde/serde-1.0.0.crate"


def serde_www(folder):
    """A web root with the index file of serde and one of its two crates."""
    www = FakeWww(folder / "www")
    www.put_index("serde", *LINES)
    www.put_crate("serde", "1.0.0", CRATE)
    www.publish()
    return www


def ask(www, path, *, method="GET", settings=(), **headers):
    """One request to a server with no sync."""

    async def run():
        _, client = client_of(www.root.parent, **dict(settings))
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        async with client:
            return await client.request(method, path, headers=named)

    return asyncio.run(run())


def with_sync(www, answer, *paths, **settings):
    """All requests at once, to a server whose sync answers so; return (answers, sync)."""

    async def run():
        async with FakeSync(www.root.parent / "run", answer).open() as sync:
            _, client = client_of(www.root.parent, **settings)
            async with client:
                return await asyncio.gather(*(client.get(path) for path in paths)), sync

    return asyncio.run(run())


def raw(data, path):
    """Ask for exactly this path, as a server hands it to an application; return status and body."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.disconnect"}

    asyncio.run(client_of(data)[0](scope_of(path), receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


def scope_of(path):
    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""}
    return scope | {"raw_path": path.encode(), "root_path": "", "scheme": "http"}


def publishing(www):
    """A sync that publishes whatever is wanted."""

    def answer(want):
        for name in want.names:
            www.put_index(name, index_line(name, "1.0.0", CRATE))
        for crate in want.crates:
            www.put_index(crate.canonical_name, index_line(crate.name, crate.version, CRATE))
            www.put_crate(crate.name, crate.version, CRATE)
        return WantAnswer(timestamp=www.publish())

    return answer
