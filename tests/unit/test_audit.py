"""The audit: what crates.io would do to a line passes, what changes its meaning is found."""

import json

import pytest

from mirror.core.audit import REMARKS_MAX, audit_index_file, audit_return
from mirror.core.index import IndexLimits, parse_index_file
from mirror.core.names import CrateName
from mirror.errors import (
    AuditError,
    CksumChangedError,
    DepsChangedError,
    DuplicateVersionError,
    FeaturesChangedError,
    LinksChangedError,
    MalformedIndexError,
    PubtimeChangedError,
    ReturnedError,
    UnreadableFieldError,
    VersionVanishedError,
)
from tests.support.crates import index_file, index_line

LIMITS = IndexLimits()
DEMO = CrateName("demo")
A, B, C = "a" * 64, "b" * 64, "c" * 64
OLD = "2020-01-01T00:00:00Z"


def audit(before, after, tombstones=None):
    return audit_index_file(DEMO, before, after, LIMITS, tombstones or {})


def refuse(kind, before, after, tombstones=None):
    with pytest.raises(AuditError) as caught:
        audit(before, after, tombstones)
    assert type(caught.value) is kind
    for text in (caught.value.subject, caught.value.expected, caught.value.got):
        assert text.isprintable()
        assert len(text) < 400
    return caught.value


def line(**changes):
    fields = {
        "name": "demo",
        "vers": "1.0.0",
        "deps": [DEP, DEV],
        "cksum": A,
        "features": {"default": ["std"], "std": ["serde/std", "alloc"], "alloc": []},
        "yanked": False,
        "links": "demo-sys",
        "pubtime": OLD,
        "rust_version": "1.60",
    }
    return write({**fields, **changes})


def write(fields):
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


DEP = {
    "name": "serde",
    "req": "^1",
    "features": ["derive", "std"],
    "optional": True,
    "default_features": False,
    "target": "cfg(unix)",
    "kind": "normal",
    "registry": None,
    "package": "serde-real",
}
DEV = {"name": "tests", "req": "*", "kind": "dev"}
LINE = line()


# Whole versions


def test_a_new_version_and_a_yank_pass_without_a_word():
    before = index_file("demo", "1.0.0")
    after = before.replace(b'"yanked":false', b'"yanked":true') + index_line("demo", "1.1.0")
    audited = audit(before, after)
    assert audited.file.data == after
    assert audited.remarks == ()


def test_a_changed_cksum_is_refused():
    error = refuse(CksumChangedError, line(), line(cksum=B))
    assert A in error.expected
    assert error.got == B
    assert error.rule == "cksum-changed"
    assert "demo 1.0.0 in de/mo/demo" in str(error)


def test_a_changed_cksum_hidden_in_a_second_line_is_refused():
    refuse(CksumChangedError, LINE, LINE + b"\n" + line(cksum=B))


def test_a_version_that_vanished_is_refused():
    refuse(VersionVanishedError, index_file("demo", "1.0.0", "1.1.0"), index_file("demo", "1.1.0"))


def test_a_version_whose_line_cargo_skips_has_vanished():
    skipped = LINE[:-1] + b',"yanked":true}'
    both = LINE + b"\n" + index_line("demo", "1.1.0") + b"\n"
    refuse(VersionVanishedError, both, both.replace(LINE, skipped))


def test_a_line_that_cargo_skips_counts_as_absent_and_is_told():
    for extra in (line(cksum=B)[:-1] + b',"cksum":"x"}', index_line("other", "1.0.0"), b"nonsense"):
        audited = audit(LINE, LINE + b"\n" + extra + b"\n")
        assert len(audited.remarks) == 1
        assert "line 2 counts as absent" in audited.remarks[0]


def test_an_old_version_cannot_be_changed_in_a_line_that_cargo_reads_and_we_do_not():
    # Each of these would be a second line for 1.0.0 that a lazier reader takes for broken.
    for extra in (b',"x":"\xff"}', b',"x":1,"x":2}', b',"x":1e999}', b',"pubtime":1,"pubtime":2}'):
        refuse(CksumChangedError, LINE, LINE + b"\n" + line(cksum=B)[:-1] + extra + b"\n")
    escaped = line(cksum=B).replace(b'"1.0.0"', b'"1.0.\\u0030"')
    refuse(CksumChangedError, LINE, LINE + b"\n" + escaped)
    as_list = write(["demo", "1.0.0", [], {}, None, B, False, None, None])
    with pytest.raises(MalformedIndexError):
        audit(LINE, LINE + b"\n" + as_list)


def test_the_letters_of_a_name_do_not_change_their_case():
    refuse(VersionVanishedError, LINE, line(name="Demo"))


def test_the_most_serious_finding_is_told_and_the_others_are_counted():
    names = ["1.0.0", "1.1.0", "1.2.0"]
    before = b"\n".join(line(vers=version) for version in names)
    after = b"\n".join([line(vers="1.0.0", deps=[DEP, DEP]), line(vers="1.2.0", cksum=C)])
    error = refuse(CksumChangedError, before, after)
    assert "1.2.0" in error.subject
    assert "and 2 more findings" in error.got


def test_an_index_file_may_follow_itself_whatever_is_in_it():
    data = LINE + b"\nnonsense\n" + line(cksum=B) + b"\n"
    assert audit(data, data).remarks == ()


# A version given twice


def test_at_first_sight_a_version_given_twice_is_told_and_its_last_line_counts():
    audited = audit(None, line(cksum=A) + b"\n" + line(cksum=B))
    assert audited.file.by_version()["1.0.0"].cksum == B
    assert "given 2 times, with cksums aaaaaaaa and bbbbbbbb" in audited.remarks[0]
    assert len(audit(None, LINE + b"\n" + LINE).remarks) == 1


@pytest.mark.parametrize("version", ["1.0.0", "2.0.0"])
def test_a_new_second_line_with_another_cksum_is_refused(version):
    old, other = line(vers=version, cksum=A), line(vers=version, cksum=B)
    before = LINE + b"\n"
    refuse(DuplicateVersionError, before, b"\n".join([LINE, other, old]))


def test_a_third_line_with_another_cksum_is_refused():
    before = line(cksum=B) + b"\n" + LINE
    refuse(DuplicateVersionError, before, line(cksum=C) + b"\n" + before)


def test_a_second_line_that_was_always_there_passes():
    before = line(cksum=B) + b"\n" + LINE
    assert audit(before, before + b"\n" + index_line("demo", "2.0.0")).remarks == ()
    rewritten = json.dumps(json.loads(line(cksum=B)), indent=None).encode() + b"\n" + LINE
    assert audit(before, rewritten).remarks == ()


def test_two_lines_may_not_change_places():
    refuse(CksumChangedError, line(cksum=B) + b"\n" + LINE, LINE + b"\n" + line(cksum=B))


def test_a_new_second_line_with_the_same_cksum_is_told():
    assert "once more" in audit(LINE, LINE + b"\n" + LINE).remarks[0]
    twice = line(vers="2.0.0") + b"\n" + line(vers="2.0.0")
    assert "given 2 times" in audit(LINE, LINE + b"\n" + twice).remarks[0]


def test_a_line_that_does_not_count_cannot_change_its_meaning_either():
    # To a cargo that takes offence at the last line, the one before counts.
    evil = line(deps=[{**DEP, "name": "evil"}, DEV])
    bad = line(deps=[DEP, {**DEV, "req": "no requirement"}])
    refuse(DepsChangedError, LINE, evil + b"\n" + bad)
    two = line(cksum=B) + b"\n" + LINE
    refuse(DuplicateVersionError, two, line(cksum=B) + b"\n" + bad)


def test_lines_alike_but_for_their_meaning_are_each_held_against_one_they_may_be():
    first, second = line(deps=[DEP, DEP]), line(deps=[])
    before = first + b"\n" + second + b"\n" + LINE
    for one in (first, second):
        spaced = json.dumps(json.loads(one)).encode()
        assert audit(before, before.replace(one, spaced)).remarks == ()
        refuse(DepsChangedError, before, LINE + b"\n" + spaced)


# Fields, one by one


@pytest.mark.parametrize(
    ("change", "expected", "got"),
    [
        ({"req": "^2"}, 'dependency serde req "^1"', 'serde req "^2"'),
        ({"optional": False}, "dependency serde optional true", "serde optional false"),
        ({"default_features": True}, "serde default_features false", "default_features true"),
        ({"features": ["std"]}, '["derive", "std"]', '["std"]'),
        ({"features": ["std", "derive", "rc"]}, '["derive", "std"]', '["derive", "rc", "std"]'),
        ({"target": None}, '"cfg(unix)"', "null"),
        ({"kind": "build"}, '"normal"', '"build"'),
        ({"kind": "dev"}, 'dependency serde "^1"', "no serde"),
        ({"registry": "https://evil.invalid"}, "registry null", "evil.invalid"),
        ({"package": "evil"}, '"serde-real"', '"evil"'),
        ({"package": None}, '"serde-real"', "null"),
        ({"name": "evil"}, 'serde "^1", no dependency evil', 'no serde, evil "^1"'),
        ({"public": True}, "public false", "public true"),
        ({"artifact": ["bin"]}, "rest", "artifact"),
        ({"lib": True}, "rest", "lib"),
        ({"name": "x\ny" * 100}, "no dependency", "x\\n"),
    ],
)
def test_each_change_of_a_dependency_is_found_and_named(change, expected, got):
    error = refuse(DepsChangedError, LINE, line(deps=[{**DEP, **change}, DEV]))
    assert expected in error.expected
    assert got in error.got
    refuse(DepsChangedError, line(deps=[{**DEP, **change}, DEV]), LINE)


def test_a_dependency_that_appears_twice_or_no_more_is_found():
    refuse(DepsChangedError, LINE, line(deps=[DEP, DEP, DEV]))
    refuse(DepsChangedError, LINE, line(deps=[DEV]))
    many = [{**DEP, "name": f"d{n}"} for n in range(1000)]
    assert "and 998 more" in refuse(DepsChangedError, LINE, line(deps=many)).expected


def test_dev_dependencies_may_change_and_that_is_told():
    for deps in ([DEP], [DEP, {**DEV, "req": "^9"}], [DEP, DEV, DEV]):
        audited = audit(LINE, line(deps=deps))
        assert "demo 1.0.0: dev-dependencies changed" in audited.remarks[0]


@pytest.mark.parametrize(
    "features",
    [
        {},
        {"default": [], "std": ["serde/std", "alloc"], "alloc": []},
        {"default": ["std"], "std": ["serde/std", "alloc"]},
        {"default": ["std"], "std": ["serde/std", "alloc"], "alloc": [], "more": []},
    ],
)
def test_each_change_of_a_feature_is_found_and_named(features):
    error = refuse(FeaturesChangedError, LINE, line(features=features))
    assert "feature " in error.expected


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"v": 3},
        {"features2": {"more": []}},
        {"features2": {"more": []}, "v": 2},
        {"features2": {"alloc": ["x"]}, "v": 2},
        # Moved, and the format not with it.
        {
            "features": {"default": ["std"], "alloc": []},
            "features2": {"std": ["alloc", "serde/std"]},
        },
    ],
)
def test_the_format_changes_only_with_the_features_that_need_it(changes):
    refuse(FeaturesChangedError, LINE, line(**changes))


def test_features_may_move_to_the_second_map_and_back():
    moved = line(
        features={"default": ["std"], "alloc": []}, features2={"std": ["alloc", "serde/std"]}, v=2
    )
    assert audit(LINE, moved).remarks == ()
    assert audit(moved, LINE).remarks == ()
    refuse(FeaturesChangedError, moved, moved.replace(b'"v":2', b'"v":1'))


@pytest.mark.parametrize(
    ("key", "kind"), [("links", LinksChangedError), ("pubtime", PubtimeChangedError)]
)
def test_links_and_pubtime_may_appear_and_never_change(key, kind):
    without = line(**{key: None})
    assert audit(without, LINE).remarks == ()
    refuse(kind, LINE, without)
    assert '"other"' in refuse(kind, LINE, line(**{key: "other"})).got


@pytest.mark.parametrize("key", ["rust_version", "x-unknown"])
def test_other_fields_may_appear_and_a_change_of_them_is_told(key):
    one, two = line(**{key: "1"}), line(**{key: "2"})
    assert audit(line(**{key: None}), one).remarks == ()
    assert f'"{key}" changed: was "1", is "2"' in audit(one, two).remarks[0]
    assert f'"{key}" changed: was "1", is null' in audit(one, line(**{key: None})).remarks[0]


def test_remarks_are_few_short_and_printable():
    names = [f"1.{n}.0" for n in range(50)]
    evil = "\n\x1b[2J" * 1000
    before = b"\n".join(line(vers=version, other=evil) for version in names)
    after = b"\n".join(line(vers=version, other="x" + evil) for version in names)
    remarks = audit(before, after + b"\n" + b"\x1b\xff\n" * 10).remarks
    assert len(remarks) == REMARKS_MAX + 1
    assert remarks[-1] == f"and {60 - REMARKS_MAX} more"
    assert all(remark.isprintable() and len(remark) < 400 for remark in remarks)


@pytest.mark.parametrize(
    "broken",
    [
        {"rust_version": 5},
        {"rust_version": "banana"},
        {"pubtime": "x"},
        {"pubtime": 5},
        {"deps": [DEP, {**DEV, "req": "not a req"}]},
        {"deps": [DEP, {**DEV, "target": "cfg(((("}]},
        {"deps": [DEP, {**DEV, "registry": "::::"}]},
    ],
)
def test_a_change_that_takes_a_version_away_from_cargo_is_found(broken):
    refuse(UnreadableFieldError, line(pubtime=None), line(**{"pubtime": None, **broken}))


@pytest.mark.parametrize("req", ["^1", "1.2.3", ">=1.0, <2", "*", "=1.0.0-alpha.1", "~0.3", "1.*"])
def test_a_dev_dependency_may_change_to_what_cargo_reads(req):
    for target in (
        None,
        "cfg(windows)",
        'cfg(all(unix, target_os = "linux"))',
        "x86_64-pc-windows",
    ):
        changed = {**DEV, "req": req, "target": target, "name": "another"}
        assert audit(LINE, line(deps=[DEP, changed])).remarks


def test_a_new_twin_in_all_but_build_metadata_is_found():
    refuse(DuplicateVersionError, LINE, LINE + b"\n" + line(vers="1.0.0+evil", cksum=B))
    # Two that came together are a registry's own business.
    both = line(vers="2.0.0+a", cksum=A) + b"\n" + line(vers="2.0.0+b", cksum=B)
    assert audit(LINE, LINE + b"\n" + both).file


# Deleted, and back


def test_a_version_that_was_deleted_returns_only_with_a_cksum_it_had():
    stones = {"2.0.0": frozenset([B, C])}
    new = LINE + b"\n"
    assert audit(LINE, new + line(vers="2.0.0", cksum=B), stones).file
    error = refuse(CksumChangedError, LINE, new + line(vers="2.0.0", cksum=A), stones)
    assert f"{B} or {C}" in error.expected
    # What was accepted since is no return.
    grown = new + line(vers="2.0.0", cksum=A)
    assert audit(grown, grown + b"\n" + line(vers="2.1.0"), stones).file


def returned(*data):
    return parse_index_file(DEMO, b"\n".join(data), LIMITS)


GONE = 1_700_000_000.0  # 2023-11-14
STONES = {"1.0.0": frozenset([A])}


def test_a_crate_that_is_back_as_it_was_passes():
    audit_return(returned(LINE, line(vers="2.0.0", pubtime="2026-01-01T00:00:00Z")), GONE, STONES)
    audit_return(returned(line(pubtime=None)), GONE, STONES)
    audit_return(returned(line(pubtime="when")), GONE, STONES)


@pytest.mark.parametrize(
    "data",
    [
        [line(cksum=B)],
        [line(vers="1.1.0"), line(cksum=B), line()],
        [line(pubtime="2026-01-01T00:00:00Z")],
        [line(vers="1.1.0", pubtime=None)],
        [line(vers="1.1.0", pubtime="when")],
        [line(vers="1.1.0", pubtime="2023-11-14T22:13:21Z")],
    ],
)
def test_a_crate_that_may_be_somebody_elses_is_held(data):
    with pytest.raises(ReturnedError) as caught:
        audit_return(returned(*data), GONE, STONES)
    assert "de/mo/demo" in caught.value.subject
