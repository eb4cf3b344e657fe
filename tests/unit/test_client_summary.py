"""What `cargo sealed` says when cargo has ended."""

import json

from mirror.client.sealed.aftermath import Finding
from mirror.client.sealed.summary import Summary

FINDING = Finding("aaaa 1.0.0", "registry folder x", "nothing", "bytes", "look")
REPORT = {
    "format": 1,
    "mirror": "https://a.example/",
    "others": [["https://b.example/", "signed by nobody"]],
    "timestamp": 7,
    "root_sha256": "0" * 64,
    "warnings": ["upstream was last confirmed 3 days ago"],
    "index_files": 2,
    "crates": 1,
    "unproved": ["left-pad"],
    "refused": [
        {"subject": "bbbb", "reason": "withheld"},
        {"subject": "cccc", "where": "w", "expected": "e", "got": "g", "advice": "a"},
    ],
}
CLEAN = REPORT | {"others": [], "warnings": [], "unproved": [], "refused": []}


def lines(*, quiet=False, findings=(), not_covered=(), notes=(), report=None):
    return list(Summary(findings, not_covered, notes, report).lines(quiet=quiet))


def test_all_went_well_is_one_line_and_none_for_the_quiet():
    said = "sealed: 2 index files and 1 crate verified, mirror https://a.example/, timestamp 7"
    assert lines(report=CLEAN) == [said]
    assert lines(report=CLEAN, quiet=True) == []
    assert lines(report=CLEAN | {"index_files": 0, "crates": 0}) == []


def test_whatever_may_be_wrong_is_said_to_the_quiet_too():
    said = lines(
        quiet=True, findings=[FINDING], not_covered=["x (git)"], notes=["died"], report=REPORT
    )
    assert said == [
        "sealed: warning: upstream was last confirmed 3 days ago",
        "sealed: warning: mirror https://b.example/: signed by nobody",
        "sealed: warning: 1 absence unproved, on the mirror's word alone: left-pad",
        "sealed: refused: bbbb: withheld",
        "sealed: refused: cccc: w: expected e, got g; a",
        "sealed: warning: died",
        "sealed: not covered: 1 package or source: x (git)",
        "sealed: FINDING: aaaa 1.0.0: registry folder x: expected nothing, got bytes; look",
    ]


def test_many_are_counted_and_the_first_named():
    (said,) = lines(not_covered=[f"p{number}" for number in range(7)])
    assert said == (
        "sealed: not covered: 7 packages or sources: p0, p1, p2, p3, p4 and 2 more"
        " (all with --json)"
    )


def test_json_is_one_line_with_everything_in_it_also_where_no_proxy_was_needed():
    said = json.loads(Summary([FINDING], ["x"], ["died"], REPORT).as_json(0, 1))
    assert said["findings"] == [FINDING._asdict()]
    assert said["warnings"] == [*REPORT["warnings"], "died"]
    assert (said["cargo"], said["exit"], said["unproved"]) == (0, 1, ["left-pad"])
    empty = json.loads(Summary([], [], [], None).as_json(101, 101))
    assert said.keys() == empty.keys()


def test_a_finding_is_an_error_and_what_is_not_covered_with_strict_only():
    assert Summary([FINDING], [], [], None).exit_code(0, strict=False) == 1
    assert Summary([FINDING], [], [], None).exit_code(101, strict=False) == 101
    assert Summary([], ["x"], [], None).exit_code(0, strict=False) == 0
    assert Summary([], ["x"], [], None).exit_code(0, strict=True) == 1


def test_a_report_of_another_version_is_said_to_be_one_and_not_believed():
    strange = {"format": 2, "index_files": {}, "refused": 7}
    (said,) = lines(report=strange, quiet=True)
    assert said.startswith("sealed: warning: the proxy is of another version of crateseal")
    as_json = json.loads(Summary([], [], [], strange).as_json(0, 0))
    assert (as_json["format"], as_json["index_files"], as_json["refused"]) == (1, 0, [])
    assert "another version" in as_json["warnings"][0]
