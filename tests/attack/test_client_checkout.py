"""A stranger's checkout, a second trust, and a clock that is wrong."""

import time

import pytest

from mirror.client.source.source import open_source
from mirror.client.trust.store import resolve_trust
from mirror.core.names import CrateId, CrateName
from mirror.core.times import rfc3339
from mirror.errors import ExpiredError, MachineError
from tests.support.arranging import EVIL, EVIL_LINE
from tests.support.cargo import cargo
from tests.support.hostile import asked, hosting, tell_lies
from tests.support.stage import (
    GOOD_INDEX,
    Stage,
    User,
    lines,
    lock_text,
    sha256,
    unverified,
)
from tests.support.victims import VICTIMS, sealed, verify

DAY = 86_400


def evil_stage(folder):
    """A mirror of somebody else's, correctly signed by him, with another alpha."""
    stage = Stage.made(folder)
    stage.put_crate("alpha", EVIL)
    stage.publish({"alpha": lines(EVIL_LINE)})
    return stage


@pytest.fixture
def stage(folder):
    return Stage.made(folder / "m")


@pytest.fixture
def known(stage):
    with hosting(stage.mirror.data) as url:
        yield {"CRATESEAL_MIRROR": url, "CRATESEAL_ROOT": str(stage.root)}


@pytest.fixture
def evil(folder):
    """An evil mirror, its URL, and a checkout that brings all that could lead us there."""
    stage = evil_stage(folder / "evil")
    with hosting(stage.mirror.data) as url:
        user = User(folder / "u", lock_text({"alpha": sha256(EVIL)}))
        stage.for_plain_cargo(url)
        bring_along(user.project, stage, url)
        yield stage, url, user


def bring_along(project, stage, url):
    (project / "mirror.toml").write_text(f'data = "{stage.mirror.data}"\n')
    (project / "crateseal-data").symlink_to(stage.mirror.data)
    text = f'mirror = "{url}"\nroot = "{stage.root}"\naccept_stale_until = "2100-01-01"\n'
    for folder in ("", ".config/crateseal", "crateseal"):
        (project / folder).mkdir(parents=True, exist_ok=True)
        (project / folder / "client.toml").write_text(text)
    (project / ".cargo").mkdir()
    (project / ".cargo/config.toml").write_text(
        '[source.crates-io]\nreplace-with = "evil"\n'
        f'[source.evil]\nregistry = "sparse+{url}/index/"\n'
        f'[registries.evil]\nindex = "sparse+{url}/index/"\n'
        f'[registries.crates-io]\nindex = "sparse+{url}/index/"\n'
        '[env]\nNO_PROXY = { value = "", force = true }\n'
        f'[http]\nproxy = "{url.removeprefix("http://")}"\n'
    )


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_checkout_brings_no_mirror_no_root_and_no_grace(known, evil, victim):
    stage, _, user = evil
    code, text = VICTIMS[victim](user, **known)
    # Its lock names the evil alpha, which our mirror never signed.
    assert code in {1, 101}, text
    assert "alpha" in text
    assert asked(stage.mirror.data) == []
    assert unverified(user.received(), crates=("alpha",)) == []


@pytest.mark.parametrize("victim", VICTIMS)
def test_without_a_trust_of_the_users_own_a_checkout_leads_nowhere(evil, victim):
    stage, _, user = evil
    code, text = VICTIMS[victim](user)
    assert code == 2, text
    assert "crateseal trust" in text
    assert asked(stage.mirror.data) == []
    assert user.received() == {}


def test_a_checkout_of_plain_cargo_takes_what_it_brings(evil):
    """The control: the same checkout with cargo alone."""
    _, _, user = evil
    done = cargo(user.project, user.cargo_home, "fetch", "--locked")
    assert done.returncode == 0, done.stderr
    assert unverified(user.received())


# ---- two trusts


def test_two_trusts_of_one_user_never_mix(folder, stage, known):
    """Both mirrors are trusted, each for its own: what one signed is not good for the other."""
    other = evil_stage(folder / "other")
    user = User(folder / "u")
    with hosting(other.mirror.data) as url:
        others = {"CRATESEAL_MIRROR": url, "CRATESEAL_ROOT": str(other.root)}
        for _ in range(2):
            user.lock.write_text(lock_text())
            code, text = sealed(user, **known)
            assert code == 0, text
            user.lock.write_text(lock_text({"alpha": sha256(EVIL)}))
            code, text = sealed(user, **others)
            assert code == 0, text
        code, text = sealed(user, **known)
        assert code == 101, text
    homes = sorted(user.cache.glob("*/cargo-home/registry"))
    assert len(homes) == 2
    found = [
        unverified({file: file.read_bytes() for file in home.rglob("*") if file.is_file()})
        for home in homes
    ]
    assert sorted(map(bool, found)) == [False, True]


def test_one_mirrors_address_with_anothers_root_is_refused(stage, known, folder):
    other = evil_stage(folder / "other")
    user = User(folder / "u")
    with hosting(other.mirror.data) as url:
        code, text = verify(user, **known | {"CRATESEAL_MIRROR": url})
    assert code == 1, text
    assert "proven  " not in text


# ---- the clock


@pytest.fixture
def settings(stage, known, folder):
    now = rfc3339(time.time())
    stage.say(signed_at=now, upstream_confirmed=now, mode="cache", upstream="sparse+https://x/")
    return User(folder / "u").settings(**known)


def alpha(settings, trust, now):
    with open_source(settings, lambda: now, trust=trust) as source:
        return source.index_file(CrateName("alpha")).data


def test_a_clock_that_was_set_back_is_refused_and_brings_nothing_expired_to_life(settings):
    trust, now = resolve_trust(settings), time.time()
    assert alpha(settings, trust, now) == GOOD_INDEX["alpha"]
    assert alpha(settings, trust, now - 60) == GOOD_INDEX["alpha"]
    with pytest.raises(MachineError, match="clock"):
        alpha(settings, trust, now - DAY / 2)


def test_a_clock_that_is_set_back_while_we_run_is_refused(settings):
    clock = [time.time()]
    with open_source(settings, lambda: clock[0]) as source:
        source.refresh()
        clock[0] -= DAY / 2
        with pytest.raises(MachineError, match="clock"):
            source.refresh()


def test_what_has_expired_while_we_run_is_handed_out_no_more(settings, stage):
    clock = [time.time()]
    with open_source(settings, lambda: clock[0]) as source:
        assert source.index_file(CrateName("alpha")).data == GOOD_INDEX["alpha"]
        tell_lies(stage.mirror.data, {"on": "", "lie": "say", "status": "502 Bad Gateway"})
        clock[0] += DAY / 2
        assert source.index_file(CrateName("alpha")).data == GOOD_INDEX["alpha"]
        clock[0] += DAY
        for ask in (
            lambda: source.index_file(CrateName("alpha")),
            lambda: source.digest(CrateName("alpha")),
            lambda: source.crate(CrateId("alpha", "1.0.0")),
        ):
            with pytest.raises(ExpiredError):
                ask()
