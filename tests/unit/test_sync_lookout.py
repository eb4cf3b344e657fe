"""What is served at our public URL, and is not what was signed here, is passed on to the signer."""

import asyncio
import json
from dataclasses import replace

import pytest

from tests.fakes.upstream import FakeUpstream
from tests.support.syncing import QUICK, in_loop, settings, syncing, until

PATH = "/tuf/metadata/timestamp.json"


def stamp(number, **more):
    return json.dumps({"signed": {"version": number, **more}}).encode()


def write_ours(config, data):
    ours = config.www / PATH.lstrip("/")
    ours.parent.mkdir(parents=True, exist_ok=True)
    ours.write_bytes(data)


async def passed_on(tmp_path, served, *, seconds=0.3):
    """Run with our own timestamp at 5 and this at the public URL; return what was passed on."""

    with FakeUpstream() as upstream:
        config = settings(tmp_path, upstream, public_url=upstream.url)
        write_ours(config, stamp(5))
        if served is not None:
            upstream.put(PATH, served)
        async with syncing(config, pace=replace(QUICK, lookout=0.05)) as sync:
            await asyncio.sleep(seconds)
            return [each.batch.seen for each in sync.signer.batches if each.batch.seen]


@pytest.mark.parametrize("served", [stamp(6), stamp(5, other=1), stamp(2**60)])
@in_loop
async def test_what_is_newer_or_another_is_passed_on(tmp_path, served):
    assert set(await passed_on(tmp_path, served)) == {served.decode()}


@pytest.mark.parametrize(
    "served",
    [
        None,
        stamp(5),
        stamp(4),
        b"",
        b"<html>login",
        b"[]",
        b"[" * 16_000,
        stamp(6) + b" " * 20_000,
        stamp(6).decode().encode("utf-16"),
        b'{"signatures":[{}], "signed": {"version": 5} }',
        b'{"signed":{"version":1e999}}',
        b'{"signed":{"version":6.5}}',
        b'{"signed":{"version":true}}',
        b"\xff" * 50,
    ],
)
@in_loop
async def test_what_is_ours_or_older_or_no_timestamp_says_nothing(tmp_path, served):
    assert await passed_on(tmp_path, served) == []


@in_loop
async def test_nobody_looks_where_no_public_url_is_named(tmp_path):
    with FakeUpstream() as upstream:
        upstream.put(PATH, stamp(6))
        config = settings(tmp_path, upstream)
        write_ours(config, stamp(5))
        async with syncing(config) as sync:
            await sync.want("itoa")
            assert not [each.batch.seen for each in sync.signer.batches if each.batch.seen]
            await until(lambda: sync.signer.batches)
        assert PATH not in upstream.requests
