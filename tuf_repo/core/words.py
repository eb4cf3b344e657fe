"""What a draft makes of a repository, in plain words: all of it, and what differs from before.

Rule: every line comes from the two states themselves, never from a text that somebody wrote beside
them; and what strangers wrote (names, fields) cannot move the cursor of a terminal.

Rule: of every file that is signed the whole is said, not the difference alone. What a draft says it
starts from may be of long ago, and against that a key that comes back is no difference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from securesystemslib.signer import Key

from tuf_repo.core.names import NAME_MAX_CHARS, is_name
from tuf_repo.core.quorums import Count
from tuf_repo.core.roles import BINS, ROOT, SNAPSHOT, TARGETS, TIMESTAMP
from tuf_repo.core.root import ONLINE, X_NAME, Offline, Stamp, as_text
from tuf_repo.core.times import to_text

_Line = tuple[str, str]
"""How it differs from before (one of these, or not at all), and what is said."""
_NEW, _GOES, _NOW, _SAME = "new", "goes", "now", ""
NOTHING = "no key, threshold, pattern, bin or other field differs from what it starts from"


def first(new: Offline, after: Mapping[str, Stamp]) -> Iterator[str]:
    """Say who becomes what in a repository that does not exist yet."""
    yield f"a new repository, with the roles {', '.join(map(printable, new.files))} and bins"
    for file in new.files:
        yield f"{printable(file)} {after[file].version}, expires {to_text(after[file].expires)}"
        # All of it is new.
        yield from (f"  {text}" for _, text in _state(file, None, new))


def changes(
    old: Offline, new: Offline, before: Mapping[str, Stamp], after: Mapping[str, Stamp]
) -> Iterator[str]:
    """Say what the files in `after` come to, and mark what differs from before."""
    differs = False
    for file, stamp in after.items():
        was = before[file]
        yield (
            f"{printable(file)} {stamp.version} (was {was.version}),"
            f" expires {to_text(stamp.expires)} (was {to_text(was.expires)})"
        )
        for mark, text in _state(file, old, new):
            differs = differs or mark != _SAME
            yield f"  {mark:4}  {text}"
    if not differs:
        yield NOTHING


def _state(file: str, old: Offline | None, new: Offline) -> Iterator[_Line]:
    """Say all that one file says."""
    named = {ROOT: (ROOT, TARGETS, SNAPSHOT, TIMESTAMP), TARGETS: (new.delegation,)}
    for role in named.get(file, (BINS,)):
        yield _quorum(role, old, new)
        yield from _quorum_keys(role, old, new)
    if file == TARGETS:
        yield from _patterns(new)
    elif file == new.delegation:
        yield _changed(f"{printable(file)}: ", _bins(new), None if old is None else _bins(old))
    yield from _fields(file, old.extra.get(file, {}) if old else {}, new.extra.get(file, {}))


def _quorum(role: str, old: Offline | None, new: Offline) -> _Line:
    if role in ONLINE:  # One machine signs: a rule of edits.py.
        return _SAME, f"{role}: signed by the signing machine alone"
    after, was = _m_of_n(role, new), None if old is None else _m_of_n(role, old)
    text = f"{printable(role)}: {after} must sign"
    return (_SAME, text) if was in {None, after} else (_NOW, f"{text} (was {was})")


def _m_of_n(role: str, offline: Offline) -> str:
    return f"{offline.quorums[role].threshold} of {len(offline.quorums[role].keys)}"


def _quorum_keys(role: str, old: Offline | None, new: Offline) -> Iterator[_Line]:
    # The delegation stays the same one: a rule of edits.py.
    known = {key.keyid: key for key in old.quorums[role].keys} if old else {}
    anywhere = _keys(old) if old else {}
    later = {key.keyid: key for key in new.quorums[role].keys}
    for keyid, key in later.items():
        mark, text = _SAME if old is None or keyid in known else _NEW, f"key {person(key)}"
        before = anywhere.get(keyid)
        # Also where a key goes from one role to another: it is out here and in there, but one key.
        if before is not None and _fields_of(before) != _fields_of(key):
            mark, text = mark or _NOW, f"{text} (was {_whose(before)})"
        yield mark, f"{printable(role)}: {text}"
    for keyid, key in known.items():
        if keyid not in later:
            yield _GOES, f"{printable(role)}: key {person(key)}"


def _patterns(new: Offline) -> Iterator[_Line]:
    # They stay the same: a rule of edits.py.
    name, count = printable(new.delegation), len(new.paths)
    yield _SAME, f"{name}: covers {count} path pattern{'s' if count != 1 else ''}"
    for path in new.paths:
        yield _SAME, f"{name}: path {_value(path)}"


def _fields(
    file: str, before: Mapping[str, object], after: Mapping[str, object]
) -> Iterator[_Line]:
    for field in sorted(before.keys() | after.keys()):
        start = f"{printable(file)}: field {printable(field)} = "
        if field not in after:
            yield _GOES, start + _value(before[field])
        elif field not in before:
            yield _NEW, start + _value(after[field])
        else:
            yield _changed(start, _value(after[field]), _value(before[field]))


def _changed(start: str, text: str, was: str | None) -> _Line:
    if was in {None, text}:
        return _SAME, start + text
    return _NOW, f"{start}{text} (was {was})"


def _keys(offline: Offline) -> dict[str, Key]:
    # The same in every role: a rule of edits.py.
    return {key.keyid: key for quorum in offline.quorums.values() for key in quorum.keys}


def _fields_of(key: Key) -> str:
    return as_text(key.unrecognized_fields)


def _bins(offline: Offline) -> str:
    return f"{1 << offline.bits} bins ({offline.bits} bits)"


def _value(value: object) -> str:
    """All of it, and nothing that nobody sees: what is not ASCII is spelled out."""
    text = json.dumps(value, sort_keys=True)
    return printable(text, len(text))


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
    """`1a2b3c4d … ("Ana", ed25519)`: a key with its whole keyid, to be read to each other."""
    return f"{spelled(key.keyid)} {_whose(key)}"


def spelled(keyid: str) -> str:
    """A whole keyid in groups of eight digits: the first eight alone can be had for a few days."""
    text = printable(keyid, len(keyid))
    return " ".join(text[at : at + 8] for at in range(0, len(text), 8))


def _whose(key: Key) -> str:
    name = key.unrecognized_fields.get(X_NAME)
    kind = printable(key.keytype)
    return f"({_quoted(name)}, {kind})" if isinstance(name, str) else f"({kind})"


def _quoted(name: str) -> str:
    # A name of a root before may be none that we take today.
    return f'"{name}"' if is_name(name) else printable(json.dumps(name))


def _short(key: Key) -> str:
    return f"{printable(key.keyid[:8])} {_whose(key)}"


def printable(text: str, limit: int = NAME_MAX_CHARS) -> str:
    """A text of strangers: shortened, and whatever is not plainly visible spelled out."""
    cut = text if len(text) <= limit else text[:limit] + "…"
    return "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in cut)
