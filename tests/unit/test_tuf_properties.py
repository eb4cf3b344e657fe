"""Whatever is done to a repository, in whatever order: what must hold, holds.

The long runs: `pytest -m slow tests/unit/test_tuf_properties.py`.
"""

import itertools
import json
import random
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from securesystemslib.formats import encode_canonical
from tuf.api.metadata import SuccinctRoles

from tests.fakes.disk import Crash, CrashingDisk, Mode
from tests.fakes.tuf import Repository, recording, target
from tests.support.successors import Ceremony, fresh, online_key
from tuf_repo.check import RepositoryCheck
from tuf_repo.core import check, update
from tuf_repo.core.bins import BinLayout, compile_patterns
from tuf_repo.core.roles import Policy
from tuf_repo.core.times import DAY, HOUR
from tuf_repo.core.update import BinFacts, FileFacts, State
from tuf_repo.disk import PosixDisk
from tuf_repo.errors import OtherSignerError, TargetError
from tuf_repo.online import OnlineKeys
from tuf_repo.signing import canonical, file_bytes

NOW = 1_800_000_000
POLICY = Policy()
FIXED = {"targets": FileFacts(1, 1, "0" * 64), "crates": FileFacts(2, 1, "1" * 64)}


# --- target path and bin

names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=20)


def index_of(name):
    return int(name.rpartition("-")[2], 16)


@given(st.integers(1, 16), names)
def test_a_path_has_one_bin_and_stock_clients_look_in_it(bits, path):
    layout = BinLayout("crates", bits)
    name = layout.bin_of(path)
    assert name == SuccinctRoles(["k"], 1, bits, "crates").get_role_for_target(path)
    assert not list(check.bin_findings("f", name, [path], layout))
    index = index_of(name)
    assert index < layout.count
    assert layout.name(index) == name
    others = {layout.name(other % layout.count) for other in range(index + 1, index + 4)} - {name}
    for other in others:
        assert list(check.bin_findings("f", other, [path], layout))


@given(st.integers(1, 16), st.integers(1, 16), names)
def test_what_a_bin_holds_comes_from_the_bins_that_held_it_before(bits, before_bits, path):
    layout, before = BinLayout("crates", bits), BinLayout("crates", before_bits)
    sources = layout.sources(index_of(layout.bin_of(path)), before)
    assert index_of(before.bin_of(path)) in sources


# --- any sequence of changes, without a disk

PATHS = [f"index/1/{letter}" for letter in "abcdefgh"]
one_change = st.dictionaries(
    st.sampled_from(PATHS), st.none() | st.builds(target, st.integers(1, 9)), max_size=4
)


@given(st.lists(one_change, max_size=8), st.integers(1, 4))
def test_any_sequence_of_changes_keeps_what_must_hold(sequence, bits):
    layout = BinLayout("crates", bits)
    covered = compile_patterns(["index/*/*"])
    numbers = itertools.count(10)
    contents = {name: {} for name in layout.names()}
    bins = {name: BinFacts(next(numbers), NOW + DAY, b"", ()) for name in contents}
    state = State(0, 0, 0, {}, None, 0, FIXED, {})
    model = {}
    for change in [{}, *sequence]:
        assert not list(check.change_findings(change, covered))
        for name, part in update.group_by_bin(change, layout).items():
            contents[name] = update.apply_changes(contents[name], part)
            bins[name] = BinFacts(next(numbers), NOW, b"", update.count_targets(contents[name]))
        snapshot, stamp = next(numbers), next(numbers)
        meta = update.next_snapshot(snapshot, FIXED, bins, NOW, POLICY)["meta"]
        assert not list(check.snapshot_findings("s", meta, "crates", layout))
        following = State(
            stamp, NOW, NOW, {}, FileFacts(snapshot, 1, "2" * 64), NOW, FIXED, dict(bins)
        )
        assert not list(check.successor_findings(state, following))
        rising = [(name, facts.version) for name, facts in bins.items()]
        assert not list(check.rising_findings(rising, ("s", snapshot), ("t", stamp)))
        state = following
        model = {path: found for path, found in {**model, **change}.items() if found}
    held = {path: fields for part in contents.values() for path, fields in part.items()}
    assert held == {path: found.fields() for path, found in model.items()}
    for name, part in contents.items():
        assert not list(check.bin_findings("f", name, part, layout))
        assert not list(check.field_findings("f", part))
    assert state.counts().get("index", 0) == len(model)


# --- the canonical form

texts = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ['\\"', "\n", "\\n", "\x7f"]
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def has_control_character(value):
    if isinstance(value, str):
        return any(char < " " and char != "\n" for char in value)
    if isinstance(value, dict):
        return any(has_control_character(each) for item in value.items() for each in item)
    return isinstance(value, list) and any(map(has_control_character, value))


@given(st.dictionaries(texts, json_values, max_size=6))
def test_the_canonical_form_is_python_tufs_or_nothing_is_signed(value):
    """A file has it with its line ends escaped, and reads back as what went in."""
    if has_control_character(value):
        with pytest.raises(TargetError):
            canonical(value)
        return
    payload = canonical(value)
    assert payload == encode_canonical(value).encode()
    assert json.loads(file_bytes(payload, []))["signed"] == value


# --- a life


class Keys:
    """Online keys from a folder that note every number they sign."""

    def __init__(self, repository, record):
        self._keys = OnlineKeys(repository.base / "keys")
        self._record = record

    def signers_for(self, trust):
        return recording(self._keys.signers_for(trust), self._record)


YEARS = 3_650 * DAY
LIFELONG = Policy(block=15, root_seconds=YEARS, targets_seconds=YEARS, delegation_seconds=YEARS)
"""No offline role expires here: that takes a ceremony, and `rotate` is one only now and then."""
SPAN = 40
"""More changes than a publication here makes on its disk: some stops come after it."""


class Life(RuleBasedStateMachine):
    """One repository: what was published, is published; no number is signed with two contents."""

    def __init__(self, original, folder):
        super().__init__()
        self.folder = folder
        self.lives = itertools.count()
        self.draw = random.Random(5)
        self.model, self.record, self.quorums = {}, {}, {}
        self.backup = None
        self.settle_in(original, NOW)
        self.reopen()

    def settle_in(self, original, now):
        """Go on in a copy of a folder."""
        base = self.folder / f"life{next(self.lives)}"
        shutil.copytree(original, base)
        self.repository = Repository(base, bits=2, policy=LIFELONG)
        self.repository.now = now
        self.client = self.folder / f"{base.name}.client"

    def open(self, disk):
        self.repository.entropy = self.draw.randrange(2**32)
        return self.repository.use(disk).open(Keys(self.repository, self.record))

    @rule()
    def reopen(self):
        self.publisher = self.open(PosixDisk(self.repository.base))

    @rule(changes=one_change)
    def publish(self, changes):
        self.repository.publish(self.publisher, changes)
        self.update_model(changes)
        self.clients_see_it()

    @rule(changes=one_change)
    def stage_and_drop(self, changes):
        staged = self.publisher.stage(changes, {}, now=self.repository.now)
        self.publisher.abandon(staged)

    @rule(seconds=st.sampled_from([1, 59, HOUR, DAY, 6 * DAY, 25 * DAY]))
    def renew(self, seconds):
        self.repository.now += seconds
        self.publisher.due(self.repository.now)
        self.repository.publish(self.publisher, {})
        self.clients_see_it()

    @rule(changes=one_change, stop_at=st.integers(0, SPAN), mode=st.sampled_from(Mode))
    def crash(self, changes, stop_at, mode):
        disk = CrashingDisk(self.repository.base, stop_at=stop_at, mode=mode)
        try:
            self.repository.publish(self.open(disk), changes)
        except Crash:
            self.reopen()
            before = dict(self.model)
            self.update_model(changes)
            if dict(self.publisher.targets()) != self.model:
                self.model = before
        else:
            self.reopen()
            self.update_model(changes)

    @rule()
    def back_up(self):
        backup = self.folder / f"backup{next(self.lives)}"
        shutil.copytree(self.repository.base, backup)
        self.backup = backup, dict(self.model), dict(self.quorums)

    @precondition(lambda self: self.backup)
    @rule(later=st.integers(0, 3 * DAY), is_shown=st.booleans())
    def restore(self, later, is_shown):
        """A copy comes back; perhaps the signer is shown what clients have seen since."""
        backup, model, quorums = self.backup
        self.model, self.quorums = dict(model), dict(quorums)
        lost = (self.repository.metadata / "timestamp.json").read_bytes()
        self.settle_in(backup, self.repository.now + later)
        self.reopen()
        if is_shown:
            self.publisher.judge(lost)
        if seen := self.publisher.other_signer_at:
            assert seen == json.loads(lost)["signed"]["version"]
            with pytest.raises(OtherSignerError):
                self.publish({})
            self.publisher.recover()
        self.renew(1)
        assert self.publisher.timestamp_version > seen

    @rule(
        role=st.sampled_from(["root", "targets", "crates", "snapshot", "timestamp", "bins"]),
        stop_at=st.integers(0, 4 * SPAN),
        mode=st.sampled_from(Mode),
    )
    def rotate(self, role, stop_at, mode):
        """A ceremony gives a role another key; taking it may stop, and is done again then."""
        ceremony = Ceremony.of(self.repository, self.quorums)
        is_online = role in {"snapshot", "timestamp", "bins"}
        successor = online_key(self.repository, role) if is_online else fresh()
        ceremony.replace(role, successor)
        files = ceremony.files()
        try:
            disk = CrashingDisk(self.repository.base, stop_at=stop_at, mode=mode)
            self.succeed(self.open(disk), files)
        except Crash:
            self.reopen()
            self.succeed(self.publisher, files)
        self.reopen()
        if not is_online:
            self.quorums[role] = [successor]
        self.clients_see_it()

    def succeed(self, publisher, files):
        now = self.repository.now
        succession = publisher.succession(files, now=now)
        publisher.commit(publisher.stage({}, {}, now=now, succession=succession))

    def update_model(self, changes):
        merged = {**self.model, **changes}
        self.model = {path: found for path, found in merged.items() if found}

    def clients_see_it(self):
        """A client that was here before, and a new one; `check`; and what the signer believes."""
        for cache in (self.client, self.folder / f"new{next(self.lives)}"):
            client = self.repository.client(cache)
            seen = {path: client.get_targetinfo(path) for path in PATHS}
            lengths = {path: info.length for path, info in seen.items() if info}
            assert lengths == {path: found.length for path, found in self.model.items()}
        assert dict(self.publisher.targets()) == self.model
        look = RepositoryCheck(self.repository.folder(), now=self.repository.now)
        assert [*look.findings(), *look.extra_files()] == []
        assert not list(look.unreserved(self.repository.storage.read_reservation()))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    base = tmp_path_factory.mktemp("original") / "data"
    base.mkdir()
    Repository(base, policy=LIFELONG).init()
    return base


def live(original, folder, **bounds):
    lives = itertools.count()

    def born():
        own = folder / str(next(lives))
        own.mkdir()
        return Life(original, own)

    run_state_machine_as_test(
        born,
        settings=settings(deadline=None, suppress_health_check=list(HealthCheck), **bounds),
    )


def test_a_life_of_publications_crashes_restores_and_ceremonies(original, tmp_path):
    live(original, tmp_path, max_examples=15, stateful_step_count=12, derandomize=True)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_many_long_lives(original, tmp_path):
    live(original, tmp_path, max_examples=150, stateful_step_count=40)
