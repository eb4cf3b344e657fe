import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuf.api.metadata import DelegatedRole, SuccinctRoles

from tuf_repo.core import check, update
from tuf_repo.core.bins import BinLayout, compile_patterns
from tuf_repo.core.numbers import ENTROPY, LIMIT, RATE, Counter, start
from tuf_repo.core.roles import Policy
from tuf_repo.core.times import DAY, from_text, to_text
from tuf_repo.core.update import BinFacts, FileFacts, State, Target
from tuf_repo.errors import CounterError, TargetError
from tuf_repo.signing import canonical

POLICY = Policy()
NOW = 1_800_000_000
bits = st.integers(1, 16)


# --- bins


@given(bits, st.text(st.characters(codec="utf-8"), max_size=30))
def test_a_path_falls_into_the_bin_where_stock_clients_look(bin_bits, path):
    stock = SuccinctRoles(["k"], 1, bin_bits, "crates")
    assert BinLayout("crates", bin_bits).bin_of(path) == stock.get_role_for_target(path)


@pytest.mark.parametrize("bin_bits", [1, 4, 5, 8, 9, 12, 13])
def test_bins_have_the_names_that_stock_clients_expect(bin_bits):
    stock = SuccinctRoles(["k"], 1, bin_bits, "crates")
    layout = BinLayout("crates", bin_bits)
    assert list(layout.names()) == list(stock.get_roles())
    assert layout.count == stock.number_of_bins


@pytest.mark.parametrize("bin_bits", [0, 17, -1])
def test_a_bin_count_we_cannot_publish_is_refused(bin_bits):
    with pytest.raises(ValueError, match="1 to 16"):
        BinLayout("crates", bin_bits)


parts = st.text("ab.*?-", max_size=3)
paths = st.lists(parts, min_size=1, max_size=4).map("/".join)


@given(st.lists(paths, min_size=1, max_size=3), paths.map(lambda p: p.replace("*", "x")))
def test_a_path_is_covered_when_stock_clients_think_so(patterns, path):
    stock = DelegatedRole("r", ["k"], 1, terminating=True, paths=patterns)
    assert bool(compile_patterns(patterns).match(path)) == stock.is_delegated_path(path)


def test_a_pattern_with_a_character_class_is_refused():
    with pytest.raises(ValueError, match="only"):
        compile_patterns(["index/[a-z]*"])


# --- numbers


def use(counter, count, now):
    """Take as the caller does: wait, reserve, take; return the numbers, the counter, the time."""
    now += counter.delay(count, now)
    if counter.lacks(count):
        counter = counter.reserved(count, 1_000)
    taken, counter = counter.taken(count, now)
    return taken, counter, now


steps = st.lists(st.tuples(st.integers(1, 30_000), st.floats(0, 5)), max_size=20)


@given(steps)
def test_numbers_rise_and_no_second_sees_more_than_the_rate(taking):
    counter, now = start(0, None, NOW, 0), float(NOW)
    used = []
    for count, pause in taking:
        taken, counter, now = use(counter, count, now + pause)
        assert all(n.stop <= taken.start for n, _ in used)
        for earlier, at in used:
            passed = now - at
            assert taken[-1] - earlier[-1] <= RATE * (passed + 1) + 1
        used.append((taken, now))


@given(steps, st.integers(0, ENTROPY - 1), st.floats(0, 100), st.integers(0, 19))
def test_a_restored_backup_never_repeats_what_was_signed_after_it(taking, entropy, later, kept):
    counter, now = start(0, None, NOW, 0), float(NOW)
    history = [(counter.next - 1, now)]
    for count, pause in taking:
        taken, counter, now = use(counter, count, now + pause)
        history.append((taken[-1], now))
    highest, at = history[min(kept, len(history) - 1)]
    # Stored times have no fractions.
    again = start(highest, int(at), now + later, entropy)
    assert again.next > history[-1][0]


@given(st.integers(0, ENTROPY - 1), st.integers(0, ENTROPY - 1))
def test_two_starts_from_one_backup_differ_by_what_they_drew(first, second):
    assert start(5, NOW, NOW, first).next - start(5, NOW, NOW, second).next == first - second


def test_numbers_are_not_handed_out_before_they_are_reserved():
    counter = start(0, None, NOW, 0)
    with pytest.raises(CounterError, match="reserved"):
        counter.taken(1, NOW)
    _, counter = counter.reserved(1, 10).taken(10, NOW)
    assert counter.lacks(1)


def test_numbers_are_not_handed_out_too_fast():
    counter = start(0, None, NOW, 0).reserved(30_000, 1)
    with pytest.raises(CounterError, match="a second"):
        counter.taken(RATE + 1, NOW)
    assert counter.delay(RATE, NOW) == 0
    assert counter.delay(RATE + 5_000, NOW) == pytest.approx(0.5)


def test_numbers_end_before_doubles_lose_them():
    counter = Counter(next=LIMIT - 5, reserved_below=LIMIT - 5, busy_until=0)
    assert counter.reserved(1, 5).reserved_below == LIMIT
    with pytest.raises(CounterError, match="below"):
        counter.reserved(1, 6)


@pytest.mark.parametrize("entropy", [-1, ENTROPY])
def test_a_random_number_outside_its_range_is_refused(entropy):
    with pytest.raises(CounterError, match="random"):
        start(0, None, NOW, entropy)


# --- times, canonical form


@given(st.integers(0, 4_000_000_000))
def test_times_come_back(seconds):
    assert from_text(to_text(seconds + 0.9)) == seconds


@pytest.mark.parametrize("value", [{"a": float("nan")}, {"a": {1, 2}}, {"a": "\ud800"}])
def test_what_is_not_json_is_not_signed(value):
    with pytest.raises(TargetError):
        canonical(value)


# --- update

targets = st.dictionaries(
    st.text("abc/", min_size=1, max_size=4), st.builds(Target, st.integers(0, 9), st.just("0" * 64))
)
changes = st.dictionaries(
    st.text("abc/", min_size=1, max_size=4),
    st.none() | st.builds(Target, st.integers(0, 9), st.just("1" * 64)),
)


@given(targets, changes)
def test_changed_bins_hold_what_a_dictionary_would(before, change):
    fields = {path: target.fields() for path, target in before.items()}
    expected = {**before, **change}
    expected = {path: target for path, target in expected.items() if target is not None}
    changed = update.apply_changes(fields, change)
    assert {path: update.target_from(f) for path, f in changed.items()} == expected
    assert fields == {path: target.fields() for path, target in before.items()}
    # Twice is once.
    assert update.apply_changes(changed, change) == changed


@given(changes, bits)
def test_every_change_goes_to_its_bin(change, bin_bits):
    layout = BinLayout("crates", bin_bits)
    grouped = update.group_by_bin(change, layout)
    assert {p: t for group in grouped.values() for p, t in group.items()} == change
    assert all(layout.bin_of(p) == name for name, group in grouped.items() for p in group)


def state(bins=None, layout=None, signed=NOW, **other):
    bins = bins or {
        name: BinFacts(10 + i, signed + POLICY.bin_seconds, b"", (("index", i),))
        for i, name in enumerate((layout or BinLayout("crates", 1)).names())
    }
    values = {
        "timestamp_version": 1_001,
        "timestamp_expires": signed + POLICY.timestamp_seconds,
        "signed_at": signed,
        "extra": {},
        "snapshot": FileFacts(1_000, 1, "0" * 64),
        "snapshot_expires": signed + POLICY.snapshot_seconds,
        "fixed": {"targets": FileFacts(1, 1, "0" * 64), "crates": FileFacts(2, 1, "1" * 64)},
        "bins": bins,
    }
    return State(**{**values, **other})


@given(st.integers(0, 4095), st.integers(0, 100 * DAY))
def test_a_bin_is_renewed_on_its_day_and_grows_no_older_than_a_round_and_a_day(index, signed):
    due = update.renewal_time(index, signed + POLICY.bin_seconds, POLICY)
    assert DAY <= due - signed < 31 * DAY
    assert due % DAY == 0
    assert due // DAY % 30 == index % 30


def test_one_thirtieth_of_the_bins_is_renewed_each_day():
    layout = BinLayout("crates", 9)
    current = state(layout=layout)
    renewed = []
    for day in range(1, 32):
        now = NOW + day * DAY
        due = update.bins_due(current, layout, now, POLICY)
        renewed.append(len(due))
        fresh = {n: BinFacts(1, now + POLICY.bin_seconds, b"", ()) for n in due}
        current = state(bins={**current.bins, **fresh})
    assert sum(renewed) >= 512
    assert max(renewed) <= 18
    assert sorted(renewed)[1] >= 17


def test_what_is_due_next_is_the_first_of_all():
    layout = BinLayout("crates", 1)
    fresh = state()
    assert update.next_due(fresh, layout, POLICY) == NOW + POLICY.timestamp_resign_seconds
    old_snapshot = state(snapshot_expires=NOW + 10)
    assert update.next_due(old_snapshot, layout, POLICY) < NOW
    lacking = state(bins={"crates-0": fresh.bins["crates-0"]})
    assert update.next_due(lacking, layout, POLICY) == 0
    assert update.bins_due(lacking, layout, NOW, POLICY) == {"crates-1"}


def test_targets_are_counted_by_the_first_part_of_their_paths():
    assert update.count_targets(["index/a/b", "index/c", "withheld/x"]) == (
        ("index", 2),
        ("withheld", 1),
    )
    assert state().counts() == {"index": 1}


def test_the_files_of_a_publication():
    assert state().file_names() == {
        "1.targets.json",
        "2.crates.json",
        "10.crates-0.json",
        "11.crates-1.json",
        "1000.snapshot.json",
    }
    assert len(state(snapshot=None).file_names()) == 4


# --- what must hold

COVERED = compile_patterns(["index/*/*"])


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("index/a/\nb", Target(1, "0" * 64)),
        ("index/a/\x00", None),
        ("index/a/\ud800", None),
        ("other/a/b", Target(1, "0" * 64)),
        ("index/a/b", Target(-1, "0" * 64)),
        ("index/a/b", Target(True, "0" * 64)),
        ("index/a/b", Target(1.5, "0" * 64)),
        ("index/a/b", Target(1, "0" * 63)),
        ("index/a/b", Target(1, "A" * 64)),
        ("index/a/b", Target(1, "0" * 64 + "\n")),
    ],
)
def test_changes_that_clients_could_not_read_are_found(path, target):
    assert len(list(check.change_findings({path: target}, COVERED))) == 1


def test_good_changes_pass():
    good = {"index/a/b": Target(0, "a" * 64), "elsewhere": None}
    assert not list(check.change_findings(good, COVERED))


@pytest.mark.parametrize("key", ["version", "_type", "x-role", "x-signed-at", "custom"])
def test_extra_fields_stay_out_of_the_way(key):
    assert len(list(check.extra_findings({key: 1, "x-mine": 2}))) == 1


def test_a_target_in_a_wrong_bin_is_found():
    layout = BinLayout("crates", 1)
    right = layout.bin_of("index/a/b")
    wrong = next(name for name in layout.names() if name != right)
    assert not list(check.bin_findings("f", right, ["index/a/b"], layout))
    (finding,) = check.bin_findings("f", wrong, ["index/a/b"], layout)
    assert str(finding) == f"f: expected index/a/b in bin {right}, got in {wrong}"


def snapshot_meta(**other):
    meta = update.next_snapshot(9, state().fixed, state().bins, NOW, POLICY)["meta"]
    return {**meta, **other}


def found(meta):
    return [str(f) for f in check.snapshot_findings("s", meta, "crates", BinLayout("crates", 1))]


def test_a_snapshot_lists_all_and_nothing_else():
    assert found(snapshot_meta()) == []
    meta = snapshot_meta()
    del meta["crates-1.json"]
    assert found(meta) == ["s: expected an entry for crates-1.json, got none"]
    assert "other.json" in found(snapshot_meta(**{"other.json": {"version": 1}}))[0]


def test_a_snapshot_binds_the_offline_roles_by_digest():
    for entry in ({"version": 1}, {"version": 1, "length": 1, "hashes": {"sha512": ""}}):
        assert "length and sha256" in found(snapshot_meta(**{"targets.json": entry}))[0]


def test_targets_and_the_delegation_never_have_one_version():
    same = FileFacts(2, 1, "0" * 64).meta()
    assert "different versions" in found(snapshot_meta(**{"targets.json": same}))[0]


def test_numbers_are_unique_and_in_range():
    assert not list(check.number_findings([("a", 1), ("b", 2)]))
    assert len(list(check.number_findings([("a", 1), ("b", 1), ("c", 0), ("d", LIMIT)]))) == 3


def successor(**changed):
    old = state()
    new = state(**{"timestamp_version": 2_001, **changed})
    return [str(finding) for finding in check.successor_findings(old, new)]


def test_a_next_publication_has_higher_numbers_and_loses_nothing():
    assert successor() == []
    assert "the same" in successor(timestamp_version=1_001)[0]
    bins = state().bins
    fresh = bins["crates-0"]
    reused = {**bins, "crates-0": BinFacts(999, fresh.expires, b"", ())}
    assert "above 1001" in successor(bins=reused)[0]
    assert "next snapshot" in successor(bins={"crates-0": fresh})[0]
    fixed = {"targets": FileFacts(0, 1, "")}
    assert len(successor(fixed=fixed)) == 2


def test_a_next_publication_uses_no_number_twice_and_none_beyond_the_limit():
    bins = state().bins
    twice = {**bins, "crates-0": BinFacts(2_001, bins["crates-0"].expires, b"", ())}
    assert any("the number of timestamp too" in text for text in successor(bins=twice))
    assert any("a number from 1, below" in text for text in successor(timestamp_version=LIMIT))


def test_a_first_publication_follows_nothing():
    old = state(timestamp_version=0, snapshot=None, bins={"none": BinFacts(0, 0, b"", ())})
    assert re.search("none", " ".join(map(str, check.successor_findings(old, state()))))
