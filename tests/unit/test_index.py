"""Index files: every line is read as cargo reads it, and what no cargo uses counts as absent."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.core.index import (
    IndexLimits,
    dependencies_of_newest,
    find_entry,
    hinted_dependencies,
    newest_entry,
    parse_index_file,
)
from mirror.core.index_line import read_fields, span_of_value
from mirror.core.names import CrateName
from mirror.errors import MalformedIndexError
from tests.support.crates import index_file, index_line

LIMITS = IndexLimits()
DEMO = CrateName("demo")
NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,63}", fullmatch=True).map(CrateName)
VERSIONS = st.from_regex(
    r"(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})"
    r"(-(alpha|rc\.[1-9]|0))?(\+[a-z0-9]{1,6})?",
    fullmatch=True,
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
OWN_FIELDS = {"name", "vers", "deps", "cksum", "features", "features2", "yanked", "links", "v"}
UNKNOWN = st.dictionaries(st.text(max_size=6).filter(lambda key: key not in OWN_FIELDS), VALUES)
GOOD = index_line("demo", "1.0.0")
DEP = {"name": "d", "req": "^1", "kind": "normal"}


def with_raw(field, value, line=GOOD):
    """Add a field as raw bytes."""
    return line[:-1] + b"," + field + b":" + value + b"}"


def with_dep(**changes):
    return index_line("demo", "1.0.0").replace(b"[]", json.dumps([DEP | changes]).encode(), 1)


def parse(*lines, limits=LIMITS):
    return parse_index_file(DEMO, b"".join(line + b"\n" for line in lines), limits)


@settings(deadline=None)  # other work may share the machine
@given(NAMES, st.lists(st.tuples(VERSIONS, UNKNOWN), min_size=1, max_size=4))
def test_bytes_of_an_index_file_pass_through_unchanged(name, lines):
    data = b"".join(index_line(name, version, **more) + b"\n" for version, more in lines)
    file = parse_index_file(name, data, LIMITS)
    assert file.data == data
    assert b"".join(entry.line + b"\n" for entry in file.entries) == data
    assert [entry.crate.version for entry in file.entries] == [version for version, _ in lines]
    assert file.entries[-1].fields().items() >= lines[-1][1].items()


# What no cargo uses

UNUSED = {
    "an empty object": b"{}",
    "null": b"null",
    "another crate's name": index_line("other", "1.0.0"),
    "a version that is none": index_line("demo", "1.0"),
    "a version with a number too big for cargo": index_line("demo", "18446744073709551616.0.0"),
    "half a line": GOOD[:-5],
    "text": b"<html>",
    "UTF-16": GOOD.decode().encode("utf-16"),
    "a mark of order before it": b"\xef\xbb\xbf" + GOOD,
    "yanked as a text": index_line("demo", "1.0.0", yanked="no"),
    "deps that are no list": GOOD.replace(b'"deps":[]', b'"deps":{}'),
    "no deps": GOOD.replace(b'"deps":[],', b""),
    "a version given twice": with_raw(b'"vers"', b'"2.0.0"'),
    "yanked given twice": with_raw(b'"yanked"', b"true"),
    "yanked given twice, once with an escape": with_raw(b'"yank\\u0065d"', b"true"),
    "a cksum that is a number": re.sub(rb'"cksum":"[^"]*"', b'"cksum":1', GOOD),
    "no number anywhere": with_raw(b'"x"', b"NaN"),
    "infinity": with_raw(b'"x"', b"-Infinity"),
    "a text of cargo's that is no UTF-8": with_raw(b'"links"', b'"\xff"'),
    "a text of cargo's with half a pair": with_raw(b'"links"', b'"\\ud800"'),
    "an unknown key that is no UTF-8": with_raw(b'"\xff"', b"1"),
    "a control character": with_raw(b'"x"', b'"\t"'),
    "features that are null": index_line("demo", "1.0.0", features=None),
    "a feature that is no list": index_line("demo", "1.0.0", features={"a": "b"}),
    "a feature with a number": index_line("demo", "1.0.0", features2={"a": [1]}),
    "a feature lost to a second one": GOOD.replace(b"{}", b'{"a":1,"a":[]}'),
    "half a pair in a feature lost to a second one": GOOD.replace(
        b"{}", b'{"a":["\\ud800"],"a":[]}'
    ),
    "v as a text": index_line("demo", "1.0.0", v="2"),
    "v as a float": index_line("demo", "1.0.0", v=2.0),
    "v below zero": index_line("demo", "1.0.0", v=-1),
    "v too big": index_line("demo", "1.0.0", v=2**32),
    "v as minus zero": with_raw(b'"v"', b"-0"),
    "v as true": index_line("demo", "1.0.0", v=True),
    "a dependency that is a text": GOOD.replace(b"[]", b'["serde"]'),
    "a dependency without a name": GOOD.replace(b"[]", b'[{"req":"*"}]'),
    "a dependency with a field twice": GOOD.replace(b"[]", b'[{"name":"a","req":"1","req":"2"}]'),
    "a dependency with null features": with_dep(features=None),
    "a dependency that is perhaps optional": with_dep(optional="perhaps"),
}


@pytest.mark.parametrize("line", UNUSED.values(), ids=UNUSED.keys())
def test_a_line_that_no_cargo_uses_counts_as_absent_and_is_told(line):
    file = parse(line, index_line("demo", "1.1.0"))
    assert [entry.crate.version for entry in file.entries] == ["1.1.0"]
    assert [skipped.number for skipped in file.skipped] == [1]
    assert file.skipped[0].reason.isprintable()
    assert len(file.skipped[0].reason) < 200
    with pytest.raises(MalformedIndexError):
        parse(line)


USED = {
    "an unknown field twice": with_raw(b'"x"', b"1", with_raw(b'"x"', b"2")),
    "an unknown text that is no UTF-8": with_raw(b'"x"', b'"\xff"'),
    "an unknown text with half a pair": with_raw(b'"x"', b'"\\ud800"'),
    "an unknown number out of all bounds": with_raw(b'"x"', b"1e9999"),
    "an unknown number with many digits": with_raw(b'"x"', b"9" * 10_000),
    "deep brackets in an unknown field": with_raw(b'"x"', b"[" * 200 + b"]" * 200),
    "unknown keys that are no UTF-8, further in": with_raw(b'"x"', b'{"\xff":1}'),
    "a field twice that only newer cargos know": with_raw(
        b'"pubtime"', b'"x"', with_raw(b'"pubtime"', b'"y"')
    ),
    "a field of newer cargos with a wrong type": with_raw(b'"rust_version"', b"1"),
    "a dependency's field of newer cargos with a wrong type": with_dep(lib="no"),
    "no features, which newer cargos fill in": GOOD.replace(b'"features":{},', b""),
    "a dependency with what is needed only": with_dep(),
    "a feature given twice": GOOD.replace(b"{}", b'{"a":["b"],"a":[]}'),
    "nulls": index_line("demo", "1.0.0", yanked=None, links=None, v=None, features2=None),
    "a format from the future": index_line("demo", "1.0.0", v=3),
    "other spacing": GOOD.replace(b":", b" :  ").replace(b",", b"\t,") + b" \r",
    "a space after each colon and comma": GOOD.replace(b":", b": ").replace(b",", b", "),
    "an escaped version": GOOD.replace(b'"1.0.0"', b'"1.0.\\u0030"'),
    "an escaped key": GOOD.replace(b'"vers"', b'"ver\\u0073"'),
}


@pytest.mark.parametrize("line", USED.values(), ids=USED.keys())
def test_a_line_that_some_cargo_uses_is_an_entry(line):
    file = parse(line)
    assert [str(entry.crate) for entry in file.entries] == ["demo 1.0.0"]
    assert file.skipped == ()
    assert find_entry(line, DEMO, "1.0.0") == file.entries[0]


DOUBTFUL = {
    "a list": b'["demo","1.0.0",[],{},null,"' + b"a" * 64 + b'",false,null,null]',
    "a dependency as a list": GOOD.replace(b"[]", b'[["serde","^1",[],false,true]]'),
    "a cksum that is none": index_line("demo", "1.0.0", "x"),
    "a cksum in capital letters": index_line("demo", "1.0.0", "A" * 64),
    "a version longer than ours": index_line("demo", "1.0.0-" + "a" * 200),
    "a long number in a pre-release": index_line("demo", "1.0.0-" + "1" * 30),
    "a name with a letter that only looks like ours": index_line("demo", "1.0.0"),
    "brackets too deep for us": with_raw(b'"x"', b"[" * 300 + b"]" * 300),
    "brackets far too deep for us": with_raw(b'"x"', b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
}


@pytest.mark.parametrize("line", DOUBTFUL.values(), ids=DOUBTFUL.keys())
def test_a_line_that_cargo_may_read_otherwise_makes_the_whole_file_refused(line):
    name = DEMO
    if line == GOOD:
        name, line = CrateName("keen"), index_line("\u212aeen", "1.0.0")
        assert "\u212aeen".lower() == name
    data = index_line(name, "1.1.0") + b"\n" + line + b"\n" + index_line(name, "1.2.0") + b"\n"
    with pytest.raises(MalformedIndexError) as caught:
        parse_index_file(name, data, LIMITS)
    assert "line 2" in caught.value.subject


@pytest.mark.parametrize("end", range(1, len(GOOD)))
def test_half_a_line_at_the_end_is_a_file_cut_short(end):
    with pytest.raises(MalformedIndexError):
        parse_index_file(DEMO, index_line("demo", "1.1.0") + b"\n" + GOOD[:end], LIMITS)


def test_a_last_line_without_a_newline_is_whole_if_it_reads():
    data = GOOD + b"\n" + index_line("demo", "1.1.0")
    assert len(parse_index_file(DEMO, data, LIMITS).entries) == 2
    other = GOOD + b"\n" + index_line("other", "1.1.0")
    assert len(parse_index_file(DEMO, other, LIMITS).skipped) == 1


@pytest.mark.parametrize("data", [b"", b"\n \n", b"<html>\n<body>Log in</body>\n", b"[]\n"])
def test_what_has_no_good_line_is_no_index_file(data):
    with pytest.raises(MalformedIndexError):
        parse_index_file(DEMO, data, LIMITS)


@pytest.mark.parametrize(
    "limits",
    [IndexLimits(file_max_bytes=100), IndexLimits(line_max_bytes=50), IndexLimits(entries_max=1)],
)
def test_an_index_file_keeps_within_each_limit(limits):
    with pytest.raises(MalformedIndexError):
        parse_index_file(DEMO, index_file("demo", "1.0.0", "1.1.0"), limits)


def test_a_line_with_a_hundred_thousand_fields_twice_is_read_at_once():
    many = b",".join(b'"x%d":1,"x%d":2' % (n, n) for n in range(50_000))
    assert parse(GOOD[:-1] + b"," + many + b"}").entries


def test_the_name_is_compared_in_lower_case():
    file = parse_index_file(CrateName("inflector"), index_line("Inflector", "1.0.0"), LIMITS)
    assert str(file.entries[0].crate) == "Inflector 1.0.0"


def test_of_a_version_given_twice_the_last_line_counts():
    file = parse(index_line("demo", "1.0.0", "1" * 64), index_line("demo", "1.0.0", "2" * 64))
    assert file.by_version()["1.0.0"].cksum == "2" * 64


# One entry

FEW = st.sampled_from(["1.0.0", "1.0.0-0", "1.0.1", "11.0.0", "1.0.0+a"])
SPELLED = st.sampled_from([None, b"\\u0030", b"\\u002E"])


@st.composite
def any_lines(draw):
    version, spelled = draw(FEW), draw(SPELLED)
    line = index_line("demo", version, draw(st.sampled_from("0123")) * 64, x=draw(FEW))
    if spelled:
        quoted = json.dumps(version).encode()
        letter = b"0" if spelled == b"\\u0030" else b"."
        line = line.replace(quoted, quoted.replace(letter, spelled), 1)
    return draw(
        st.sampled_from([line, line, line, with_raw(b'"vers"', b'"1.0.0"', line), b"", b"x"])
    )


@settings(deadline=None)  # other work may share the machine
@given(st.lists(any_lines(), max_size=6), st.booleans())
def test_one_entry_is_found_as_in_the_whole_file(lines, ended):
    data = b"\n".join([*lines, GOOD]) + b"\n" * ended
    by_version = parse_index_file(DEMO, data, LIMITS).by_version()
    for version in ["1.0.0", "1.0.0-0", "1.0.1", "11.0.0", "1.0.0+a", "2.0.0", "", '"', "\n"]:
        assert find_entry(data, DEMO, version) == by_version.get(version)


def test_one_entry_is_found_without_reading_the_others():
    # What cannot be believed raises as soon as it is read.
    data = b"[]\n" + index_line("demo", "1.0.0") + b"\n[]\n"
    assert find_entry(data, DEMO, "1.0.0") is not None
    assert find_entry(data, DEMO, "2.0.0") is None


@settings(deadline=None)  # other work may share the machine
@given(UNKNOWN, st.sampled_from([b"null", b"false", b"true", b"nothing"]), st.integers(0, 3))
def test_the_place_of_a_field_is_where_it_stands(unknown, value, spaces):
    line = index_line("demo", "1.0.0", **unknown)
    if value == b"nothing":
        line = line.replace(b',"yanked":false', b"", 1)
    else:
        line = line.replace(b'"yanked":false', b'"yanked":' + b" " * spaces + value, 1)
    start, end = span_of_value(line, "yanked")
    if "yanked" in read_fields(line):
        assert line[start:end] == value
        assert line[:start].rstrip().endswith(b'"yanked":')
    else:
        assert (start, end) == (len(line) - 1, len(line) - 1)


# What a build asks for next


def test_dependencies_are_those_of_the_newest_version_that_a_build_may_take():
    file = parse(
        index_line("demo", "1.0.0", deps=("old",)),
        index_line("demo", "1.2.0", deps=("new", "demo", "bad name", "new")),
        index_line("demo", "1.3.0", deps=("yanked",), yanked=True),
        index_line("demo", "2.0.0-rc.1", deps=("pre",)),
    )
    assert dependencies_of_newest(file, 64) == ("new",)


def test_renamed_required_and_dev_dependencies_are_told_apart():
    deps = [
        {"name": "maybe", "req": "1", "kind": "normal", "optional": True},
        {"name": "alias", "req": "1", "package": "real", "kind": "normal", "optional": False},
        {"name": "tests", "req": "1", "kind": "dev"},
        {"name": "elsewhere", "req": "1", "registry": "https://example.invalid"},
        {"name": "builds", "req": "1", "kind": "build"},
    ]
    file = parse(json.dumps(json.loads(GOOD) | {"deps": deps}).encode())
    assert dependencies_of_newest(file, 64) == ("real", "builds", "maybe")
    assert dependencies_of_newest(file, 1) == ("real",)


@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_hint_of_dependencies_comes_of_the_last_line_alone(end):
    lines = [b"no line at all", index_line("demo", "1.0.0", deps=("first", "demo", "second"))]
    assert hinted_dependencies(DEMO, b"\n".join(lines) + end) == ("first", "second")


@given(st.binary(max_size=80) | st.sampled_from([b'{"deps":[7]}', b"[]\n", b"\n\n"]))
def test_no_bytes_at_all_make_a_hint_fail(data):
    assert hinted_dependencies(DEMO, data) == ()


def test_the_newest_entry_is_the_one_of_the_whole_file():
    data = index_file("demo", "1.0.0", "1.2.0", "2.0.0-rc.1")
    found = newest_entry(data, DEMO)
    assert found is not None
    assert found.crate.version == "1.2.0"
    with pytest.raises(MalformedIndexError):
        newest_entry(b"", DEMO)
