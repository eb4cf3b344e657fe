"""Online keys that were stolen or lost, with the real commands: what a thief gets, what ends it.

Under a mirror that runs all the time. The first test is the README's table of what a thief gets,
for clients that are kept from what follows; the others are what the operators do.
"""

import os
import signal

import httpx
import pytest
from tuf.api.exceptions import BadVersionNumberError, ExpiredMetadataError

from tests.support.living import (
    HELD,
    NAMES,
    PATHS,
    UNSEEN,
    believes,
    client_of_before,
    goes_on,
    refuses,
    running_mirror,
)
from tests.support.operators import ONLINE
from tests.support.processes import crateseal, wait_until
from tests.support.thief import EVIL, Host

HIGHEST = 2**53 - 1
HOUR = 3600


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    with running_mirror(tmp_path_factory.mktemp("break-in")) as mirror:
        yield mirror


@pytest.fixture
def before(mirror, tmp_path):
    return client_of_before(mirror, tmp_path)


def with_timestamp(host, keys):
    host.stamp(keys, host.version() + 10)


def with_snapshot_and_timestamp(host, keys):
    host.publish(keys, set())


def with_bins(host, keys):
    host.put_bin(keys, UNSEEN)


def with_bins_and_timestamp(host, keys):
    host.put_bin(keys, UNSEEN)
    host.stamp(keys, host.version() + 10)


def with_all(host, keys):
    host.publish(keys, {"bins"}, UNSEEN)


@pytest.mark.parametrize(
    ("stolen", "use", "shows", "ended_by"),
    [
        (("timestamp",), with_timestamp, HELD[UNSEEN], "snapshot"),
        (("snapshot", "timestamp"), with_snapshot_and_timestamp, HELD[UNSEEN], "the bin"),
        (("bins",), with_bins, EVIL, "timestamp"),
        (("bins", "timestamp"), with_bins_and_timestamp, EVIL, "snapshot"),
        (ONLINE, with_all, EVIL, "root"),
    ],
    ids=["timestamp", "snapshot and timestamp", "bins", "bins and timestamp", "all three"],
)
def test_a_client_kept_from_the_news_believes_a_thief_until_what_he_cannot_sign_expires(
    mirror, before, tmp_path, stolen, use, shows, ended_by
):
    host, keys = Host(tmp_path / "host", mirror), mirror.keys()
    ends = host.expires(host.bin_of(UNSEEN) if ended_by == "the bin" else ended_by)
    use(host, {role: keys[role] for role in stolen})
    assert believes(before, host, shows)
    assert believes(before, host, shows, now=ends - HOUR)
    assert refuses(before, host, ExpiredMetadataError, now=ends + 1)


def test_a_stolen_bins_key_is_replaced_by_the_quorum_of_crates_alone(mirror, before, tmp_path):
    withheld, stolen = Host(tmp_path / "withheld", mirror), mirror.keys()
    root, ends = mirror.root_version(), withheld.expires("timestamp")
    withheld.put_bin(stolen, UNSEEN)
    assert believes(before, withheld)

    mirror.change("rotate", "bins", by=("dia",))
    assert mirror.root_version() == root
    assert goes_on(before, mirror)
    shown = Host(tmp_path / "shown", mirror)
    shown.put_bin(stolen, UNSEEN)
    assert refuses(before, shown)
    after = before.twin()
    assert after.look(mirror.data.path, UNSEEN) == HELD[UNSEEN]
    assert refuses(after, withheld, BadVersionNumberError)
    assert believes(before, withheld, now=ends - 60)
    assert refuses(before, withheld, ExpiredMetadataError, now=ends + 1)


def test_a_break_in_that_took_all_online_keys_is_ended_through_root(mirror, before, tmp_path):
    withheld, stolen = Host(tmp_path / "withheld", mirror), mirror.keys()
    ends = withheld.expires("root")
    withheld.publish(stolen, {"bins"}, UNSEEN)
    victim = before.twin()
    assert victim.look(withheld.base, UNSEEN) == EVIL
    assert refuses(victim, Host(tmp_path / "honest", mirror), BadVersionNumberError)

    mirror.change("rotate", *ONLINE, by=("ben", "zoe", "dia"))
    assert goes_on(before, mirror)
    assert goes_on(victim, mirror)
    shown = Host(tmp_path / "shown", mirror)
    shown.publish(stolen, {"bins"}, UNSEEN)
    assert refuses(before, shown)
    assert refuses(victim, shown)
    after = before.twin()
    assert after.look(mirror.data.path, UNSEEN) == HELD[UNSEEN]
    assert refuses(after, withheld)
    assert believes(before, withheld, now=ends - HOUR)
    assert refuses(before, withheld, ExpiredMetadataError, now=ends + 1)


def test_after_a_fast_forward_new_snapshot_and_timestamp_keys_bring_clients_back(
    mirror, before, tmp_path
):
    """The thief leaves no number above his: for the timestamp, the snapshot and a bin."""
    host, stolen = Host(tmp_path / "host", mirror), mirror.keys()
    host.publish(stolen, {"bins"}, UNSEEN, version=HIGHEST)
    victim = before.twin()
    assert victim.look(host.base, UNSEEN) == EVIL
    assert refuses(victim, Host(tmp_path / "honest", mirror), BadVersionNumberError)

    seen = (host.metadata / "timestamp.json").read_bytes()
    mirror.upstream.put("/tuf/metadata/timestamp.json", seen)
    mirror.restart("--public-url", mirror.upstream.url)
    # The mirror sees it where its clients do, and has no number to go on with.
    wait_until(mirror.trouble)
    ran = crateseal("recover", cwd=mirror.folder)
    assert ran.returncode != 0
    assert "replace the snapshot and timestamp keys" in ran.stdout + ran.stderr
    mirror.change("rotate", "snapshot", "timestamp", by=("ben", "zoe"))
    wait_until(lambda: not mirror.trouble())
    assert goes_on(victim, mirror)
    assert goes_on(before, mirror)
    mirror.upstream.put("/tuf/metadata/timestamp.json", None)
    mirror.restart()
    assert goes_on(victim, mirror)


def test_lost_online_keys_are_replaced_while_what_is_held_is_served(mirror, before):
    for key in mirror.data.keys.iterdir():
        key.unlink()
    os.kill(mirror.up.children()["sign"], signal.SIGKILL)
    wait_until(lambda: "expected one that the metadata names" in mirror.up.err)
    draft = mirror.draft("rotate", *ONLINE)
    mirror.people.sign(draft, "ben", "zoe", "dia")
    with httpx.Client(timeout=15) as client:
        for path in PATHS.values():
            assert client.get(f"{mirror.up.url}/{path}").status_code == 200
    mirror.people.tuf_repo("finish", draft, "--data", mirror.data.path)
    mirror.wait_until_taken()
    assert sorted(key.name.partition("-")[0] for key in mirror.data.keys.iterdir()) == sorted(
        ONLINE
    )
    assert goes_on(before, mirror)
    crates = [f"/crates/{name}/{name}-1.0.0.crate" for name in NAMES]
    assert [mirror.up.get(path).status_code for path in crates] == [200] * 3
