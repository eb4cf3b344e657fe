"""One sealed run of cargo, from the port to the summary.

1. Take the port, or a duplicate of its socket. 2. Enter the overlay. 3. Offline and in CI: compare
what is kept with the lock, and keep the rest from cargo. 4. Run cargo; meanwhile keep the gate, and
read what the checkout names.
5. Look what cargo left, ask the proxy what it refused, and say so.

Light imports only, up to the moment that cargo runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from threading import Thread
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from mirror.client.gate.gate import (
    GATE_VARIABLE,
    HOST,
    Gate,
    Terms,
    Wanted,
    acquire,
    gate_variable,
    remember_port,
    remembered_port,
)
from mirror.client.home import overlay
from mirror.client.home.folders import make_private
from mirror.client.home.remembered import light_trust
from mirror.client.home.settings import ClientSettings
from mirror.client.sealed import child, traces
from mirror.client.sealed.cargo_words import BUILT_IN, Words, is_ci, sealed
from mirror.client.sealed.keeper import Keeper, Start
from mirror.client.sealed.offline import is_told_offline

if TYPE_CHECKING:
    import socket

    from mirror.client.home.overlay import Overlay
    from mirror.client.sealed.aftermath import Finding
    from mirror.client.sealed.summary import Summary
    from mirror.client.sealed.survey import Survey
    from mirror.client.sealed.traces import Seen

_LOG_MAX_BYTES = 1_000_000


class Call(NamedTuple):
    """What is to be run, and how."""

    words: Words
    settings: ClientSettings
    environment: Mapping[str, str]
    folder: Path
    """Where cargo works."""
    json: bool


class _Place(NamedTuple):
    """Where this trust's things are."""

    root_id: str
    cache: Path
    wanted: Wanted

    @property
    def log(self) -> Path:
        return self.cache / "proxy.log"


def run_sealed(call: Call) -> int:
    """Run cargo behind the proxy; return a wait status, cargo's own or that of a finding.

    Raises:
        UsageError: nothing is trusted, or cargo is not there, or its words redirect a source.
        BusyError: the port is a stranger's.
        MachineError: a folder of ours is not ours alone.
    """
    place = _place(call.settings)
    gate = acquire(place.wanted)
    start = _start_of_proxy(call, place)
    with closing(Keeper(gate, place.wanted, start, _hint(call), str(place.log))) as keeper:
        if call.settings.proxy_port is None:
            remember_port(place.cache / "port", gate.port)
        with _overlay(call, place, gate.port) as home:
            return _run(call, place, keeper, home)


def program_of(words: Words, environment: Mapping[str, str]) -> str:
    """Return which cargo: the one that started us, unless rustup is to choose another."""
    return "cargo" if words.toolchain else environment.get("CARGO") or "cargo"


def cargo_environment(call: Call, home: Path, port: int) -> dict[str, str]:
    """Return the environment for cargo, and for every cargo that it starts."""
    environment = {**call.environment, "CARGO_HOME": str(home)}
    environment.pop(GATE_VARIABLE, None)
    if call.words.toolchain:
        environment.pop("CARGO", None)  # Cargo would take it for itself.
    hosts = ("NO_PROXY", "no_proxy")
    if call.settings.strict:
        # What is not for us goes to us all the same, and is refused: a bypass fails.
        environment["CARGO_HTTP_PROXY"] = f"http://{HOST}:{port}"
        return environment | dict.fromkeys(hosts, HOST)
    # Else a proxy of the company's is asked for what is on this machine.
    return environment | {each: _with_host(environment.get(each, "")) for each in hosts}


def _with_host(hosts: str) -> str:
    if hosts.strip() == "*" or HOST in (each.strip() for each in hosts.split(",")):
        return hosts
    return f"{hosts},{HOST}" if hosts.strip() else HOST


def _place(settings: ClientSettings) -> _Place:
    trust = light_trust(settings)
    make_private(settings.cache_dir)
    cache = make_private(settings.cache_dir / trust.root_id)
    terms = Terms(trust.root_id, settings.strict_absence, settings.accept_stale_until)
    run = make_private(settings.run_dir)
    port = remembered_port(cache / "port")
    return _Place(trust.root_id, cache, Wanted(run, terms, settings.proxy_port, port))


def _hint(call: Call) -> dict[str, str]:
    """Return what the proxy may fetch before it is asked."""
    for folder in (call.folder, *call.folder.parents):
        if os.path.isfile(folder / "Cargo.lock"):
            return {"lock": str(folder / "Cargo.lock")}
    return {}


@contextmanager
def _overlay(call: Call, place: _Place, port: int) -> Iterator[Overlay]:
    home = overlay.users_home(call.environment, call.folder)
    is_install = call.words.command == "install"
    if is_install:
        overlay.make_install_root(home)
    # `cargo install` reads its configuration on the way up from CARGO_HOME, not from here.
    is_far = is_install and call.words.value("--path") is None
    include = overlay.to_include(home, place.cache if is_far else call.folder)
    purpose = overlay.Purpose(str(home), None if include is None else str(include), port)
    found = overlay.enter(place.cache, purpose)
    try:
        yield found
    finally:
        found.leave()


def _run(call: Call, place: _Place, keeper: Keeper, home: Overlay) -> int:
    start = _left_behind(home, place.root_id)
    name = f"sealed-{os.urandom(6).hex()}"
    index = traces.index_url(place.root_id, home.purpose.port)
    arguments = sealed(call.words, name, index, call.folder)
    _check_aliases(call, Path(home.purpose.home))
    overlay.configure(home, name, index)
    surveyor = _Surveyor(call, home)
    users = Path(home.purpose.home)
    is_offline = is_told_offline(call.words, call.environment, call.folder, users)
    program = _Program(program_of(call.words, call.environment), arguments)
    if not (is_offline or is_ci(call.environment)):
        return _say(call, *_watched(place, keeper, surveyor, start, program))
    changed = surveyor.changed_crates(place.root_id)
    if changed:
        return _say(call, _nothing_ran([*start.told, *changed]), None)
    with surveyor.distrusting(place.root_id, is_offline=is_offline) as notes:
        start.notes.extend(notes)
        return _say(call, *_watched(place, keeper, surveyor, start, program))


def _watched(
    place: _Place, keeper: Keeper, surveyor: _Surveyor, start: _Start, program: _Program
) -> tuple[Summary | None, int]:
    """Run cargo; return what there is to say, and its wait status."""
    home = start.home
    surveyor.start()
    environment = cargo_environment(surveyor.call, home.folder, home.purpose.port)
    status = child.run(program.name, program.arguments, environment, keeper.turn)
    return _what_came_of_it(place, keeper, surveyor, start), status


def _check_aliases(call: Call, home: Path) -> None:
    command = call.words.command
    if command is None or command in BUILT_IN:
        return
    from mirror.client.sealed.aliases import check_aliases  # noqa: PLC0415 - not wanted by a build

    check_aliases(command, call.folder, home, call.environment)


class _Program(NamedTuple):
    """Which cargo is run, with which words."""

    name: str
    arguments: list[str]


class _Start(NamedTuple):
    """What lay in the overlay when the run began, and what was to be told of it."""

    home: Overlay
    seen: Seen
    told: list[Finding]
    notes: list[str]


def _left_behind(home: Overlay, root_id: str) -> _Start:
    told = []
    if not traces.has_port(home):
        from mirror.client.sealed.ports import take_port  # noqa: PLC0415 - seldom wanted

        told = take_port(home, root_id)
    seen = traces.look(home, root_id)
    if seen.folders - seen.others.keys():
        from mirror.client.sealed.aftermath import left_behind  # noqa: PLC0415 - seldom wanted

        more, seen = left_behind(home, seen)
        told += more
    return _Start(home, seen, told, [])


class _Surveyor:
    """Reads what the checkout names, beside cargo: in a thread of its own, imports and all."""

    def __init__(self, call: Call, home: Overlay) -> None:
        self.call = call
        self._home = home
        self._survey: Survey | None = None
        self._error: Exception | None = None
        self._thread = Thread(target=self._look, name="survey")

    def changed_crates(self, root_id: str) -> list[Finding]:
        """Compare what cargo keeps with the lock, before cargo runs."""
        from mirror.client.sealed.aftermath import changed_crates, unread_lock  # noqa: PLC0415 - seldom wanted
        from mirror.client.sealed.checkout import lock_file  # noqa: PLC0415 - wanted beside cargo only

        survey = self._now()
        path = lock_file(self.call.words, self.call.folder) if survey.is_unread else None
        if path is not None:
            return [unread_lock(path)]
        return changed_crates(self._home, root_id, survey.packages)

    def distrusting(
        self, root_id: str, *, is_offline: bool
    ) -> AbstractContextManager[Iterable[str]]:
        """Have cargo use nothing that is kept but what the lock vouches for."""
        from mirror.client.sealed.distrust import distrusting  # noqa: PLC0415 - seldom wanted

        packages = self._now().packages
        return distrusting(self._home, root_id, packages, is_offline=is_offline)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def result(self) -> Survey:
        """Return what the checkout names now; read again what has changed since."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._now()

    def _now(self) -> Survey:
        from mirror.client.sealed.survey import Run, survey  # noqa: PLC0415 - wanted beside cargo only

        call = self.call
        run = Run(call.words, call.folder, call.environment, self._home)
        self._survey = survey(run, self._survey)
        return self._survey

    def _look(self) -> None:
        try:
            self._now()
        except Exception as error:  # noqa: BLE001 - raised where it is asked for
            self._error = error


def _what_came_of_it(
    place: _Place, keeper: Keeper, surveyor: _Surveyor, start: _Start
) -> Summary | None:
    """Return what there is to say; None: nothing was fetched, and nothing is wrong."""
    report = keeper.report()
    with closing(surveyor.result()) as survey:
        told, not_covered = [*start.told], [*survey.not_covered]
        after = traces.look(start.home, place.root_id)
        if after.entries - start.seen.entries or after.git - start.seen.git:
            from mirror.client.sealed.aftermath import admitted_by, judge  # noqa: PLC0415 - seldom wanted

            admitted = admitted_by(survey.packages, survey.folders)
            found, more = judge(start.home, start.seen, after, admitted)
            told, not_covered = [*told, *found], [*not_covered, *more]
    notes = [*start.notes, *_notes(keeper, place, report)]
    if report is None and not (told or not_covered or notes or surveyor.call.json):
        return None
    from mirror.client.sealed.summary import Summary  # noqa: PLC0415 - not wanted by a cached build

    return Summary(told, not_covered, notes, report)


def _notes(keeper: Keeper, place: _Place, report: dict[str, Any] | None) -> list[str]:
    notes = [keeper.refusal] if keeper.refusal else []
    if keeper.lost:
        notes.append(
            f"while cargo ran the proxy ended, {keeper.lost} times in all; what those served is not"
            f" counted; see {place.log}"
        )
    if keeper.is_serving and report is None:
        notes.append(f"the proxy did not say what it served; see {place.log}")
    return notes


def _nothing_ran(told: list[Finding]) -> Summary:
    from mirror.client.sealed.summary import Summary  # noqa: PLC0415 - seldom wanted

    return Summary(told, (), ("cargo was not started",), None)


def _say(call: Call, summary: Summary | None, status: int | None) -> int:
    """Print the summary; return the wait status to end with, given cargo's; None: it never ran."""
    if summary is None:
        return status or 0
    cargos = None if status is None else os.waitstatus_to_exitcode(status)
    code = summary.exit_code(cargos, strict=call.settings.strict)
    if call.json:
        sys.stderr.write(summary.as_json(cargos, code) + "\n")
    else:
        sys.stderr.writelines(f"{line}\n" for line in summary.lines(quiet=call.words.is_quiet))
    sys.stderr.flush()
    return code << 8 if status is None or code != cargos else status


def _start_of_proxy(call: Call, place: _Place) -> Start:
    """Return what starts a proxy: a process of its own that outlives us while others need it."""

    def start(gate: Gate, leases: tuple[socket.socket, ...]) -> None:
        import subprocess  # noqa: PLC0415 - a cached build starts none

        assert gate.door is not None
        sockets = (gate.listener, gate.door, *leases)
        environment = call.settings.child_environment(call.environment)
        environment[GATE_VARIABLE] = gate_variable(gate, leases)
        with _opened_log(place.log) as log:
            subprocess.Popen(
                # -P, and not in the working folder: a checkout may have a `mirror/` of its own.
                [sys.executable, "-P", "-m", "mirror", "proxy"],
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[each.fileno() for each in sockets],
                start_new_session=True,
            )

    return start


def _opened_log(path: Path) -> IO[bytes]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)
    if os.fstat(fd).st_size > _LOG_MAX_BYTES:
        os.ftruncate(fd, 0)
    return os.fdopen(fd, "ab")
