"""What a draft changes, in plain words: one short line for each change.

Rule: every line comes from the two states themselves, never from a text that somebody wrote beside
them; and what strangers wrote (names, fields) cannot move the cursor of a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from securesystemslib.signer import Key

from tuf_repo.core.quorums import Count
from tuf_repo.core.root import ONLINE, X_NAME, Offline, Quorum, Stamp, as_text
from tuf_repo.core.times import to_text

_NAME_MAX_CHARS = 60
_VALUE_MAX_CHARS = 200


def first(new: Offline, stamps: Mapping[str, Stamp]) -> Iterator[str]:
    """Say who becomes what in a repository that does not exist yet."""
    yield f"a new repository, with the roles {', '.join(map(printable, new.files))} and bins"
    for role in new.files:
        stamp = stamps[role]
        quorum = new.quorums[role]
        yield (
            f"{printable(role)} {stamp.version}: {_quorum(quorum)} must sign;"
            f" expires {to_text(stamp.expires)}"
        )
        for key in quorum.keys:
            yield f"{printable(role)}: key {person(key)}"
    for role in ONLINE:
        keys = ", ".join(map(person, new.quorums[role].keys))
        yield f"{role}: signed by the signing machine alone, with key {keys}"
    yield f"{printable(new.delegation)}: covers {_patterns(new.paths)}, in {_bins(new)}"
    for file in new.files:
        yield from _fields(file, {}, new.extra.get(file, {}))


def changes(
    old: Offline, new: Offline, before: Mapping[str, Stamp], after: Mapping[str, Stamp]
) -> Iterator[str]:
    """Say what changes; `after` has the files that are signed anew."""
    for file, stamp in after.items():
        yield (
            f"{printable(file)} {before[file].version} becomes {stamp.version};"
            f" expires {to_text(stamp.expires)} (before: {to_text(before[file].expires)})"
        )
    lines = [
        *(line for role in new.roles for line in _quorum_changes(role, old, new)),
        *_key_changes(old, new),
        *_delegation_changes(old, new),
        *(
            line
            for file in new.files
            for line in _fields(file, old.extra.get(file, {}), new.extra.get(file, {}))
        ),
    ]
    yield from lines or ["no key, threshold, delegation or other field changes"]


def who(count: Count) -> Iterator[str]:
    """Say who of one quorum has signed, and who is missing."""
    whose = {"": "", "old": ", by the keys of the root before", "new": ", by its own keys"}
    yield (
        f"{printable(count.role)}{whose[count.whose]}: {len(count.signed)} of {count.threshold}"
        f" signatures, {'complete' if not count.lacks else f'{count.lacks} more needed'}"
    )
    for key in count.signed:
        yield f"  signed   {_short(key)}"
    for key in count.missing:
        yield f"  {'missing' if count.lacks else 'spare  '}  {_short(key)}"


def person(key: Key) -> str:
    """`1a2b3c4d … (Ana, ed25519)`: a key with its whole keyid, as people read it to each other."""
    return f"{spelled(key.keyid)} {_whose(key)}"


def spelled(keyid: str) -> str:
    """A whole keyid in groups of eight digits: the first eight alone can be had for a few days."""
    text = printable(keyid, len(keyid))
    return " ".join(text[at : at + 8] for at in range(0, len(text), 8))


def _whose(key: Key) -> str:
    name = key.unrecognized_fields.get(X_NAME)
    kind = printable(key.keytype)
    return f"({printable(name)}, {kind})" if isinstance(name, str) else f"({kind})"


def _short(key: Key) -> str:
    return f"{printable(key.keyid[:8])} {_whose(key)}"


def printable(text: str, limit: int = _NAME_MAX_CHARS) -> str:
    """A text of strangers: shortened, and whatever is not plainly visible spelled out."""
    cut = text if len(text) <= limit else text[:limit] + "…"
    return "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in cut)


def _quorum_changes(role: str, old: Offline, new: Offline) -> Iterator[str]:
    # The delegation stays the same one: a rule of edits.py.
    before, after = old.quorums[role], new.quorums[role]
    name = printable(role)
    known = {key.keyid: key for key in before.keys}
    later = {key.keyid: key for key in after.keys}
    for keyid, key in known.items():
        if keyid not in later:
            yield f"{name}: key out: {person(key)}"
    for keyid, key in later.items():
        if keyid not in known:
            yield f"{name}: key in: {person(key)}"
    if (before.threshold, len(before.keys)) != (after.threshold, len(after.keys)):
        yield f"{name}: {_quorum(after)} must sign (before: {_quorum(before)})"


def _key_changes(old: Offline, new: Offline) -> Iterator[str]:
    """Say which keys are named otherwise, also where they go from one role to another."""
    known, later = _keys(old), _keys(new)
    for keyid in sorted(known.keys() & later.keys()):
        before, after = known[keyid], later[keyid]
        if as_text(before.unrecognized_fields) != as_text(after.unrecognized_fields):
            yield f"key {person(before)} is now written {_written(after)}"


def _keys(offline: Offline) -> dict[str, Key]:
    # The same in every role: a rule of edits.py.
    return {key.keyid: key for quorum in offline.quorums.values() for key in quorum.keys}


def _delegation_changes(old: Offline, new: Offline) -> Iterator[str]:
    if old.bits != new.bits:
        yield f"{printable(new.delegation)}: {_bins(new)} (before: {_bins(old)})"


def _fields(file: str, before: Mapping[str, object], after: Mapping[str, object]) -> Iterator[str]:
    name = printable(file)
    for field in sorted(before.keys() | after.keys()):
        if field not in after:
            yield f"{name}: field out: {printable(field)} = {_value(before[field])}"
        elif field not in before:
            yield f"{name}: field in: {printable(field)} = {_value(after[field])}"
        elif as_text(before[field]) != as_text(after[field]):
            yield (
                f"{name}: field {printable(field)} = {_value(after[field])}"
                f" (before: {_value(before[field])})"
            )


def _quorum(quorum: Quorum) -> str:
    return f"{quorum.threshold} of {len(quorum.keys)}"


def _bins(offline: Offline) -> str:
    return f"{1 << offline.bits} bins ({offline.bits} bits)"


def _patterns(paths: tuple[str, ...]) -> str:
    return ", ".join(printable(path, _VALUE_MAX_CHARS) for path in paths)


def _written(key: Key) -> str:
    return f"{_whose(key)}, with {_value(key.unrecognized_fields)}"


def _value(value: object) -> str:
    return printable(as_text(value), _VALUE_MAX_CHARS)
