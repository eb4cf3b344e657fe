"""Policy: what is published of an audited index file, and the note on what is not."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.core.audit import audit_index_file
from mirror.core.index import IndexLimits, find_entry, parse_index_file
from mirror.core.index_line import read_fields
from mirror.core.names import CrateName
from mirror.core.policy import Facts, Withheld, WithheldKind, decide
from tests.support.crates import index_file, index_line

LIMITS = IndexLimits()
DEMO = CrateName("demo")
SINCE = 1_700_000_000.5


def parse(data):
    return parse_index_file(DEMO, data, LIMITS)


def deny(version=None, reason="malware", since=SINCE):
    return Withheld(WithheldKind.DENY, "operator", reason, since, version)


def entry_of(**changes):
    return {
        "kind": "deny",
        "rule": "operator",
        "reason": "malware",
        "since": "2023-11-14T22:13:20Z",
        "until": None,
        "versions": None,
        "upstream_yanked": [],
        **changes,
    }


def note_of(decision):
    note = json.loads(decision.note)
    assert note["name"] == "demo"
    assert decision.note.endswith(b"\n")
    return note["entries"]


FILE = parse(index_file("demo", "1.0.0", "1.1.0", "2.0.0"))


def test_bytes_pass_through_where_nothing_applies():
    decision = decide(DEMO, FILE, Facts())
    assert decision.data is FILE.data
    assert decision.note is None
    assert decide(DEMO, None, Facts()).data is None


def test_a_denied_crate_is_not_published_and_the_note_says_why():
    decision = decide(DEMO, FILE, Facts(denials=(deny(),)))
    assert decision.data is None
    assert note_of(decision) == [entry_of()]
    assert note_of(decide(DEMO, None, Facts(denials=(deny(),)))) == [entry_of()]


def test_of_a_denied_version_only_yanked_is_changed():
    decision = decide(DEMO, FILE, Facts(denials=(deny("1.1.0"),)))
    lines, before = decision.data.split(b"\n"), FILE.data.split(b"\n")
    assert lines[1] == before[1].replace(b'"yanked":false', b'"yanked":true')
    assert [lines[0], *lines[2:]] == [before[0], *before[2:]]
    assert note_of(decision) == [entry_of(versions=["1.1.0"])]


def test_a_version_that_upstream_yanked_itself_is_said_to_be():
    data = index_line("demo", "1.0.0", yanked=True) + b"\n" + index_line("demo", "1.1.0")
    decision = decide(DEMO, parse(data), Facts(denials=(deny("1.0.0"), deny("1.1.0"))))
    assert note_of(decision) == [
        entry_of(versions=["1.0.0"], upstream_yanked=["1.0.0"]),
        entry_of(versions=["1.1.0"]),
    ]
    assert decision.data == data.replace(b'"yanked":false', b'"yanked":true')


def test_a_denied_version_that_upstream_lacks_changes_nothing_but_is_noted():
    decision = decide(DEMO, FILE, Facts(denials=(deny("9.0.0"),)))
    assert decision.data is FILE.data
    assert note_of(decision) == [entry_of(versions=["9.0.0"])]


def test_every_line_of_a_denied_version_is_yanked_and_what_counts_as_absent_stays():
    one, two = index_line("demo", "1.0.0", "1" * 64), index_line("demo", "1.0.0", "2" * 64)
    data = b"\n".join([one, b"nonsense", index_line("demo", "1.1.0"), b"", two, b" "])
    decision = decide(DEMO, parse(data), Facts(denials=(deny("1.0.0"),)))
    for line in (one, two):
        data = data.replace(line, line.replace(b"false", b"true"))
    assert decision.data == data


def test_a_list_leaves_the_lines_of_its_versions_as_they_came_and_in_order():
    lines = [
        index_line("demo", "2.0.0"),
        b"nonsense",
        index_line("demo", "1.0.0").replace(b":", b" : "),
        index_line("demo", "1.1.0"),
        index_line("demo", "2.0.0", "2" * 64),
    ]
    file = parse(b"\n".join(lines))
    decision = decide(DEMO, file, Facts(listed=frozenset(["2.0.0", "1.0.0", "7.0.0"])))
    assert decision.data == lines[0] + b"\n" + lines[2] + b"\n" + lines[4] + b"\n"
    assert decision.note is None


@pytest.mark.parametrize("listed", [frozenset(), frozenset(["7.0.0"])])
def test_a_list_that_names_no_version_of_it_leaves_nothing(listed):
    assert decide(DEMO, FILE, Facts(listed=listed)).data is None


def test_a_denied_version_is_yanked_on_a_list_too():
    facts = Facts(denials=(deny("1.1.0"),), listed=frozenset(["1.1.0"]))
    (entry,) = parse(decide(DEMO, FILE, facts).data).entries
    assert (entry.crate.version, entry.yanked) == ("1.1.0", True)


def test_a_finding_is_noted_where_there_is_nothing_to_publish():
    finding = Withheld(WithheldKind.HOLD, "returned", "may be somebody else's", SINCE)
    decision = decide(DEMO, None, Facts(finding=finding))
    assert decision.data is None
    held = entry_of(kind="hold", rule="returned", reason="may be somebody else's")
    assert note_of(decision) == [held]
    # The last good file stays.
    assert decide(DEMO, FILE, Facts(finding=finding)).data is FILE.data
    assert decide(DEMO, FILE, Facts(finding=finding)).note is None
    # Both a denial and a finding.
    both = decide(DEMO, None, Facts(denials=(deny("1.0.0"), deny()), finding=finding))
    assert note_of(both) == [entry_of(), entry_of(versions=["1.0.0"]), held]


def test_the_note_does_not_depend_on_the_order_of_denials():
    denials = (deny("1.1.0"), deny(), deny("1.0.0"))
    one = decide(DEMO, FILE, Facts(denials=denials))
    assert one == decide(DEMO, FILE, Facts(denials=denials[::-1]))


LINES = st.sampled_from(
    [
        b'{"name":"demo","vers":"%s","deps":[],"cksum":"%s","features":{},"yanked":false}',
        b'{"yanked":false,"vers":"%s","deps":[],"cksum":"%s","features":{},"name":"demo"}',
        b' { "yank\\u0065d" : null , "name":"demo","vers":"%s","deps":[],"cksum":"%s" } \r',
        b'{"name":"demo","vers":"%s","deps":[],"cksum":"%s","x":{"yanked":false}}',
        b'{"name":"demo","vers":"%s","deps":[],"x":"\xff","cksum":"%s","y":"\\"yanked\\":0" }\t',
        b'{"x":["}",{"yanked":true}],"name":"demo","vers":"%s","deps":[],"cksum":"%s"}',
        b'{"name":"demo","vers":"%s","yanked":true,"deps":[],"cksum":"%s","x":1e999,"x":2}',
        '{"name":"demo","links":"é☃","vers":"%s","deps":[],"cksum":"%s"}'.encode(),
    ]
)


@settings(deadline=None)  # other work may share the machine
@given(st.lists(st.tuples(LINES, st.integers(0, 2)), min_size=1, max_size=5), st.integers(0, 2))
def test_yanked_is_the_only_field_that_ever_changes(lines, denied):
    data = b"".join(
        line % (b"1.0.%d" % number, b"%064d" % place) + b"\n"
        for place, (line, number) in enumerate(lines)
    )
    version = f"1.0.{denied}"
    published = decide(DEMO, parse(data), Facts(denials=(deny(version),))).data
    before, after = parse(data).entries, parse(published).entries
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        if old.crate.version == version:
            assert new.yanked
            was, now = read_fields(old.line), read_fields(new.line)
            assert {**was, "yanked": True} == now
            # Nothing else was touched: what is not the same is the one token.
            assert abs(len(new.line) - len(old.line)) in {0, 1, len(b',"yanked":true')}
        else:
            assert old == new
    entry = find_entry(published, DEMO, version)
    assert entry is None or entry.yanked
    # To the audit it is the same file.
    assert audit_index_file(DEMO, data, published, LIMITS, {}).remarks == ()


def test_deep_brackets_do_not_keep_a_version_from_being_denied():
    deep = index_line("demo", "1.0.0")[:-1] + b',"x":' + b"[" * 240 + b"]" * 240 + b"}"
    decision = decide(DEMO, parse(deep), Facts(denials=(deny("1.0.0"),)))
    assert decision.data == deep.replace(b"false", b"true")
