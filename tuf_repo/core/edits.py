"""What may be changed of the offline roles, and the rules that every result keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from securesystemslib.signer import Key

from tuf_repo.core.bins import BITS_MAX
from tuf_repo.core.names import (
    NAME_KIND,
    NAME_MAX_CHARS,
    VALUE_MAX_CHARS,
    is_field,
    is_name,
    is_pattern,
)
from tuf_repo.core.publickeys import canonical_key, public_bytes, refuse_shared_keys
from tuf_repo.core.roles import BINS, ROOT, SNAPSHOT, TARGETS, TIMESTAMP
from tuf_repo.core.root import ONLINE, X_NAME, Offline, Quorum, as_text
from tuf_repo.errors import EditError


@dataclass(frozen=True, slots=True)
class Edits:
    """What somebody wants changed; by role where a role is named."""

    added: Mapping[str, Sequence[Key]] = field(default_factory=dict)
    dropped: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """First characters of keyids."""
    replaced: Mapping[str, Sequence[Key]] = field(default_factory=dict)
    """All keys of a role: none from before stays but those that are named again."""
    thresholds: Mapping[str, int] = field(default_factory=dict)
    bits: int | None = None
    extra: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By file: all extra signed fields that it is to have."""

    def roles(self) -> set[str]:
        """The roles that are named."""
        named = (self.added, self.dropped, self.replaced, self.thresholds)
        return {role for each in named for role in each}


def edited(offline: Offline, edits: Edits) -> Offline:
    """Return the roles with these edits made; the rules are another matter.

    Raises:
        EditError: a role, or a key that is to go, is not there; or a key that is to come is.
    """
    for role in sorted(edits.roles() - set(offline.roles)):
        raise EditError(f"role {role}", f"one of {', '.join(offline.roles)}", "another")
    return replace(
        offline,
        quorums={role: _edited(role, offline.quorums[role], edits) for role in offline.roles},
        bits=offline.bits if edits.bits is None else edits.bits,
        extra={**offline.extra, **edits.extra},
    )


def _edited(role: str, quorum: Quorum, edits: Edits) -> Quorum:
    keys = list(edits.replaced.get(role, quorum.keys))
    for prefix in edits.dropped.get(role, ()):
        keys.remove(_named(role, keys, prefix))
    for key in edits.added.get(role, ()):
        if any(public_bytes(key) == public_bytes(other) for other in keys):
            raise EditError(f"role {role}", "a key that it does not have", key.keyid[:8])
        keys.append(key)
    return Quorum(tuple(keys), edits.thresholds.get(role, quorum.threshold))


def _named(role: str, keys: Sequence[Key], prefix: str) -> Key:
    found = [key for key in keys if prefix and key.keyid.startswith(prefix)]
    if len(found) != 1:
        have = ", ".join(key.keyid[:8] for key in keys)
        got = f"{len(found)} that begin with {prefix!r}; its keys are {have}"
        raise EditError(f"role {role}", "one key of it to drop", got)
    return found[0]


def refuse_broken_rules(old: Offline | None, new: Offline) -> None:
    """Everything that we publish keeps these rules.

    1. Thresholds can be met, and online roles have a threshold of 1: one machine signs.
    2. Keys are of our kinds; one public key, one spelling, and the one keyid that follows from it.
    3. `targets` and the role below share no key; an online key serves nothing else.
    4. The delegation covers paths as before, in a way that we can read, and bins can be published.
    5. Bins keep their names, or snapshot and timestamp keys are all new.
    6. All that it says can be shown to people, in full, and is what it looks like.

    Raises:
        EditError: one is broken; the text says what to do.
        KeyFileError: a key is of another kind, or one public key stands under two keyids.
    """
    for role in new.roles:  # 1.
        _refuse_threshold(role, new.quorums[role])
    for each in (old, new):  # 2. Of what a draft starts from, too: it names the keys that go.
        if each is not None:
            _refuse_two_spellings(each)
    _refuse_shared_roles(new)  # 3.
    _refuse_delegation(old, new)  # 4.
    if old is not None and not new.layout.keeps_names_of(old.layout):  # 5.
        _refuse_kept_keys(old, new)
    _refuse_hidden(new)  # 6.


def _refuse_threshold(role: str, quorum: Quorum) -> None:
    wanted, there = quorum.threshold, len(quorum.keys)
    if not quorum.keys:
        raise EditError(f"role {role}", f"keys; add them with --key {role}=FILE.pub", "none")
    if role in ONLINE and wanted != 1:
        raise EditError(f"role {role}", "threshold 1, as one machine signs it", str(wanted))
    if not 1 <= wanted <= there:
        raise EditError(
            f"role {role}",
            f"a threshold from 1 to {there}, the number of its keys",
            f"{wanted}; add keys with --key {role}=FILE.pub or set --threshold {role}=N",
        )


def _refuse_two_spellings(new: Offline) -> None:
    keys = [key for role in new.roles for key in new.quorums[role].keys]
    refuse_shared_keys(keys)
    for key in keys:
        usual = canonical_key(f"key {key.keyid[:8]}", key)
        if usual.keyval != key.keyval:
            raise EditError(f"key {key.keyid[:8]}", "its usual spelling", "another one")
        if usual.keyid != key.keyid:
            # People know a key by its keyid: under that of somebody else it would pass for theirs.
            raise EditError(f"key {key.keyid}", f"its own keyid, {usual.keyid}", "another one")
    seen: dict[str, Key] = {}
    for key in keys:
        if as_text(seen.setdefault(key.keyid, key).to_dict()) != as_text(key.to_dict()):
            raise EditError(
                f"key {key.keyid[:8]}", "the same name and fields in every role", "two spellings"
            )
    for role in new.roles:
        ids = new.quorums[role].ids()
        if len(set(ids)) < len(ids):
            raise EditError(f"role {role}", "each key once", "one of them twice")


def _refuse_shared_roles(new: Offline) -> None:
    for one, other in combinations(new.roles, 2):
        is_apart = {one, other} == {TARGETS, new.delegation} or other in ONLINE
        shared = _publics(new.quorums[one]) & _publics(new.quorums[other]) if is_apart else None
        if shared:
            key = next(key for key in new.quorums[one].keys if public_bytes(key) in shared)
            raise EditError(
                f"role {other}", f"keys that {one} does not have", f"{key.keyid[:8]} in both"
            )


def _refuse_delegation(old: Offline | None, new: Offline) -> None:
    if not new.paths:
        raise EditError(TARGETS, "path patterns for the delegation", "none")
    for path in new.paths:
        if not is_pattern(path):
            raise EditError(
                TARGETS, "simple path patterns, of A-Z a-z 0-9 _ * ? / . and - only", ascii(path)
            )
    if old is not None and (old.delegation, old.paths) != (new.delegation, new.paths):
        raise EditError(
            TARGETS, f"{old.delegation} for {_listed(old.paths)} as before", _listed(new.paths)
        )
    if not 1 <= new.bits <= BITS_MAX:
        raise EditError("bin bits", f"from 1 to {BITS_MAX}", str(new.bits))


def _refuse_kept_keys(old: Offline, new: Offline) -> None:
    kept = [
        role
        for role in (SNAPSHOT, TIMESTAMP)
        if _publics(old.quorums[role]) & _publics(new.quorums[role])
    ]
    if kept:
        # TUF 5.5.5: a client that trusts the old snapshot takes none in which a role vanished.
        raise EditError(
            f"bins of {new.bits} bits",
            f"all new keys for {SNAPSHOT} and {TIMESTAMP} in the same draft, as bins of {old.bits}"
            " bits have other names",
            f"old ones for {_listed(kept)}; use `tuf-repo rotate {SNAPSHOT} {TIMESTAMP}"
            f" --bin-bits {new.bits}`",
        )


def _refuse_hidden(new: Offline) -> None:
    for role in new.roles:
        for key in new.quorums[role].keys:
            _refuse_hidden_in(key)
    for role in new.files:
        for name, value in new.extra.get(role, {}).items():
            if not is_field(name):
                raise EditError(
                    role, f"extra fields x-… of at most {NAME_MAX_CHARS} characters", ascii(name)
                )
            if len(as_text(value)) > VALUE_MAX_CHARS:
                raise EditError(
                    role, f"extra fields of at most {VALUE_MAX_CHARS} characters", f"more in {name}"
                )


def _refuse_hidden_in(key: Key) -> None:
    more = sorted(key.unrecognized_fields.keys() - {X_NAME})
    if more:
        raise EditError(f"key {key.keyid[:8]}", f"no extra field but {X_NAME}", ascii(more[0]))
    name = key.unrecognized_fields.get(X_NAME, "none")
    if not isinstance(name, str) or not is_name(name):
        got = ascii(name)[:NAME_MAX_CHARS]
        raise EditError(f"key {key.keyid[:8]}", f"a name of {NAME_KIND}", got)


def _publics(quorum: Quorum) -> set[bytes]:
    return {public_bytes(key) for key in quorum.keys}


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words)


def new_quorums(edits: Edits, delegation: str, defaults: Mapping[str, int]) -> dict[str, Quorum]:
    """Return the quorums of a first repository, or of one whose keys are all replaced."""
    roles = (ROOT, TARGETS, delegation, SNAPSHOT, TIMESTAMP, BINS)
    for role in sorted(edits.roles() - set(roles)):
        raise EditError(f"role {role}", f"one of {', '.join(roles)}", "another")
    return {role: _edited(role, Quorum((), defaults.get(role, 1)), edits) for role in roles}
