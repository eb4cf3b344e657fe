"""`crateseal cargo-config --write`: an unmodified cargo, with nothing but that, asks the proxy."""

import socket
from contextlib import closing

import pytest

from mirror.core.cargo_folders import registry_folders
from mirror.errors import UsageError
from tests.support.cargo import cargo
from tests.support.processes import Process, wait_until
from tests.support.registry_of_folder import PAIR, client, homes_of, make_program, serving


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("mirror")) as mirror:
        yield mirror


def free_port():
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return server.getsockname()[1]


def test_cargo_builds_through_the_proxy_while_it_runs_and_not_without_it(mirror, tmp_path):
    home = tmp_path / "home"
    program = make_program(home / "program")
    root = mirror.metadata / "1.root.json"
    assert client(home, "trust", mirror.url, "--root", root, cwd=home).returncode == 0
    port = free_port()
    said = client(home, "cargo-config", "--write", "--port", port, cwd=home)
    assert said.returncode == 0, said.stderr
    assert f"crateseal proxy --port {port}" in said.stdout
    (program / ".cargo").mkdir()
    (program / ".cargo/config.toml").write_text("[net]\nretry = 0\n")
    away = cargo(program, home / "cargo", "build", "--quiet")
    assert away.returncode != 0
    proxy = Process("proxy", "--port", str(port), cwd=tmp_path, **homes_of(home))
    try:
        wait_until(lambda: "Stop: " in proxy.out or proxy.process.poll() is not None)
        ran = cargo(program, home / "cargo", "run", "--quiet")
        assert ran.stdout == "42 42\n", ran.stderr + proxy.err
    finally:
        proxy.end()
    (folder,) = (home / "cargo/registry/cache").iterdir()
    text = (home / "cargo/config.toml").read_text()
    index = text.split('index = "')[1].split('"')[0]
    assert folder.name in registry_folders(index)
    assert (program / "Cargo.lock").read_text().count("rust-lang/crates.io-index") == len(PAIR)
    # What came that way is looked at by `verify --cache`, too.
    checked = client(home, "verify", "--cache", cwd=home, CRATESEAL_PROXY_PORT=str(port))
    assert "2 of 2 packages on this machine proven" in checked.stdout, checked.stderr


def test_without_a_trusted_mirror_there_is_nothing_to_write(tmp_path):
    said = client(tmp_path, "cargo-config", "--write", cwd=tmp_path)
    assert said.returncode == UsageError.exit_code
    assert "crateseal trust" in said.stderr
    assert not (tmp_path / "cargo").exists()
