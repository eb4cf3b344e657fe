"""`tuf-repo adopt`: from a trial to five people with a quorum, while the mirror goes on.

And stopped by `kill -9` at any moment of it: the next start finishes what was begun. A few moments
here; forty with `pytest -m slow tests/integration/test_adopt.py`.
"""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import threading
import time

import httpx
import pytest
from tuf.api.exceptions import RepositoryError

from tests.support.crates import crate_bytes, index_file
from tests.support.living import (
    HELD,
    NAMES,
    PATHS,
    SEEN,
    UNSEEN,
    believes,
    client_of_before,
    goes_on,
    hold_all,
    refuses,
    upstream_of_three,
)
from tests.support.operators import ONLINE, Mirror, Operators
from tests.support.processes import Process, crateseal, wait_until
from tests.support.thief import Client, Host

ROOT = ("ana", "ben", "cem", "dia", "eve")
CRATES = ("fay", "gus", "hal")
LATER = "/index/dd/dd/dddd"
LOCK = f"""version = 3

[[package]]
name = "aaaa"
version = "1.0.0"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "{hashlib.sha256(crate_bytes("aaaa", "1.0.0")).hexdigest()}"
"""


def keys_of(**members):
    return [f"--key={role}={name}.pub" for role, names in members.items() for name in names]


class Readers(threading.Thread):
    """Ask for everything that is held, all the time, and remember what was no good answer."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self._url = url
        self._stop_it = threading.Event()
        self.asked = 0
        self.failed = []

    def run(self):
        paths = ["/tuf/metadata/timestamp.json", "/index/config.json"]
        paths += [f"/{path}" for path in PATHS.values()]
        paths += [f"/crates/{name}/{name}-1.0.0.crate" for name in NAMES]
        while not self._stop_it.is_set():
            for path in paths:
                try:
                    # No pool: cargo comes anew each time it is started.
                    code = httpx.get(f"{self._url}{path}", timeout=15).status_code
                except httpx.TransportError as error:
                    code = repr(error)
                self.asked += 1
                if code != 200:
                    self.failed.append((path, code))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._stop_it.set()
        self.join(20)


@pytest.fixture
def trial(tmp_path):
    """A trial that runs, and eight people with keys of their own."""
    people = Operators(tmp_path / "people")
    people.make(*ROOT, *CRATES)
    with upstream_of_three(tmp_path / "upstream") as upstream:
        upstream.put(LATER, index_file("dddd", "1.0.0"))
        mirror = Mirror(tmp_path, people, upstream)
        try:
            mirror.start("--bin-bits", "5")
            hold_all(mirror)
            yield mirror
        finally:
            mirror.end()


def test_a_trial_is_adopted_by_people_and_no_request_fails(trial, tmp_path):
    before, data, people = client_of_before(trial, tmp_path), trial.data, trial.people
    stolen, withheld = trial.trial_keys(), Host(tmp_path / "withheld", trial)
    first = {key.name for key in data.keys.iterdir()}
    with Readers(trial.up.url) as readers:
        draft = trial.draft("adopt", *keys_of(root=ROOT, targets=ROOT[:3], crates=CRATES))
        people.sign(draft, "ana", "cem", "fay", root=trial.newest_root())
        short = people.tuf_repo("finish", draft, "--data", data.path, code=1)
        assert "root in the draft: expected 3 signatures" in short
        assert first < {key.name for key in data.keys.iterdir()}
        assert len(list(data.offline_keys.iterdir())) == 3
        people.sign(draft, "eve", "hal", root=trial.newest_root())
        said = people.tuf_repo("finish", draft, "--data", data.path)
        trial.wait_until_taken()
        assert trial.up.get(LATER).status_code == 200
    assert readers.failed == []
    assert readers.asked > 50
    is_adopted(data, first)
    assert goes_on(before, trial)
    goes_by_its_new_fingerprint(trial, said)
    trial.check()
    trials_keys_are_worth_nothing_but_to_whom_never_hears(trial, before, stolen, withheld, tmp_path)


def is_adopted(data, first):
    """Nothing of the trial's keys is left, and nothing waits."""
    keys = sorted(key.name for key in data.keys.iterdir())
    assert [name.partition("-")[0] for name in keys] == sorted(ONLINE)
    assert not first & set(keys)
    assert not list(data.offline_keys.iterdir())
    assert not list(data.ceremony.iterdir())


def goes_by_its_new_fingerprint(trial, said, root="2.root.json"):
    (fingerprint,) = re.findall(r"^root 2, sha256 ([0-9a-f]{64})$", said, re.MULTILINE)
    data = (trial.metadata / root).read_bytes()
    assert fingerprint == hashlib.sha256(data).hexdigest()
    assert trial.status()["root_sha256"] == fingerprint
    (trial.folder / "Cargo.lock").write_text(LOCK)
    for pin, warned in (
        (("--root-sha256", fingerprint), False),
        (("--root", trial.metadata / "1.root.json"), True),
    ):
        ran = crateseal("verify", "--mirror", trial.up.url, *pin, cwd=trial.folder)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert "1 of 1 packages" in ran.stdout
        assert "TRIAL" not in ran.stdout
        assert ("The root you gave was made for a first try" in ran.stdout) is warned


def trials_keys_are_worth_nothing_but_to_whom_never_hears(
    trial, before, stolen, withheld, tmp_path
):
    shown = Host(tmp_path / "shown", trial)
    shown.publish(stolen, {"targets", "crates", "bins"}, UNSEEN)
    assert refuses(before, shown)
    root = Host(tmp_path / "root", trial)
    root.publish(root.take_over({**trial.keys(), "root": stolen["root"]}), {"bins"}, UNSEEN)
    assert refuses(before, root)
    after = before.twin()
    assert after.look(trial.data.path, UNSEEN) == HELD[UNSEEN]
    ends = withheld.expires("root")
    withheld.publish(withheld.take_over(stolen), {"bins"}, UNSEEN)
    assert refuses(after, withheld)
    # Its root key was on the machine: who pins the trial and never hears of more has no other.
    assert believes(before, withheld, now=ends + 3600)


# ---- killed while it takes the ceremony's result


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A trial that has ended, and a finished draft of two people in its `ceremony/`."""
    folder = tmp_path_factory.mktemp("prepared")
    people = Operators(folder / "people")
    people.make("ana", "fay")
    (folder / "here").mkdir()
    with upstream_of_three(folder / "upstream") as upstream:
        mirror = Mirror(folder / "here", people, upstream)
        try:
            mirror.start("--bin-bits", "5")
            hold_all(mirror)
            assert mirror.up.stop() == 130
        finally:
            mirror.end()
    client_of_before(mirror, mirror.folder)
    members = keys_of(root=["ana"], targets=["ana"], crates=["fay"])
    members += [f"--threshold={role}=1" for role in ("root", "targets", "crates")]
    draft = mirror.draft("adopt", *members)
    people.sign(draft, "ana", "fay")
    people.tuf_repo("finish", draft, "--data", mirror.data.path)
    return mirror


class Signer:
    """`crateseal sign` over a copy of the prepared folder."""

    def __init__(self, folder, prepared):
        shutil.copytree(prepared.folder, folder, symlinks=True)
        self.mirror = Mirror(folder, prepared.people, None)
        self.data = self.mirror.data
        root = (self.data.metadata / "1.root.json").read_bytes()
        self.before = Client(folder / "before", root)
        self.stamp = (self.data.metadata / "timestamp.json").read_bytes()
        self.process = None

    def start(self):
        self.process = Process("sign", cwd=self.mirror.folder)

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.end()

    def has_root(self):
        return (self.data.metadata / "2.root.json").exists()

    def has_committed(self):
        return (self.data.metadata / "timestamp.json").read_bytes() != self.stamp

    def waits(self):
        return any(self.data.ceremony.iterdir())

    def keys(self):
        return [*self.data.keys.glob("*.pem"), *self.data.offline_keys.glob("*.pem")]

    def stands_as_it_should(self):
        """Whatever the moment: no key went before the commit, and clients have the old or new."""
        if not self.has_committed():
            assert len(self.keys()) == 9
            assert self.waits()
        if self.has_root() == self.has_committed():
            assert goes_on(self.before, self.mirror)
        else:
            with pytest.raises(RepositoryError):
                self.before.twin().look(self.data.path, SEEN)

    def is_made_good_by_the_next_start(self):
        self.start()
        try:
            self.mirror.wait_until_taken(self.process)
            assert self.has_committed()
            is_adopted(self.data, {f"{role}.pem" for role in ONLINE})
            assert goes_on(self.before, self.mirror)
            file = self.data.metadata / "timestamp.json"
            number = json.loads(file.read_bytes())["signed"]["version"]
            wait_until((self.data.path / "run/admin.sock").exists)
            ran = crateseal("deny", "cccc", "--reason", "a test", cwd=self.mirror.folder)
            assert ran.returncode == 0, ran.stderr
            assert json.loads(file.read_bytes())["signed"]["version"] > number
            assert self.before.twin().look(self.data.path, PATHS["cccc"]) is None
            self.mirror.check()
        finally:
            self.process.end()


def at_once_after(has_happened, signer):
    deadline = time.monotonic() + 30
    while not has_happened():
        assert time.monotonic() < deadline
    signer.kill()


@pytest.mark.parametrize("moment", ["the commit", "the new root"])
def test_a_signer_killed_right_after_a_step_of_it_is_made_good(prepared, tmp_path, moment):
    signer = Signer(tmp_path / "here", prepared)
    happened = {"the commit": signer.has_committed, "the new root": signer.has_root}[moment]
    signer.start()
    at_once_after(happened, signer)
    signer.stands_as_it_should()
    signer.is_made_good_by_the_next_start()


def test_keys_that_a_crash_left_after_the_commit_go_at_the_next_start(prepared, tmp_path):
    """The very state between the commit and the tidying, whatever the machine's speed."""
    signer = Signer(tmp_path / "here", prepared)
    left = {path: path.read_bytes() for path in [*signer.keys(), *signer.data.ceremony.iterdir()]}
    signer.start()
    signer.mirror.wait_until_taken(signer.process)
    signer.kill()
    for path, data in left.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o600)
    assert len(signer.keys()) == 9
    signer.stands_as_it_should()
    signer.is_made_good_by_the_next_start()


def kill_at_moments(count, seed, prepared, folder):
    rng = random.Random(seed)
    for moment in range(count):
        signer = Signer(folder / f"{moment}", prepared)
        signer.start()
        time.sleep(0.2 + rng.random())
        signer.kill()
        signer.stands_as_it_should()
        signer.is_made_good_by_the_next_start()


def test_a_few_kills_lose_nothing(prepared, tmp_path):
    kill_at_moments(2, 1, prepared, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_forty_kills_lose_nothing(prepared, tmp_path):
    kill_at_moments(40, 2, prepared, tmp_path)
