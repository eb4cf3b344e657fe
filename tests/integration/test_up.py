"""`crateseal up` and its children: the real processes, ended and killed in every way."""

import functools
import http.server
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.support.crates import crate_bytes, index_file
from tests.support.nginx import free_port
from tests.support.processes import Process, Up, crateseal, is_alive, wait_until

NOWHERE = "sparse+http://127.0.0.1:9/"
FOREIGN = "holds 'thesis.txt' and no mirror"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_arguments):
        pass


@pytest.fixture
def upstream(tmp_path):
    """A sparse index with the crate `fine`, on loopback; gives its address."""
    folder = tmp_path / "upstream"
    (folder / "fi/ne").mkdir(parents=True)
    (folder / "fi/ne/fine").write_bytes(index_file("fine", "1.0.0"))
    (folder / "dl").mkdir()
    (folder / "dl/fine").write_bytes(crate_bytes("fine", "1.0.0"))
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        (folder / "config.json").write_text(f'{{"dl": "{url}/dl/{{crate}}"}}')
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"sparse+{url}/"
        server.shutdown()


@pytest.fixture
def start(tmp_path):
    started = []

    def start(*arguments, kind=Up, **more):
        cwd = tmp_path / "here"
        cwd.mkdir(exist_ok=True)
        started.append(kind(*arguments, cwd=cwd, **more))
        return started[-1]

    yield start
    for each in started:
        each.end()


@pytest.fixture
def here(tmp_path):
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


@pytest.fixture
def here_with_mirror(here):
    assert crateseal("init", "--trial", cwd=here).returncode == 0
    return here


def test_up_makes_a_mirror_of_nothing_and_says_what_to_do_next(start, upstream):
    up = start("--upstream", upstream).wait_until_ready()
    root = up.get("/tuf/metadata/1.root.json").json()
    assert root["signed"]["x-crateseal"] == {"trial": True}
    for words in ('replace-with = "crateseal"', "crateseal verify --lock", "a trial"):
        assert words in up.out
    assert up.get("/index/fi/ne/fine").content == index_file("fine", "1.0.0")
    crate = up.get("/crates/fine/fine-1.0.0.crate")
    assert crate.content == crate_bytes("fine", "1.0.0")
    assert up.stop() == 130
    assert "killed" not in up.err
    assert crateseal("check", "--data", up.data, cwd=up.data.parent).returncode == 0


def test_what_was_held_is_served_after_a_new_start_without_upstream(start, upstream):
    first = start("--upstream", upstream).wait_until_ready()
    assert first.get("/index/fi/ne/fine").status_code == 200
    assert first.stop() == 130
    second = start("--upstream", NOWHERE).wait_until_ready()
    assert second.get("/index/fi/ne/fine").content == index_file("fine", "1.0.0")
    assert second.get("/index/ot/he/other").status_code == 503
    assert "unreachable" in second.err or "no connection" in second.err


@pytest.mark.parametrize("child", ["serve", "sync", "sign"])
def test_a_killed_child_comes_back_and_no_connection_is_refused(start, upstream, child):
    up = start("--upstream", upstream).wait_until_ready()
    before = up.children()
    os.kill(before[child], signal.SIGKILL)
    answers = []
    while up.children().get(child, before[child]) == before[child]:
        answers.append(up.get("/healthz").status_code)
        time.sleep(0.05)
    assert set(answers) <= {200}
    wait_until(lambda: up.get("/index/fi/ne/fine").status_code == 200)
    after = up.children()
    assert {name for name in before if before[name] != after[name]} == {child}
    assert f"{child} ended by signal 9 (SIGKILL); started again in 1 s" in up.err


def test_a_killed_parent_takes_all_along_and_nothing_is_lost(start, upstream):
    up = start("--upstream", upstream).wait_until_ready()
    held = up.get("/index/fi/ne/fine").content
    children = up.children()
    assert set(children) == {"serve", "sync", "sign"}
    up.signal(signal.SIGKILL)
    for pid in children.values():
        wait_until(lambda pid=pid: not is_alive(pid))
    again = start("--upstream", NOWHERE).wait_until_ready()
    assert again.get("/index/fi/ne/fine").content == held
    assert again.stop() == 130
    assert crateseal("check", "--data", up.data, cwd=up.data.parent).returncode == 0


def test_a_signer_that_keeps_failing_does_not_stop_the_server(start, upstream):
    up = start("--upstream", upstream).wait_until_ready()
    assert up.get("/index/fi/ne/fine").status_code == 200
    (up.data / "keys/timestamp.pem").chmod(0o644)
    os.kill(up.children()["sign"], signal.SIGKILL)
    wait_until(lambda: "started again in 4 s" in up.err)
    assert "sign ended with exit code 5" in up.err
    assert "0600" in up.err
    assert up.get("/index/fi/ne/fine").status_code == 200
    (up.data / "keys/timestamp.pem").chmod(0o600)
    assert up.stop() == 130


def test_a_second_ctrl_c_ends_at_once(start):
    up = start("--upstream", NOWHERE).wait_until_ready()
    children = up.children()
    os.kill(children["serve"], signal.SIGSTOP)
    up.signal(signal.SIGINT)
    wait_until(lambda: "Ctrl-C again to stop at once" in up.err)
    assert up.stop() == 130
    assert not any(is_alive(pid) for pid in children.values())
    # In good order the signer would have had its turn, and ended well, after some seconds.
    assert "sign was killed: at once, as told" in up.err


def test_sigterm_ends_it_well(start):
    up = start("--upstream", NOWHERE).wait_until_ready()
    up.signal(signal.SIGTERM)
    assert up.wait() == 0


def test_what_another_program_has_is_one_line_after_some_seconds(start, tmp_path):
    """A port, the folder of an `up`, the lock of a `sync`: all waited for at once."""
    up = start("--upstream", NOWHERE).wait_until_ready()
    other = tmp_path / "other"
    other.mkdir()
    where = up.url.removeprefix("http://")
    with ThreadPoolExecutor() as pool:
        port, folder, lock = (
            pool.submit(crateseal, *arguments, cwd=other)
            for arguments in (
                ("up", "-q", "--port", where.rpartition(":")[2]),
                ("up", "-q", "--port", "0", "--data", up.data),
                ("sync", "-q", "--once", "--data", up.data),
            )
        )
    for found, words in (
        (port, f"{where}: another program listens there"),
        (folder, "another `crateseal up` is running on this folder already"),
        (lock, "another `crateseal sync` is running on this folder already"),
    ):
        assert found.result().returncode == 4
        assert found.result().stderr.count("\n") == 1
        assert words in found.result().stderr
    assert list(other.iterdir()) == []  # no key was made for a port that is not to be had


def test_a_predecessor_on_its_way_out_is_waited_for(start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        up = start("--upstream", NOWHERE, "--port", port)
        wait_until(lambda: "is in use; waiting" in up.err)
    assert up.wait_until_ready().url.endswith(f":{port}")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--data", "foreign"], 2, f"foreign: {FOREIGN}; name a new or empty folder with --data"),
        (["--data", "file"], 2, "file: not a folder"),
        (["--data", "d" * 100], 2, "this path is too long for the sockets in it"),
        (["--data", "/proc/mirror"], 5, "crateseal: /proc/mirror"),
        (["--host", "192.0.2.1"], 2, "cannot listen there"),
        (["--host", "no.such.host.invalid"], 2, "cannot listen there"),
        (["--mode", "index"], 2, "say which with --names"),
        (["--mode", "full"], 2, "mode full is not built yet"),
        (["--prot", "1"], 2, "did you mean --port?"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_was_made(here, arguments, code, message):
    (here / "foreign").mkdir()
    (here / "foreign/thesis.txt").write_text("mine")
    (here / "file").write_text("")
    found = crateseal("up", "--port", 0, *arguments, cwd=here)
    assert (found.returncode, found.stdout) == (code, "")
    assert found.stderr.count("\n") == 1
    assert found.stderr.startswith("crateseal: ")
    assert message in found.stderr
    assert sorted(each.name for each in here.iterdir()) == ["file", "foreign"]
    assert [each.name for each in (here / "foreign").iterdir()] == ["thesis.txt"]


def test_several_workers_share_one_socket(start, upstream):
    up = start("--upstream", upstream, "--workers", "2").wait_until_ready()
    with httpx.Client() as client:
        assert client.get(f"{up.url}/index/fi/ne/fine").status_code == 200
    assert up.stop() == 130


def test_serve_alone_serves_what_was_signed_with_workers_of_its_own(start, upstream):
    up = start("--upstream", upstream).wait_until_ready()
    assert up.get("/index/fi/ne/fine").status_code == 200
    assert up.stop() == 130
    port = free_port()
    options = ("serve", "--data", up.data, "--port", port, "--workers")
    for workers in ("1", "2"):
        serve = start(*options, workers, kind=Process)
        url = f"http://127.0.0.1:{port}/index/fi/ne/fine"
        wait_until(functools.partial(_answers_200, url))
        serve.signal(signal.SIGTERM)
        assert serve.wait() == 0


@pytest.mark.parametrize("command", ["sync", "sign", "serve"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_each_process_alone_ends_well_when_told(start, here_with_mirror, command, number, code):
    port = free_port()
    options = ("--port", port) if command == "serve" else ()
    process = start(command, *options, kind=Process)
    if command == "serve":
        wait_until(functools.partial(_answers_200, f"http://127.0.0.1:{port}/healthz"))
    else:
        wait_until((here_with_mirror / f"crateseal-data/run/{command}.sock").exists)
    process.signal(number)
    assert process.wait(30) == code
    assert "Traceback" not in process.err


def _answers_200(url):
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def test_a_signer_without_a_repository_says_what_is_missing(here):
    found = crateseal("sign", cwd=here)
    assert found.returncode == 2
    assert "1.root.json: missing" in found.stderr
    assert "crateseal init --trial" in found.stderr


def test_init_is_done_once_and_keeps_what_is_there(here):
    first = crateseal("init", "--trial", cwd=here)
    second = crateseal("init", "--trial", cwd=here)
    assert (first.returncode, second.returncode) == (0, 0)
    assert "made a trial repository" in first.stdout
    assert "there is a repository already" in second.stdout
    assert first.stdout.rpartition(" ")[2] == second.stdout.rpartition(" ")[2]


def test_init_without_trial_makes_online_keys_only_and_shows_their_public_halves(here):
    found = crateseal("init", cwd=here)
    assert found.returncode == 0
    assert '"keytype": "ed25519"' in found.stdout
    assert "PRIVATE" not in found.stdout
    assert {each.name for each in (here / "crateseal-data").iterdir()} == {"keys", "run"}


def test_one_sync_brings_its_own_signer_and_ends(here, upstream):
    assert (
        crateseal("init", "--trial", "--mode", "index", "--bin-bits", "5", cwd=here).returncode == 0
    )
    (here / "names.txt").write_text("fine\ngone\n")
    options = ("sync", "--once", "--upstream", upstream, "--names", "names.txt")
    found = crateseal(*options, cwd=here)
    assert found.returncode == 0, found.stderr
    assert "1 changed" in found.stdout
    assert (here / "crateseal-data/www/index/fi/ne/fine").exists()
    again = crateseal(*options, cwd=here)
    assert again.returncode == 0
    assert " 0 changed" in again.stdout


def test_one_sync_that_brings_a_bad_file_is_exit_1_and_status_says_why(here, upstream, tmp_path):
    assert (
        crateseal("init", "--trial", "--mode", "index", "--bin-bits", "5", cwd=here).returncode == 0
    )
    (here / "names.txt").write_text("fine\nevil\n")
    (tmp_path / "upstream/ev/il").mkdir(parents=True)
    (tmp_path / "upstream/ev/il/evil").write_bytes(index_file("other", "1.0.0"))
    options = ("sync", "--once", "--upstream", upstream, "--names", "names.txt")
    found = crateseal(*options, cwd=here)
    assert found.returncode == 1, found.stderr
    assert "refused: evil: " in found.stdout
    assert (here / "crateseal-data/www/index/fi/ne/fine").exists()
    status = crateseal("status", cwd=here)
    assert status.returncode == 1
    assert "evil: " in status.stdout


def test_one_sync_without_upstream_is_exit_3(here):
    assert (
        crateseal("init", "--trial", "--mode", "index", "--bin-bits", "5", cwd=here).returncode == 0
    )
    (here / "names.txt").write_text("fine\n")
    options = ("sync", "--once", "--upstream", NOWHERE, "--names", "names.txt")
    assert crateseal(*options, cwd=here).returncode == 3
