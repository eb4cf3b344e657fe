"""The one listening socket of a user's proxy: bound here, or received from who has it.

Rule: who starts cargo holds the socket itself until cargo has ended, so that nobody else can take
the port in between; and nobody is believed who is not this very user.

One process is the *holder*: it has the *door*, a unix socket `run/PORT.sock`. Who connects there is
sent one line of JSON with the listening socket, and keeps the connection: its *lease*. Its end says
that the holder ended; who still needs one then calls `acquire` again, with the socket it has.

Light imports only: this is on the way of each build.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mirror.client.gate.port_owner import me, owner_of, who
from mirror.errors import BusyError, MachineError

HOST = "127.0.0.1"
FIRST_PORT, LAST_PORT = 8471, 8499
GATE_VARIABLE = "CRATESEAL_GATE"
"""How a proxy is told of its descriptors: `LISTENER,DOOR,LEASE,…`."""
FORMAT = 1
BACKLOG = 2048
_HELLO_MAX_BYTES = 4096
_HELLO_SECONDS = 5.0
"""How long a holder may take to answer: it may be a proxy that is just loading."""
_LOCK_SECONDS = 20.0
_TAKE_OVER_SECONDS = 1.5
"""How long a port of this user's may have no door: its runners are choosing a new holder."""
_STEP_SECONDS = 0.02


class Terms(NamedTuple):
    """What those who share a proxy must agree on."""

    root_id: str
    strict_absence: bool = False
    accept_stale_until: float | None = None

    def hello(self) -> bytes:
        """Return the line with which a holder of these terms answers."""
        options = {
            "strict_absence": self.strict_absence,
            "accept_stale_until": self.accept_stale_until,
        }
        said = {"format": FORMAT, "root_id": self.root_id, "pid": os.getpid(), "options": options}
        return json.dumps(said).encode() + b"\n"


class Gate(NamedTuple):
    """A port that is ours, and how: as the holder (`door`), or beside one (`lease`)."""

    port: int
    listener: socket.socket
    door: socket.socket | None
    lease: socket.socket | None
    holder: int
    """Its process id."""

    def close(self) -> None:
        """Let go of the port."""
        for each in (self.lease, self.door, self.listener):
            if each is not None:
                each.close()


class Wanted(NamedTuple):
    """Which port, and for what."""

    run: Path
    """The run folder: private, checked by the caller."""
    terms: Terms
    port: int | None = None
    """This one, and no other."""
    remembered: int | None = None


def acquire(wanted: Wanted, held: tuple[int, socket.socket] | None = None) -> Gate:
    """Get the listening socket: bound here, or handed out by the holder.

    Args:
        wanted: what for.
        held: port and socket of a gate whose holder ended; the port stays what it is.

    Raises:
        BusyError: the port that was asked for, or each of ours, is a stranger's.
        MachineError: this machine lets us have no socket.
    """
    with _locked(wanted.run) as folder:
        if held is not None:
            return _take_over(folder, wanted.terms, *held)
        strangers: list[str] = []
        for port in _candidates(wanted):
            found = _at(folder, wanted.terms, port)
            if isinstance(found, Gate):
                return found
            strangers.append(found)
    if wanted.port is not None:
        raise BusyError(
            f"{HOST}:{wanted.port}: {strangers[0]}; stop it, or let `cargo sealed` choose a port"
            " (no --port)"
        )
    raise BusyError(
        f"{HOST}:{FIRST_PORT} to {LAST_PORT}: each is taken, the first by {strangers[0]};"
        " choose another with --port"
    )


def greet(door: socket.socket, hello: bytes, listener: socket.socket) -> socket.socket | None:
    """Take one caller at the door: send the hello and the listening socket; return its lease.

    None: nobody was there any more, or it was somebody else. Never blocks for long.
    """
    try:
        lease, _ = door.accept()
    except OSError:
        return None
    try:
        if _is_us(lease):
            lease.settimeout(1.0)
            socket.send_fds(lease, [hello], [listener.fileno()])
            return lease
    except OSError:
        pass
    lease.close()
    return None


def gate_variable(gate: Gate, leases: Sequence[socket.socket]) -> str:
    """Return what GATE_VARIABLE is to be for a proxy that these are handed to."""
    if gate.door is None:
        raise ValueError("only the holder can hand its place on")
    return ",".join(str(each.fileno()) for each in (gate.listener, gate.door, *leases))


def inherited(text: str) -> tuple[Gate, tuple[socket.socket, ...]]:
    """Return the gate, with its leases, that GATE_VARIABLE names: the proxy's side.

    Raises:
        ValueError: it names none.
        OSError: what it names are no sockets.
    """
    listener, door, *leases = (socket.socket(fileno=int(each)) for each in text.split(","))
    for each in (listener, door, *leases):
        each.set_inheritable(False)
    port = int(listener.getsockname()[1])
    return Gate(port, listener, door, None, os.getpid()), tuple(leases)


def remembered_port(file: Path) -> int | None:
    """Return the port that this user had last; None: none that can be read."""
    try:
        port = int(file.read_bytes()[:8])
    except (OSError, ValueError):
        return None
    return port if FIRST_PORT <= port <= LAST_PORT else None


def remember_port(file: Path, port: int) -> None:
    """Keep the port for the next run, if it is one of ours. Cargo's cache is named by it."""
    if not FIRST_PORT <= port <= LAST_PORT or remembered_port(file) == port:
        return
    new = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        new.write_text(f"{port}\n")
        os.replace(new, file)
    except OSError as error:
        raise MachineError(f"{file}: cannot be written: {error.strerror}") from error


def _candidates(wanted: Wanted) -> list[int]:
    if wanted.port is not None:
        return [wanted.port]
    first = [] if wanted.remembered is None else [wanted.remembered]
    return first + [each for each in range(FIRST_PORT, LAST_PORT + 1) if each not in first]


def _at(folder: int, terms: Terms, port: int) -> Gate | str:
    """Return the gate at this port, or who has it instead of us."""
    deadline = time.monotonic() + _TAKE_OVER_SECONDS
    while True:
        found = _join(folder, terms, port)
        if found is not None:
            return found
        listener = _bind(port)
        if listener is not None:
            return Gate(port, listener, _new_door(folder, port), None, os.getpid())
        uid = owner_of(port)
        is_ours = uid == os.geteuid() and _has_door(folder, port)
        if not is_ours or time.monotonic() > deadline:
            _unlink(folder, port)
            return f"{who(uid)} listens there"
        # Ours, with no door: a holder was killed, and its runners are about to replace it. They
        # need the lock for that.
        fcntl.flock(folder, fcntl.LOCK_UN)
        time.sleep(_STEP_SECONDS)
        _wait_for(folder)


def _take_over(folder: int, terms: Terms, port: int, listener: socket.socket) -> Gate:
    found = _join(folder, terms, port)
    if isinstance(found, str):
        raise BusyError(f"{HOST}:{port}: {found}, while we hold it")
    if found is not None:
        # Somebody else was quicker. Its socket is a duplicate of the one we have.
        found.listener.close()
        return found._replace(listener=listener)
    return Gate(port, listener, _new_door(folder, port), None, os.getpid())


def _join(folder: int, terms: Terms, port: int) -> Gate | str | None:
    """Ask the holder; return the gate, who it is if not one of these terms, or None: nobody."""
    lease = socket.socket(socket.AF_UNIX)
    lease.settimeout(_HELLO_SECONDS)
    try:
        lease.connect(_address(folder, f"{port}.sock"))
        if not _is_us(lease):
            lease.close()
            return "somebody else's process"
        data, fds, _, _ = socket.recv_fds(lease, _HELLO_MAX_BYTES, 4)
        for each in fds:
            os.set_inheritable(
                each, False
            )  # recvmsg(2) leaves them open to cargo and all it starts
        listeners = [socket.socket(fileno=each) for each in fds]
    except TimeoutError:
        lease.close()
        return f"{me()} listens there, in a process that does not answer (stopped?)"
    except OSError:
        lease.close()
        return None
    return _agreed(terms, port, lease, data, listeners)


def _agreed(
    terms: Terms, port: int, lease: socket.socket, data: bytes, listeners: list[socket.socket]
) -> Gate | str | None:
    said = _parse_hello(data)
    if len(listeners) == 1 and said is not None and said["terms"] == terms:
        listener = listeners[0]
        if listener.getsockname() == (HOST, port):
            lease.settimeout(None)
            return Gate(port, listener, None, lease, said["pid"])
    for each in (lease, *listeners):
        each.close()
    if said is None:
        return None if not data else f"{me()} listens there, with another version of Crateseal"
    return (
        f"{me()} listens there, process {said['pid']}: a proxy of another root or with other"
        " options (--strict-absence, --accept-stale-until)"
    )


def _parse_hello(data: bytes) -> dict[str, Any] | None:
    try:
        said = json.loads(data)
        options: Mapping[str, Any] = said["options"]
        if said["format"] != FORMAT:
            return None
        terms = Terms(
            str(said["root_id"]), options["strict_absence"], options["accept_stale_until"]
        )
        return {"terms": terms, "pid": int(said["pid"])}
    except (ValueError, LookupError, TypeError):
        return None


def _bind(port: int) -> socket.socket | None:
    """Return the listening socket, or None: the port is taken."""
    listener = socket.socket(socket.AF_INET)
    try:
        # A port whose last connections have not timed out yet is free for all that.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            return None
        reason = error.strerror or str(error)
        raise MachineError(f"{HOST}:{port}: cannot listen there: {reason}") from error
    return listener


def _new_door(folder: int, port: int) -> socket.socket:
    name = f"{port}.sock"
    door = socket.socket(socket.AF_UNIX)
    _unlink(folder, port)
    try:
        door.bind(_address(folder, name))
        door.listen(BACKLOG)
        door.setblocking(False)
    except OSError as error:
        door.close()
        raise MachineError(f"run folder: no socket can be made there: {error.strerror}") from error
    return door


def _unlink(folder: int, port: int) -> None:
    """Remove a door that nobody is behind."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{port}.sock", dir_fd=folder)


def _has_door(folder: int, port: int) -> bool:
    try:
        os.stat(f"{port}.sock", dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _address(folder: int, name: str) -> str:
    # A socket's address has 107 bytes at most, and a folder's path may be longer.
    return f"/proc/self/fd/{folder}/{name}"


def _is_us(peer: socket.socket) -> bool:
    """Whether this very user is at the other end (SO_PEERCRED: pid, uid, gid)."""
    size = struct.calcsize("3i")
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return bool(struct.unpack("3i", credentials)[1] == os.geteuid())


# ---- the lock: one at a time chooses a port, or becomes the holder


@contextlib.contextmanager
def _locked(run: Path) -> Iterator[int]:
    """Hold the run folder's lock; give a descriptor of the folder, which is what is locked."""
    if not os.path.isdir("/proc/self/fd"):
        raise MachineError("/proc: not there; `cargo sealed` and the proxy need Linux with it")
    try:
        folder = os.open(run, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise MachineError(f"{run}: cannot be opened: {error.strerror}") from error
    try:
        _wait_for(folder)
        yield folder
    finally:
        os.close(folder)


def _wait_for(folder: int, clock: Callable[[], float] = time.monotonic) -> None:
    deadline = clock() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if clock() > deadline:
                raise BusyError(
                    "the run folder's lock: another `cargo sealed` holds it and does not go on;"
                    " is one stopped? end it"
                ) from None
            time.sleep(_STEP_SECONDS)
        else:
            return
