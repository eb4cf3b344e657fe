import io
import json
import os
import subprocess

import pytest

from mirror import status
from mirror.config import Config
from mirror.core.times import rfc3339
from mirror.errors import PublicationError, UsageError
from tests.support.mirror_folder import MirrorFolder
from tests.support.processes import CRATESEAL, environment

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


# --- what expires


def test_it_says_until_when_each_role_is_good_and_from_when_to_sign_it_anew(mirror):
    beat(mirror, expires={"bins": rfc3339(NOW + 60 * DAY)})
    code, text = show(mirror)
    assert code == 0
    assert "expires        timestamp  in 1 d 0 h     2027-01-16 08:00 UTC, renews itself" in text
    assert "bins       in 60 d 0 h    2027-03-16 08:00 UTC, renews itself" in text
    assert "root       in 180 d 0 h   2027-07-14, sign anew from 2027-04-15" in text
    assert "warning" not in text
    assert all(len(line) < 80 for line in text.splitlines() if "expires" in line)


def test_an_offline_role_in_its_window_is_a_warning_with_the_command_and_no_finding_yet(mirror):
    mirror.repository.now = NOW + 95 * DAY
    mirror.publish({})
    code, text = show(mirror, now=NOW + 95 * DAY)
    assert code == 0
    assert "root       in 85 d 0 h    2027-07-14, sign anew now" in text
    assert "warning        root expires in 85 days (2027-07-14): sign it anew\n" in text
    assert f"tuf-repo resign root --data {mirror.data} --out DRAFT" in text


def test_an_offline_role_that_is_late_is_a_finding(mirror):
    mirror.repository.now = NOW + 155 * DAY
    mirror.publish({})
    code, text = show(mirror, now=NOW + 155 * DAY, as_json=True)
    fields = json.loads(text)
    assert (code, fields["findings"]) == (1, ["late: root"])
    (told,) = fields["warnings"]
    assert (told["role"], told["state"], told["days_left"]) == ("root", "late", 25)
    assert told["text"] == "root expires in 25 days (2027-07-14): sign it anew now"


def test_several_roles_near_their_end_take_one_ceremony(mirror):
    code, text = show(mirror, now=NOW + 300 * DAY)
    assert code == 1
    assert "tuf-repo resign root targets crates --data" in text


def test_an_online_role_that_nobody_renews_is_a_warning_until_it_expires(mirror):
    code, text = show(mirror, now=NOW + 0.6 * DAY)
    assert code == 0
    assert "timestamp  in 9 h 36 min  2027-01-16 08:00 UTC, not renewed" in text
    assert "timestamp expires in 9 hours, not renewed: is a signer running?" in text


EVIL = "\x1b[2J 2099"


@pytest.mark.parametrize(
    "words",
    [
        {"expires": EVIL, "renew_from": EVIL, "warnings": EVIL},
        {"expires": {"bins": EVIL, EVIL: EVIL}, "renew_from": {"root": EVIL}, "warnings": [EVIL]},
        {"expires": [7], "renew_from": None, "warnings": {"text": EVIL}},
        {
            "expires": {"root": "2099-01-01T00:00:00Z"},
            "renew_from": {"root": "2098-01-01T00:00:00Z"},
        },
    ],
)
def test_hostile_words_on_expiry_leave_what_is_signed(mirror, words):
    plain = show(mirror, now=NOW + 155 * DAY)
    mirror.www.joinpath("status.json").write_text(json.dumps(words))
    assert show(mirror, now=NOW + 155 * DAY) == plain


def test_on_a_terminal_a_long_line_goes_on_under_its_own_column(mirror):
    beat(mirror, trouble="the disk is full and " * 8)
    ours, theirs = os.openpty()
    # rich takes a dumb terminal to be 80 columns wide.
    told = {"stdout": theirs, "env": {**environment(), "TERM": "dumb"}, "timeout": 60}
    subprocess.run([*CRATESEAL, "status", "--data", str(mirror.data)], **told, check=False)
    shown = os.read(ours, 65536).decode().partition("trouble  ")[2]
    os.close(theirs)
    os.close(ours)
    trouble = shown.partition("expires ")[0].splitlines()
    assert len(trouble) == 3
    assert all(line.startswith(" " * 15 + "the disk") for line in trouble[1:])
    assert max(map(len, trouble)) <= 80
