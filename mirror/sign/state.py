"""What the mirror says of itself, signed, in the timestamp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mirror.config import Config
from mirror.core.batch import Sweep
from mirror.core.layout import INDEX, STATE_FIELD, WITHHELD
from mirror.core.times import rfc3339

EXTRA = STATE_FIELD
Extra = Mapping[str, Any]


def signed_state(  # noqa: PLR0913 - each is one thing the mirror says
    config: Config,
    before: Extra,
    *,
    policy: str,
    held: Mapping[str, int],
    sweep: Sweep | None,
    lacks_listed: bool = False,
    confirmed: float | None,
    now: float,
) -> dict[str, Any]:
    """Return the next `x-crateseal`, from the last one and what has been learned since.

    `policy`: digest of the rules; `lacks_listed`: something that is listed is not held.
    """
    last: Mapping[str, Any] = before.get(EXTRA, {})
    state = {
        "signed_at": rfc3339(now),
        "upstream": config.upstream,
        "mode": config.mode,
        "complete_as_of": None if lacks_listed else _complete_as_of(config, last, sweep, now),
        "upstream_confirmed": (
            last.get("upstream_confirmed") if confirmed is None else rfc3339(min(confirmed, now))
        ),
        "policy": policy,
        "held": {kind: held.get(kind, 0) for kind in (INDEX, WITHHELD)},
    }
    return {EXTRA: state}


def _complete_as_of(
    config: Config, last: Mapping[str, Any], sweep: Sweep | None, now: float
) -> str | None:
    if config.mode not in {"index", "list"}:
        return None
    if sweep and sweep.whole_source and sweep.missing == 0:
        return rfc3339(min(sweep.began, sweep.names_as_of, now))
    # What was complete then, was complete then; but only of this upstream.
    same = last.get("mode") == config.mode and last.get("upstream") == config.upstream
    kept: str | None = last.get("complete_as_of") if same else None
    return kept
