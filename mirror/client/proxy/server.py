"""The proxy's process: `crateseal proxy`, and the one that `cargo sealed` starts for itself.

The second kind gets its sockets, and the leases of those it runs for, by CRATESEAL_GATE; it ends
with the last lease. The first kind is its own reason to run.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from mirror.client.gate.gate import (
    GATE_VARIABLE,
    Gate,
    Terms,
    Wanted,
    acquire,
    inherited,
    remember_port,
    remembered_port,
)
from mirror.client.home.folders import make_private
from mirror.client.proxy.app import Place, Proxy
from mirror.client.proxy.connections import ConnectionLimits, Connections
from mirror.client.proxy.leases import Leases
from mirror.client.proxy.report import report_since
from mirror.client.proxy.work import Work
from mirror.client.source.source import Source, open_source
from mirror.client.trust.store import Trust, resolve_trust
from mirror.core.layout import INDEX
from mirror.errors import UsageError
from mirror.lifeline import Stop, listen

if TYPE_CHECKING:
    from mirror.client.home.settings import ClientSettings
    from mirror.client.source.standing import Mark
    from mirror.core.names import CrateName

LOG = logging.getLogger("crateseal.proxy")

THREADS = 64
"""Requests looked after at a time; cargo has up to 200 under way, most of them for what is here."""
_STANDBY_STEP_SECONDS = 0.2
_LAST_THREADS_SECONDS = 2.0
_M_ARENA_MAX = -8
"""malloc.h of glibc."""


class Means(NamedTuple):
    """What the process runs with."""

    settings: ClientSettings
    clock: Callable[[], float]
    stop: Stop
    is_own: bool
    """Whether it is `crateseal proxy`, which does not end with the last lease."""


def run_proxy(
    settings: ClientSettings,
    environment: Mapping[str, str],
    clock: Callable[[], float],
    say: Callable[[str], None],
) -> int:
    """Serve until told to end, or, for `cargo sealed`, until nobody needs it; return the exit code.

    Raises:
        UsageError: no repository is trusted, or several.
        BusyError: somebody else has the port.
        MachineError: a folder of ours is not ours alone.
    """
    trust = resolve_trust(settings)
    terms = Terms(trust.root_id, settings.strict_absence, settings.accept_stale_until)
    text = environment.get(GATE_VARIABLE)
    means = Means(settings, clock, listen(environment), is_own=text is None)
    if text is None:
        return _run_own(means, trust, terms, say)
    try:
        gate, leases = inherited(text)
    except (ValueError, OSError) as error:
        raise UsageError(f"{GATE_VARIABLE}: not descriptors of sockets: {text!r}") from error
    return _serve_gate(means, trust, terms, gate, leases)


def _run_own(means: Means, trust: Trust, terms: Terms, say: Callable[[str], None]) -> int:
    settings = means.settings
    file = make_private(settings.cache_dir / trust.root_id) / "port"
    run = make_private(settings.run_dir)
    gate = acquire(Wanted(run, terms, settings.proxy_port, remembered_port(file)))
    remember_port(file, gate.port)
    say(_greeting(trust, gate))
    while gate.lease is not None:
        # Our lease keeps that proxy going; when it ends, one of those who hold it takes over.
        if not _outlived(gate.lease, means.stop):
            gate.close()
            return means.stop.exit_code
        gate.lease.close()
        gate = acquire(Wanted(run, terms), held=(gate.port, gate.listener))
    return _serve_gate(means, trust, terms, gate, ())


def _outlived(lease: socket.socket, stop: Stop) -> bool:
    """Wait until the holder's end is read from our lease; False: we are told to end before."""
    while not stop.event.is_set():
        ready, _, _ = select.select([lease], (), (), _STANDBY_STEP_SECONDS)
        try:
            if ready and not lease.recv(4096):
                return True
        except OSError:
            return True
    return False


def _greeting(trust: Trust, gate: Gate) -> str:
    place = Place(gate.port, trust.root_id)
    mirrors = ", ".join(trust.mirrors) or str(trust.www)
    lines = [
        f"ready:   {place.url}/",
        f"  mirror {mirrors}",
        f"  root   {trust.initial.sha256} ({trust.how})",
        f"  cargo  sparse+{place.url}/{INDEX}/",
        "         `cargo sealed …` uses it by itself; for IDEs: `crateseal cargo-config --write`",
    ]
    if gate.lease is not None:
        lines.append(f"  Process {gate.holder} serves it now; this one takes over when that ends.")
    return "\n".join([*lines, "Stop: Ctrl-C", ""])


def _serve_gate(
    means: Means, trust: Trust, terms: Terms, gate: Gate, leases: Iterable[socket.socket]
) -> int:
    _keep_memory_together()
    with ExitStack() as stack:
        source = stack.enter_context(open_source(means.settings, means.clock, trust=trust))
        pool = ThreadPoolExecutor(THREADS, thread_name_prefix="answer")
        try:
            asyncio.run(_serve(means, source, Work(pool), terms, gate, leases))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        code = means.stop.exit_code
        LOG.info("ended")
        _let_go(stack.pop_all(), code)
    return code


def _keep_memory_together() -> None:
    """Let glibc have two heaps and not 16, for as many threads: 20 MB less with 64 of them."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


async def _serve(  # noqa: PLR0913, PLR0917 - what a process has; all of it is used here only
    means: Means,
    source: Source,
    work: Work,
    terms: Terms,
    gate: Gate,
    waiting: Iterable[socket.socket],
) -> None:
    assert gate.door is not None
    place = Place(gate.port, terms.root_id)
    proxy = Proxy(source, means.settings, place, work, means.clock)
    connections = Connections(proxy, ConnectionLimits())

    async def report(mark: Mark) -> dict[str, Any]:
        return await work.start(report_since, source, mark, means.clock)

    def prefetch(names: tuple[CrateName, ...]) -> None:
        work.start(source.prefetch, names)

    leases = Leases(source.tally.mark, report, prefetch)
    proxy.start()
    leases.take_over(waiting)
    leases.open(gate.door, terms.hello(), gate.listener)
    await connections.start(gate.listener.dup())
    LOG.info("serving %s", place.url)
    await _until_over(means, leases)
    LOG.info("ending")
    # First the door and the listener: who comes now finds neither, and starts a proxy of its own.
    leases.close_door()
    gate.listener.close()
    await connections.close(means.settings.max_wait + 1)
    await leases.close()


async def _until_over(means: Means, leases: Leases) -> None:
    stop = asyncio.create_task(means.stop.in_loop().wait())
    while not stop.done():
        if means.is_own:
            await stop
            return
        gone = asyncio.create_task(leases.gone.wait())
        await asyncio.wait((stop, gone), return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not stop.done() and not leases.let_in_who_waits():
            stop.cancel()
            return


def _let_go(stack: ExitStack, code: int) -> None:
    """Close what is open; end at once where that waits for a mirror, since nobody else does."""
    closing = threading.Thread(target=stack.close, daemon=True)
    closing.start()
    deadline = time.monotonic() + _LAST_THREADS_SECONDS
    for thread in threading.enumerate():
        if thread is threading.current_thread() or (thread.daemon and thread is not closing):
            continue
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            logging.shutdown()
            sys.stdout.flush()
            os._exit(code)
