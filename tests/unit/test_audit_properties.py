"""The audit, as properties: any harmless rewrite passes, any change of meaning is found."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.core.audit import audit_return
from mirror.core.index import parse_index_file
from mirror.errors import (
    AuditError,
    CksumChangedError,
    DepsChangedError,
    FeaturesChangedError,
    LinksChangedError,
    PubtimeChangedError,
    ReturnedError,
    VersionVanishedError,
)
from tests.unit.test_audit import DEMO, DEP, LIMITS, A, B, C, audit, refuse, write

WORDS = st.sampled_from(["std", "alloc", "serde", "libc", "rand", "dep:rand", "serde?/std", ""])
DEPS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["serde", "libc", "rand"]),
        "req": st.sampled_from(["^1", "^2.0", "=0.1.2"]),
    },
    optional={
        "features": st.lists(WORDS, max_size=3),
        "optional": st.booleans(),
        "default_features": st.booleans(),
        "target": st.none() | st.sampled_from(["cfg(unix)", "x86_64-pc-windows-gnu"]),
        "kind": st.sampled_from([None, "normal", "build", "dev"]),
        "registry": st.none() | st.just("https://example.invalid/index"),
        "package": st.none() | st.sampled_from(["real", "other"]),
        "public": st.none() | st.booleans(),
    },
)
FEATURES = st.dictionaries(WORDS.filter(bool), st.lists(WORDS, max_size=3), max_size=4)


@st.composite
def lines(draw, version="1.0.0"):
    features, second = draw(FEATURES), draw(st.just({}) | FEATURES)
    fields = {
        "name": "demo",
        "vers": version,
        "deps": draw(st.lists(DEPS, max_size=4)),
        "features": features,
        "cksum": draw(st.sampled_from([A, B, C])),
        "yanked": draw(st.booleans()),
    }
    if second:
        fields |= {"features2": second, "v": 2}
    for key in ("links", "pubtime", "rust_version", "new"):
        if draw(st.booleans()):
            fields[key] = draw(st.sampled_from(["one", "two"]))
    return fields


def shuffled(rnd, fields):
    items = list(fields.items())
    rnd.shuffle(items)
    return dict(items)


def rewritten_dep(rnd, dep):
    dep = dict(dep)
    if dep.get("kind", "normal") in {None, "normal"}:
        dep["kind"] = rnd.choice([None, "normal"])
    defaults = {"target": None, "registry": None, "package": None, "public": None}
    for key, default in {**defaults, "lib": False, "x-null": None}.items():
        if rnd.random() < 0.3 and dep.get(key) is None:
            dep[key] = default
    for key, default in {"optional": False, "default_features": True, "public": False}.items():
        if rnd.random() < 0.3 and (dep.get(key, default) is default or dep.get(key) is None):
            dep[key] = default
    features = [feature for feature in dep.get("features", []) if feature] + [""] * rnd.randrange(2)
    rnd.shuffle(features)
    dep["features"] = features
    dep = {k: v for k, v in dep.items() if v is not None or rnd.random() < 0.5}
    return shuffled(rnd, dep)


def rewritten(rnd, fields):
    """Write a line as crates.io might write it another day."""
    fields = dict(fields)
    fields["yanked"] = rnd.choice([True, False, None])
    fields["deps"] = [rewritten_dep(rnd, dep) for dep in fields["deps"]]
    rnd.shuffle(fields["deps"])
    merged = {}
    for key in ("features", "features2"):
        for feature, wants in fields.pop(key, {}).items():
            merged.setdefault(feature, []).extend(wants)
    for wants in merged.values():
        rnd.shuffle(wants)
    second = {feature for feature in merged if rnd.random() < 0.3}
    fields["features"] = {f: wants for f, wants in merged.items() if f not in second}
    fields.pop("v", None)
    if second:
        fields |= {"features2": {f: merged[f] for f in second}, "v": 2}
    else:
        fields |= rnd.choice([{}, {"v": 1}, {"v": None}, {"features2": None}, {"features2": {}}])
    for key in ("links", "pubtime", "rust_version", "unheard-of"):
        value = {"pubtime": "2024-05-01T10:00:00Z", "rust_version": "1.70"}.get(key, "appears")
        fields.setdefault(key, rnd.choice([None, value]))
    colon, comma = rnd.choice([(":", ","), (": ", ", "), (" :\t", ",\r ")])
    return json.dumps(
        shuffled(rnd, fields), separators=(comma, colon), ensure_ascii=rnd.random() < 0.5
    ).encode()


@settings(deadline=None)  # other work may share the machine
@given(lines(), lines(version="1.1.0"), st.randoms(use_true_random=False))
def test_any_harmless_rewrite_of_a_line_passes_without_a_word(one, two, rnd):
    before = write(one) + b"\n" + write(two) + b"\n"
    after = [rewritten(rnd, one), rewritten(rnd, two), write({**two, "vers": "2.0.0"})]
    if one["features"] and "features2" in one and not rnd.randrange(3):
        after[0] = write(one)
    rnd.shuffle(after)
    audited = audit(before, b"\n".join(after) + b"\n" * rnd.randrange(3))
    assert audited.remarks == ()
    assert audited.file.data.split(b"\n")[:3] == after


def mutated_dep(rnd, dep):
    key = rnd.choice([*dep, *DEP, "public", "unheard-of"])
    value = {
        "features": [*dep.get("features", []), "evil"],
        "optional": not dep.get("optional", False),
        "default_features": not dep.get("default_features", True),
        "public": not dep.get("public"),
        "kind": "build" if dep.get("kind") != "build" else None,
    }.get(key, "evil")
    return {**dep, key: value}


def mutated(rnd, fields):
    """Change the meaning of a line in one place; return it, and what the audit should say."""
    deps = [dep for dep in fields["deps"] if dep.get("kind") != "dev"]
    dev = [dep for dep in fields["deps"] if dep.get("kind") == "dev"]
    features = fields["features"]
    changes = [
        ({"cksum": "d" * 64}, CksumChangedError),
        ({"vers": "3.0.0"}, VersionVanishedError),
        ({"name": "Demo"}, VersionVanishedError),
        ({"deps": [*deps, {"name": "evil", "req": "*"}, *dev]}, DepsChangedError),
        ({"features": {**features, "evil": []}}, FeaturesChangedError),
        ({"v": 3}, FeaturesChangedError),
        ({"v": 1 if fields.get("v") == 2 else 2}, FeaturesChangedError),
    ]
    if deps:
        changes.append(({"deps": deps[1:] + dev}, DepsChangedError))
        changes += [({"deps": [mutated_dep(rnd, deps[0]), *deps[1:], *dev]}, DepsChangedError)] * 5
    for key, kind in (("links", LinksChangedError), ("pubtime", PubtimeChangedError)):
        if key in fields:
            changes += [({key: "evil"}, kind), ({key: None}, kind)]
    for feature, wants in features.items():
        changes.append(
            ({"features": {**features, feature: [*wants, "evil"]}}, FeaturesChangedError)
        )
        fewer = {name: features[name] for name in features if name != feature}
        if wants or feature not in fields.get("features2", {}):
            changes.append(({"features": fewer}, FeaturesChangedError))
    change, kind = rnd.choice(changes)
    return {**fields, **change}, kind


@settings(deadline=None)  # other work may share the machine
@given(lines(), st.randoms(use_true_random=False))
def test_any_change_of_meaning_is_found_however_the_line_is_written(fields, rnd):
    changed, kind = mutated(rnd, fields)
    # Features of a line that is written anew end up where `v` says; a wrong `v` stays as it is.
    after = write(changed) if "v" in changed else rewritten(rnd, changed)
    refuse(kind, write(fields) + b"\n", after + b"\n")


def passes(before, after):
    try:
        audit(before, after)
    except AuditError:
        return False
    return True


@settings(deadline=None)  # other work may share the machine
@given(lines(), lines(), st.sampled_from([A, None]), st.randoms(use_true_random=False))
def test_the_verdict_does_not_depend_on_how_a_line_is_written(one, two, cksum, rnd):
    one, two = ({**fields, "cksum": cksum or fields["cksum"]} for fields in (one, two))
    verdict = passes(write(one), write(two))
    assert passes(write(one), rewritten(rnd, two)) is verdict


@settings(deadline=None)  # other work may share the machine
@given(st.lists(lines(), min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_a_return_with_another_cksum_for_an_old_version_is_always_held(several, rnd):
    data = [write({**fields, "vers": f"1.{n}.0"}) for n, fields in enumerate(several)]
    number = rnd.randrange(len(several))
    stones = {f"1.{number}.0": frozenset(["f" * 64])}
    with pytest.raises(ReturnedError):
        audit_return(parse_index_file(DEMO, b"\n".join(data), LIMITS), 2e9, stones)
