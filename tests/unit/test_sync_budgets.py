"""How much one client may ask for that nobody asked for before."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.sync.budgets import CLIENTS_MAX, WINDOW_SECONDS, Budgets, payer
from tests.fakes.upstream import FakeUpstream
from tests.support.syncing import Clock, in_loop, settings, syncing
from tests.unit.test_sync_want import index

ONE, OTHER = "10.0.0.1", "10.0.0.2"


@in_loop
async def test_beyond_its_budget_a_client_gets_nothing_fetched(tmp_path, caplog):
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream, names_per_client=2)
        async with syncing(config) as sync:
            wanted = ("percent-encoding", "wasi", "fnv")
            answer = await sync.want(*wanted, crates=["hex 0.4.3"], client=ONE)
            assert answer.over_budget == ("fnv", "hex 0.4.3")
            assert set(sync.signer.files) == {"percent-encoding", "wasi"}
            assert upstream.requests["/index/3/f/fnv"] == upstream.requests["/index/3/h/hex"] == 0
            assert not (await sync.want("fnv", client=OTHER)).over_budget
            assert not (await sync.want("hex")).over_budget  # the mirror itself pays nothing
            assert caplog.text.count(f"client {ONE} asked for more than 2") == 1


@in_loop
async def test_what_is_known_costs_nothing(tmp_path):
    clock = Clock()
    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream, names_per_client=3)
        async with syncing(config, clock=clock) as sync:
            for _ in range(4):
                answer = await sync.want("itoa", "nosuch", crates=["itoa 1.0.18"], client=ONE)
                assert answer.over_budget == ()
            assert not (await sync.want("hex", client=ONE)).over_budget
            clock.ahead += config.max_age + 1  # older than that it is fetched again, and known
            assert (await sync.want("itoa", "hex", client=ONE)).over_budget == ()


@in_loop
async def test_dependencies_that_come_along_cost_nothing(tmp_path):
    with FakeUpstream() as upstream:
        deps = [f"dep{number}" for number in range(20)]
        upstream.put("/index/to/p1/top1", index("top1", *deps))
        for name in deps:
            upstream.put(f"/index/de/p{name[3]}/{name}", index(name))
        config = settings(tmp_path, upstream, names_per_client=2)
        async with syncing(config) as sync:
            assert (await sync.want("top1", client=ONE)).over_budget == ()
            assert (await sync.want(*deps, client=ONE)).over_budget == ()
            assert (await sync.want("itoa", client=ONE)).over_budget == ()
            assert (await sync.want("hex", client=ONE)).over_budget == ("hex",)


def test_after_ten_minutes_there_is_a_new_budget():
    clock = Clock()
    budgets = Budgets(2, clock)
    assert [budgets.spend(ONE) for _ in range(3)] == [True, True, False]
    clock.ahead += WINDOW_SECONDS + 1
    assert budgets.spend(ONE)
    clock.ahead -= 86_400  # the clock was set back: nobody waits a day
    assert budgets.spend(ONE)


def test_the_table_is_bounded():
    budgets = Budgets(1, Clock())
    for number in range(CLIENTS_MAX + 10):
        budgets.spend(str(ipaddress.IPv4Address(number)))
    assert len(budgets) == CLIENTS_MAX
    assert not budgets.spend(str(ipaddress.IPv4Address(CLIENTS_MAX)))


@pytest.mark.parametrize(
    ("client", "key"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("no address", "no address"),
    ],
)
def test_who_pays_is_told_by_address(client, key):
    assert payer(client) == key


@given(st.text(max_size=64))
def test_whatever_a_client_is_called_somebody_pays(text):
    assert isinstance(payer(text), str)
