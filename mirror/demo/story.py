"""`crateseal demo`: the whole story, told on six real crates, with no network, in seconds.

Entry for the command line: `run_demo(out, keep=False)` tells it on `out` and returns the exit code:
0 only if every step did what it says, 1 at the first that did not, 130 after Ctrl-C.

Rule: nothing is claimed that was not checked in the step that claims it. The mirror, the client,
the stranger and cargo are real processes; only the upstream is ours.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from mirror.core.layout import target_file, target_path
from mirror.core.names import parse_name
from mirror.demo.processes import (
    Mirror,
    NoCargoError,
    ask_a_stranger,
    clean_environment,
    find_cargo,
    get,
    log_tail,
    run,
    running_mirror,
    verify,
)
from mirror.demo.samples import PROJECT, Sample, digest, load_samples
from mirror.demo.teller import Teller, shortened
from mirror.demo.upstream import Upstream, serving
from mirror.errors import CratesealError, FindingError

INTERRUPTED = 130
_FOLDER_MAX_BYTES = 60

# What the sample program asks for itself; percent-encoding comes along behind form_urlencoded.
_ASKED_FOR = ("fnv", "form_urlencoded", "hex", "itoa", "wasi")
_COMES_ALONG = "percent-encoding"
_COMPILED = ("fnv", "form_urlencoded", "hex", "itoa", "percent-encoding")
_ABSENT = target_path(parse_name("left-pad"))
_BAD_CRATE, _BAD_INDEX = "hex", "itoa"
_QUERY, _ANSWER = "name=crateseal&crates=six&caf%C3%A9=yes", "3 pairs, fnv "


@dataclass(frozen=True, slots=True)
class Stage:
    """What the steps play with."""

    tell: Teller
    folder: Path
    samples: Mapping[str, Sample]
    upstream: Upstream
    environment: Mapping[str, str]

    @property
    def lock(self) -> Path:
        """The lock file of the sample project."""
        return self.folder / "project" / "Cargo.lock"


def run_demo(
    out: TextIO, *, keep: bool = False, samples: Mapping[str, Sample] | None = None
) -> int:
    """Tell the story on `out`; return the exit code.

    `keep` leaves its folder behind; `samples` are ours unless a test brings others.
    """
    tell = Teller(out)
    folder = _make_folder()
    try:
        with _ending_in_good_order():
            _tell(tell, folder, load_samples() if samples is None else samples)
    except CratesealError as error:
        tell.end(f"Step {tell.steps} failed: {error}", good=False)
        return FindingError.exit_code
    except KeyboardInterrupt:
        tell.end("Interrupted; everything that was started has ended.", good=False)
        return INTERRUPTED
    finally:
        if keep:
            tell.says(f"everything is kept in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    tell.end(f"{tell.steps} steps, each did what it says, in {tell.seconds:.1f} s.", good=True)
    tell.says("Next: `crateseal up` makes a mirror of crates.io and says how to use it.")
    return 0


def _make_folder() -> Path:
    # The path of a unix socket has 107 bytes at most; a deep TMPDIR leaves too few of them.
    parent = tempfile.gettempdir()
    short = parent if len(os.fsencode(parent)) <= _FOLDER_MAX_BYTES else "/tmp"  # noqa: S108
    return Path(tempfile.mkdtemp(prefix="crateseal-demo-", dir=short))


def _tell(tell: Teller, folder: Path, samples: Mapping[str, Sample]) -> None:
    tell.title(
        "Crateseal, from upstream to a refused byte",
        "six real crates, real processes, this machine only",
    )
    shutil.copytree(PROJECT, folder / "project")
    with ExitStack() as running:
        upstream = running.enter_context(serving(samples.values()))
        stage = Stage(tell, folder, samples, upstream, clean_environment(os.environ))
        with tell.step("An upstream: a small sparse registry on loopback"):
            _show_upstream(stage)
        with tell.step("A mirror, in one command: keys, a trial repository, three processes"):
            tell.command("crateseal up", "--upstream", upstream.index_url, "--data", "mirror")
            mirror = running.enter_context(
                running_mirror(folder, upstream.index_url, stage.environment)
            )
            root_sha256 = _look_at_root(stage, mirror)
        try:
            _with_mirror(stage, mirror, root_sha256)
        except FindingError as error:
            words = log_tail(mirror)
            raise FindingError(f"{error}\nthe mirror's last words:\n{words}") from error


def _with_mirror(stage: Stage, mirror: Mirror, root_sha256: str) -> None:
    tell = stage.tell
    with tell.step("Somebody asks: fetched, audited, signed and served on first request"):
        _ask_for_index_files(stage, mirror)
    with tell.step("A stranger looks: stock python-tuf, one root file, none of our code"):
        _let_a_stranger_look(stage, mirror)
    with tell.step("cargo, unmodified, builds through the mirror"):
        _build(stage, mirror)
    with tell.step("The client proves every crate of the lock file, from the root's key down"):
        _prove_all(stage, mirror, root_sha256)
    with tell.step("One bit of a crate flips on the mirror's disk"):
        _flip_crate(stage, mirror, root_sha256)
    with tell.step("One bit of an index file flips on the mirror's disk"):
        _flip_index_file(stage, mirror, root_sha256)
    with tell.step("Ctrl-C: the server drains, the signer finishes, nothing stays behind"):
        code = mirror.stop()
        ensure(code == INTERRUPTED, f"exit code {INTERRUPTED}", str(code))
        ensure(not mirror.listeners(), "nobody to listen any more", str(mirror.listeners()))
        tell.proven("`crateseal up` and its three processes ended in good order")


# ---- the steps


def _show_upstream(stage: Stage) -> None:
    names = ", ".join(str(sample.crate) for sample in stage.samples.values())
    total = sum(len(sample.data) for sample in stage.samples.values())
    for line in names.split(", "):
        stage.tell.says(f"  {line}")
    status, body = get(f"{stage.upstream.url}/{stage.samples['fnv'].index_path}")
    ensure(status == 200 and body == stage.samples["fnv"].index, "an index file", str(status))
    stage.upstream.asked.clear()
    stage.tell.proven(
        f"{len(stage.samples)} crates, {total // 1000} kB, {stage.upstream.index_url}"
    )


def _look_at_root(stage: Stage, mirror: Mirror) -> str:
    """Return the fingerprint of the mirror's root."""
    status, root = get(f"{mirror.url}/tuf/metadata/1.root.json")
    ensure(status == 200, "a root over HTTP", str(status))
    ensure(root == mirror.root.read_bytes(), "the root that lies on disk", "another one")
    ensure(b'"trial":true' in root.replace(b" ", b""), "a root that says `trial`", "none")
    stage.tell.proven(f"sync, sign and serve run; it answers on {mirror.url}")
    stage.tell.says(f"root sha256 {digest(root)}")
    stage.tell.says("a trial root: one machine holds every key; a ceremony replaces it later")
    return digest(root)


def _ask_for_index_files(stage: Stage, mirror: Mirror) -> None:
    tell, samples = stage.tell, stage.samples
    tell.says(f"GET {mirror.url}/{samples['form_urlencoded'].index_path}, four others with it")
    with ThreadPoolExecutor(len(_ASKED_FOR)) as pool:
        waits = list(pool.map(lambda name: _ask(mirror, samples[name]), _ASKED_FOR))
    once = all(_asked(stage, name) == 1 for name in _ASKED_FOR)
    ensure(once, "one upstream request for each", str(dict(stage.upstream.asked)))
    tell.proven(
        f"{len(waits)} at once: byte for byte upstream's, one upstream request each,"
        f" median {statistics.median(waits) * 1000:.0f} ms"
    )
    came_along = _asked(stage, _COMES_ALONG)
    ensure(came_along == 1, f"{_COMES_ALONG} fetched along", f"{came_along} upstream requests")
    wait = _ask(mirror, samples[_COMES_ALONG])
    ensure(_asked(stage, _COMES_ALONG) == 1, "no second request", "one")
    tell.proven(f"{_COMES_ALONG} came along as a dependency: there in {wait * 1000:.0f} ms")


def _ask(mirror: Mirror, sample: Sample) -> float:
    """Fetch one index file through the mirror; return how long that took, in seconds."""
    began = time.monotonic()
    status, body = get(f"{mirror.url}/{sample.index_path}")
    ensure(
        status == 200, f"{sample.index_path}", f"{status}: {body[:200].decode(errors='replace')}"
    )
    ensure(body == sample.index, f"{sample.index_path} as upstream has it", "other bytes")
    return time.monotonic() - began


def _asked(stage: Stage, name: str) -> int:
    return stage.upstream.asked[f"/{stage.samples[name].index_path}"]


def _let_a_stranger_look(stage: Stage, mirror: Mirror) -> None:
    sample = stage.samples["hex"]
    stage.tell.command("python stranger.py", "1.root.json", mirror.url, sample.index_path, _ABSENT)
    proven = ask_a_stranger(mirror, sample.index_path, _ABSENT, stage.environment)
    ensure(proven["sha256"] == digest(sample.index), "upstream's bytes", proven["sha256"])
    stage.tell.proven(f"an entry: {sample.index_path}, sha256 {proven['sha256'][:16]}…")
    ensure(proven["absent"] is True, f"{_ABSENT} absent", "an entry")
    stage.tell.proven(f"an absence, signed: this publication holds no {_ABSENT}")


def _build(stage: Stage, mirror: Mirror) -> None:
    try:
        cargo = find_cargo(stage.environment)
    except NoCargoError as reason:
        stage.tell.skipped(f"{reason}; everything else goes on without it")
        return
    project = stage.lock.parent
    _use_mirror(project, mirror)
    # Without a linker cargo can still check; rustc looks for `cc`.
    verb = "build" if shutil.which("cc", path=stage.environment.get("PATH")) else "check"
    stage.tell.command("cargo", verb, "--locked")
    environment = {**stage.environment, "CARGO_HOME": str(stage.folder / "cargo-home")}
    ran = run((cargo, verb, "--locked"), project, environment)
    ensure(ran.returncode == 0, f"cargo {verb} to succeed", ran.stderr[-2000:])
    stage.tell.proven(f"{len(_COMPILED)} crates fetched through the mirror and compiled")
    for name in _COMPILED:
        path = stage.samples[name].crate_path
        times = stage.upstream.asked[f"/{path}"]
        ensure(times == 1, f"{path} asked for once upstream", f"{times} times")
        held = (mirror.data / "www" / path).read_bytes()
        ensure(held == stage.samples[name].data, f"{path} as upstream has it", "other bytes")
    stage.tell.proven("each came from upstream once, and lies on the mirror byte for byte")
    if verb == "build":
        ran = run((str(project / "target/debug/small-story"), _QUERY), project, environment)
        ensure(ran.stdout.startswith(_ANSWER), _ANSWER, ran.stdout + ran.stderr)
        stage.tell.proven(f"the program runs: {ran.stdout.strip()}")


def _use_mirror(project: Path, mirror: Mirror) -> None:
    (project / ".cargo").mkdir()
    (project / ".cargo" / "config.toml").write_text(
        '[source.crates-io]\nreplace-with = "crateseal"\n\n'
        f'[source.crateseal]\nregistry = "sparse+{mirror.url}/index/"\n'
    )


def _prove_all(stage: Stage, mirror: Mirror, root_sha256: str) -> None:
    short = f"{root_sha256[:8]}…"
    stage.tell.command("crateseal verify --lock Cargo.lock --mirror … --root-sha256", short)
    code, report = verify(mirror, stage.lock, root_sha256, stage.environment)
    _ensure_proven(stage, code, report)
    stage.tell.proven(f"{report['proven']} of {len(report['packages'])} packages proven, exit 0")


def _ensure_proven(stage: Stage, code: int, report: Mapping[str, Any]) -> None:
    statuses = {each["name"]: each["status"] for each in report["packages"]}
    ensure(set(statuses) == set(stage.samples), "all six crates in the lock", str(statuses))
    ensure(set(statuses.values()) == {"proven"}, "every package proven", str(report))
    ensure(code == 0, "exit code 0", str(code))


def _flip_crate(stage: Stage, mirror: Mirror, root_sha256: str) -> None:
    path = stage.samples[_BAD_CRATE].crate_path
    _flip_and_refuse(stage, mirror, root_sha256, _BAD_CRATE, path)


def _flip_index_file(stage: Stage, mirror: Mirror, root_sha256: str) -> None:
    sample = stage.samples[_BAD_INDEX]
    path = target_file(sample.index_path, digest(sample.index))
    _flip_and_refuse(stage, mirror, root_sha256, _BAD_INDEX, path)


def _flip_and_refuse(stage: Stage, mirror: Mirror, root_sha256: str, name: str, path: str) -> None:
    """Flip a bit, see the client refuse that file and no other, put it back, see it proven."""
    tell, file = stage.tell, mirror.data / "www" / path
    good = file.read_bytes()
    at = len(good) // 2
    tell.says(f"byte {at} of {shortened(path)}: {good[at]:#04x} becomes {good[at] ^ 1:#04x}")
    bad = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
    _write_in_place(file, bad)
    code, report = verify(mirror, stage.lock, root_sha256, stage.environment)
    finding = _only_finding(report, name)
    ensure(code == 1, "exit code 1", str(code))
    ensure(finding["where"] == f"{mirror.url}/{path}", path, finding["where"])
    ensure(digest(bad) in finding["got"], digest(bad), finding["got"])
    ensure(digest(good) in finding["expected"], digest(good), finding["expected"])
    told = ("where", "expected", "got", "advice")
    tell.refused(f"{name} refused, exit 1", {what: finding[what] for what in told})
    tell.proven("named what and where; the other five were proven all the same")
    _write_in_place(file, good)
    code, report = verify(mirror, stage.lock, root_sha256, stage.environment)
    _ensure_proven(stage, code, report)
    tell.proven("put back: six of six proven again")


def _only_finding(report: Mapping[str, Any], name: str) -> dict[str, str]:
    others = [each for each in report["packages"] if each["status"] != "proven"]
    ensure([each["name"] for each in others] == [name], f"a finding about {name} only", str(others))
    finding: dict[str, str] = others[0]["finding"]
    return finding


def _write_in_place(file: Path, data: bytes) -> None:
    with file.open("r+b") as opened:
        opened.write(data)


def ensure(holds: bool, expected: str, got: str) -> None:
    """Go on only if that is so.

    Raises:
        FindingError: it is not.
    """
    if not holds:
        raise FindingError(f"expected {expected}, got {got}")


@contextmanager
def _ending_in_good_order() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end us as Ctrl-C does, so that nothing we started stays behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {each: signal.signal(each, interrupt) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
