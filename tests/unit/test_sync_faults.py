"""Whatever upstream does: a clear reason, nothing offered, and the next one is served."""

import asyncio
import contextlib
import time
from dataclasses import replace
from urllib.parse import urlsplit

import httpx
import pytest

from mirror.core.names import CrateId, CrateName
from mirror.core.plan import Fetch
from mirror.errors import UpstreamAnswerError, UpstreamError
from mirror.store.cursors import Cursors
from mirror.sync.answers import decode_body
from mirror.sync.engine import _parts
from mirror.sync.fetcher import Fetcher
from mirror.sync.slots import Slots
from mirror.sync.transport import PyreqwestTransport, TimeLimits
from mirror.sync.upstream import crate_url, user_agent
from mirror.sync.values import Kind, Life
from tests.fakes.upstream import FakeUpstream
from tests.support.syncing import QUICK, Clock, in_loop, settings, syncing, until

ITOA = "/index/it/oa/itoa"
CRATE = "/crates/itoa/itoa-1.0.18.crate"
SMALL = {"index_max_bytes": 100_000, "crate_max_bytes": 100_000}

INDEX_FAULTS = {
    ("status", 500): "upstream answered 500",
    ("status", 403): "upstream answered 403",
    ("busy", 7): "429 and asks to wait 7 s",
    ("html", None): "a page of HTML",
    ("wrong", b"nothing here"): "expected lines of JSON, got 'nothing here'",
    ("empty", None): "empty body",
    ("truncate", None): "end of file",
    ("close", None): "connection closed",
    ("hang", None): "no answer within 0.5 s",
    ("stall", None): "no more bytes for 0.5 s",
    ("trickle", None): "not whole after 1.5 s",
    ("endless", None): "expected at most 100000 bytes",
    ("bomb", 2_000_000): "expected at most 100000 bytes",
    ("two-members", None): "bytes follow the gzip data",
}
CRATE_FAULTS = {
    ("status", 500): "upstream answered 500",
    ("html", None): "expected a crate, got '<!doctype",
    ("wrong", b"nothing here"): "expected a crate, got 'nothing here'",
    ("wrong", b"\x1f\x8b" + b"0" * 200_000): "expected at most 100000 bytes, got 200002",
    ("empty", None): "empty body",
    ("truncate", None): "end of file",
    ("close", None): "connection closed",
    ("hang", None): "no answer within 0.5 s",
    ("trickle", None): "not whole after 1.5 s",
}


@pytest.mark.parametrize(("fault", "text"), INDEX_FAULTS.items(), ids=lambda item: str(item)[:30])
@in_loop
async def test_an_index_file_that_cannot_be_used_fails_with_its_reason(tmp_path, fault, text):
    with FakeUpstream() as upstream:
        async with syncing(settings(tmp_path, upstream, **SMALL)) as sync:
            upstream.fault(ITOA, *fault)
            answer = await sync.want("itoa")
            assert text in answer.failed["itoa"]
            assert answer.absent == ()
            assert sync.signer.batches == []
            # One connection that closes is given a second chance, all else is not asked again.
            assert upstream.requests[ITOA] == (2 if fault[0] == "close" else 1)
            upstream.heal(ITOA)
            await asyncio.sleep(0.6 if fault[0] in {"hang", "stall"} else 0)
            assert not (await sync.want("itoa")).failed


@pytest.mark.parametrize(("fault", "text"), CRATE_FAULTS.items(), ids=lambda item: str(item)[:30])
@in_loop
async def test_a_crate_that_cannot_be_used_fails_with_its_reason(tmp_path, fault, text):
    with FakeUpstream() as upstream:
        async with syncing(settings(tmp_path, upstream, **SMALL)) as sync:
            await sync.want("itoa")
            upstream.fault(CRATE, *fault)
            answer = await sync.want(crates=["itoa 1.0.18"])
            assert text in answer.failed["itoa 1.0.18"]
            assert len(sync.signer.batches) == 1
            assert not list(sync.config.spool.glob("*/*.crate"))


@pytest.mark.parametrize("fault", ["truncate", "stall"])
@in_loop
async def test_a_long_body_that_breaks_off_half_way_fails_with_its_reason(tmp_path, fault):
    with FakeUpstream() as upstream:
        upstream.put(CRATE, b"\x1f\x8b" + bytes(4_000_000))
        async with syncing(settings(tmp_path, upstream)) as sync:
            upstream.fault(CRATE, fault)
            answer = await sync.want(crates=["itoa 1.0.18"])
            assert answer.failed["itoa 1.0.18"].startswith("crate itoa 1.0.18: ")
            assert not any(seen.crates for seen in sync.signer.batches)
            # Bytes had come: upstream as a whole is not down.
            assert not (await sync.want("hex")).failed


@in_loop
async def test_one_bad_name_does_not_touch_its_neighbours(tmp_path):
    with FakeUpstream() as upstream:
        upstream.fault(ITOA, "status", 500)
        async with syncing(settings(tmp_path, upstream)) as sync:
            answer = await sync.want("itoa", "hex", "fnv")
            assert list(answer.failed) == ["itoa"]
            assert {"hex", "fnv"} <= set(sync.signer.files)
            assert "itoa" not in sync.signer.files


@in_loop
async def test_an_upstream_that_is_down_is_not_asked_again_for_each_name(tmp_path):
    with FakeUpstream() as upstream:
        source = upstream.source
    async with syncing(settings(tmp_path, source), pace=replace(QUICK, down=60.0)) as sync:
        first = await sync.want("itoa")
        assert "no connection to" in first.failed["itoa"]
        connections = []

        def count(_, writer):
            connections.append(writer)
            writer.close()

        port = urlsplit(source.removeprefix("sparse+")).port
        async with await asyncio.start_server(count, "127.0.0.1", port):
            answer = await sync.want(*(f"name{number}" for number in range(500)))
        assert len(answer.failed) == 500
        assert "not asked for: no connection to 127.0.0.1" in answer.failed["name7"]
        assert connections == []


@in_loop
async def test_an_upstream_that_comes_back_is_noticed(tmp_path):
    with FakeUpstream() as upstream:
        pace = replace(QUICK, down=6.0)
        async with syncing(settings(tmp_path, upstream), pace=pace) as sync:
            while not upstream.answers[200]:  # the greeting: an answer meanwhile would count
                await asyncio.sleep(0.01)
            upstream.fault("*", "hang")
            assert (await sync.want("itoa")).failed
            upstream.heal("*")
            assert "not asked for" in (await sync.want("itoa")).failed["itoa"]
            for _ in range(100):
                await asyncio.sleep(0.1)
                if not (await sync.want("itoa")).failed:
                    break
            assert "itoa" in sync.signer.files


@in_loop
async def test_redirects_are_followed_five_times_and_no_more(tmp_path):
    with FakeUpstream() as upstream:
        async with syncing(settings(tmp_path, upstream)) as sync:
            for hop in range(5):
                upstream.fault(f"/r{hop}", "redirect", f"/r{hop + 1}")
            upstream.put("/r5", upstream.read(CRATE))
            upstream.fault(CRATE, "redirect", "/r1")
            assert not (await sync.want(crates=["itoa 1.0.18"])).failed
            upstream.fault(ITOA, "redirect", upstream.url + ITOA)
            upstream.fault("/index/3/h/hex", "redirect", "/index/3/h/hex")
            assert "more than 5 redirects" in (await sync.want("hex")).failed["hex"]


@in_loop
async def test_a_registry_that_wants_a_login_is_named_as_such(tmp_path):
    with FakeUpstream(config={"auth-required": True}) as upstream:
        async with syncing(settings(tmp_path, upstream)) as sync:
            answer = await sync.want(crates=["itoa 1.0.18"])
            assert "auth-required" in answer.failed["itoa 1.0.18"]


@in_loop
async def test_the_config_is_fetched_once_and_remembered(tmp_path):
    with FakeUpstream() as upstream:
        async with syncing(settings(tmp_path, upstream)) as sync:
            await sync.want("itoa")
            await sync.want(crates=["itoa 1.0.18", "hex 0.4.3", "fnv 1.0.7"])
            assert upstream.requests["/index/config.json"] == 1


@in_loop
async def test_a_download_address_with_the_checksum_is_filled_in(tmp_path):
    with FakeUpstream() as upstream:
        upstream.config["dl"] = f"{upstream.url}/by/{{lowerprefix}}/{{sha256-checksum}}"
        async with syncing(settings(tmp_path, upstream)) as sync:
            line = upstream.read(ITOA).splitlines()[-1]
            cksum = line.split(b'"cksum": "')[1][:64].decode()
            upstream.put(f"/by/it/oa/{cksum}", upstream.read(CRATE))
            assert not (await sync.want(crates=["itoa 1.0.18"])).failed


@in_loop
async def test_crates_are_asked_for_as_they_are_and_index_files_as_gzip(tmp_path):
    with FakeUpstream() as upstream:
        async with syncing(settings(tmp_path, upstream, contact="ops@example.org")) as sync:
            await sync.want(crates=["itoa 1.0.18"])
            assert upstream.headers[ITOA]["accept-encoding"] == "gzip"
            assert upstream.headers[CRATE]["accept-encoding"] == "identity"
            assert "ops@example.org" in upstream.headers[CRATE]["user-agent"]


@in_loop
async def test_lines_that_are_no_want_get_an_error_and_the_next_is_served(tmp_path):
    with FakeUpstream() as upstream:
        async with syncing(settings(tmp_path, upstream)) as sync:
            socket = str(sync.config.run / "sync.sock")
            for line in (b"\n", b"[]\n", b"{" * 50_000 + b"\n", b'{"names":["../x"]}\n'):
                reader, writer = await asyncio.open_unix_connection(socket)
                writer.write(line)
                answer = await reader.readline()
                assert b"not understood" in answer
                writer.close()
            reader, writer = await asyncio.open_unix_connection(socket)
            writer.write(b"x" * 2_000_000)
            with contextlib.suppress(ConnectionError):  # what was not read cuts the answer off
                await reader.read()
            writer.close()
            silent = await asyncio.open_unix_connection(socket)
            assert not (await sync.want("itoa")).failed
            silent[1].close()


@in_loop
async def test_a_client_that_goes_away_does_not_stop_the_fetch(tmp_path):
    with FakeUpstream(delay=0.1) as upstream:
        async with syncing(settings(tmp_path, upstream)) as sync:
            asking = asyncio.create_task(sync.want("itoa"))
            await asyncio.sleep(0.05)
            asking.cancel()
            await until(lambda: "itoa" in sync.signer.files)


@pytest.mark.parametrize(
    "location",
    [f"http://{'a' * 70}.com/", "http://a..b/", "http://[", "http://127.0.0.1:99999/", "//", ""],
)
@in_loop
async def test_a_redirect_to_nowhere_fails_and_the_next_is_served(tmp_path, location):
    with FakeUpstream() as upstream:
        async with syncing(settings(tmp_path, upstream)) as sync:
            upstream.fault(ITOA, "redirect", location)
            upstream.fault(CRATE, "redirect", location)
            answer = await sync.want("itoa")
            assert answer.failed.keys() == {"itoa"}
            answer = await sync.want("hex", crates=["itoa 1.0.18"])
            assert answer.failed.keys() == {"itoa 1.0.18"}
            assert "hex" in sync.signer.files


class Broken:
    """An upstream with a mistake in it."""

    async def fetch_index(self, name, *_, turn):
        raise ZeroDivisionError(name)

    async def fetch_crate(self, crate, file, *, turn):
        file.write_bytes(b"half a")
        raise ZeroDivisionError(str(crate))


@in_loop
async def test_an_error_that_nobody_foresaw_fails_its_fetch_and_nothing_else(tmp_path, caplog):
    life = Life(settings(tmp_path, "sparse+http://127.0.0.1:1/"), Clock(), QUICK)
    cursors = Cursors(life.config.cursors)
    itoa, crate = CrateName("itoa"), CrateId("itoa", "1.0.18")
    async with asyncio.TaskGroup() as tasks:
        parts = _parts(Broken(), cursors, tasks, life, Slots(4))
        fetcher = Fetcher(parts)
        fetcher.crates.open()
        flights = [
            parts.flights.start(key, urgent=True, lacking=True) for key in (itoa, str(crate))
        ]
        await fetcher.bring({itoa: Fetch(conditional=False)}, [crate])
        for flight in flights:
            result = await asyncio.wait_for(flight.future, 10)
            assert (result.kind, "ZeroDivisionError" in result.reason) == (Kind.FAILED, True)
        swept = parts.flights.start(itoa, urgent=False, lacking=False)
        with pytest.raises(UpstreamError, match="a mistake of ours: ZeroDivisionError"):
            await fetcher.sweep(itoa, None, [].append)
        assert swept.future.result().kind is Kind.FAILED
    cursors.close()
    assert caplog.text.count("nobody foresaw") == 3
    assert not list(life.config.spool.glob("*/*.crate"))


@in_loop
async def test_a_cancellation_that_comes_with_the_answer_is_heeded():
    with FakeUpstream(delay=0.05) as upstream:
        transport = PyreqwestTransport(TimeLimits(5.0, 5.0, 5.0))
        for _ in range(5):
            request = httpx.Request("GET", upstream.url + ITOA)
            fetch = asyncio.create_task(transport.handle_async_request(request))
            await asyncio.sleep(0.02)
            time.sleep(0.2)  # noqa: ASYNC251 - the answer comes while nobody looks
            fetch.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetch
        await transport.aclose()


def test_download_addresses_follow_the_cargo_book():
    crate = CrateId("Inflector", "0.11.4")
    assert crate_url("https://x/dl", crate, "") == "https://x/dl/Inflector/0.11.4/download"
    assert (
        crate_url("https://x/{prefix}/{crate}-{version}", crate, "")
        == "https://x/In/fl/Inflector-0.11.4"
    )
    assert (
        crate_url("https://x/{lowerprefix}/{sha256-checksum}", crate, "ab") == "https://x/in/fl/ab"
    )
    assert (
        crate_url("https://x/{prefix}/{crate}", CrateId("syn", "1.0.0"), "") == "https://x/3/s/syn"
    )


def test_the_user_agent_says_who_asks():
    assert user_agent(None).startswith("crateseal/")
    assert "+https://" in user_agent(None)
    assert user_agent("a@b.c").endswith("; a@b.c)")


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "deflate"])
def test_an_encoding_that_was_not_asked_for_is_refused(encoding):
    with pytest.raises(UpstreamAnswerError, match="content encoding"):
        decode_body(b"x", encoding, "index file x", 100)
    with pytest.raises(UpstreamAnswerError, match="broken gzip"):
        decode_body(b"xyz", "gzip", "index file x", 100)
