"""A backup restored while its lost history is still served: the processes stop, and recover."""

import json
import shutil
import time

import pytest
from tuf.ngclient import Updater

from tests.fakes.upstream import FakeUpstream
from tests.integration.test_orders import index
from tests.support.crates import index_file
from tests.support.processes import Up, crateseal, wait_until
from tuf_repo.core.numbers import ENTROPY
from tuf_repo.core.roles import Policy
from tuf_repo.disk import PosixDisk
from tuf_repo.online import OnlineKeys
from tuf_repo.publisher import Publisher
from tuf_repo.storage import Storage


def number_of(data):
    stamp = json.loads((data / "www/tuf/metadata/timestamp.json").read_bytes())
    return stamp["signed"]["version"]


def leap_twice(data):
    """Have a signer begin twice, as far on as chance may take it: no backup gets there."""
    for _ in range(2):
        publisher = Publisher.open(
            Storage(data / "www/tuf/metadata", data / "staging", PosixDisk(data)),
            OnlineKeys(data / "keys"),
            now=time.time(),
            policy=Policy(),
            entropy=lambda: ENTROPY - 1,
            wait=time.sleep,
        )
        publisher.commit(publisher.stage({}, publisher.extra, now=time.time()))


def client_of(url, cache, root):
    cache.mkdir(exist_ok=True)
    return Updater(
        str(cache), f"{url}/tuf/metadata/", target_base_url=f"{url}/tuf/targets/", bootstrap=root
    )


def run(cwd, *words, until=lambda up: True):
    """Have a mirror run until something is so; return its URL."""
    up = Up(*words, cwd=cwd)
    try:
        up.wait_until_ready()
        wait_until(lambda: until(up))
        assert up.stop() == 130
    finally:
        up.end()


@pytest.fixture
def upstream(tmp_path):
    with FakeUpstream(tmp_path / "upstream") as upstream:
        for name in ("demo", "other"):
            upstream.put(index(name), index_file(name, "1.0.0"))
        yield upstream


def asked(name):
    return lambda up: up.get(index(name)).status_code == 200


def test_a_restored_backup_stops_at_what_its_public_url_shows_and_recovers(tmp_path, upstream):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    from_upstream = ("--upstream", upstream.source)
    run(first, *from_upstream, until=asked("demo"))
    second.mkdir()
    shutil.copytree(first / "crateseal-data", second / "crateseal-data")
    root = (second / "crateseal-data/www/tuf/metadata/1.root.json").read_bytes()
    leap_twice(first / "crateseal-data")
    lost = Up("--offline", *from_upstream, cwd=first)
    restored = None
    try:
        lost.wait_until_ready()
        client_of(lost.url, tmp_path / "client", root).refresh()
        restored = Up(*from_upstream, "--public-url", lost.url, cwd=second)
        wait_until(lambda: trouble(second))
        ran = crateseal("recover", cwd=second)
        assert ran.returncode == 0, ran.stderr
        assert "far beyond" in ran.stdout
        assert number_of(second / "crateseal-data") > number_of(first / "crateseal-data") + 2**40
        assert not trouble(second)
        ran = crateseal("check", cwd=second)
        assert ran.returncode == 0, ran.stdout
    finally:
        lost.end()
        if restored:
            restored.end()
    run(second, *from_upstream, until=lambda up: sees(up.url, tmp_path / "client", root))


def trouble(cwd):
    told = json.loads(crateseal("status", "--json", cwd=cwd).stdout)["trouble"] or ""
    return "another signer" in told


def sees(url, cache, root):
    """The client that has seen the lost history goes on with the recovered one."""
    client = client_of(url, cache, root)
    client.refresh()
    return client.get_targetinfo("index/de/mo/demo") is not None


def test_recover_works_where_no_signer_runs(tmp_path, upstream):
    here = tmp_path / "here"
    here.mkdir()
    run(here, "--upstream", upstream.source, until=asked("demo"))
    before = number_of(here / "crateseal-data")
    ran = crateseal("recover", cwd=here)
    assert ran.returncode == 0, ran.stderr
    assert number_of(here / "crateseal-data") > before + 2**40
    assert crateseal("check", cwd=here).returncode == 0
    (here / "crateseal-data/www/tuf/metadata/timestamp.json").write_bytes(b"{}")
    assert crateseal("recover", cwd=here).returncode != 0
