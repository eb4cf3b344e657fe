"""What the signer publishes, refuses, keeps and forgets, on a real disk, without processes."""

import gzip
import json
import os
import shutil

import pytest

from mirror.core.batch import Sweep
from mirror.core.layout import note_path, target_path
from mirror.core.names import CrateName
from mirror.sign.examine import _refusal
from mirror.sign.state import EXTRA
from mirror.store.www import GZIP_HEADER
from tests.support.crates import crate_bytes, index_file, index_line
from tests.support.signing import Workbench, at_work


@pytest.fixture
def bench(tmp_path):
    with at_work(tmp_path / "data") as bench:
        yield bench


def published(bench, name):
    return bench.parts.publisher.lookup(target_path(CrateName(name)))


def held_bytes(bench, name):
    return bench.www(target_path(CrateName(name))).read_bytes()


def test_index_files_are_published_byte_for_byte(bench):
    files = {"demo": index_file("demo", "1.0.0"), "a": index_file("a", "0.1.0", "0.2.0")}
    assert bench.settle(files) == {}
    for name, data in files.items():
        path = target_path(CrateName(name))
        assert bench.www(path).read_bytes() == data
        zipped = bench.www(path + ".gz").read_bytes()
        assert zipped.startswith(GZIP_HEADER)
        assert gzip.decompress(zipped) == data
    assert bench.findings() == []


def test_one_batch_is_one_publication_and_nothing_new_is_none(bench):
    before = bench.parts.publisher.timestamp_version
    bench.settle({f"crate{n}": index_file(f"crate{n}", "1.0.0") for n in range(20)})
    after = bench.parts.publisher.timestamp_version
    assert after > before
    bench.settle({"crate3": index_file("crate3", "1.0.0")})
    assert bench.parts.publisher.timestamp_version == after


def test_a_changed_cksum_keeps_the_last_good_publication_and_its_neighbours_go_on(bench):
    good = index_line("demo", "1.0.0", "1" * 64)
    bench.settle({"demo": good})
    refused = bench.settle(
        {"demo": index_line("demo", "1.0.0", "2" * 64), "other": index_file("other", "1.0.0")}
    )
    assert list(refused) == ["demo"]
    assert held_bytes(bench, "demo") == good
    assert published(bench, "other")
    (finding,) = bench.parts.ledger.quarantined()
    assert (finding.subject, finding.rule, finding.first_sight) == ("demo", "cksum-changed", False)
    assert bench.findings() == []


def test_the_same_attack_offered_twice_is_refused_twice(bench):
    bench.settle({"demo": index_line("demo", "1.0.0", "1" * 64)})
    for _ in range(2):
        assert bench.settle({"demo": index_line("demo", "1.0.0", "2" * 64)})


def test_a_vanished_version_is_refused(bench):
    bench.settle({"demo": index_file("demo", "1.0.0", "1.1.0")})
    assert "1.0.0" in bench.settle({"demo": index_file("demo", "1.1.0")})["demo"]
    assert held_bytes(bench, "demo") == index_file("demo", "1.0.0", "1.1.0")


def test_what_is_refused_at_first_sight_is_withheld_with_a_signed_note(bench):
    bench.settle({"demo": index_line("other", "1.0.0")})
    assert not published(bench, "demo")
    target = bench.parts.publisher.lookup(note_path(CrateName("demo")))
    note = json.loads(bench.parts.www.read_target(note_path(CrateName("demo")), target.sha256))
    assert note["name"] == "demo"
    assert note["entries"][0]["kind"] == "quarantine"
    assert note["entries"][0]["rule"] == "malformed-index"
    assert "demo" in note["entries"][0]["reason"]
    assert not bench.www(note_path(CrateName("demo"))).exists()
    assert bench.findings() == []


def test_the_same_note_is_not_published_again(bench):
    bench.settle({"demo": index_line("other", "1.0.0")})
    before = bench.parts.publisher.timestamp_version
    bench.settle({"demo": index_line("other", "1.0.0")})
    assert bench.parts.publisher.timestamp_version == before


def test_good_bytes_end_a_quarantine_and_take_the_note_away(bench):
    bench.settle({"demo": index_line("other", "1.0.0")})
    bench.settle({"demo": index_file("demo", "1.0.0")})
    assert published(bench, "demo")
    assert bench.parts.publisher.lookup(note_path(CrateName("demo"))) is None
    assert bench.parts.ledger.quarantined() == []
    assert bench.findings() == []


def test_a_crate_is_stored_once_its_bytes_are_what_the_signed_line_says(bench):
    data = crate_bytes("demo", "1.0.0")
    bench.settle({"demo": index_file("demo", "1.0.0")})
    before = bench.parts.publisher.timestamp_version
    assert bench.settle(crates={("demo", "1.0.0"): data}) == {}
    assert bench.www("crates/demo/demo-1.0.0.crate").read_bytes() == data
    assert bench.parts.publisher.timestamp_version == before
    assert bench.findings() == []


def test_a_crate_and_its_index_file_may_come_in_one_batch(bench):
    bench.settle(
        {"demo": index_file("demo", "1.0.0")},
        {("demo", "1.0.0"): crate_bytes("demo", "1.0.0")},
    )
    assert bench.www("crates/demo/demo-1.0.0.crate").exists()
    assert bench.findings() == []


@pytest.mark.parametrize(
    ("version", "data", "reason"),
    [
        ("1.0.0", crate_bytes("demo", "1.0.0") + b"\0", "sha256"),
        ("9.9.9", crate_bytes("demo", "9.9.9"), "signed index line"),
    ],
)
def test_a_crate_that_no_signed_line_names_is_refused_and_not_stored(bench, version, data, reason):
    bench.settle({"demo": index_file("demo", "1.0.0")})
    refused = bench.settle(crates={("demo", version): data})
    assert reason in refused[f"demo {version}"]
    assert not bench.www("crates").exists()
    assert bench.findings() == []


def test_a_crate_in_another_case_than_its_line_is_refused(bench):
    bench.settle({"demo": index_file("demo", "1.0.0")})
    assert bench.settle(crates={("Demo", "1.0.0"): crate_bytes("demo", "1.0.0")})


def test_a_batch_that_is_none_is_refused_whole(bench):
    number = bench.offer({"demo": index_file("demo", "1.0.0")})
    (bench.config.spool / str(number) / "batch.json").write_text("{")
    (settled,) = bench.signer.settle([number], now=bench.now)
    assert settled.refused_whole
    assert not published(bench, "demo")


@pytest.mark.parametrize("file", ["data", "batch.json"])
def test_a_link_or_a_pipe_in_the_spool_is_not_opened(bench, tmp_path, file):
    for make in (lambda p: os.symlink(tmp_path / "elsewhere", p), os.mkfifo):
        number = bench.offer({"demo": index_file("demo", "1.0.0")})
        path = bench.config.spool / str(number) / file
        shutil.copy(path, tmp_path / "elsewhere")
        path.unlink()
        make(path)
        (settled,) = bench.signer.settle([number], now=bench.now)
        assert settled.refused_whole
    assert not published(bench, "demo")


def test_damaged_bytes_on_our_disk_are_no_base_for_an_audit(bench):
    bench.settle({"demo": index_file("demo", "1.0.0")})
    target = published(bench, "demo")
    folder = bench.www("tuf/targets/index/de/mo")
    (folder / f"{target.sha256}.demo").write_bytes(index_line("demo", "1.0.0", "2" * 64))
    (folder / f"{target.sha256}.demo.gz").write_bytes(b"damaged too")
    assert "our own disk" in bench.settle({"demo": index_line("demo", "1.0.0", "2" * 64)})["demo"]


def test_what_comes_back_to_old_bytes_is_named_again_and_not_pruned(bench):
    one, two = index_file("demo", "1.0.0"), index_file("demo", "1.0.0", "1.1.0")
    yanked = two.replace(b'"yanked":false', b'"yanked":true')
    for data in (one, two, yanked, two):
        bench.settle({"demo": data})
    assert bench.findings() == []
    bench.now += bench.config.grace + 1
    bench.signer.renew(now=bench.now)
    assert bench.signer.prune(now=bench.now) > 0
    assert held_bytes(bench, "demo") == two
    assert bench.findings() == []


def test_superseded_files_stay_for_the_grace_and_go_afterwards(bench):
    bench.settle({"demo": index_file("demo", "1.0.0")})
    old = published(bench, "demo")
    bench.settle({"demo": index_file("demo", "1.0.0", "1.1.0")})
    file = bench.www(f"tuf/targets/index/de/mo/{old.sha256}.demo")
    bench.now += bench.config.grace - 10
    bench.signer.renew(now=bench.now)
    bench.signer.prune(now=bench.now)
    assert file.exists()
    bench.now += 20
    bench.signer.prune(now=bench.now)
    assert not file.exists()
    assert bench.findings() == []


def test_the_modification_time_grows_by_a_whole_second_at_least(bench):
    path = bench.www("index/de/mo/demo")
    times = []
    for versions in (("1.0.0",), ("1.0.0", "1.0.1"), ("1.0.0", "1.0.1", "1.0.2")):
        bench.signer.settle([bench.offer({"demo": index_file("demo", *versions)})], now=bench.now)
        bench.signer.swap_links()
        times.append(path.stat().st_mtime)
    assert times[0] + 1 <= times[1]
    assert times[1] + 1 <= times[2]


def test_the_state_says_complete_after_a_whole_sweep_only(tmp_path):
    bench = Workbench(tmp_path / "data", mode="index")
    bench.init()
    bench.open()

    def state_after(**sweep):
        defaults = {"names_as_of": bench.now - 5, "names": 1, "missing": 0, "whole_source": True}
        bench.settle({}, sweep=Sweep(began=bench.now, **(defaults | sweep)))
        return bench.parts.publisher.extra[EXTRA]

    assert state_after(missing=1)["complete_as_of"] is None
    assert state_after(whole_source=False)["complete_as_of"] is None
    complete = state_after()["complete_as_of"]
    assert complete is not None
    assert state_after(missing=1)["complete_as_of"] == complete
    bench.parts.ledger.close()


def test_a_sweep_that_changed_nothing_publishes_a_timestamp_that_says_so(bench):
    bench.settle({"demo": index_file("demo", "1.0.0")})
    before = bench.parts.publisher
    timestamp, snapshot = before.timestamp_version, before.snapshot_version
    bench.settle({}, sweep=Sweep(bench.now, bench.now, 1, 0, whole_source=True))
    assert bench.parts.publisher.timestamp_version > timestamp
    assert bench.parts.publisher.snapshot_version == snapshot


def test_the_log_is_a_chain(bench):
    for n in range(3):
        bench.settle({f"crate{n}": index_file(f"crate{n}", "1.0.0")})
    before = "0" * 64
    for _, record, sha256 in bench.parts.ledger.log():
        assert json.loads(record)["prev"] == before
        before = sha256
    assert before != "0" * 64


def test_a_signer_that_ended_well_has_nothing_to_recover(bench):
    bench.settle({"demo": index_file("demo", "1.0.0")})
    bench.close()
    assert not (bench.config.staging / "running").exists()
    bench.open()
    assert published(bench, "demo")
    assert bench.findings() == []


# check

DAMAGES = {
    "the configuration changed": lambda w: (w / "index/config.json").write_bytes(b'{"dl":"x"}'),
    "the configuration missing": lambda w: (w / "index/config.json").unlink(),
    "the heartbeat of another root": lambda w: reroot(w / "status.json"),
    "an index link changed": lambda w: (w / "index/de/mo/demo").write_bytes(b"x"),
    "a gz changed": lambda w: flip(w / "index/de/mo/demo.gz"),
    "a second gzip member": lambda w: append(w / "index/de/mo/demo.gz", gzip.compress(b"x")),
    "bytes after the gz": lambda w: append(w / "index/de/mo/demo.gz", b"x"),
    "another gzip header": lambda w: regzip(w / "index/de/mo/demo.gz"),
    "a target missing": lambda w: only(w.glob("tuf/targets/index/de/mo/*.demo")).unlink(),
    "a link missing": lambda w: (w / "index/de/mo/demo").unlink(),
    "a crate changed": lambda w: flip(w / "crates/demo/demo-1.0.0.crate"),
    "a crate missing": lambda w: (w / "crates/demo/demo-1.0.0.crate").unlink(),
    "an extra crate": lambda w: (w / "crates/demo/demo-2.0.0.crate").write_bytes(b"x"),
    "an extra file": lambda w: (w / "index/evil").write_bytes(b"x"),
    "an extra link": lambda w: os.symlink("/etc/passwd", w / "index/evil"),
    "an extra linked folder": lambda w: os.symlink("/etc", w / "index/evil"),
    "the timestamp changed": lambda w: flip(w / "tuf/metadata/timestamp.json"),
    "the snapshot changed": lambda w: flip(only(newest(w, "snapshot"))),
    "a bin missing": lambda w: newest(w, "crates-1f")[0].unlink(),
    "a bin changed": lambda w: flip(newest(w, "crates-1f")[0]),
    "the root changed": lambda w: flip(w / "tuf/metadata/1.root.json"),
}


def flip(path, at=-30):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def reroot(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"root_sha256": "0" * 64}))


def append(path, data):
    path.write_bytes(path.read_bytes() + data)


def regzip(path):
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 9, mtime=7))


def only(paths):
    return next(iter(paths))


def newest(www, role):
    found = (www / "tuf/metadata").glob(f"*.{role}.json")
    return sorted(found, key=lambda p: int(p.name.split(".")[0]), reverse=True)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_check_finds_what_is_changed_missing_or_extra(bench, damage):
    bench.settle(
        {"demo": index_file("demo", "1.0.0")},
        {("demo", "1.0.0"): crate_bytes("demo", "1.0.0")},
    )
    assert bench.findings() == []
    damage(bench.config.www)
    assert bench.findings()


# What a review found


def torn(bench, number):
    data = bench.config.spool / str(number) / "data"
    data.write_bytes(bytes(len(data.read_bytes())))  # the usual result of a power cut


def test_a_torn_batch_says_nothing_about_a_crate(bench):
    good = bench.offer({"other": index_file("other", "1.0.0")})
    bad = bench.offer({"demo": index_file("demo", "1.0.0")})
    torn(bench, bad)
    first, second = bench.signer.settle([good, bad], now=bench.now)
    assert not first.refused_whole
    assert second.refused_whole
    assert published(bench, "other")
    assert bench.parts.ledger.quarantined() == []
    assert bench.parts.publisher.lookup(note_path(CrateName("demo"))) is None


def test_a_short_crate_file_is_a_torn_batch_and_no_finding(bench):
    bench.settle({"demo": index_file("demo", "1.0.0")})
    number = bench.offer(crates={("demo", "1.0.0"): crate_bytes("demo", "1.0.0")})
    file = bench.config.spool / str(number) / "0.crate"
    file.write_bytes(file.read_bytes()[:-10])
    (settled,) = bench.signer.settle([number], now=bench.now)
    assert settled.refused_whole
    assert bench.parts.ledger.quarantined() == []


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-1", "1e300", '"x"'])
def test_a_time_that_is_none_refuses_the_batch(bench, value):
    number = bench.offer({"demo": index_file("demo", "1.0.0")})
    path = bench.config.spool / str(number) / "batch.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps(fields | {"confirmed": 424242}).replace("424242", value))
    (settled,) = bench.signer.settle([number], now=bench.now)
    assert settled.refused_whole


def test_what_sync_says_of_the_future_is_cut_to_now(bench):
    bench.now, real = bench.now + 1_000_000, bench.now
    number = bench.offer({"demo": index_file("demo", "1.0.0")})
    bench.now = real
    bench.signer.settle([number], now=bench.now)
    state = bench.parts.publisher.extra[EXTRA]
    assert state["upstream_confirmed"] == state["signed_at"]


def test_an_escape_hides_no_second_line_from_the_audit(bench):
    good = index_line("demo", "1.0.0") + b"\n"
    hidden = index_line("demo", "1.0.0", "6" * 64).replace(b'"1.0.0"', b'"1.0.\\u0030"') + b"\n"
    assert bench.settle({"demo": good}) == {}
    assert bench.settle({"demo": good + hidden})
    assert held_bytes(bench, "demo") == good


def test_who_asks_for_what_no_line_names_leaves_no_finding(bench):
    bench.settle({"demo": index_file("demo", "1.0.0")})
    assert bench.settle(crates={("demo", "9.9.9"): crate_bytes("demo", "9.9.9")})
    assert bench.parts.ledger.quarantined() == []


def test_bytes_that_return_in_a_publication_that_failed_keep_their_grace(bench):
    one, two = index_file("demo", "1.0.0"), index_file("demo", "1.0.0", "1.1.0")
    yanked = two.replace(b'"yanked":false', b'"yanked":true')
    for data in (one, two, yanked):
        bench.settle({"demo": data})
    bench.parts.disk.sync, real = failing, bench.parts.disk.sync
    with pytest.raises(OSError, match="full"):
        bench.signer.settle([bench.offer({"demo": two})], now=bench.now)
    bench.parts.disk.sync = real
    assert bench.findings() == []


def failing():
    raise OSError(28, "full")


def test_one_missing_target_does_not_keep_the_signer_from_starting(bench):
    bench.settle({"demo": index_file("demo", "1.0.0"), "other": index_file("other", "1.0.0")})
    target = published(bench, "demo")
    bench.www(f"tuf/targets/index/de/mo/{target.sha256}.demo").unlink()
    bench.www("index/de/mo/demo").unlink()
    bench.www("index/ot/he/other").unlink()
    bench.parts.ledger.close()
    bench.open()  # after an end that was none
    assert bench.www("index/ot/he/other").exists()
    assert {finding.problem for finding in bench.findings()} == {"missing"}


def test_a_lost_ledger_is_filled_from_what_is_there(bench):
    bench.settle(
        {"demo": index_file("demo", "1.0.0")},
        {("demo", "1.0.0"): crate_bytes("demo", "1.0.0")},
    )
    bench.close()
    for file in bench.config.data.glob("ledger.sqlite3*"):
        file.unlink()
    bench.open()
    assert bench.parts.ledger.crate_count() == 1
    assert bench.findings() == []


def test_an_older_timestamp_put_back_is_found(bench):
    bench.settle({"demo": index_file("demo", "1.0.0")})
    stamp = bench.www("tuf/metadata/timestamp.json")
    older = stamp.read_bytes()
    bench.settle({}, sweep=Sweep(bench.now, bench.now, 1, 0, whole_source=True))
    assert bench.findings() == []
    stamp.write_bytes(older)
    assert "last committed" in bench.findings()[0].problem


def test_a_lost_target_is_put_back_when_the_same_bytes_come_again(bench):
    data = index_file("demo", "1.0.0")
    bench.settle({"demo": data})
    target = published(bench, "demo")
    bench.www(f"tuf/targets/index/de/mo/{target.sha256}.demo").unlink()
    assert bench.findings()
    bench.settle({"demo": data})
    assert not [f for f in bench.findings() if f.path.startswith("tuf/")]


def test_bytes_that_bring_out_a_mistake_of_ours_are_refused_and_nothing_else_is():
    def mistake():
        raise ZeroDivisionError

    assert "ZeroDivisionError" in str(_refusal("demo", mistake))
    assert _refusal("demo", lambda: None) is None
    with pytest.raises(OSError, match="full"):
        _refusal("demo", failing)
