"""The far side's commands: from what the user said to what does it.

Rule: nothing of ours is read from the working folder; a lock file only.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from mirror.client.home.settings import ENV_PREFIX, ClientSettings, read_settings


@dataclass(frozen=True, slots=True)
class Outside:
    """What a command has of the process it runs in."""

    environment: Mapping[str, str]
    clock: Callable[[], float]
    out: TextIO

    def say(self, text: str) -> None:
        """Print at once."""
        self.out.write(text)
        self.out.flush()


def run_client(arguments: argparse.Namespace, outside: Outside) -> int:
    """Run one of the far side's commands; return its exit code."""
    settings = read_settings(vars(arguments), outside.environment)
    return _RUN[arguments.command](arguments, settings, outside)


def _trust(arguments: argparse.Namespace, settings: ClientSettings, outside: Outside) -> int:
    from mirror.client.commands.trusting import TrustOptions, run_trust  # noqa: PLC0415

    options = TrustOptions(
        urls=tuple(arguments.url),
        on_first_use=arguments.on_first_use,
        replace=arguments.replace,
        forget=tuple(arguments.forget or ()),
        json=arguments.json,
    )
    return run_trust(options, settings, outside.clock, outside.out)


def _verify(arguments: argparse.Namespace, settings: ClientSettings, outside: Outside) -> int:
    from mirror.client.commands.verify import VerifyOptions, run_verify  # noqa: PLC0415

    options = VerifyOptions(
        lock=_lock(arguments, outside),
        vendor=Path(arguments.vendor) if arguments.vendor else None,
        cache=arguments.cache,
        crates=tuple(arguments.crates),
        environment=outside.environment,
        json=arguments.json,
    )
    return run_verify(options, settings, outside.clock, outside.out)


def _proxy(_arguments: argparse.Namespace, settings: ClientSettings, outside: Outside) -> int:
    from mirror.client.proxy.server import run_proxy  # noqa: PLC0415

    return run_proxy(settings, outside.environment, outside.clock, outside.say)


def _vendor(arguments: argparse.Namespace, settings: ClientSettings, outside: Outside) -> int:
    from mirror.client.commands.vendor import VendorOptions, run_vendor  # noqa: PLC0415

    lock = _lock(arguments, outside) or Path("Cargo.lock")
    options = VendorOptions(Path(arguments.folder), lock, quiet=arguments.quiet)
    return run_vendor(options, settings, outside.clock, outside.out)


def _cargo_config(arguments: argparse.Namespace, settings: ClientSettings, outside: Outside) -> int:
    from mirror.client.commands.cargo_config import (  # noqa: PLC0415
        CargoConfigOptions,
        run_cargo_config,
    )

    options = CargoConfigOptions(
        write=arguments.write, remove=arguments.remove, replace=arguments.replace
    )
    return run_cargo_config(options, settings, outside.environment, outside.out)


def _lock(arguments: argparse.Namespace, outside: Outside) -> Path | None:
    """Return the lock file that was named, or None."""
    said = arguments.lock or outside.environment.get(ENV_PREFIX + "LOCK")
    return Path(said) if said else None


_RUN: dict[str, Callable[[argparse.Namespace, ClientSettings, Outside], int]] = {
    "trust": _trust,
    "verify": _verify,
    "proxy": _proxy,
    "vendor": _vendor,
    "cargo-config": _cargo_config,
}
