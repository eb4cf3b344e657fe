"""What an operator decides: deny, allow, accept.

The order of each: the decision becomes durable in the ledger; then it is published; then what was
withdrawn is unlinked. A crash in between is made good at the next start, which does the last two
again for every decision that stands (`obey_again`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from mirror.core.index import find_entry, parse_index_file
from mirror.core.layout import target_path
from mirror.core.names import CrateName
from mirror.core.policy import Withheld
from mirror.errors import MachineError, RejectedError, UsageError
from mirror.seam import REASON_MAX_CHARS, Done, Order, Recover, Verb
from mirror.sign.parts import Parts
from mirror.sign.signer import Signer
from mirror.store.ledger import Quarantined
from mirror.store.memory import Decided, pack
from tuf_repo.errors import OtherSignerError, RepositoryError

log = logging.getLogger(__name__)

_ARCHIVE_RULE = "archive"


class _CannotError(Exception):
    """The order makes no sense as things are, or cannot be carried out to its end."""

    def __init__(self, text: str, exit_code: int = UsageError.exit_code) -> None:
        self.exit_code = exit_code
        super().__init__(text)


def obey(parts: Parts, signer: Signer, order: Order | Recover, *, now: float) -> Done:
    """Carry out an order; when this returns it is published, and the files are gone.

    Raises:
        OSError: the disk. If the decision is durable, the next round or start finishes it.
    """
    if isinstance(order, Recover):
        return _recover(parts, signer, now)
    act = {Verb.DENY: _deny, Verb.ALLOW: _allow, Verb.ACCEPT: _accept}[order.verb]
    try:
        text = act(parts, signer, order, now)
    except _CannotError as error:
        return Done(str(error), error.exit_code)
    log.info("%s", text)
    return Done(text)


def obey_again(parts: Parts, signer: Signer, *, now: float) -> None:
    """Publish what every decision that stands comes to, and unlink what is denied.

    Where nothing was left undone, nothing is done.
    """
    signer.reload_rules()
    signer.apply_rules(now=now)
    signer.swap_links()
    if sum(_withdraw_denied(parts, signer, name) for name in signer.rules.denials):
        parts.disk.sync()


def _recover(parts: Parts, signer: Signer, now: float) -> Done:
    before, seen = parts.publisher.timestamp_version, parts.publisher.other_signer_at
    try:
        signer.recover(now=now)
    except RepositoryError as error:
        return Done(str(error), MachineError.exit_code)
    text = f"signing goes on at {parts.publisher.timestamp_version:,}, far beyond {before:,}"
    if seen:
        text += f" and the {seen:,} that was seen of another signer"
    log.info("%s", text)
    return Done(text)


def _deny(parts: Parts, signer: Signer, order: Order, now: float) -> str:
    reason = " ".join(order.reason.split())
    if not reason.isprintable() or not 0 < len(reason) <= REASON_MAX_CHARS:
        raise _CannotError(
            f"deny: say why, in one line of at most {REASON_MAX_CHARS} characters: --reason TEXT;"
            " it is public"
        )
    decided = Decided(order.name, order.version, Verb.DENY, reason, now)
    with parts.ledger.transaction():
        parts.ledger.memory.put_decision(decided)
        for finding in parts.ledger.quarantined():
            name, _, version = finding.subject.lower().partition(" ")
            if version and name == order.name and order.version in (None, version):
                parts.ledger.release(finding.subject)  # What is denied waits for nobody.
        _write_down(parts, order, now)
    parts.disk.sync()
    try:
        _apply(signer, order.name, now=now)
    except RejectedError:
        # What we published is lost on our disk: a denial must hold all the same.
        _apply(signer, order.name, now=now, lost=True)
    except OtherSignerError as error:
        count = _withdraw_denied(parts, signer, order.name)
        parts.disk.sync()
        raise _CannotError(
            f"{_subject(order)} is denied, and {count} files are withdrawn; the signed index"
            f" follows when signing goes on ({signer.trouble})",
            MachineError.exit_code,
        ) from error
    count = _withdraw_denied(parts, signer, order.name)
    parts.disk.sync()
    what = f"{count} files withdrawn" if count else "nothing of it was held; refused from now on"
    return f"{_subject(order)} is denied: {reason} ({what})"


def _allow(parts: Parts, signer: Signer, order: Order, now: float) -> str:
    denials = signer.rules.denials.get(order.name, ())
    if order.version not in [denial.version for denial in denials]:
        others = ", ".join(_shown(order.name, denial) for denial in denials)
        hint = f"; denied: {others}" if others else ""
        raise _CannotError(f"{_subject(order)} is not denied{hint}")
    with parts.ledger.transaction():
        parts.ledger.memory.drop_decision(order.name, order.version, Verb.DENY)
        _write_down(parts, order, now)
    parts.disk.sync()
    try:
        _apply(signer, order.name, now=now)
    except RejectedError as error:
        raise _CannotError(f"{_subject(order)} is denied no longer, but: {error}", 1) from error
    return f"{_subject(order)} is denied no longer; its crates are fetched again when asked for"


def _accept(parts: Parts, signer: Signer, order: Order, now: float) -> str:
    standing = {item.subject: item for item in parts.ledger.quarantined()}
    if order.version is not None:
        return _accept_crate(parts, signer, order, standing, now)
    finding = standing.get(order.name)
    if finding is None:
        crates = [each for each in standing if each.lower().startswith(f"{order.name} ")]
        hint = (
            f"; what is: {', '.join(each.replace(' ', '@') for each in crates)}" if crates else ""
        )
        raise _CannotError(f"{order.name}: its index file is not quarantined{hint}")
    if not signer.rules.is_listed(order.name):
        raise _CannotError(
            f"{order.name}: not on this mirror's list; put it into a lock file first"
        )
    if not finding.sha256.startswith(order.sha256.lower()):
        raise _CannotError(
            f"{order.name}: what is quarantined now has sha256 {finding.sha256[:8]}…, no longer"
            f" {order.sha256}: {finding.reason}; look again",
            1,
        )
    data = parts.ledger.quarantined_bytes(order.name)
    if data is None:
        raise _CannotError(
            f"{order.name}: {finding.reason}; nobody can accept that: only upstream can mend it"
        )
    _take_as_record(parts, signer, finding, data, order, now)
    _apply(signer, order.name, now=now)
    return (
        f"{order.name}: accepted and published what was refused ({finding.rule}, sha256"
        f" {finding.sha256[:8]}…): {finding.reason}"
    )


def _take_as_record(  # noqa: PLR0913, PLR0917 - what an acceptance is
    parts: Parts, signer: Signer, finding: Quarantined, data: bytes, order: Order, now: float
) -> None:
    """From now on the bytes that were refused are what upstream is compared with."""
    desk, name = signer.desk(now=now), order.name
    desk.know([name])
    try:
        before = desk.record(name)
        old = parse_index_file(name, before, desk.index_limits) if before else None
    except RejectedError:
        old = None  # Lost on our disk: there is nothing to remember of it.
    versions = parse_index_file(name, data, desk.index_limits).by_version()
    gone = [entry for entry in (old.entries if old else ()) if entry.crate.version not in versions]
    number = parts.publisher.timestamp_version
    with parts.ledger.transaction():
        memory = parts.ledger.memory
        memory.put_records({name: pack(data)}, number=number)
        memory.put_deletions({name: None}, number=number)
        memory.drop_older([name])
        memory.put_tombstones(((name, e.crate.version, e.cksum) for e in gone), at=now)
        memory.put_past(name, (entry.line for entry in gone))
        parts.ledger.release(name)
        _write_down(parts, order, now, rule=finding.rule, sha256=finding.sha256)
    parts.disk.sync()
    signer.mark(name)


def _accept_crate(
    parts: Parts, signer: Signer, order: Order, standing: dict[str, Quarantined], now: float
) -> str:
    wanted = f"{order.name} {order.version}"
    found = next((each for each in standing if each.lower() == wanted.lower()), None)
    if found is None:
        hint = (
            f"; {order.name} as a whole is: leave the version out" if order.name in standing else ""
        )
        raise _CannotError(f"{_subject(order)}: that crate is not quarantined{hint}")
    if standing[found].rule != _ARCHIVE_RULE:
        raise _CannotError(
            f"{standing[found].reason}; nobody can accept that: a crate's bytes are those its"
            " index line names, or none"
        )
    desk = signer.desk(now=now)
    desk.know([order.name])
    record = desk.record(order.name)
    entry = find_entry(record, order.name, order.version or "") if record else None
    if entry is None:
        raise _CannotError(f"{_subject(order)}: no index line names it any more")
    decided = Decided(order.name, order.version, Verb.ACCEPT, "", now, entry.cksum)
    with parts.ledger.transaction():
        parts.ledger.memory.put_decision(decided)
        parts.ledger.release(found)
        _write_down(parts, order, now, sha256=entry.cksum)
    parts.disk.sync()
    _apply(signer, order.name, now=now)  # `sync` sees by the policy's digest that it may ask again
    return (
        f"{_subject(order)}: its archive (sha256 {entry.cksum[:8]}…) is accepted as it is;"
        " it is fetched again when it is next asked for"
    )


def _apply(signer: Signer, name: CrateName, *, now: float, lost: bool = False) -> None:
    """Publish what the rules make of one crate now; `lost`: its bytes on our disk are.

    Raises:
        RejectedError: they are, though `lost` does not say so; nothing has changed.
    """
    signer.reload_rules()
    desk = signer.desk(now=now)
    desk.know([name])
    desk.examined.says_something = True  # The timestamp carries the digest of the policy.
    with signer.publishing(desk):
        if lost:
            desk.decide(name, None)
        else:
            desk.decide_again(name)
    signer.swap_links()


def _withdraw_denied(parts: Parts, signer: Signer, name: CrateName) -> int:
    """Unlink what is denied of a name, whatever publication names it; return how many files."""
    denials = signer.rules.denials.get(name, ())
    target = parts.publisher.lookup(target_path(name))
    if target is None:
        parts.www.unlink_index(target_path(name))
    kept = parts.www.target_files(target_path(name), but=target.sha256 if target else "")
    stale = [file for file in kept if _shows_denied(parts, file, name, denials)]
    held = {file for file, _ in parts.ledger.crates_of(name)}
    # A crash may have left a file without its row.
    held.update(parts.www.crate_files({name, *(file.split("/")[1] for file in held)}))
    crates = [file for file in held if _is_denied(file, name, denials)]
    for file in (*stale, *crates):
        parts.www.remove(file)
    with parts.ledger.transaction():
        parts.ledger.revive(stale)
        for file in crates:
            parts.ledger.drop_crate(file)
    return len(stale) + len(crates)


def _shows_denied(parts: Parts, file: str, name: CrateName, denials: Iterable[Withheld]) -> bool:
    """Whether a kept index file names what is denied, and not as yanked."""
    versions = {denial.version for denial in denials}
    if None in versions:
        return True
    sha256 = file.rpartition("/")[2][:64]
    data = parts.www.read_target(target_path(name), sha256)
    if data is None:
        return True
    try:
        entries = [find_entry(data, name, version) for version in versions if version]
    except RejectedError:
        return True
    return any(entry and not entry.yanked for entry in entries)


def _is_denied(file: str, name: CrateName, denials: Iterable[Withheld]) -> bool:
    # The name without its case has the same length, so the version begins at the same place.
    version = file.rpartition("/")[2][len(name) + 1 :].removesuffix(".crate")
    return any(denial.version in (None, version) for denial in denials)


def _write_down(parts: Parts, order: Order, now: float, **more: str) -> None:
    record = {
        "event": order.verb,
        "at": now,
        "name": order.name,
        "version": order.version,
        "reason": order.reason,
    }
    parts.ledger.append(parts.publisher.timestamp_version, {**record, **more})


def _subject(order: Order) -> str:
    return order.name if order.version is None else f"{order.name}@{order.version}"


def _shown(name: CrateName, denial: Withheld) -> str:
    return name if denial.version is None else f"{name}@{denial.version}"
