"""The operator's word with the real processes and the real cargo: deny, allow, accept."""

import contextlib
import json
import os
import socket
import stat
import subprocess

import httpx
import pytest

from tests.conftest import need
from tests.fakes.upstream import FakeUpstream
from tests.support.crates import crate_bytes, index_file, index_line
from tests.support.processes import Up, crateseal, environment, wait_until

WHY = "ships a miner, see RUSTSEC-2026-0001"


def index(name):
    return f"/index/{name[:2]}/{name[2:4]}/{name}"


def crate(name, version):
    return f"/crates/{name}/{name}-{version}.crate"


@pytest.fixture
def upstream(tmp_path):
    with FakeUpstream(tmp_path / "upstream") as upstream:
        for name, versions in {"demo": ("1.0.0", "1.1.0"), "other": ("1.0.0",)}.items():
            upstream.put(index(name), index_file(name, *versions))
            for version in versions:
                upstream.put(crate(name, version), crate_bytes(name, version))
        yield upstream


@pytest.fixture
def up(tmp_path, upstream):
    folder = tmp_path / "here"
    folder.mkdir()
    up = Up("--upstream", upstream.source, "--max-age", "1s", cwd=folder)
    try:
        up.wait_until_ready()
        for path in (index("demo"), crate("demo", "1.0.0"), crate("demo", "1.1.0"), index("other")):
            assert up.get(path).status_code == 200
        yield up
    finally:
        up.end()


def order(up, *words, code=0):
    ran = crateseal(*words, "--data", up.data, cwd=up.data.parent)
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def check(up):
    ran = crateseal("check", "--data", up.data, cwd=up.data.parent)
    assert ran.returncode == 0, ran.stdout


def cargo_project(tmp_path, url, requirement):
    project = tmp_path / "project"
    (project / "src").mkdir(parents=True, exist_ok=True)
    (project / ".cargo").mkdir(exist_ok=True)
    (project / "src/lib.rs").write_text("")
    (project / "Cargo.toml").write_text(
        '[package]\nname = "p"\nversion = "0.1.0"\nedition = "2021"\n'
        f'[dependencies]\ndemo = "{requirement}"\n'
    )
    (project / ".cargo/config.toml").write_text(
        f'[source.crates-io]\nreplace-with = "m"\n[source.m]\nregistry = "sparse+{url}/index/"\n'
    )
    return project


def cargo(project, *words, home):
    return subprocess.run(
        [need("cargo"), *words],
        cwd=project,
        env=environment(CARGO_HOME=str(home)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_denied_crate_is_gone_at_once_says_why_and_comes_back(up):
    said = order(up, "deny", "demo", "--reason", WHY)
    assert WHY in said
    for path in (index("demo"), crate("demo", "1.0.0")):
        answer = up.get(path)
        assert (answer.status_code, WHY in answer.text) == (403, True), answer.text
    assert not list(up.data.glob("www/**/demo*.crate"))
    assert not (up.data / "www/index/de/mo/demo").exists()
    assert not list(up.data.glob("www/tuf/targets/index/de/mo/*"))
    assert up.get(index("other")).status_code == 200
    check(up)
    status = json.loads(order(up, "status", "--json"))
    (denied,) = status["denied"]
    assert (denied["name"], denied["version"], denied["reason"]) == ("demo", None, WHY)
    order(up, "allow", "demo")
    assert up.get(index("demo")).content == index_file("demo", "1.0.0", "1.1.0")
    # For ten seconds after a crate was fetched nobody who asks late is sent upstream again.
    wait_until(lambda: up.get(crate("demo", "1.0.0")).status_code == 200, every=0.5)
    check(up)


def test_cargo_takes_no_denied_version_and_a_lock_that_names_it_hears_why(tmp_path, up):
    home = tmp_path / "home"
    project = cargo_project(tmp_path, up.url, "1")
    assert cargo(project, "fetch", home=home).returncode == 0
    locked = (project / "Cargo.lock").read_text()
    assert 'version = "1.1.0"' in locked

    order(up, "deny", "demo@1.1.0", "--reason", WHY)
    ran = cargo(project, "fetch", "--locked", home=tmp_path / "fresh")
    assert ran.returncode != 0
    assert WHY in ran.stderr

    (project / "Cargo.lock").unlink()
    ran = cargo(project, "fetch", home=tmp_path / "another")
    assert ran.returncode == 0, ran.stderr
    assert 'version = "1.0.0"' in (project / "Cargo.lock").read_text()
    check(up)


def test_a_decision_needs_no_signer_that_runs(tmp_path, upstream, up):
    assert up.stop() == 130
    assert WHY in order(up, "deny", "demo@1.0.0", "--reason", WHY)
    check(up)
    again = Up("--upstream", upstream.source, cwd=up.data.parent)
    try:
        again.wait_until_ready()
        assert again.get(crate("demo", "1.0.0")).status_code == 403
        assert again.get(crate("demo", "1.1.0")).status_code == 200
    finally:
        again.end()


def test_only_the_signers_user_can_open_the_admin_socket(up):
    assert stat.S_IMODE(os.stat(up.data / "run/admin.sock").st_mode) == 0o600


def test_what_was_refused_is_shown_and_can_be_accepted(up, upstream):
    changed = index_line("demo", "1.0.0", "6" * 64) + b"\n"
    changed += index_file("demo", "1.1.0")
    upstream.put(index("demo"), changed)
    good = up.get(index("demo")).content
    wait_until(lambda: up.get(index("demo")) and up.get("/status.json").json()["quarantined"])
    assert up.get(index("demo")).content == good
    shown = order(up, "status", code=1)
    assert "cksum-changed" in shown
    order(up, "accept", "demo")
    assert up.get(index("demo")).content == changed
    assert up.get(crate("demo", "1.1.0")).status_code == 200
    # What upstream has of the old version is not what its line names now.
    wait_until(lambda: up.get(crate("demo", "1.0.0")).status_code == 403, every=0.5)
    check(up)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("deny", "demo"), "--reason"),
        (("deny", "no/name", "--reason", "x"), "NAME or NAME@VERSION"),
        (("deny", "demo@1", "--reason", "x"), "NAME or NAME@VERSION"),
        (("allow", "demo"), "demo is not denied"),
        (("accept", "demo"), "not quarantined"),
        (("accept", "demo@1.0.0"), "not quarantined"),
    ],
)
def test_a_wrong_order_is_one_clear_line(up, words, message):
    said = order(up, *words, code=2)
    assert message in said
    assert said.count("\n") == 1


def test_an_order_that_is_none_gets_no_answer_and_harms_nobody(up):
    for line in (b"{}\n", b'{"verb":"deny"}\n', b"x" * 5000, b'{"verb":"rm","name":"demo"}\n'):
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(up.data / "run/admin.sock"))
            raw.sendall(line)
            raw.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                assert raw.recv(100) == b""
    assert httpx.get(f"{up.url}{index('demo')}").status_code == 200
