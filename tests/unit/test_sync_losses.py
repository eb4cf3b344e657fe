"""Many names gone at once: upstream lost its index, unless it proves to be itself."""

from mirror.core.names import CrateName
from mirror.core.plan import Known
from mirror.store.cursors import Cursors
from tests.fakes.upstream import FakeUpstream
from tests.support.syncing import in_loop, sync_once
from tests.unit.test_sync_list import made
from tests.unit.test_sync_sweep import indexed


def index_url(number):
    return f"/index/na/me/name{number:04}"


async def swept(tmp_path, upstream, count=40):
    """Sweep so many names once; return the settings."""
    made(upstream, count)
    config = indexed(tmp_path, upstream, [f"name{number:04}" for number in range(count)])
    report, _ = await sync_once(config)
    assert report.changed == count
    return config


@in_loop
async def test_an_upstream_that_lost_its_index_is_not_believed(tmp_path, caplog):
    with FakeUpstream() as upstream:
        config = await swept(tmp_path, upstream)
        for number in range(40):
            upstream.put(index_url(number), None)
        report, signer = await sync_once(config)
        assert report.missing == {"gone all at once": 40}
        assert (report.absent, signer.with_bytes, signer.sweeps[0].missing) == (0, [], 40)
        assert caplog.text.count("has it lost its index?") == 1
        cursors = Cursors(config.cursors)
        assert {cursor.known for cursor in cursors} == {Known.PUBLISHED}
        assert len(cursors.retries) == 40
        cursors.close()
        made(upstream, 40)
        report, signer = await sync_once(config)
        assert (report.looked, report.missing, signer.sweeps[0].missing) == (40, {}, 0)


@in_loop
async def test_what_a_stranger_answers_in_its_place_is_not_believed(tmp_path):
    with FakeUpstream() as upstream:
        config = await swept(tmp_path, upstream)
        for number in range(20):
            upstream.put(index_url(number), None)
        upstream.fault("/index/config.json", "status", 404)
        report, signer = await sync_once(config)
        assert report.missing == {"gone all at once": 20}
        assert signer.with_bytes == []


@in_loop
async def test_many_names_may_go_where_upstream_is_itself(tmp_path, caplog):
    with FakeUpstream() as upstream:
        config = await swept(tmp_path, upstream)
        for number in range(20):
            upstream.put(index_url(number), None)
        report, signer = await sync_once(config)
        assert (report.absent, report.missing, len(signer.with_bytes[0].gone)) == (20, {}, 20)
        assert "lost its index" not in caplog.text


@in_loop
async def test_a_few_names_may_go_without_a_question(tmp_path):
    with FakeUpstream() as upstream:
        config = await swept(tmp_path, upstream, 10)
        for number in range(10):
            upstream.put(index_url(number), None)
        upstream.fault("/index/config.json", "status", 404)
        report, signer = await sync_once(config)
        assert (report.absent, len(signer.with_bytes[0].gone)) == (10, 10)


@in_loop
async def test_the_name_to_compare_with_is_the_one_seen_last(tmp_path):
    with FakeUpstream() as upstream:
        config = await swept(tmp_path, upstream, 12)
        cursors = Cursors(config.cursors)
        names = sorted(cursors, key=lambda cursor: -cursor.looked_at)
        assert cursors.last_seen(but=set()) == names[0]
        gone = {cursor.name for cursor in names[:-1]}
        assert cursors.last_seen(but=gone) == names[-1]
        assert cursors.last_seen(but={*gone, CrateName(names[-1].name)}) is None
        cursors.close()
