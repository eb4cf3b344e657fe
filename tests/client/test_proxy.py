"""`crateseal proxy` and the proxy that `cargo sealed` starts: the process, with a real cargo."""

import json
import re
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.conftest import need
from tests.support.hostile import asked, hosting, tell_lies
from tests.support.processes import Process, environment, wait_until
from tests.support.stage import DENIED, GOOD_INDEX, Stage, User


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return Stage.made(tmp_path_factory.mktemp("original") / "mirror")


@pytest.fixture
def stage(original, tmp_path):
    return original.copied(tmp_path / "mirror")


@pytest.fixture
def user(tmp_path):
    return User(tmp_path / "user")


@pytest.fixture
def mirror(stage):
    with hosting(stage.mirror.data) as url:
        yield url


@pytest.fixture
def start(stage, user, mirror, tmp_path):
    """Start a proxy with these settings; return its process, with its `url`."""
    started = []

    def start(*words, **more):
        variables = trusting(user, stage, mirror, **more)
        process = Process("proxy", *words, cwd=tmp_path, **variables)
        started.append(process)
        wait_until(lambda: "Stop: " in process.out or process.process.poll() is not None)
        assert process.process.poll() is None, process.err
        process.url = process.out.split()[1]
        send_cargo_to(user, process.url)
        return process

    yield start
    for process in started:
        process.signal(signal.SIGTERM)  # killed, it would leave a cache of its own in /tmp
    for process in started:
        process.wait()
        process.end()


def trusting(user, stage, mirror, **more):
    return user.variables(CRATESEAL_MIRROR=mirror, CRATESEAL_ROOT=str(stage.root), **more)


def send_cargo_to(user, url, retry=0):
    (user.cargo_home / "config.toml").write_text(
        '[source.crates-io]\nreplace-with = "m"\n'
        f'[source.m]\nregistry = "sparse+{url}index/"\n[net]\nretry = {retry}\n'
    )


def cargo(user, *words, home=None, project=None, **more):
    variables = user.variables(**more) | {"CARGO_NET_RETRY": None}
    variables |= {"CARGO_HOME": str(home)} if home else {}
    done = subprocess.run(
        [need("cargo"), *words],
        cwd=project or user.project,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


def get(url, **headers):
    return httpx.get(url, headers=headers, trust_env=False, timeout=20)


# ---- with cargo


def test_cargo_takes_everything_from_it_and_the_mirror_is_asked_for_nothing_twice(
    start, stage, user, mirror
):
    proxy = start()
    code, said = cargo(user, "fetch", "--locked")
    assert code == 0, said
    assert {file.name for file in user.received() if file.suffix == ".crate"} == {
        "alpha-1.0.0.crate",
        "beta-1.0.0.crate",
        "delta-1.0.0.crate",
    }
    before = asked(stage.mirror.data)
    code, said = cargo(user, "update")
    assert code == 0, said
    assert asked(stage.mirror.data) == before
    assert mirror in proxy.out
    assert proxy.url.split("/")[3] in proxy.out


def test_cargo_prints_what_does_not_verify(start, stage, user):
    start()
    stage.put_crate("beta", b"something else")
    code, said = cargo(user, "fetch", "--locked")
    assert code == 101
    assert "got 403" in said
    assert "crateseal: beta 1.0.0 does not verify" in said
    assert re.search(r"where: http.*/crates/beta/beta-1\.0\.0\.crate", said)
    assert "expected: sha256" in said
    assert "what to do: " in said


def test_cargo_prints_why_something_is_withheld(start, stage, user):
    note = {"kind": "deny", "rule": "deny", "reason": "ships malware", "versions": ["1.0.0"]}
    stage.publish({"delta": DENIED})
    stage.mirror.withhold("delta", json.dumps({"name": "delta", "entries": [note]}).encode())
    start()
    code, said = cargo(user, "fetch", "--locked")
    assert code == 101
    assert "delta 1.0.0 is withheld: deny: ships malware" in said


def test_a_mirror_that_is_slow_makes_cargo_wait_and_the_download_goes_on(start, stage, user):
    proxy = start(CRATESEAL_MAX_WAIT="1s")
    send_cargo_to(user, proxy.url, retry=3)
    tell_lies(
        stage.mirror.data,
        {"on": stage.on(stage.crate("beta")), "lie": "trickle", "every": 0.02},
    )
    code, said = cargo(user, "fetch", "--locked")
    assert code == 0, said
    assert "not fetched and verified within 1 s" in said
    assert sum(line.endswith("/beta-1.0.0.crate") for line in asked(stage.mirror.data)) == 1


def test_a_mirror_that_is_away_is_said_to_be_so(start, stage, user):
    proxy = start(CRATESEAL_CONNECT_TIMEOUT="1s")
    tell_lies(stage.mirror.data, {"on": "", "lie": "say", "status": "503 Away", "body": "gone"})
    answer = get(f"{proxy.url}index/al/ph/alpha")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    tell_lies(stage.mirror.data)
    assert cargo(user, "fetch", "--locked")[0] == 0
    # What verified is served while the mirror is away again.
    tell_lies(stage.mirror.data, {"on": "", "lie": "say", "status": "503 Away", "body": "gone"})
    assert get(f"{proxy.url}index/al/ph/alpha").content == GOOD_INDEX["alpha"]


def test_an_absence_without_proof_is_told_marked_and_with_strict_absence_refused(start, user):
    proxy = start()
    answer = get(f"{proxy.url}index/no/-s/no-such")
    assert (answer.status_code, answer.headers["x-crateseal-absence"]) == (404, "unproved")
    user.want(["no-such"])
    code, said = cargo(user, "fetch")
    assert code == 101
    assert "no matching package named `no-such` found" in said


def test_with_strict_absence_cargo_reads_why(start, user):
    start("--strict-absence")
    user.want(["no-such"])
    code, said = cargo(user, "fetch")
    assert code == 101
    assert "no-such: unproved" in said


def test_absence_of_what_the_signer_says_is_complete_is_proved(start, stage):
    stage.say(signed_at="2020-01-01T00:00:00Z", complete_as_of="2020-01-01T00:00:00Z")
    proxy = start("--strict-absence")
    answer = get(f"{proxy.url}index/no/-s/no-such")
    assert (answer.status_code, "proved absent" in answer.text) == (404, True)


def test_a_crate_may_be_asked_for_without_its_index_file(start, stage):
    proxy = start()
    answer = get(f"{proxy.url}crates/alpha/alpha-1.0.0.crate")
    assert answer.content == stage.crate("alpha").read_bytes()


def test_a_newer_publication_is_served_without_a_restart(start, stage):
    proxy = start(CRATESEAL_REFRESH_EVERY="1s")
    assert get(f"{proxy.url}index/de/lt/delta").content == GOOD_INDEX["delta"]
    stage.publish({"delta": DENIED})
    wait_until(lambda: get(f"{proxy.url}index/de/lt/delta").content == DENIED, every=0.2)


def test_strangers_are_refused(start):
    proxy = start()
    url = f"{proxy.url}index/al/ph/alpha"
    assert get(url).status_code == 200
    assert get(url, Host="localhost").status_code == 403
    assert get(url, Origin="https://evil.example").status_code == 403
    assert get(url, **{"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert httpx.post(url, trust_env=False).status_code == 405


def test_a_cargo_that_goes_past_the_mirror_reads_that_and_it_is_logged(start, user):
    proxy = start()
    address = proxy.url.split("/")[2]
    (user.cargo_home / "config.toml").write_text(
        '[source.crates-io]\nreplace-with = "other"\n'
        '[source.other]\nregistry = "sparse+http://other.invalid/index/"\n[net]\nretry = 0\n'
    )
    code, said = cargo(user, "fetch", CARGO_HTTP_PROXY=f"http://{address}", NO_PROXY="127.0.0.1")
    assert code == 101
    told = "cargo tried to fetch http://other.invalid/index/config.json past the mirror"
    assert told in said
    assert told in proxy.err


def test_fifty_cargos_at_once_are_served_and_each_crate_is_fetched_once(start, stage, user):
    start()
    homes = [user.folder / f"home-{number}" for number in range(50)]
    for home in homes:
        home.mkdir()
        (home / "config.toml").write_text((user.cargo_home / "config.toml").read_text())
    with ThreadPoolExecutor(50) as pool:
        done = list(pool.map(lambda home: cargo(user, "fetch", "--locked", home=home), homes))
    assert {code for code, _ in done} == {0}, done
    requests = asked(stage.mirror.data)
    crates = [line for line in requests if line.startswith("GET /crates/")]
    assert sorted(crates) == sorted(set(crates))
    assert len(crates) == 3
    assert len(requests) == len(set(requests))


# ---- the process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_it_ends_when_it_is_told_to(start, number, code):
    proxy = start()
    get(f"{proxy.url}index/al/ph/alpha")
    proxy.signal(number)
    assert proxy.wait(5) == code
    assert "Traceback" not in proxy.err


def test_it_ends_soon_even_while_a_mirror_says_nothing(start, stage):
    proxy = start(CRATESEAL_MAX_WAIT="1s")
    tell_lies(stage.mirror.data, {"on": stage.on(stage.crate("beta")), "lie": "silence"})
    assert get(f"{proxy.url}crates/beta/beta-1.0.0.crate").status_code == 503
    proxy.signal(signal.SIGTERM)
    assert proxy.wait(5) == 0


def test_its_port_is_free_at_once_while_it_still_answers_what_was_asked(start, stage):
    ending = start(CRATESEAL_MAX_WAIT="2s")
    tell_lies(stage.mirror.data, {"on": stage.on(stage.crate("beta")), "lie": "silence"})
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(get, f"{ending.url}crates/beta/beta-1.0.0.crate")
        wait_until(
            lambda: any(line.endswith("/beta-1.0.0.crate") for line in asked(stage.mirror.data))
        )
        ending.signal(signal.SIGTERM)
        wait_until(lambda: "ending" in ending.err)
        assert start().url == ending.url
        assert asking.result().status_code == 503


def test_a_second_one_keeps_the_first_ones_place_warm_and_takes_it_over(start):
    first = start()
    second = start()
    assert second.url == first.url
    assert f"Process {first.pid} serves it now" in second.out
    first.signal(signal.SIGTERM)
    assert first.wait(5) == 0
    wait_until(lambda: "serving" in second.err)
    assert get(f"{second.url}index/al/ph/alpha").content == GOOD_INDEX["alpha"]


def test_without_a_trusted_root_it_says_what_to_do(user, tmp_path):
    process = Process("proxy", cwd=tmp_path, **user.variables())
    try:
        assert process.wait() == 2
        assert "crateseal trust" in process.err
    finally:
        process.end()
