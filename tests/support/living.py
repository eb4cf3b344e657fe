"""A mirror of three crates with a quorum of people behind it, running; and what its clients say."""

import hashlib
from contextlib import contextmanager

import pytest
from tuf.api.exceptions import UnsignedMetadataError

from tests.fakes.upstream import FakeUpstream
from tests.support.crates import crate_bytes, index_file
from tests.support.operators import Mirror, Operators
from tests.support.thief import EVIL, Client

NAMES = ("aaaa", "bbbb", "cccc")
PATHS = {name: f"index/{name[:2]}/{name[2:]}/{name}" for name in NAMES}
SEEN, UNSEEN = PATHS["aaaa"], PATHS["bbbb"]
"""A crate that the client of before has looked at, and one that it has not."""
FILES = {path: index_file(name, "1.0.0") for name, path in PATHS.items()}
HELD = {path: hashlib.sha256(data).hexdigest() for path, data in FILES.items()}


@contextmanager
def upstream_of_three(folder):
    with FakeUpstream(folder) as upstream:
        for name, path in PATHS.items():
            upstream.put(f"/{path}", FILES[path])
            upstream.put(f"/crates/{name}/{name}-1.0.0.crate", crate_bytes(name, "1.0.0"))
        yield upstream


@contextmanager
def running_mirror(folder):
    """Root 2 of 3 (ana, ben, zoe), targets 1 of 2 (ana, ben), crates 1 of 2 (cem, dia); 32 bins."""
    people = Operators(folder / "people")
    people.make("ana", "ben", "zoe", "cem", "dia")
    members = {"root": ("ana", "ben", "zoe"), "targets": ("ana", "ben"), "crates": ("cem", "dia")}
    keys = [f"--key={role}={name}.pub" for role, names in members.items() for name in names]
    quorums = [f"--threshold={each}" for each in ("root=2", "targets=1", "crates=1")]
    with upstream_of_three(folder / "upstream") as upstream:
        mirror = Mirror(folder, people, upstream)
        try:
            mirror.init(*keys, *quorums, by=("ana", "zoe", "dia")).start()
            hold_all(mirror)
            yield mirror
            mirror.check()
        finally:
            mirror.end()


def hold_all(mirror):
    for path in PATHS.values():
        assert mirror.up.get(f"/{path}").status_code == 200


def client_of_before(mirror, folder):
    """A client that was initialised before; of the crates it has looked at one."""
    client = Client(folder / "before", (mirror.metadata / "1.root.json").read_bytes())
    assert client.look(mirror.data.path, SEEN) == HELD[SEEN]
    return client


def goes_on(client, mirror):
    client = client.twin()
    return {path: client.look(mirror.data.path, path) for path in HELD} == HELD


def refuses(client, host, error=UnsignedMetadataError, **when):
    with pytest.raises(error):
        client.twin().look(host.base, UNSEEN, **when)
    return True


def believes(client, host, what=EVIL, **when):
    return client.twin().look(host.base, UNSEEN, **when) == what
