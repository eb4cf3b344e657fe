"""Which mirror is believed, how far, and what leaves a `Source`: verified bytes or a reason."""

import gzip
import hashlib
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from mirror.client.fetch.fetcher import HttpFetcher
from mirror.client.source.cache import Cache
from mirror.client.trust.memory import EphemeralMemory, Remembered, version_of
from mirror.core.names import CrateId, CrateName
from mirror.core.times import rfc3339
from mirror.errors import (
    AbsentError,
    ExpiredError,
    MachineError,
    NotHeldError,
    ProofError,
    UnreachableError,
    UsageError,
    WithheldError,
)
from tests.support.client import QUICK, Recorder, flipped, looking, source_over
from tests.support.crates import crate_bytes, index_file, index_line
from tests.support.forging import next_root, only, publish_again
from tests.support.mirror_folder import MirrorFolder

ALPHA, BETA = CrateId("alpha", "1.0.0"), CrateId("beta", "0.2.0")
NAME = CrateName("alpha")
DAY = 86_400.0


class Clock:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = time.time()

    def __call__(self):
        return self.now


@pytest.fixture
def held(tmp_path):
    held = MirrorFolder(tmp_path / "data")
    (held.data / "offline").symlink_to("offline-keys")
    held.hold(("alpha", "1.0.0"), ("beta", "0.2.0"))
    return held


@pytest.fixture
def clock():
    return Clock()


def remembering(held):
    return EphemeralMemory((held.metadata / "1.root.json").read_bytes())


@contextmanager
def client(held, *mirrors, clock=time.time, memory=None, cache=None, **said):
    """Yield a source over recorders; each fetcher is quick to give up."""
    fetchers = [mirror.fetcher() for mirror in mirrors]
    home = held.data.parent / "home"
    with source_over(
        held, home, *fetchers, clock=clock, memory=memory, cache=cache, **said
    ) as source:
        yield source


@contextmanager
def mirrors(*folders):
    with ExitStack() as stack:
        yield [stack.enter_context(Recorder(each).serve()) for each in folders]


class Away:
    """A mirror that nobody answers for."""

    def fetcher(self):
        return HttpFetcher("http://127.0.0.1:9/", QUICK)


def state(held, **fields):
    """Sign the newest timestamp again, one number higher, with this said of the mirror."""

    def change(signed):
        signed["version"] += 1
        signed["x-crateseal"] = fields

    publish_again(held.repository, only("timestamp", change), roles=())


def role_file(held, name):
    """Return the metadata file of the bin that this name's index file lies in."""
    path = f"index/{name[:2]}/{name[2:4]}/{name}"
    bin_number = int(hashlib.sha256(path.encode()).hexdigest()[0], 16) >> 2
    return held.current(f"crates-{bin_number}").name


# ---- what is asked, and in which order


def test_a_first_look_takes_three_rounds_and_a_second_client_needs_one(held, tmp_path):
    memory, cache = remembering(held), Cache(tmp_path / "cache", 10**9)
    (tmp_path / "cache").mkdir()
    with mirrors(held) as [mirror]:
        with client(held, mirror, memory=memory, cache=cache) as source:
            source.refresh()
            asked = mirror.drain()
        assert set(asked[:2]) == {"2.root.json", "timestamp.json"}
        assert asked[2].endswith(".snapshot.json")
        assert [path.partition(".")[2] for path in sorted(asked[3:])] == [
            "targets.json",
            "crates.json",
        ] or len(asked) == 5
        with client(held, mirror, memory=memory, cache=cache) as source:
            source.refresh()
        assert set(mirror.drain()) == {"2.root.json", "timestamp.json"}


def test_a_young_look_is_not_repeated_and_an_old_one_is(held):
    with mirrors(held) as [mirror], client(held, mirror) as source:
        source.refresh()
        mirror.drain()
        source.refresh(60.0)
        source.standing()
        assert mirror.drain() == []
        source.refresh(0.0)
        source.refresh()
        assert mirror.drain().count("timestamp.json") == 2


def test_who_waits_for_a_look_that_began_after_he_asked_has_it(held):
    with mirrors(held) as [mirror], client(held, mirror) as source:
        mirror.lies["timestamp.json"] = lambda body: time.sleep(0.2) or body
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: source.refresh(), range(8)))
        assert mirror.drain().count("timestamp.json") <= 2


def test_a_new_look_sees_what_was_published_since(held):
    with mirrors(held) as [mirror], client(held, mirror) as source:
        before = source.refresh().timestamp_version
        assert source.digest(NAME) == hashlib.sha256(index_file("alpha", "1.0.0")).hexdigest()
        held.publish({"alpha": index_file("alpha", "1.0.0", "1.1.0")})
        source.refresh(60.0)
        assert source.index_file(NAME).data == index_file("alpha", "1.0.0")
        assert source.refresh().timestamp_version > before
        assert source.index_file(NAME).data == index_file("alpha", "1.0.0", "1.1.0")


# ---- which mirror


def test_the_first_mirror_that_is_good_is_used_and_the_others_are_told(held):
    with mirrors(held) as [mirror], client(held, Away(), mirror) as source:
        standing = source.refresh()
        assert standing.mirror == f"{mirror.url}/"
        [(url, what)] = standing.others
        assert url == "http://127.0.0.1:9/"
        assert "no connection" in what
        assert any(url in warning for warning in standing.warnings(time.time()))


@pytest.mark.parametrize(
    "role", ["timestamp.json", ".snapshot.json", ".targets.json", ".crates.json"]
)
@pytest.mark.parametrize("lie", [flipped, (404, {}, b""), (206, {}, b"{}"), lambda _: b"[" * 9_999])
def test_a_mirror_with_bad_metadata_is_left_for_the_next_and_alone_it_is_an_error(held, role, lie):
    with mirrors(held, held) as [bad, good]:
        bad.lies[role] = lie
        with client(held, bad, good) as source:
            standing = source.refresh()
            assert standing.mirror == f"{good.url}/"
            assert [url for url, _ in standing.others] == [f"{bad.url}/"]
            assert source.crate(ALPHA) == crate_bytes("alpha", "1.0.0")
        with client(held, bad) as source, pytest.raises(ProofError) as caught:
            source.refresh()
        assert caught.value.where.endswith(role)
        assert caught.value.expected
        assert caught.value.got
        assert caught.value.advice


def test_a_mirror_that_never_answers_about_its_root_holds_up_no_look_at_the_others(held):
    released = threading.Event()

    def never(body):
        released.wait(100)
        return body

    with mirrors(held, held) as [well, stuck]:
        stuck.lies = {"2.root.json": never}
        slow = stuck.fetcher(stall_seconds=300.0, total_seconds=300.0)
        try:
            with source_over(
                held, held.data.parent / "home", well.fetcher(), slow, max_wait=0.5
            ) as source:
                assert source.refresh().mirror == f"{well.url}/"
        finally:
            released.set()


def test_a_mirror_that_is_behind_is_skipped_and_not_accused(held, tmp_path):
    old = held.copied(tmp_path / "old")
    held.hold(("gamma", "1.0.0"))
    memory = remembering(held)
    with mirrors(old, held) as [behind, newest]:
        with client(held, newest, memory=memory) as source:
            version = source.refresh().timestamp_version
        with client(held, behind, newest, memory=memory) as source:
            standing = source.refresh()
            assert standing.mirror == f"{newest.url}/"
            assert standing.timestamp_version == version
            assert standing.others[0][1].startswith("behind: ")


def test_only_mirrors_that_are_behind_leave_what_is_remembered(held, tmp_path):
    old = held.copied(tmp_path / "old")
    held.hold(("gamma", "1.0.0"))
    memory = remembering(held)
    with mirrors(old, held) as [behind, newest]:
        with client(held, newest, memory=memory) as source:
            version = source.refresh().timestamp_version
        with client(held, behind, memory=memory) as source:
            standing = source.refresh()
            assert standing.timestamp_version == version
            assert "behind: " in standing.away
            assert version_of(memory.load().timestamp) == version


def test_a_snapshot_rolled_back_under_a_new_timestamp_is_a_lie(held, tmp_path):
    memory = remembering(held)
    with mirrors(held) as [mirror], client(held, mirror, memory=memory) as source:
        source.refresh()
        newest = json.loads((held.metadata / "timestamp.json").read_bytes())["signed"]
        first = min(int(file.name.partition(".")[0]) for file in held.metadata.glob("*.snapshot.*"))

        def change(signed):
            signed["version"] = newest["version"] + 10
            signed["meta"]["snapshot.json"]["version"] = first

        publish_again(held.repository, only("timestamp", change), roles=())
        with pytest.raises(ProofError, match="snapshot version must be"):
            source.refresh()


def test_a_snapshot_that_rolls_one_role_back_is_a_lie(held):
    memory = remembering(held)
    with mirrors(held) as [mirror], client(held, mirror, memory=memory) as source:
        source.refresh()

        def change(role, signed):
            signed["version"] += 10
            if role == "timestamp":
                signed["meta"]["snapshot.json"]["version"] += 10
            else:
                signed["meta"]["crates-0.json"]["version"] -= 1

        before = held.current("snapshot")
        publish_again(held.repository, change, roles=())
        number, _, rest = before.name.partition(".")
        before.rename(before.parent / f"{int(number) + 10}.{rest}")
        with pytest.raises(ProofError, match=r"Expected crates-0\.json version"):
            source.refresh()


@pytest.mark.parametrize("lie", [flipped, (500, {}, b""), (404, {}, b"")])
def test_each_file_comes_from_the_first_mirror_that_has_a_good_one(held, lie):
    with mirrors(held, held) as [bad, good], client(held, bad, good) as source:
        source.refresh()
        for ending in (role_file(held, "alpha"), ".alpha", ".crate"):
            bad.lies[ending] = lie
        assert source.index_file(NAME).data == index_file("alpha", "1.0.0")
        assert source.crate(BETA) == crate_bytes("beta", "0.2.0")
        assert [url for url, _ in source.standing().others] == [f"{bad.url}/"]
        assert source.tally.since().refused == ()


def test_a_mirror_that_lacks_a_crate_file_is_not_accused(held):
    with mirrors(held, held) as [bad, good], client(held, bad, good) as source:
        bad.lies[".crate"] = (404, {}, b"")
        assert source.crate(BETA) == crate_bytes("beta", "0.2.0")
        assert source.standing().others == ()


def test_what_no_mirror_has_right_is_an_error_that_names_the_lie(held):
    with mirrors(held, held) as [one, two], client(held, one, Away(), two) as source:
        source.refresh()
        one.lies[".crate"], two.lies[".crate"] = (404, {}, b""), flipped
        with pytest.raises(ProofError) as caught:
            source.crate(ALPHA)
        assert caught.value.where.startswith(two.url)
        assert caught.value.expected.startswith("sha256 ")
        two.lies[".crate"] = (403, {}, b"no")
        with pytest.raises(NotHeldError):
            source.crate(ALPHA)
        [first, second] = source.tally.since().refused
        assert first.subject == second.subject == "alpha 1.0.0"


# ---- roots


def test_a_root_that_one_mirror_withholds_comes_from_another(held, tmp_path):
    withholding = held.copied(tmp_path / "withholding")
    held.publish({"alpha": index_file("alpha", "1.0.0", "1.1.0")})
    next_root(held.repository, replace=("timestamp",))
    state(held)
    with mirrors(withholding, held) as [old, new], client(held, old, new) as source:
        standing = source.refresh()
        assert standing.root_version == 2
        assert standing.mirror == f"{new.url}/"
        # Its timestamp is signed by a key that the new root no longer names.
        assert standing.others[0][0] == f"{old.url}/"
        assert source.index_file(NAME).data == index_file("alpha", "1.0.0", "1.1.0")


def test_a_root_is_remembered_though_nothing_else_of_that_mirror_verifies(held):
    memory = remembering(held)
    next_root(held.repository, replace=("timestamp",))
    with (
        mirrors(held) as [mirror],
        client(held, mirror, memory=memory) as source,
        pytest.raises(ProofError),
    ):
        source.refresh()  # The timestamp still is the old key's.
    assert version_of(memory.load().root) == 2


def test_what_a_revoked_key_signed_is_forgotten_with_it(held):
    memory = remembering(held)
    with mirrors(held) as [mirror], client(held, mirror, memory=memory) as source:
        source.refresh()
        assert memory.load().timestamp is not None
        next_root(held.repository, replace=("timestamp",))
        with pytest.raises(ProofError):
            source.refresh()
    assert memory.load().timestamp is None


def test_who_makes_up_a_root_is_believed_nothing(held):
    made_up = json.dumps({"signed": {}, "signatures": []}).encode()
    with mirrors(held, held) as [liar, good]:
        liar.lies["2.root.json"] = (200, {}, made_up)
        with client(held, liar, good) as source:
            standing = source.refresh()
            assert standing.mirror == f"{good.url}/"
            assert "2.root.json" in standing.others[0][1]
        with client(held, liar) as source, pytest.raises(ProofError) as caught:
            source.refresh()
        assert caught.value.where == f"{liar.url}/tuf/metadata/2.root.json"


def test_a_trusted_root_that_is_none_is_a_usage_error(held):
    with mirrors(held) as [mirror]:
        for root in (b"{}", b"\xff", (held.metadata / "timestamp.json").read_bytes()):
            with (
                client(held, mirror, memory=EphemeralMemory(root)) as source,
                pytest.raises(UsageError),
            ):
                source.refresh()


# ---- memory


def test_a_mirror_that_is_away_leaves_what_was_verified_before_until_that_expires(
    held, tmp_path, clock
):
    memory, cache = remembering(held), Cache(tmp_path / "cache", 10**9)
    (tmp_path / "cache").mkdir()
    with mirrors(held) as [mirror], client(held, mirror, memory=memory, cache=cache) as source:
        source.crate(ALPHA)
    with client(held, Away(), clock=clock, memory=memory, cache=cache) as source:
        standing = source.refresh()
        assert "no connection" in standing.away
        assert source.crate(ALPHA) == crate_bytes("alpha", "1.0.0")
        with pytest.raises(UnreachableError):
            source.crate(BETA)
        clock.now = standing.expires - 1
        assert source.index_file(NAME).sha256
        clock.now = standing.expires
        with pytest.raises(ExpiredError) as caught:
            source.index_file(NAME)
        assert caught.value.expired_at == standing.expires
        assert rfc3339(standing.expires) in str(caught.value)


def test_a_liar_does_not_leave_what_was_remembered(held):
    memory = remembering(held)
    with mirrors(held) as [mirror]:
        with client(held, mirror, memory=memory) as source:
            source.refresh()
        mirror.lies["timestamp.json"] = flipped
        with client(held, mirror, Away(), memory=memory) as source, pytest.raises(ProofError):
            source.refresh()


def test_after_a_failed_look_the_last_good_one_stands(held):
    with mirrors(held) as [mirror], client(held, mirror) as source:
        source.refresh()
        mirror.lies["timestamp.json"] = flipped
        with pytest.raises(ProofError):
            source.refresh()
        assert source.index_file(NAME).data == index_file("alpha", "1.0.0")


def test_nothing_is_remembered_of_a_mirror_whose_top_does_not_verify(held):
    memory = remembering(held)
    first = memory.load()
    with mirrors(held) as [mirror]:
        mirror.lies[".crates.json"] = flipped
        with client(held, mirror, memory=memory) as source, pytest.raises(ProofError):
            source.refresh()
    assert memory.load() == first


# ---- time


def test_a_clock_before_what_was_signed_is_refused_but_for_the_tolerance(held, clock):
    state(held, signed_at=rfc3339(clock.now))
    signed_at = int(clock.now)
    with mirrors(held) as [mirror], client(held, mirror, clock=clock) as source:
        clock.now = signed_at - 299
        assert source.refresh().signed_at == signed_at
        source.index_file(NAME)
        clock.now = signed_at - 302
        with pytest.raises(MachineError, match="clock"):
            source.index_file(NAME)
        with pytest.raises(MachineError, match="clock"):
            source.refresh()


def test_a_clock_before_the_first_thing_that_a_client_sees_is_refused(held, clock):
    state(held, signed_at=rfc3339(clock.now))
    memory = remembering(held)
    first = memory.load()
    clock.now -= DAY
    with (
        mirrors(held) as [mirror],
        client(held, mirror, clock=clock, memory=memory) as source,
        pytest.raises(MachineError, match="clock"),
    ):
        source.refresh()
    assert memory.load() == first


def test_a_clock_set_back_between_two_runs_is_refused_by_what_is_remembered(held, clock):
    state(held, signed_at=rfc3339(clock.now))
    memory = remembering(held)
    with mirrors(held) as [mirror]:
        with client(held, mirror, clock=clock, memory=memory) as source:
            source.refresh()
        clock.now -= DAY
        with (
            client(held, Away(), clock=clock, memory=memory) as source,
            pytest.raises(MachineError, match="clock"),
        ):
            source.refresh()


def test_a_time_to_come_that_a_revoked_key_signed_does_not_count(held, clock):
    memory = remembering(held)
    real = (held.metadata / "timestamp.json").read_bytes()
    state(held, signed_at=rfc3339(clock.now + 30 * DAY))
    stolen = (held.metadata / "timestamp.json").read_bytes()
    memory.save(Remembered(memory.load().root, stolen, held.current("snapshot").read_bytes()))
    (held.metadata / "timestamp.json").write_bytes(real)
    with mirrors(held) as [mirror], client(held, mirror, clock=clock, memory=memory) as source:
        with pytest.raises(MachineError, match="clock"):
            source.refresh()
        next_root(held.repository, replace=("timestamp",))
        state(held)
        assert source.refresh().root_version == 2


def test_expired_metadata_is_refused_with_its_date_and_its_owner(held, clock):
    with mirrors(held) as [mirror], client(held, mirror, clock=clock) as source:
        expires = source.refresh().expires
        clock.now = expires + 1
        for ask in (source.refresh, lambda: source.digest(NAME)):
            with pytest.raises(ExpiredError) as caught:
                ask()
            assert rfc3339(expires) in caught.value.got
            assert "signer" in caught.value.advice


def test_what_expires_while_a_client_runs_is_looked_for_anew(held, clock):
    with mirrors(held) as [mirror], client(held, mirror, clock=clock) as source:
        source.index_file(NAME)
        clock.now = source.standing().expires + 1
        held.repository.now = clock.now
        held.publish({"alpha": index_file("alpha", "1.0.0", "1.1.0")})
        assert source.index_file(NAME).data == index_file("alpha", "1.0.0", "1.1.0")


def test_stale_timestamps_and_snapshots_are_accepted_for_as_long_as_the_user_says(held, clock):
    clock.now += 30 * DAY
    until = clock.now + DAY
    with mirrors(held) as [mirror]:
        with client(held, mirror, clock=clock, accept_stale_until=until) as source:
            standing = source.refresh()
            assert standing.stale_until == until
            assert any("--accept-stale-until" in each for each in standing.warnings(clock.now))
            assert source.crate(ALPHA) == crate_bytes("alpha", "1.0.0")
            clock.now = until
            with pytest.raises(ExpiredError):
                source.index_file(NAME)
        with (
            client(held, mirror, clock=clock, accept_stale_until=until) as source,
            pytest.raises(ExpiredError),
        ):
            source.refresh()


def test_who_accepts_stale_ones_is_told_nothing_while_they_are_fresh(held, clock):
    with mirrors(held) as [mirror]:
        said = {"accept_stale_until": clock.now + DAY}
        with client(held, mirror, clock=clock, **said) as source:
            assert source.refresh().stale_until is None


@pytest.mark.parametrize(("role", "days"), [("crates-", 61), ("targets", 366)])
def test_nothing_but_timestamp_and_snapshot_is_accepted_stale(held, clock, role, days):
    clock.now += days * DAY
    with mirrors(held) as [mirror]:
        said = {"accept_stale_until": clock.now + DAY}
        with client(held, mirror, clock=clock, **said) as source, pytest.raises(ExpiredError):
            if role == "targets":
                source.refresh()
            else:
                source.index_file(NAME)


def test_a_bin_that_expires_while_a_client_runs_counts_no_more(held, clock):
    with mirrors(held) as [mirror]:
        said = {"accept_stale_until": clock.now + 90 * DAY}
        with client(held, mirror, clock=clock, **said) as source:
            source.index_file(NAME)
            clock.now += 61 * DAY
            with pytest.raises(ExpiredError):
                source.index_file(NAME)


# ---- roles


@pytest.mark.parametrize("role", ["targets", "crates", "crates-"])
def test_metadata_that_was_signed_for_another_role_is_refused(held, role):
    def change(name, signed):
        if name == role or (role == "crates-" and name.startswith(role)):
            signed["x-role"] = "crates-f"

    publish_again(held.repository, change)
    with mirrors(held) as [mirror], client(held, mirror) as source:
        for _ in range(2):
            with pytest.raises(ProofError, match="signed for the role 'crates-f'"):
                source.index_file(NAME)


def test_metadata_without_its_roles_name_is_refused(held):
    publish_again(held.repository, lambda _role, signed: signed.pop("x-role", None))
    with (
        mirrors(held) as [mirror],
        client(held, mirror) as source,
        pytest.raises(ProofError, match="signed for the role None"),
    ):
        source.refresh()


# ---- absence


def test_what_is_not_named_is_asked_for_and_then_found(held):
    with mirrors(held) as [mirror], client(held, mirror) as source:
        mirror.want = lambda _names: held.hold(("gamma", "1.0.0")) or {"pending": []}
        assert source.index_file(CrateName("gamma")).data == index_file("gamma", "1.0.0")
        assert "want gamma" in mirror.drain()
        assert source.tally.since().unproved == ()


@pytest.mark.parametrize("lie", [{"absent": ["gamma"]}, {"timestamp": 10**15}, [], None])
def test_what_a_mirror_says_to_a_want_proves_nothing(held, lie):
    with mirrors(held) as [mirror], client(held, mirror) as source:
        mirror.want = lambda _names: lie
        for _ in range(2):
            with pytest.raises(AbsentError) as caught:
                source.index_file(CrateName("gamma"))
            assert not caught.value.proved
            assert "want gamma" in mirror.drain()  # an absence without proof is never kept
        assert source.tally.since().unproved == ("gamma",)
        assert source.tally.since().refused == ()


def test_where_the_index_is_complete_an_absence_is_proved_and_nobody_is_asked(held, clock):
    state(held, complete_as_of=rfc3339(clock.now))
    with mirrors(held) as [mirror], client(held, mirror) as source:
        with pytest.raises(AbsentError) as caught:
            source.digest(CrateName("gamma"))
        assert caught.value.proved
        source.prefetch([CrateName("gamma")])
        assert not [path for path in mirror.drain() if path.startswith("want")]
        assert source.tally.since().unproved == ()


def test_what_many_ask_for_at_a_time_is_one_question(held):
    names = [CrateName(f"gamma{number}") for number in range(8)]
    with mirrors(held) as [mirror], client(held, mirror) as source:
        mirror.want = lambda names: held.hold(*((name, "1.0.0") for name in names)) or {}
        source.refresh()
        # One whose bins are loaded, so that all of them reach the question at once.
        source.prefetch([NAME, CrateName("beta")])
        with ThreadPoolExecutor(8) as pool:
            files = list(pool.map(source.index_file, names))
        assert [file.data for file in files] == [index_file(name, "1.0.0") for name in names]
        wants = [path for path in mirror.drain() if path.startswith("want")]
        assert len(wants) <= 3


def test_a_crate_that_the_operator_withholds_is_refused_with_his_reason(held):
    note = {"name": "gamma", "entries": [{"kind": "deny", "reason": "malware"}]}
    held.withhold("gamma", json.dumps(note).encode())
    with mirrors(held) as [mirror], client(held, mirror) as source:
        with pytest.raises(WithheldError) as caught:
            source.index_file(CrateName("gamma"))
        assert caught.value.reason == "deny: malware"
        assert not [path for path in mirror.drain() if path.startswith("want")]
        [refused] = source.tally.since().refused
        assert refused.subject == "gamma"


@pytest.mark.parametrize("note", [b"", b"[]", b"{", b'{"entries": 3}', b"[" * 50_000])
def test_a_note_that_cannot_be_read_withholds_all_the_same(held, note):
    held.withhold("gamma", note)
    with mirrors(held) as [mirror], client(held, mirror) as source, pytest.raises(WithheldError):
        source.index_file(CrateName("gamma"))


def test_a_version_that_is_denied_is_refused_and_no_note_is_fetched_for_the_others(held):
    denied = index_file("alpha", "1.0.0", "1.1.0").replace(b'"yanked":false', b'"yanked":true', 1)
    entry = {"kind": "deny", "reason": "it bites", "versions": ["1.0.0"]}
    held.publish({"alpha": denied})
    with mirrors(held) as [mirror], client(held, mirror) as source:
        assert source.entry(ALPHA).yanked
        assert source.crate(ALPHA) == crate_bytes("alpha", "1.0.0")  # yanked, and not denied
        held.withhold("alpha", json.dumps({"name": "alpha", "entries": [entry]}).encode())
        source.refresh()
        with pytest.raises(WithheldError, match="it bites"):
            source.crate(ALPHA)
        assert source.index_file(NAME).data == denied
        mirror.drain()
    with mirrors(held) as [mirror], client(held, mirror) as source:
        source.crate(BETA)
        assert not [path for path in mirror.drain() if "withheld" in path]


def test_a_version_without_a_line_is_absent(held):
    with (
        mirrors(held) as [mirror],
        client(held, mirror) as source,
        pytest.raises(AbsentError, match="a line for version 9"),
    ):
        source.entry(CrateId("alpha", "9.0.0"))


def test_a_line_that_reads_in_two_ways_is_refused(held):
    line = index_line("alpha", "1.0.0").replace(b'"vers"', b'"vers":"9.9.9","vers"')
    held.publish({"alpha": index_file("alpha", "0.9.0") + line + b"\n"})
    with mirrors(held) as [mirror], client(held, mirror) as source, pytest.raises(ProofError):
        source.crate(ALPHA)


# ---- once, and ahead of time


def test_what_many_want_at_a_time_is_fetched_once(held):
    with mirrors(held) as [mirror], client(held, mirror) as source:
        mirror.lies[".crate"] = lambda body: time.sleep(0.1) or body
        with ThreadPoolExecutor(16) as pool:
            crates = set(pool.map(lambda _: source.crate(ALPHA), range(16)))
        assert crates == {crate_bytes("alpha", "1.0.0")}
        asked = mirror.drain()
        assert len(asked) == len(set(asked))
        assert source.tally.since().crates == 16


def test_what_was_fetched_ahead_of_time_needs_no_mirror(held):
    with mirrors(held) as [mirror], client(held, mirror) as source:
        source.prefetch([NAME, CrateName("beta"), CrateName("gamma")])
        source.prefetch_crates([ALPHA, BETA, CrateId("gamma", "1.0.0")])
        mirror.drain()
        source.index_file(NAME)
        source.crate(ALPHA)
        source.crate(BETA)
        assert mirror.drain() == []


def test_dependencies_are_followed_without_troubling_the_mirror_for_what_it_lacks(held):
    def line(name, *deps):
        fields = json.loads(index_line(name, "1.0.0"))
        fields["deps"] = [
            {"name": dep, "req": "1", "features": [], "optional": False, "default_features": True}
            | {"target": None, "kind": "normal"}
            for dep in deps
        ]
        return json.dumps(fields, separators=(",", ":")).encode() + b"\n"

    held.publish(
        {"one": line("one", "two", "lacking"), "two": line("two", "three"), "three": line("three")}
    )
    with mirrors(held) as [mirror], client(held, mirror) as source:
        source.prefetch([CrateName("one")], follow=True)
        asked = mirror.drain()
        for name in ("one", "two", "three"):
            assert [path for path in asked if path.endswith(f".{name}")]
        assert not [path for path in asked if path.startswith("want")]


def test_a_prefetch_that_fails_is_told_when_the_file_is_asked_for(held):
    with mirrors(held) as [mirror], client(held, mirror) as source:
        source.refresh()
        mirror.lies[".alpha"] = flipped
        source.prefetch([NAME, CrateName("beta")])
        source.prefetch_crates([ALPHA, BETA])
        assert source.tally.since().refused == ()
        with pytest.raises(ProofError):
            source.index_file(NAME)
        assert source.crate(BETA)


def test_index_files_and_metadata_are_asked_for_compressed_and_crates_are_not(held):
    with mirrors(held) as [mirror], client(held, mirror) as source:
        honest = mirror._honest

        def answer(path):
            status, headers, body = honest(path)
            if path.endswith((".alpha", ".snapshot.json", ".crates.json")):
                return status, {"Content-Encoding": "gzip"}, gzip.compress(body)
            return status, headers, body

        mirror._honest = answer
        assert source.crate(ALPHA) == crate_bytes("alpha", "1.0.0")


# ---- the cache between two runs


def cached(held, tmp_path, mirror):
    (tmp_path / "cache").mkdir(exist_ok=True)
    cache = Cache(tmp_path / "cache", 10**9)
    with client(held, mirror, cache=cache) as source:
        source.crate(ALPHA)
    return cache


def test_an_edited_cache_gains_nothing(held, tmp_path):
    with mirrors(held) as [mirror]:
        cache = cached(held, tmp_path, mirror)
        for file in (tmp_path / "cache").rglob("*"):
            if file.is_file():
                file.write_bytes(flipped(file.read_bytes()))
        with client(held, mirror, cache=cache) as source:
            assert source.crate(ALPHA) == crate_bytes("alpha", "1.0.0")
            assert source.index_file(NAME).data == index_file("alpha", "1.0.0")


def test_a_cache_with_older_metadata_of_the_same_keys_gains_nothing(held, tmp_path):
    with mirrors(held) as [mirror]:
        cache = cached(held, tmp_path, mirror)
        old = {f.name: f.read_bytes() for f in (tmp_path / "cache" / "metadata").iterdir()}
        held.publish({"alpha": index_file("alpha", "1.0.0", "1.1.0")})
        with client(held, mirror, cache=cache) as source:
            source.index_file(NAME)
        for name, data in old.items():
            (tmp_path / "cache" / "metadata" / name).write_bytes(data)
        with client(held, mirror, cache=cache) as source:
            assert source.index_file(NAME).data == index_file("alpha", "1.0.0", "1.1.0")


def test_a_cache_that_swaps_bins_gains_nothing(held, tmp_path):
    held.hold(*((f"crate{number}", "1.0.0") for number in range(12)))
    names = [CrateName(f"crate{number}") for number in range(12)]
    with mirrors(held) as [mirror]:
        cache = cached(held, tmp_path, mirror)
        with client(held, mirror, cache=cache) as source:
            source.prefetch(names)
        bins = sorted((tmp_path / "cache" / "metadata").glob("crates-?.json"))
        files = [file.read_bytes() for file in bins]
        for file, data in zip(bins, files[1:] + files[:1], strict=True):
            file.write_bytes(data)
        with client(held, mirror, cache=cache) as source:
            for name in names:
                assert source.index_file(name).data == index_file(name, "1.0.0")


def test_a_mirrors_own_folder_is_read_without_a_server(held, tmp_path):
    with looking(held, tmp_path / "home") as source:
        assert source.crate(ALPHA) == crate_bytes("alpha", "1.0.0")
        assert source.standing().how == "own folder"
        with pytest.raises(AbsentError):
            source.index_file(CrateName("gamma"))


def test_closing_lets_go_of_threads(held):
    before = threading.active_count()
    with mirrors(held) as [mirror]:
        with client(held, mirror) as source:
            source.prefetch([NAME, CrateName("beta")])
        assert threading.active_count() <= before + 2  # the mirror's own


def test_closing_waits_for_no_mirror(held):
    waiting = threading.Event()

    def never(body):
        waiting.set()
        time.sleep(1.5)
        return body

    with mirrors(held) as [mirror], client(held, mirror) as source:
        source.refresh()
        mirror.lies[".alpha"] = never
        ahead = threading.Thread(target=source.prefetch, args=([NAME],))
        ahead.start()
        assert waiting.wait(5)
        start = time.monotonic()
        source.close()
        ahead.join(5)
        assert time.monotonic() - start < 1
