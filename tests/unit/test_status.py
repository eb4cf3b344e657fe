import io
import json

import pytest

from mirror import status
from mirror.config import Config
from mirror.core.times import rfc3339
from mirror.errors import PublicationError, UsageError
from tests.support.mirror_folder import MirrorFolder

NOW = 1_800_000_000.0
DAY = 86400.0


@pytest.fixture
def mirror(tmp_path):
    return MirrorFolder(tmp_path / "data", now=NOW)


def beat(mirror, **fields):
    mirror.www.joinpath("status.json").write_text(json.dumps({"at": rfc3339(NOW), **fields}))


def show(mirror, *, now=NOW, as_json=False):
    out = io.StringIO()
    code = status.show(Config(data=mirror.data), now=now, as_json=as_json, out=out)
    return code, out.getvalue()


QUARANTINED = {
    "name": "serde",
    "since": rfc3339(NOW - 7200),
    "rule": "cksum-changed",
    "reason": "serde 1.0.0: expected aa, got bb",
    "first_sight": False,
}


def test_it_says_what_is_published_and_that_all_is_well(mirror):
    beat(mirror, held={"index": 12345, "crates": 7})
    code, text = show(mirror, now=NOW + 5)
    assert code == 0
    assert "12,345 index files, 7 crates" in text
    assert "TRIAL" in text
    assert "heartbeat 5 s ago" in text
    assert "timestamp  in 23 h 59 min" in text
    assert "quarantined    nothing" in text
    assert "\x1b" not in text


def test_what_is_quarantined_is_told_with_its_reason_and_is_a_finding(mirror):
    beat(mirror, quarantined=[QUARANTINED])
    code, text = show(mirror)
    assert code == 1
    assert "serde: serde 1.0.0: expected aa, got bb (cksum-changed, 2 h 0 min ago; stays" in text


def test_json_says_the_same(mirror):
    beat(mirror, quarantined=[QUARANTINED])
    code, text = show(mirror, as_json=True)
    fields = json.loads(text)
    assert (code, fields["quarantined"]) == (1, [QUARANTINED])
    assert fields["findings"] == ["quarantined: serde"]
    assert fields["trial"] is True
    assert set(fields["expires"]) == {"root", "targets", "crates", "snapshot", "timestamp"}


def test_a_signer_that_fell_silent_is_told(mirror):
    beat(mirror)
    code, text = show(mirror, now=NOW + 600)
    assert code == 0
    assert "not running: last heartbeat 10 min ago" in text


def test_what_has_expired_is_a_finding(mirror):
    beat(mirror)
    code, text = show(mirror, now=NOW + 2 * DAY)
    assert code == 1
    assert "timestamp  EXPIRED" in text


def test_trouble_of_the_signer_is_a_finding(mirror):
    beat(mirror, trouble="disk full: tried again in 8 s")
    code, text = show(mirror)
    assert code == 1
    assert "trouble        disk full: tried again in 8 s" in text


def test_without_a_heartbeat_the_metadata_is_told(mirror):
    code, text = show(mirror)
    assert code == 0
    assert "not running: last heartbeat never" in text


@pytest.mark.parametrize(
    "content", ["{", '{"at": "yesterday"}', '{"quarantined": [3]}', '{"at": 1}']
)
def test_a_heartbeat_that_is_none_is_named(mirror, content):
    mirror.www.joinpath("status.json").write_text(content)
    with pytest.raises(PublicationError, match=r"status\.json"):
        show(mirror)


def test_a_folder_without_a_mirror_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="no mirror here"):
        status.show(Config(data=tmp_path), now=NOW, as_json=False, out=io.StringIO())


def test_what_is_denied_held_and_deleted_is_told(mirror):
    denied = {"name": "evil", "version": "1.0.0", "reason": "a miner", "since": rfc3339(NOW - 60)}
    held = {**QUARANTINED, "kind": "hold", "first_sight": True, "rule": "returned"}
    beat(mirror, denied=[denied], quarantined=[held], deleted=3, held={"index": 1, "crates": 1})
    code, text = show(mirror)
    assert code == 1  # what is held waits for somebody; what is denied does not
    assert "denied         evil@1.0.0: a miner (60 s ago)" in text
    assert "held: serde" in text
    assert "not published" in text
    assert "upstream deleted 3" in text
