"""A hostile mirror against everything that a user builds with. The table: tests/support/attacks.py.

Of each attack: no byte that did not verify reaches cargo or a vendor folder, what is hit is not
called proven, the exit code says so, and the user is told why.
"""

import re
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.arranging import (
    EVIL,
    Scene,
    deny_delta,
    everything_changed,
    fast_forward,
    old_publication,
    recover_from_fast_forward,
    withheld_root,
)
from tests.support.attacks import ATTACKS
from tests.support.cargo import cargo, use_mirror
from tests.support.hostile import asked, hosting
from tests.support.stage import Stage, User, lock_text, sha256, unverified
from tests.support.victims import VICTIMS, proven, share_trust, trust, verify

IDS = [attack.name.replace(" ", "-") for attack in ATTACKS]


@pytest.fixture(scope="module")
def host():
    """A folder with a short name, as a unix socket's path has 107 bytes; and where it is served."""
    with tempfile.TemporaryDirectory(prefix="cs-") as folder, hosting(Path(folder)) as url:
        yield Path(folder), url


@pytest.fixture
def place(host):
    return Place.new(host)


@dataclass(frozen=True)
class Place:
    """A folder of a test's own, and where mirrors in it are served."""

    folder: Path
    url: str

    @classmethod
    def new(cls, host):
        base, url = host
        folder = Path(tempfile.mkdtemp(prefix="", dir=base))
        return cls(folder, f"{url}/{folder.name}")

    def url_of(self, stage):
        return f"{self.url}/{stage.mirror.data.relative_to(self.folder)}"


class Play:
    """One attack, from the honest past to what became of the users."""

    def __init__(self, place, attack):
        folder = place.folder
        self.attack = attack
        self.users = {name: User(folder / name[:3]) for name in VICTIMS}
        self.scene = scene = Scene(folder, Stage.made(folder / "mirror"), f"{place.url}/trap")
        self.trap = folder / "trap"
        (self.trap / "www").mkdir(parents=True)
        stages = (scene.stage, scene.other()) if attack.mirrors > 1 else (scene.stage,)
        urls = [place.url_of(stage) for stage in stages]
        self.settings = {**attack.settings, "CRATESEAL_MIRROR": " ".join(urls)}
        if attack.before is None:
            self.settings["CRATESEAL_ROOT"] = str(scene.stage.root)
        else:
            self._remember(urls)
        attack.arrange(scene)

    def _remember(self, urls):
        """Let the users trust the mirrors, and one of them look at their honest past."""
        self.attack.before(self.scene)
        first, *others = self.users.values()
        trust(first, self.scene.stage.root, *urls)
        code, text = verify(first, CRATESEAL_MIRROR=self.settings["CRATESEAL_MIRROR"])
        assert proven(text) >= {"alpha", "beta"}, (code, text)
        shutil.rmtree(first.cache, ignore_errors=True)
        share_trust(first, others)

    def run(self):
        """Let all of them look at once; keep name -> (exit code, what was printed)."""
        with ThreadPoolExecutor(len(self.users)) as pool:
            runs = {
                name: pool.submit(self._look, VICTIMS[name], user)
                for name, user in self.users.items()
            }
        self.outcomes = {name: run.result() for name, run in runs.items()}
        return self

    def _look(self, victim, user):
        user.lock.write_text(self.scene.lock)
        user.want(self.scene.wanted)
        return victim(user, **self.settings)


def problems(play, name, code, text):
    """Return what went wrong for the defender."""
    attack = play.attack
    found = unverified(
        play.users[name].received(),
        crates=attack.hit,
        lines=attack.without_lines,
        signed=play.scene.signed,
    )
    if name == "verify" and (wrong := proven(text) & set(attack.hit)):
        found.append(f"called proven: {wrong}")
    expected = {101} if name == "sealed" and attack.code else {attack.code}
    if code not in expected:
        found.append(f"ended with {code}")
    if not re.search(attack.says, text):
        found.append(f"nobody says {attack.says!r}")
    return [f"{name}: {each}" for each in found]


@pytest.fixture(scope="module")
def plays(host, request):
    """Every attack that was selected, by name: two at a time, as each waits for its processes."""
    tests = [test for test in request.session.items if test.module is request.module]
    chosen = [test.callspec.params["attack"] for test in tests if hasattr(test, "callspec")]
    pool = ThreadPoolExecutor(2)
    yield {each.name: pool.submit(lambda e=each: Play(Place.new(host), e).run()) for each in chosen}
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("attack", ATTACKS, ids=IDS)
def test_what_a_hostile_mirror_does_reaches_no_build_and_is_told(plays, attack):
    play = plays[attack.name].result()
    wrong = [each for name, end in play.outcomes.items() for each in problems(play, name, *end)]
    wrong += [f"the trap was asked: {each}" for each in asked(play.trap)]
    told = [f"---- {name}: {code}\n{text}" for name, (code, text) in play.outcomes.items()]
    assert not wrong, "\n".join([*wrong, *told])


# ---- controls, and the limits of all this


def test_plain_cargo_takes_and_unpacks_what_was_changed_together_with_its_lock(place):
    """The control: why a lock file alone does not help whom its author and the mirror deceive."""
    scene = Scene(place.folder, Stage.made(place.folder / "mirror"))
    everything_changed(scene)
    user = User(place.folder / "u", scene.lock)
    scene.stage.for_plain_cargo(place.url_of(scene.stage))
    use_mirror(user.project, place.url_of(scene.stage))
    done = cargo(user.project, user.cargo_home, "fetch", "--locked")
    assert done.returncode == 0, done.stderr
    evil = [file for file, data in user.received().items() if data == b"// evil alpha 1.0.0\n"]
    assert [file.name for file in evil] == ["lib.rs"]


def settings_for(place, *stages):
    urls = " ".join(map(place.url_of, stages))
    return {"CRATESEAL_MIRROR": urls, "CRATESEAL_ROOT": str(stages[0].root)}


def test_who_never_looked_before_cannot_know_that_something_is_old(place):
    """A limit of TUF: a new client knows only what has expired. Memory is what stops a rollback."""
    scene = Scene(place.folder, Stage.made(place.folder / "mirror"))
    deny_delta(scene)
    old_publication(scene)
    code, text = verify(User(place.folder / "u"), **settings_for(place, scene.stage))
    assert code == 0, text
    assert "delta" in proven(text)


def test_a_root_that_the_only_mirror_withholds_is_missed_until_the_old_one_expires(place):
    """A limit of TUF, and why several mirrors are asked: with two it does not pass (the table)."""
    scene = Scene(place.folder, Stage.made(place.folder / "mirror"))
    withheld_root(scene)
    user = User(place.folder / "u", lock_text({"alpha": sha256(EVIL)}))
    code, text = verify(user, **settings_for(place, scene.stage))
    assert code == 0, text
    assert "alpha" in proven(text)
    code, text = verify(user, **settings_for(place, scene.stage, scene.other()))
    assert code == 1, text
    assert "alpha" not in proven(text)


def test_after_the_way_back_from_a_fast_forward_a_rollback_is_seen_again(place):
    """The thief's high number must not stand in the way of what is remembered from then on."""
    scene = Scene(place.folder, Stage.made(place.folder / "mirror"))
    user = User(place.folder / "u")
    trust(user, scene.stage.root, place.url_of(scene.stage))
    fast_forward(scene)
    assert verify(user)[0] == 0
    recover_from_fast_forward(scene)
    assert verify(user)[0] == 0
    shutil.rmtree(place.folder / "old")
    deny_delta(scene)
    assert "delta" not in proven(verify(user)[1])
    old_publication(scene)
    code, text = verify(user)
    assert code == 1
    assert "delta" not in proven(text)
    assert "behind" in text
