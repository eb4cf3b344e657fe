"""`cargo sealed` with a real cargo before a real mirror, in every way that cargo is used."""

import contextlib
import hashlib
import json
import os
import pty
import signal
import socket
import subprocess
import time

import pytest

from mirror.client.gate.gate import FIRST_PORT
from mirror.core.cargo_folders import registry_folders
from tests.conftest import need
from tests.fakes.upstream import FakeUpstream
from tests.support.crates import crate_bytes, index_file, index_line
from tests.support.laptop import Laptop, configure, ended, free_port, package, squatter, trap
from tests.support.mirror_folder import MirrorFolder, answering, from_folder
from tests.support.processes import Up, is_alive, wait_until
from tests.support.tar import Entry

CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"
TOOL = crate_bytes(
    "tool",
    "1.0.0",
    entries=[
        Entry(
            "tool-1.0.0/Cargo.toml",
            b'[package]\nname = "tool"\nversion = "1.0.0"\nedition = "2021"\n'
            b'[dependencies]\naaaa = "1"\n',
        ),
        Entry("tool-1.0.0/src/main.rs", b'fn main() { println!("{}", aaaa::answer()); }\n'),
    ],
)
NAMES = ("aaaa", "bbbb")
# Not one long `sleep`: a child that was just forked may miss the signal that is to end it.
READY_FOR_NINE_SECONDS = "echo ready; n=0; while [ $n -lt 90 ]; do sleep 0.1; n=$((n+1)); done"


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """A mirror made by `crateseal up`, of two libraries and a program."""
    folder = tmp_path_factory.mktemp("mirror")
    with FakeUpstream(folder / "upstream") as upstream:
        for name in NAMES:
            upstream.put(f"/index/{name[:2]}/{name[2:]}/{name}", index_file(name, "1.0.0"))
            upstream.put(f"/crates/{name}/{name}-1.0.0.crate", crate_bytes(name, "1.0.0"))
        upstream.put("/index/to/ol/tool", index_of_tool())
        upstream.put("/crates/tool/tool-1.0.0.crate", TOOL)
        up = Up("--upstream", upstream.source, cwd=folder)
        try:
            yield up.wait_until_ready()
        finally:
            up.end()


def index_of_tool():
    cksum = hashlib.sha256(TOOL).hexdigest()
    return index_line("tool", "1.0.0", cksum, deps=("aaaa",)) + b"\n"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Python compiles each module once, not once a process."""
    folder = tmp_path_factory.mktemp("compiled")
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder)}


@pytest.fixture
def laptop(mirror, tmp_path, compiled):
    root = mirror.data / "www/tuf/metadata/1.root.json"
    return Laptop(tmp_path, compiled).trust(mirror.url, root)


@pytest.fixture
def project(tmp_path):
    return package(tmp_path / "work/project", *NAMES)


# ---- the ways cargo is used


def test_a_build_is_verified_and_the_lock_names_crates_io(laptop, project):
    code, said = laptop.sealed(project, "build")
    assert code == 0, said
    assert "sealed: 2 index files and 2 crates verified, mirror http://127.0.0.1:" in said
    assert "TRIAL" in said
    lock = (project / "Cargo.lock").read_text()
    assert lock.count(f'source = "{CRATES_IO}"') == 2
    port, root_id = (laptop.trusted / "port").read_text().strip(), laptop.trusted.name
    ours = registry_folders(f"sparse+http://127.0.0.1:{port}/{root_id}/index/")
    assert len(laptop.registries() & ours) == len(laptop.registries()) == 1


def test_a_cached_build_says_nothing_and_starts_no_proxy(laptop, project):
    laptop.sealed(project, "build")
    code, said = laptop.sealed(project, "build", "--locked")
    assert code == 0
    assert "sealed" not in said
    assert laptop.log.count("proxy serving") == 1


def test_clippy_starts_a_second_cargo_and_that_one_asks_the_proxy_too(laptop, project):
    need("cargo-clippy")
    with trap() as (url, seen):
        code, said = laptop.sealed(project, "clippy", https_proxy=url)
    assert code == 0, said
    assert "2 crates verified" in said
    assert all(each.startswith("127.0.0.1-") for each in laptop.registries())
    assert seen == []


def test_a_build_script_that_calls_cargo_gets_verified_crates_too(laptop, tmp_path):
    inner = package(tmp_path / "work/inner", "bbbb", name="inner")
    outer = package(tmp_path / "work/outer", "aaaa", build=script_that_runs("fetch", inner))
    with trap() as (url, seen):
        code, said = laptop.sealed(outer, "build", https_proxy=url)
    assert code == 0, said
    assert "sealed: 2 index files and 2 crates verified" in said
    assert seen == []


def test_what_is_installed_lands_in_the_users_own_home(laptop, tmp_path):
    code, said = laptop.sealed(tmp_path, "install", "tool")
    assert code == 0, said
    assert subprocess.check_output([laptop.users / "bin/tool"]) == b"42\n"
    assert "tool 1.0.0" in (laptop.users / ".crates.toml").read_text()
    assert (laptop.overlay / ".crates.toml").is_symlink()
    code, said = laptop.sealed(tmp_path, "uninstall", "tool")
    assert code == 0, said
    assert not (laptop.users / "bin/tool").exists()
    assert (laptop.overlay / ".crates2.json").is_symlink()


def test_vendor_asks_the_proxy(laptop, project):
    with trap() as (url, seen):
        code, said = laptop.sealed(project, "vendor", https_proxy=url)
    assert code == 0, said
    assert (project / "vendor/aaaa/Cargo.toml").is_file()
    assert seen == []


def test_info_asks_the_proxy(laptop, project):
    code, said = laptop.sealed(project, "info", "tool")
    assert code == 0, said
    assert "version: 1.0.0" in said


def test_a_member_of_a_workspace_is_built_offline_and_locked(laptop, tmp_path):
    member = package(tmp_path / "work/member", "aaaa")
    (tmp_path / "work/Cargo.toml").write_text('[workspace]\nmembers = ["*"]\nresolver = "2"\n')
    assert laptop.sealed(member, "fetch")[0] == 0
    code, said = laptop.sealed(member, "--strict", "build", "--offline", "--locked")
    assert code == 0, said
    assert not (member / "Cargo.lock").exists()


def test_a_toolchain_stays_first(laptop, project):
    if subprocess.run(["cargo", "+nightly", "-V"], check=False, capture_output=True).returncode:
        pytest.skip("no nightly toolchain")
    code, said = laptop.sealed(project, "--strict", "+nightly", "fetch")
    assert code == 0, said
    assert "2 crates verified" in said


def script_that_runs(words, project):
    """A build script that runs cargo on another project."""
    call = ", ".join(f'"{each}"' for each in (*words.split(), "--manifest-path"))
    return (
        f'fn main() {{ let done = std::process::Command::new("cargo").args([{call},'
        f' "{project}/Cargo.toml"]).output().unwrap();'
        ' assert!(done.status.success(), "{done:?}"); }'
    )


def test_a_build_script_may_call_cargo_sealed_itself(laptop, tmp_path):
    inner = package(tmp_path / "work/inner", "bbbb", name="inner")
    build = script_that_runs("sealed fetch", inner)
    outer = package(tmp_path / "work/outer", "aaaa", build=build)
    code, said = laptop.sealed(outer, "build")
    assert code == 0, said
    assert (inner / "Cargo.lock").exists()
    assert [each.name for each in laptop.trusted.glob("cargo-home*")] == ["cargo-home"]
    assert "cargo-home" not in (laptop.overlay / ".crateseal/overlay.json").read_text()


def test_the_users_configuration_counts_once_wherever_the_project_is(laptop, tmp_path):
    (laptop.users / "config.toml").write_text('build.rustflags = ["--cfg", "once"]\n')
    for folder in (tmp_path / "work", laptop.home / "below"):
        project = package(folder, "aaaa")
        code, said = laptop.sealed(project, "build", "-v")
        assert code == 0, said
        (line,) = (each for each in said.splitlines() if "--crate-name project" in each)
        assert line.count("--cfg once") == 1


def test_the_old_name_of_the_users_configuration_counts_too(laptop, project):
    (laptop.users / "config").write_text('build.rustflags = ["--cfg", "once"]\n')
    code, said = laptop.sealed(project, "build", "-v")
    assert code == 0, said
    (line,) = (each for each in said.splitlines() if "--crate-name project" in each)
    assert line.count("--cfg once") == 1


# ---- what leads elsewhere


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy", "ALL_PROXY", "CARGO_HTTP_PROXY"])
def test_no_proxy_of_the_company_sees_what_is_for_this_machine(laptop, project, variable):
    with trap() as (url, seen):
        # The proxy itself goes to a mirror on loopback, which is never sent to one either.
        code, said = laptop.sealed(project, "fetch", **{variable: url})
    assert code == 0, said
    assert seen == []


def redirect(project, url):
    configure(
        project,
        f'[source.crates-io]\nreplace-with = "x"\n[source.x]\nregistry = "sparse+{url}/index/"\n',
    )


def test_a_projects_own_redirection_is_not_followed(laptop, project):
    with trap() as (url, seen):
        redirect(project, url)
        code, said = laptop.sealed(project, "build")
    assert code == 0, said
    assert seen == []


@pytest.fixture
def impostor(tmp_path):
    """A registry of somebody's, with a crate of the same name."""
    www = tmp_path / "impostor"
    for name in NAMES:
        (www / f"index/{name[:2]}/{name[2:]}").mkdir(parents=True)
        (www / f"index/{name[:2]}/{name[2:]}/{name}").write_bytes(index_file(name, "1.0.0"))
        (www / f"dl/{name}-1.0.0.crate").parent.mkdir(exist_ok=True)
        (www / f"dl/{name}-1.0.0.crate").write_bytes(crate_bytes(name, "1.0.0"))
    with answering(from_folder(www)) as url:
        (www / "index/config.json").write_text(f'{{"dl": "{url}/dl/{{crate}}-{{version}}.crate"}}')
        yield url


def test_a_cargo_that_cargo_starts_and_that_is_led_elsewhere_is_a_finding(
    laptop, project, impostor
):
    need("cargo-clippy")
    redirect(project, impostor)
    code, said = laptop.sealed(project, "clippy")
    assert code == 1, said
    assert "FINDING: aaaa 1.0.0, bbbb 1.0.0: registry folder 127.0.0.1-" in said
    (aside,) = laptop.overlay.glob(".crateseal/foreign-1/cache/*")
    assert {each.name for each in aside.iterdir()} == {"aaaa-1.0.0.crate", "bbbb-1.0.0.crate"}
    # Neither does it poison later runs, nor can they use it.
    code, said = laptop.sealed(project, "clippy", "--offline")
    assert code != 0
    assert "FINDING" not in said
    (project / ".cargo/config.toml").unlink()
    code, said = laptop.sealed(project, "clippy")
    assert code == 0, said


def test_with_strict_a_bypass_fails_instead_of_fetching(laptop, project):
    need("cargo-clippy")
    with trap() as (url, seen):
        redirect(project, "http://registry.invalid")
        code, said = laptop.sealed(project, "clippy", http_proxy=url)
        assert code != 0, said
        assert seen  # The control: it went where the environment led it.
        seen.clear()
        code, said = laptop.sealed(project, "--strict", "clippy", http_proxy=url)
    assert code != 0, said
    assert seen == []


def test_words_that_redirect_a_source_are_refused(laptop, project):
    words = ("build", "--config", 'source.crates-io.replace-with="x"')
    code, said = laptop.sealed(project, *words)
    assert code == 2
    assert "says itself where crates come from" in said


def test_an_alias_of_the_checkout_brings_no_configuration_of_its_own(laptop, project):
    said = "source.crates-io.replace-with='v'", "source.v.directory='vendor'"
    words = ["build", "--config", said[0], "--config", said[1]]
    configure(project, f"alias.b = {words}\n")
    for command, more in (("b", {}), ("c", {"CARGO_ALIAS_C": "b --quiet"})):
        code, out = laptop.sealed(project, "--strict", command, **more)
        assert code == 2
        assert f"alias {command}: stands for words with a --config" in out
    # The control: cargo does what we refuse.
    assert "vendor" in ended(laptop.start(project, "b"))[1]
    configure(project, 'alias.get = "fetch --quiet"\n')
    code, out = laptop.sealed(project, "--strict", "get", "--config", "net.retry=0")
    assert code == 0, out
    assert "2 crates verified" in out


def test_aliases_that_only_cargo_can_read_are_refused_and_a_command_of_its_own_is_not(
    laptop, project
):
    configure(project, 'net = {\n}\nalias.get = "fetch"\n')
    code, said = laptop.sealed(project, "get")
    assert code == 2
    assert f"cargo sealed: {project}/.cargo/config.toml: cannot be read here" in said
    code, said = laptop.sealed(project, "fetch")
    assert code == 0, said


def test_a_lock_that_only_cargo_can_read_is_an_error_with_strict(laptop, project):
    laptop.sealed(project, "fetch")
    lock = project / "Cargo.lock"
    lock.write_text(lock.read_text() + "[[patch.unused]]\nname = 'x'\nversion = '1.0.0'\n")
    assert laptop.sealed(project, "--strict", "fetch")[0] == 0
    lock.write_text(lock.read_text() + '[metadata]\nx = "\\e"\n')
    code, said = laptop.sealed(project, "--strict", "fetch", "--locked")
    assert code == 1, said
    assert f"{lock}: a lock that cannot be read here" in said


def test_another_registry_of_the_users_own_is_not_covered(laptop, tmp_path, impostor):
    (laptop.users / "config.toml").write_text(
        f'registries.corp.index = "sparse+{impostor}/index/"\n'
    )
    project = package(tmp_path / "work", "aaaa", 'bbbb = { version = "1", registry = "corp" }')
    code, said = laptop.sealed(project, "fetch")
    assert code == 0, said
    assert "sealed: not covered: 1 package or source: bbbb 1.0.0 (sparse+http://127" in said
    code, said = laptop.sealed(project, "--strict", "fetch")
    assert code == 1, said


def test_a_package_outside_the_workspace_is_not_covered(laptop, tmp_path):
    package(tmp_path / "elsewhere", name="elsewhere")
    project = package(tmp_path / "work", 'elsewhere = { path = "../elsewhere" }')
    code, said = laptop.sealed(project, "build")
    assert code == 0, said
    assert f"not covered: 1 package or source: elsewhere ({tmp_path}/elsewhere)" in said
    assert laptop.sealed(project, "--strict", "build")[0] == 1


def test_a_patch_of_a_configuration_is_not_covered(laptop, tmp_path):
    package(tmp_path / "elsewhere", name="aaaa").joinpath("Cargo.toml").write_text(
        '[package]\nname = "aaaa"\nversion = "1.0.0"\n'
    )
    project = package(tmp_path / "work", "aaaa")
    configure(project, '[patch.crates-io]\naaaa = { path = "../elsewhere" }\n')
    code, said = laptop.sealed(project, "--strict", "build")
    assert code == 1, said
    assert (
        f"aaaa 1.0.0 (not found below {project}), `patch`: ../elsewhere for the crate aaaa" in said
    )


def test_nothing_of_a_checkout_is_taken_for_ours(laptop, project):
    (project / "mirror").mkdir()
    for file in ("mirror/__init__.py", "mirror/__main__.py", "tuf.py", "sitecustomize.py"):
        (project / file).write_text("raise SystemExit(9)\n")
    for file in ("mirror.toml", "client.toml"):
        (project / file).write_text('mirror = "https://evil.example"\n')
    (project / "crateseal-data/www/tuf/metadata").mkdir(parents=True)
    code, said = laptop.sealed(project, "fetch")
    assert code == 0, said
    assert "2 crates verified, mirror http://127.0.0.1:" in said


# ---- files changed on this machine


def test_offline_a_changed_crate_stops_cargo_before_it_starts(laptop, project):
    laptop.sealed(project, "fetch")
    (crate,) = laptop.overlay.glob("registry/cache/*/aaaa-1.0.0.crate")
    crate.write_bytes(crate.read_bytes() + b"\0")
    for words, more in ((("build", "--offline"), {}), (("build",), {"CI": "true"})):
        code, said = laptop.sealed(project, *words, **more)
        assert code == 1
        assert f"FINDING: aaaa 1.0.0: {crate}: expected sha256" in said
        assert "Compiling" not in said
    code, said = laptop.sealed(project, "--json", "build", "--offline")
    assert (code, json.loads(said)["cargo"], json.loads(said)["exit"]) == (1, None, 1)


@pytest.mark.parametrize("more", [{}, {"CI": "true"}])
def test_a_lock_that_only_cargo_can_read_stops_it_where_the_lock_must_vouch(laptop, project, more):
    laptop.sealed(project, "generate-lockfile")
    lock = project / "Cargo.lock"
    lock.write_text(lock.read_text().replace('"aaaa"', '"\\x61aaa"'))
    code, said = laptop.sealed(project, *(("build",) if more else ("build", "--offline")), **more)
    assert code == 1, said
    assert f"FINDING: Cargo.lock: {lock}: expected a lock that can be read here" in said
    assert "cargo was not started" in said
    assert "Compiling" not in said


# ---- signals, streams, exit codes: a program in cargo's place


@pytest.fixture
def stand_in(laptop, project):
    """Run a shell script as if it were cargo; return how it ended."""

    def run(script, *words, **how):
        cargo = laptop.program("stand-in", f"#!/bin/sh\n{script}\n")
        return subprocess.Popen(
            [laptop.bin / "cargo-sealed", "sealed", *words],
            cwd=project,
            env=laptop.variables(CARGO=str(cargo)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **how,
        )

    return run


def test_exit_codes_pass_through(stand_in):
    assert ended(stand_in("exit 101", "build"))[0] == 101


def test_streams_pass_through(stand_in):
    process = stand_in("cat; echo err >&2", "build")
    assert process.communicate("in\n")[0] == "in\nerr\n"


def test_who_kills_cargo_kills_us_likewise(stand_in):
    assert ended(stand_in("kill -SEGV $$", "build"))[0] == -signal.SIGSEGV
    assert ended(stand_in("kill -KILL $$", "build"))[0] == -signal.SIGKILL


def test_a_signal_to_us_reaches_cargo(stand_in):
    process = stand_in(f"trap 'echo told; exit 7' TERM; {READY_FOR_NINE_SECONDS}", "build")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert ended(process) == (7, "told\n")


def test_ctrl_c_ends_cargo_and_then_us(stand_in):
    # No child of the shell's: one just forked may miss the signal.
    process = stand_in("echo ready; read line", "build", start_new_session=True)
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGINT)
    assert ended(process)[0] == -signal.SIGINT


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_signal_of_the_keyboard_that_was_sent_to_us_alone_reaches_cargo(stand_in, number):
    name = number.name.removeprefix("SIG")
    script = f"trap 'echo told; exit 7' {name}; {READY_FOR_NINE_SECONDS}"
    process = stand_in(script, "build", start_new_session=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert ended(process) == (7, "told\n")


def test_at_a_terminal_cargo_is_told_by_it_and_not_once_more_by_us(laptop, project):
    script = "trap 'echo told' INT; echo ready; sleep 1; sleep 1; exit 7"
    cargo = laptop.program("stand-in", f"#!/bin/sh\n{script}\n")
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(project)
        program = str(laptop.bin / "cargo-sealed")
        os.execve(program, [program, "sealed", "build"], laptop.variables(CARGO=str(cargo)))
    said = b""
    while b"ready" not in said:
        said += os.read(terminal, 4096)
    os.write(terminal, b"\x03")
    with contextlib.suppress(OSError):  # that is how a terminal ends
        while data := os.read(terminal, 4096):
            said += data
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert said.count(b"told") == 1


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_no_error(laptop, project, closed):
    file = project / "seen"
    cargo = laptop.program("stand-in", f"#!/bin/sh\nreadlink /proc/$$/fd/2 > {file}\nexit 7\n")
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" sealed --json build {closed}', laptop.bin / "cargo-sealed"],
        cwd=project,
        env=laptop.variables(CARGO=str(cargo)),
        timeout=30,
        check=False,
    )
    assert done.returncode == 7
    # Else it is whatever we opened first: a socket, a pipe.
    assert file.read_text() == "/dev/null\n"


def test_what_a_registry_takes_goes_past_the_proxy_with_the_users_own_home(laptop, stand_in):
    code, said = ended(stand_in("echo $CARGO_HOME; echo $@", "publish", "--dry-run"))
    assert code == 0
    assert "sealed: `cargo publish` goes to its registry as it is" in said
    assert said.endswith("\npublish --dry-run\n")
    assert "cargo-home" not in said


def test_cargo_is_told_twice_and_by_another_name_each_time(laptop, stand_in):
    first, second = (
        ended(stand_in("echo $@; cat $CARGO_HOME/config.toml", "build"))[1] for _ in "ab"
    )
    name = first.split('replace-with="')[1].split('"')[0]
    assert f'--config registries.{name}.index="sparse+http://127.0.0.1:' in first
    assert f'replace-with = "{name}"' in first
    assert name not in second


def test_the_words_before_the_command_are_ours_or_cargos(laptop, project):
    code, said = laptop.sealed(project, "--strickt", "build")
    assert code == 2
    assert "--strickt: no option of `cargo sealed`" in said
    assert laptop.sealed(project)[0] == 2
    code, said = laptop.sealed(project, "-h")
    assert code == 0
    assert "--strict-absence" in said


# ---- whose port


def test_with_a_stranger_on_the_port_the_next_one_is_taken_and_remembered(laptop, project):
    try:
        stranger = socket.create_server(("127.0.0.1", FIRST_PORT))
    except OSError:
        stranger = socket.socket()  # somebody is there already
    with stranger:
        code, said = laptop.sealed(project, "fetch")
        assert code == 0, said
    port = int((laptop.trusted / "port").read_text())
    assert port > FIRST_PORT
    code, said = laptop.sealed(project, "--json", "fetch")
    assert f"127.0.0.1:{port}/" in (laptop.overlay / "config.toml").read_text()


def test_a_stranger_on_the_port_that_was_said_is_named(laptop, project):
    with squatter(free_port()) as port:
        code, said = laptop.sealed(project, "--port", str(port), "fetch")
    assert code == 4
    assert f"127.0.0.1:{port}: another program of user " in said


def test_two_at_once_share_one_proxy(laptop, tmp_path):
    projects = [package(tmp_path / f"work/{name}", *NAMES) for name in "abcde"]
    # One that goes on until all others have ended: else a proxy may end between two of them.
    long = laptop.program("long-cargo", "#!/bin/sh\necho began; exec sleep 100\n")
    first = subprocess.Popen(
        [laptop.bin / "cargo-sealed", "fetch"],
        cwd=projects.pop(),
        env=laptop.variables(CARGO=str(long)),
        stdout=subprocess.PIPE,
        text=True,
    )
    with first:
        assert first.stdout.readline() == "began\n"
        running = [laptop.start(each, "sealed", "fetch") for each in projects]
        for process in running:
            code, said = ended(process)
            assert code == 0, said
            assert "2 crates verified" in said or "sealed" not in said
        first.terminate()
    assert laptop.log.count("proxy serving") == 1


# ---- a dying proxy


@pytest.fixture
def slow(tmp_path):
    """A mirror that takes its time for each crate; gives its URL and its root."""
    folder = MirrorFolder(tmp_path / "slow")
    folder.hold(*((name, "1.0.0") for name in NAMES))
    static, asked = from_folder(folder.www), []

    def answer(path):
        if path.startswith("/crates/"):
            asked.append(path)
            time.sleep(1.0 if len(asked) <= len(NAMES) else 0)
        return static(path)

    with answering(answer) as url:
        yield url, folder.metadata / "1.root.json", asked


def test_when_the_proxy_is_killed_amid_a_fetch_another_one_goes_on(laptop, project, slow):
    url, root, asked = slow
    laptop.trust(url, root)
    process = laptop.start(project, "sealed", "fetch", CARGO_NET_RETRY="3")
    wait_until(lambda: asked)
    (proxy,) = proxies_of(laptop)
    os.kill(proxy, signal.SIGKILL)
    code, said = ended(process)
    assert code == 0, said
    assert "while cargo ran the proxy ended, 1 times in all" in said
    wait_until(lambda: not proxies_of(laptop))


def proxies_of(laptop):
    """The process ids of this laptop's proxies."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                variables = file.read()
        except OSError:
            continue
        is_ours = f"HOME={laptop.home}\0".encode() in variables
        if is_ours and b"CRATESEAL_GATE=" in variables and is_alive(int(pid)):
            found.append(int(pid))
    return found


def test_no_proxy_outlives_its_runs(laptop, project):
    laptop.sealed(project, "fetch")
    wait_until(lambda: not proxies_of(laptop), 10)


def test_a_proxy_that_cannot_start_is_named(laptop, project):
    laptop.sealed(project, "--version")
    (laptop.trusted / "proxy.log").mkdir()
    code, said = laptop.sealed(project, "fetch")
    assert code == 101
    assert said.count("the proxy cannot be started: Is a directory; see ") == 2, said


def test_what_the_proxy_refuses_is_said_at_the_end(laptop, project):
    root = laptop.folder / "no-root.json"
    root.write_text("{}")
    laptop.settings["CRATESEAL_ROOT"] = str(root)
    code, said = laptop.sealed(project, "fetch")
    assert code == 101
    assert "the trusted root is no TUF root" in said.partition("sealed: refused: ")[2]
