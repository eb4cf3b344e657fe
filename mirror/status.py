"""`crateseal status`: what is published, how old, what expires when, what is quarantined and why.

Reads what everybody may read: the signed metadata, and the signer's heartbeat `www/status.json`.
Where both say something, the metadata counts.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from rich.text import Text

from mirror.config import Config
from mirror.core.expiry import CEREMONY, EXPIRED, FINE, LATE, Expiry, advice, expiries
from mirror.core.layout import STATUS_JSON
from mirror.core.status import merge
from mirror.core.times import parse_rfc3339, rfc3339
from mirror.errors import NoPublicationError, PublicationError, UsageError
from mirror.folder import missing_root
from mirror.store.publication import Publications, root_fingerprint
from mirror.terminal import Terminal

HEARTBEAT_LATE_SECONDS = 60.0
"""A signer writes its heartbeat four times as often."""
_HEADING_WIDTH = 15
_ADVICE = (
    "leave it: what was published stays, and upstream may mend it",
    "`crateseal accept NAME` publishes what was refused (look first: locks made before may fail)",
    "`crateseal deny NAME` withdraws it",
)


@dataclass(frozen=True, slots=True)
class _Line:
    """`what` as the heading, `text` beside it; `style` of rich, "" for plain."""

    what: str
    text: str
    style: str = ""


def show(config: Config, *, now: float, as_json: bool, out: TextIO) -> int:
    """Show how the mirror is; return 1 where there is a finding, else 0.

    Raises:
        UsageError: there is no mirror there.
    """
    try:
        fields = gather(config, now=now)
        shown = lines(fields, now=now, data=shlex.quote(str(config.data)))
    except (ValueError, TypeError, AttributeError) as error:
        # The metadata has been looked at before: what is left is the heartbeat.
        raise PublicationError(
            str(config.www / STATUS_JSON), "what the signer writes", repr(error)
        ) from error
    if as_json:
        out.write(json.dumps(fields, indent=1) + "\n")
    else:
        _print(shown, out)
    return 1 if fields["findings"] else 0


def gather(config: Config, *, now: float) -> dict[str, Any]:
    """Return everything there is to say, as JSON has it.

    Raises:
        UsageError: there is no mirror there.
        PublicationError: its metadata cannot be read.
    """
    try:
        publication = Publications(config.www).current()
        pin = root_fingerprint(config.www)
    except NoPublicationError as error:
        here = f"{config.data}: no mirror here ({error}); `crateseal up` makes one"
        if (config.ceremony / "1.root.json").exists():
            here = missing_root(config.data)
        raise UsageError(f"{here}; --data names another folder") from error
    fields = merge(publication, pin, _heartbeat(config), now)
    at = fields.pop("at")
    signer = {"at": at, "running": _is_recent(at, now)}
    return fields | {"signer": signer, "findings": _findings(fields, now)}


def lines(fields: Mapping[str, Any], *, now: float, data: str) -> list[_Line]:
    """Return the same for a person; `data` is the folder that the advice names."""
    signer = fields["signer"]
    shown = [
        _Line("mirror", f"{fields['mode']} of {fields['upstream']}"),
        _Line("published", f"number {fields['timestamp']}, {_ago(fields['signed_at'], now)}"),
        _Line("holds", _holds(fields)),
        _Line("upstream seen", _ago(fields["upstream_confirmed"], now)),
        _Line("complete", _complete(fields, now)),
        _Line("root", f"version {fields['root_version']} is the newest"),
        _Line("pin", f"sha256 {fields['root_sha256']} of {fields['root_file']}"),
    ]
    if fields["trial"]:
        shown.append(_Line("", "TRIAL: all keys lie on this machine, for a first try", "yellow"))
    shown.append(
        _Line("signer", f"heartbeat {_ago(signer['at'], now)}")
        if signer["running"]
        else _Line("signer", f"not running: last heartbeat {_ago(signer['at'], now)}", "yellow")
    )
    if fields["trouble"]:
        shown.append(_Line("trouble", fields["trouble"], "bold red"))
    found = expiries(fields["expires"], fields["renew_from"], now)
    shown += _expiry_lines(found, now)
    shown += _warning_lines(fields["warnings"], trial=fields["trial"], data=data)
    shown += _quarantine_lines(fields["quarantined"], now)
    return shown + _denied_lines(fields["denied"], now)


def _holds(fields: Mapping[str, Any]) -> str:
    held = fields["held"]
    text = f"{_count(held, 'index')} index files, {_count(held, 'crates')} crates"
    return f"{text}; upstream deleted {fields['deleted']:,}" if fields["deleted"] else text


def _complete(fields: Mapping[str, Any], now: float) -> str:
    if fields["complete_as_of"] is not None:
        return f"as of {_ago(fields['complete_as_of'], now)}"
    if fields["mode"] == "cache":
        return "no: mode cache holds what was asked for"
    listed = fields["listed"]
    return f"not yet: {listed:,} crates are listed" if isinstance(listed, int) else "not yet"


def _expiry_lines(found: Iterable[Expiry], now: float) -> Iterable[_Line]:
    for number, each in enumerate(found):
        left = each.expires - now
        when = f"in {_span(left)}" if left > 0 else "EXPIRED"
        heading = "" if number else "expires"
        text = f"{each.role:<10} {when:<14} {_renewal(each)}"
        yield _Line(heading, text, _style(each.state) if each.is_warning else "")


def _renewal(each: Expiry) -> str:
    if each.by != CEREMONY:
        at = rfc3339(each.expires)
        how = "not renewed" if each.is_warning else "renews itself"
        return f"{at[:10]} {at[11:16]} UTC, {how}"
    when = f"from {rfc3339(each.renew_from)[:10]}" if each.state == FINE else "now"
    return f"{rfc3339(each.expires)[:10]}, sign anew {when}"


def _warning_lines(
    warned: Sequence[Mapping[str, Any]], *, trial: bool, data: str
) -> Iterable[_Line]:
    for number, each in enumerate(warned):
        yield _Line("" if number else "warning", each["text"], _style(each["state"]))
    roles = [each["role"] for each in warned if each["by"] == CEREMONY]
    if roles:
        for part in advice(roles, trial=trial, data=data):
            yield _Line("", part)


def _style(state: str) -> str:
    return {EXPIRED: "bold red", LATE: "red"}.get(state, "yellow")


def _quarantine_lines(quarantined: Iterable[Mapping[str, Any]], now: float) -> list[_Line]:
    found = [_Line("", _quarantined(each, now), "red") for each in quarantined]
    heading = _Line("quarantined", f"{len(found)}" if found else "nothing", "red" if found else "")
    advice = [_Line("", text) for text in _ADVICE] if found else []
    return [heading, *found, *advice]


def _quarantined(each: Mapping[str, Any], now: float) -> str:
    kept = "not published" if each.get("first_sight") else "stays as it was"
    since = _ago(each.get("since"), now)
    state = "held: " if each.get("kind") == "hold" else ""
    digest = str(each.get("sha256") or "")
    which = f"; sha256 {digest[:8]}" if digest else ""
    rule = each.get("rule")
    return f"{state}{each.get('name')}: {each.get('reason')} ({rule}, {since}; {kept}{which})"


def _denied_lines(denied: Iterable[Mapping[str, Any]], now: float) -> list[_Line]:
    found = [
        f"{each.get('name')}{'@' if each.get('version') else ''}{each.get('version') or ''}:"
        f" {each.get('reason')} ({_ago(each.get('since'), now)})"
        for each in denied
    ]
    return [_Line("" if number else "denied", text) for number, text in enumerate(found)]


def _findings(fields: Mapping[str, Any], now: float) -> list[str]:
    found = [f"quarantined: {each.get('name')}" for each in fields["quarantined"]]
    found += [
        f"{each.state}: {each.role}"
        for each in expiries(fields["expires"], fields["renew_from"], now)
        if each.is_finding
    ]
    return found + ([f"trouble: {fields['trouble']}"] if fields["trouble"] else [])


def _heartbeat(config: Config) -> Mapping[str, Any]:
    path = config.www / STATUS_JSON
    try:
        fields = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise PublicationError(str(path), "JSON from the signer", str(error)) from error
    if not isinstance(fields, dict):
        raise PublicationError(str(path), "a JSON object", type(fields).__name__)
    return fields


def _is_recent(at: object, now: float) -> bool:
    return isinstance(at, str) and abs(now - parse_rfc3339(at)) < HEARTBEAT_LATE_SECONDS


def _print(shown: Iterable[_Line], out: TextIO) -> None:
    """Write the lines; on a terminal, what is too long goes on under its own column."""
    console = Terminal(out)
    width = max(20, console.width - _HEADING_WIDTH) if console.is_terminal else None
    for line in shown:
        text = Text(line.text, style=line.style or "not bold")
        heading = Text(f"{line.what:<{_HEADING_WIDTH}}", style="bold")
        for part in text.wrap(console, width) if width else [text]:
            part.rstrip()
            console.print(heading.append_text(part), soft_wrap=True)
            heading = Text(" " * _HEADING_WIDTH)


def _count(held: Mapping[str, Any], kind: str) -> str:
    count = held.get(kind)
    return f"{count:,}" if isinstance(count, int) else "?"


def _ago(text: str | None, now: float) -> str:
    return "never" if text is None else f"{_span(max(0.0, now - parse_rfc3339(text)))} ago"


def _span(seconds: float) -> str:
    """Return a duration for a person: two units at most."""
    whole = int(seconds)
    for unit, size, below, small in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // small} {below}"
    return f"{whole // 60} min" if whole >= 120 else f"{whole} s"
