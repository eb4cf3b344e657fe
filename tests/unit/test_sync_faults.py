"""Whatever upstream does: a clear reason, nothing offered, and the next one is served."""

import asyncio
import contextlib
import time

import httpx
import pytest

from mirror.core.names import CrateId
from mirror.errors import UpstreamAnswerError
from mirror.sync.answers import decode_body
from mirror.sync.hops import Hops, is_public_address
from mirror.sync.transport import is_loopback
from mirror.sync.upstream import crate_url, user_agent
from tests.fakes.upstream import FakeUpstream
from tests.support.syncing import in_loop, settings, syncing, until

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
    ("stall", None): "no answer within 0.5 s",
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
    async with syncing(settings(tmp_path, source)) as sync:
        first = await sync.want("itoa")
        assert "no connection to" in first.failed["itoa"]
        began = time.monotonic()
        answer = await sync.want(*(f"name{number}" for number in range(500)))
        assert len(answer.failed) == 500
        assert "not asked for: no connection to 127.0.0.1" in answer.failed["name7"]
        assert time.monotonic() - began < 0.5


@in_loop
async def test_an_upstream_that_comes_back_is_noticed(tmp_path):
    with FakeUpstream() as upstream:
        async with syncing(settings(tmp_path, upstream)) as sync:
            upstream.fault("*", "hang")
            assert (await sync.want("itoa")).failed
            upstream.heal("*")
            assert "not asked for" in (await sync.want("itoa")).failed["itoa"]
            await asyncio.sleep(0.6)
            assert not (await sync.want("itoa")).failed


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


@in_loop
async def test_nobody_is_sent_from_a_public_upstream_into_our_own_network():
    hops = Hops(httpx.URL("https://8.8.8.8/"))
    here = httpx.URL("https://8.8.8.8/a")
    for inside in ("https://127.0.0.1/", "https://10.0.0.1/", "https://[::1]/", "https://localhost/",
                   "https://169.254.169.254/latest", "https://[::ffff:10.0.0.1]/"):  # fmt: skip
        with pytest.raises(UpstreamAnswerError, match="a private address"):
            await hops.check_redirect(here, httpx.URL(inside), "crate x")
    with pytest.raises(UpstreamAnswerError, match="from https"):
        await hops.check_redirect(here, httpx.URL("http://8.8.8.8/"), "crate x")
    with pytest.raises(UpstreamAnswerError, match="no http address"):
        await hops.check_redirect(
            httpx.URL("http://8.8.8.8/"), httpx.URL("ftp://8.8.8.8/"), "crate x"
        )
    await hops.check_redirect(here, httpx.URL("https://1.1.1.1/"), "crate x")
    inner = Hops(httpx.URL("http://127.0.0.1/"))
    await inner.check_redirect(
        httpx.URL("http://127.0.0.1/"), httpx.URL("http://10.0.0.1/"), "crate x"
    )


def test_addresses_are_told_apart():
    assert is_public_address("8.8.8.8")
    assert not any(
        map(is_public_address, ("10.1.2.3", "224.0.0.1", "fe80::1%eth0", "::1", "100.64.0.1"))
    )
    assert is_loopback("127.1.2.3")
    assert is_loopback("::1")
    assert is_loopback("localhost")
    assert not is_loopback("example.org")


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
