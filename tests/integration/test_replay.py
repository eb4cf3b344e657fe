"""Ten real weeks of crates.io, played to `sync` and the signer on a clock that jumps.

A sample of them runs always: every crate that was ever removed, and 73 others. The whole takes
ten minutes:

    CRATESEAL_TRACE=publish-trace.jsonl pytest -m slow tests/integration/test_replay.py
"""

import gzip
import os
from pathlib import Path

import pytest

from tests.fakes.upstream import FakeUpstream
from tests.support.replay import (
    BEFORE_SECONDS,
    Replay,
    Ring,
    expected_deletions,
    expected_returns,
    load,
)
from tests.support.syncing import in_loop

SAMPLE = Path(__file__).parents[1] / "data/publish-trace-sample.jsonl.gz"
WHOLE = os.environ.get("CRATESEAL_TRACE")


async def play(trace, folder):
    """Play a trace; at the end everything that was held is accepted."""
    start = trace[0]["t"] - BEFORE_SECONDS
    with FakeUpstream(folder / "upstream", compress=False) as upstream:
        async with Ring(folder / "data", upstream, start) as ring:
            replay = Replay(trace, upstream, ring)
            await replay.run()

            assert replay.refused == {}
            assert sorted(replay.deletions) == expected_deletions(trace)
            assert sorted(replay.returns) == expected_returns(trace)
            index = {name: replay.world.file(name) for name in replay.world.crates}
            held = ring.held()
            published = ring.published()
            assert held
            assert published == {name: data for name, data in index.items() if name not in held}
            assert len(ring.notes()) == len(held)

            for name in sorted(held):
                await ring.accept(name)
            assert ring.published() == index
            assert ring.notes() == []
            assert ring.held() == set()
            assert ring.findings() == []


@pytest.mark.timeout(180)
@in_loop
async def test_a_sample_of_ten_weeks_ends_with_upstreams_own_index(tmp_path):
    with gzip.open(SAMPLE, "rt") as lines:
        await play(load(lines), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not WHOLE, reason="CRATESEAL_TRACE names no unpacked publish trace")
@in_loop
async def test_ten_weeks_end_with_upstreams_own_index(tmp_path):
    await play(load(Path(WHOLE).read_text().splitlines()), tmp_path)
