"""The attacks of a hostile mirror on its clients, one row each: what is done, what a user learns.

An attack begins with a stage where all is honest. `before` is what happened there before the users
looked at the mirror (None: they come to it anew); then `arrange` is done, and they look (again).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.arranging import (
    answered_with,
    bins_of_one_number,
    changed_blank,
    changed_crate,
    changed_index_line,
    crate_of_another_version,
    deny_delta,
    everything_changed,
    expired,
    expired_root,
    fast_forward,
    forged_root,
    line_about_another_crate,
    line_that_climbs,
    line_with_a_key_twice,
    lying,
    nameless_bin,
    new_snapshot_under_an_old_timestamp,
    old_bin_in_its_place,
    old_publication,
    old_role_by_a_thief,
    old_root,
    old_snapshot_by_a_thief,
    old_snapshot_in_its_place,
    older_mirror_behind_a_broken_one,
    older_mirror_behind_one_that_is_away,
    recover_from_fast_forward,
    redirected,
    removed,
    replace_online_keys,
    revoked_keys,
    said,
    want_answered,
    withheld_root,
    wrong_root,
)
from tests.support.stage import PACKAGES

QUICK = {"CRATESEAL_TOTAL_TIMEOUT": "1s", "CRATESEAL_STALL_TIMEOUT": "0.7s"}


@dataclass(frozen=True)
class Attack:
    """One row of the table."""

    name: str
    arrange: Callable
    says: str
    """A pattern for what a user is told."""
    hit: tuple = PACKAGES
    """What must neither be proven nor reach a build."""
    index_hit: tuple | None = None
    """Of what no index line must reach a build; `hit` unless told."""
    code: int = 1
    before: Callable | None = None
    mirrors: int = 1
    settings: dict = field(default_factory=dict)

    @property
    def without_lines(self):
        return self.hit if self.index_hit is None else self.index_hit


SIGNATURES = "enough signatures|signatures of the keys"
BYTES = "signed sha256|sha256 .* [(]signed|bytes that were signed"
LENGTH = "signed length|more bytes|more than"
VERSION = "version"
CODING = "no compression|gzip"
LATE = "not there after|in time|no answer"
BROKEN = "broke off|missing"
ABSENT = "without it|unproved"

ALPHA = {"hit": ("alpha",)}
A_CRATE = {"hit": ("alpha",), "index_hit": ()}

CONTENT = (
    Attack("changed index line", changed_index_line, BYTES, **ALPHA),
    Attack("changed blank in an index line", changed_blank, BYTES, **ALPHA),
    Attack("changed crate", changed_crate, BYTES, **A_CRATE),
    Attack("index line, crate and lock changed", everything_changed, BYTES, **ALPHA),
    Attack(
        "a crate of the right checksum under another version's name",
        crate_of_another_version,
        BYTES,
        hit=("beta",),
        index_hit=(),
    ),
    Attack("swapped index files", answered_with("alpha", "beta"), LENGTH, **ALPHA),
    Attack("swapped bins", answered_with("bin alpha", "bin beta"), VERSION, **ALPHA),
    Attack("swapped bins of one number", bins_of_one_number, "of the role crates-", **ALPHA),
    Attack("a bin that does not name its role", nameless_bin, "of the role crates-", **ALPHA),
    Attack("crates answered with targets", answered_with("crates", "targets"), LENGTH),
    Attack("targets answered with crates", answered_with("targets", "crates"), BYTES),
    Attack("targets answered with a bin", answered_with("targets", "bin alpha"), BYTES),
    Attack("a bin answered with crates", answered_with("bin alpha", "crates"), SIGNATURES, **ALPHA),
    Attack(
        "timestamp answered with snapshot", answered_with("timestamp", "snapshot"), "'snapshot'"
    ),
    Attack("snapshot answered with timestamp", answered_with("snapshot", "timestamp"), BYTES),
)

DELTA = {"hit": ("delta",), "index_hit": (), "before": deny_delta}
OLDER = (
    Attack("rollback of everything", old_publication, "behind", **DELTA),
    Attack("rollback of the snapshot, keys stolen", old_snapshot_by_a_thief, VERSION, **DELTA),
    *(
        Attack(f"rollback of {role}, keys stolen", old_role_by_a_thief(role), VERSION, **DELTA)
        for role in ("targets", "crates", "bin delta")
    ),
    Attack("rollback of the snapshot", old_snapshot_in_its_place, BYTES, **DELTA),
    Attack("one bin of another generation", old_bin_in_its_place, VERSION, **DELTA),
    Attack(
        "a new snapshot under an old timestamp",
        new_snapshot_under_an_old_timestamp,
        "behind",
        **DELTA,
    ),
    Attack("rollback of the root", old_root, SIGNATURES, before=replace_online_keys),
    Attack(
        "fail-over to an older mirror, the first one lies",
        older_mirror_behind_a_broken_one,
        "JSON|behind",
        mirrors=2,
        **DELTA,
    ),
    Attack(
        "fail-over to an older mirror, the first one is away",
        older_mirror_behind_one_that_is_away,
        "behind",
        mirrors=2,
        **DELTA,
    ),
)

EXPIRED = (
    *(
        Attack(f"freeze: expired {role}", expired(role), "expired")
        for role in ("timestamp", "snapshot", "targets", "crates")
    ),
    Attack("freeze: an expired bin", expired("bin alpha"), "expired", **ALPHA),
    Attack("expired root", expired_root, "expired"),
)

KEYS = (
    Attack(
        "fast-forward, and the way back",
        recover_from_fast_forward,
        "",
        hit=(),
        code=0,
        before=fast_forward,
    ),
    Attack("a root withheld by one of two", withheld_root, SIGNATURES, hit=(), code=0, mirrors=2),
    Attack("revoked keys", revoked_keys, SIGNATURES),
    Attack("wrong root", wrong_root, SIGNATURES),
    Attack("forged root", forged_root, SIGNATURES),
)

CUT = {"settings": {"CRATESEAL_CRATE_MAX_BYTES": "1MB"}, **A_CRATE}
HURRY = {"code": 3, "settings": QUICK}
WIRE = (
    Attack("endless timestamp", lying("endless", "timestamp"), LENGTH),
    Attack("endless bin", lying("endless", "bin alpha"), LENGTH, **ALPHA),
    Attack("endless index file", lying("endless", "alpha"), LENGTH, **ALPHA),
    Attack("endless crate", lying("endless", "crate alpha"), LENGTH, **CUT),
    Attack("endless header", lying("endless_header", "timestamp"), LENGTH),
    Attack("endless interim answers", lying("endless_interim", "timestamp"), LENGTH),
    Attack("endless trailer", lying("endless_trailer", "crate alpha"), LENGTH, **CUT),
    Attack("gzip bomb for a timestamp", lying("gzip_bomb", "timestamp"), CODING),
    Attack("gzip bomb for a bin", lying("gzip_bomb", "bin alpha"), LENGTH, **ALPHA),
    Attack("gzip bomb for an index file", lying("gzip_bomb", "alpha"), LENGTH, **ALPHA),
    Attack("gzip bomb for a crate", lying("gzip_bomb", "crate alpha"), CODING, **A_CRATE),
    Attack("gzip of two members", lying("gzip_members", "bin alpha"), "one gzip member", **ALPHA),
    Attack("gzip and more", lying("gzip_and_more", "alpha"), "one gzip member", **ALPHA),
    Attack("gzip cut short", lying("gzip_cut", "alpha"), "cut short", **ALPHA),
    Attack("gzip twice", lying("gzip_twice", "snapshot"), CODING),
    Attack("gzip twice, said once", lying("gzip_twice", "alpha", coding="gzip"), BYTES, **ALPHA),
    Attack("another coding", lying("coding", "timestamp", name="br"), "'br'"),
    Attack("trickled timestamp", lying("trickle", "timestamp"), LATE, **HURRY),
    Attack("trickled header", lying("trickle", "timestamp", header=True), LATE, **HURRY),
    Attack("trickled index file", lying("trickle", "alpha"), LATE, **HURRY, **ALPHA),
    Attack("trickled crate", lying("trickle", "crate alpha"), LATE, **HURRY, **A_CRATE),
    Attack("silence", lying("silence", "bin alpha"), LATE, **HURRY, **ALPHA),
    Attack("no HTTP", lying("no_http", "timestamp"), BROKEN, code=3),
    Attack("a length too large", lying("length", "crate alpha", more=9), BROKEN, code=3, **A_CRATE),
    Attack("a length too small", lying("length", "alpha", more=-9), BYTES, **ALPHA),
    Attack("a huge length", lying("length", "timestamp", more=10**15), LENGTH),
    Attack("a longer index file", lying("longer", "alpha"), LENGTH, **ALPHA),
    Attack("a shorter crate", lying("shorter", "crate alpha"), BYTES, **A_CRATE),
    Attack("206 unasked", lying("honest_body", "alpha", status="206 Partial"), "206", **ALPHA),
    Attack("304 unasked", lying("say", "timestamp", status="304 Not Modified"), "304"),
    Attack("redirect to another host", redirected("timestamp", "{trap}/x"), "redirect", code=3),
    Attack(
        "redirect of a crate", redirected("crate alpha", "{trap}/x"), "redirect", code=3, **A_CRATE
    ),
    Attack("redirect to a file", redirected("alpha", "file://{file}"), "redirect", code=3, **ALPHA),
    *(Attack(f"missing {role}", removed(role), "404") for role in ("timestamp", "snapshot")),
    Attack("missing bin", removed("bin alpha"), "404", **ALPHA),
    Attack("missing index file", removed("alpha"), "404", **ALPHA),
    Attack("missing crate", removed("crate alpha"), "404", **A_CRATE),
)

GAMMA = {"hit": ("gamma",)}
WANT = (
    Attack("want: nonsense", want_answered("say", body="{{{"), ABSENT, **GAMMA),
    Attack("want: endless", want_answered("endless", start='{"absent":["'), ABSENT, **GAMMA),
    Attack("want: absent", said(absent=["gamma"], timestamp=1), ABSENT, **GAMMA),
    Attack("want: a timestamp that never comes", said(timestamp=10**9), ABSENT, **GAMMA),
    Attack("want: a story", said(refused={"gamma": "see\x1b[2J evil"}), ABSENT, **GAMMA),
)

UNUSED = "without it|entry is invalid|no matching package"
SIGNED = (
    Attack("an index line with a key twice", line_with_a_key_twice, UNUSED, **A_CRATE),
    Attack("a version that climbs out", line_that_climbs, UNUSED, **A_CRATE),
    Attack("a name that climbs out", line_about_another_crate, UNUSED, **A_CRATE),
)

ATTACKS = (*CONTENT, *OLDER, *EXPIRED, *KEYS, *WIRE, *WANT, *SIGNED)
