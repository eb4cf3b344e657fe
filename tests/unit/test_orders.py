"""deny, allow, accept: what an operator's word does, at once and for good."""

import hashlib
import json

import pytest

from mirror.core.layout import note_path, target_path
from mirror.core.names import CrateName
from mirror.seam import Order, Verb
from mirror.sign.orders import obey, obey_again
from mirror.sign.state import EXTRA
from mirror.store.memory import Decided, pack
from tests.support.crates import crate_bytes, index_file
from tests.support.crates import index_line as line_of
from tests.support.signing import at_work
from tests.support.tar import Entry

DEMO = CrateName("demo")
LINK = target_path(DEMO)
FILE = index_file("demo", "1.0.0", "1.1.0")


def index_line(*args):
    return line_of(*args) + b"\n"


@pytest.fixture
def bench(tmp_path):
    with at_work(tmp_path / "data") as bench:
        crates = {("demo", v): crate_bytes("demo", v) for v in ("1.0.0", "1.1.0")}
        bench.settle({"demo": FILE, "other": index_file("other", "1.0.0")}, crates)
        yield bench


def order(bench, verb, version=None, reason="it steals keys", name=DEMO):
    bench.now += 1
    done = obey(bench.parts, bench.signer, Order(verb, name, version, reason), now=bench.now)
    assert bench.findings() == []
    return done


def files_about(bench, name):
    return [file for file in bench.parts.www.files() if f"/{name}" in file or f".{name}" in file]


def note_of(bench, name=DEMO):
    target = bench.parts.publisher.lookup(note_path(name))
    return target and json.loads(bench.parts.www.read_target(note_path(name), target.sha256))


def test_a_denied_crate_leaves_no_byte_of_it_under_the_web_root(bench):
    bench.settle({"demo": FILE + index_line("demo", "1.2.0")})  # a kept publication names the old
    done = order(bench, Verb.DENY)
    assert done.exit_code == 0, done.text
    assert all("withheld" in file for file in files_about(bench, "demo"))
    assert not bench.www("crates/demo/demo-1.0.0.crate").exists()
    (entry,) = note_of(bench)["entries"]
    assert (entry["kind"], entry["reason"], entry["versions"]) == ("deny", "it steals keys", None)
    assert bench.www("index/ot/he/other").exists()


def test_a_denied_version_stays_in_the_index_file_yanked_and_nothing_else_changes(bench):
    order(bench, Verb.DENY, "1.0.0")
    first, second = FILE.splitlines()
    expected = first.replace(b'"yanked":false', b'"yanked":true') + b"\n" + second + b"\n"
    assert bench.www(LINK).read_bytes() == expected
    assert not bench.www("crates/demo/demo-1.0.0.crate").exists()
    assert bench.www("crates/demo/demo-1.1.0.crate").exists()
    (entry,) = note_of(bench)["entries"]
    assert entry["versions"] == ["1.0.0"]


def test_a_denied_version_is_not_taken_in_again(bench):
    order(bench, Verb.DENY, "1.0.0")
    crates = {("demo", "1.0.0"): crate_bytes("demo", "1.0.0")}
    assert "it steals keys" in bench.settle(crates=crates)["demo 1.0.0"]
    assert not bench.www("crates/demo/demo-1.0.0.crate").exists()
    assert bench.parts.ledger.quarantined() == []


def test_the_audit_goes_on_comparing_upstream_with_upstream(bench):
    order(bench, Verb.DENY, "1.0.0")
    newer = FILE + index_line("demo", "1.2.0")
    assert bench.settle({"demo": newer}) == {}
    assert b"1.2.0" in bench.www(LINK).read_bytes()
    assert b'"yanked":true' in bench.www(LINK).read_bytes()
    attack = newer.replace(newer.splitlines()[2][-70:-10], b"")
    assert bench.settle({"demo": attack})
    # Refused bytes are never what the next ones are compared with.
    assert bench.settle({"demo": attack})


def test_what_a_denied_crate_does_upstream_is_known_when_it_is_allowed_again(bench):
    order(bench, Verb.DENY)
    newer = FILE + index_line("demo", "1.2.0")
    assert bench.settle({"demo": newer}) == {}
    assert bench.settle({"demo": index_line("demo", "1.0.0", "6" * 64)})
    assert not bench.www(LINK).exists()
    done = order(bench, Verb.ALLOW)
    assert done.exit_code == 0, done.text
    assert bench.www(LINK).read_bytes() == newer
    assert note_of(bench) is None


def test_a_crate_may_be_denied_before_anybody_asked_for_it(bench):
    order(bench, Verb.DENY, name=CrateName("evil"))
    assert note_of(bench, CrateName("evil"))
    assert bench.settle({"evil": index_file("evil", "1.0.0")}) == {}
    assert bench.parts.publisher.lookup("index/ev/il/evil") is None
    order(bench, Verb.ALLOW, name=CrateName("evil"))
    assert bench.www("index/ev/il/evil").exists()


def test_a_denial_comes_into_force_though_the_machine_dies_before_it_is_published(bench):
    decided = Order(Verb.DENY, DEMO, None, "it steals keys")
    commit = bench.parts.publisher.commit

    class Died(BaseException):
        pass

    def die(_staged):
        raise Died

    bench.parts.publisher.commit = die
    with pytest.raises(Died):
        obey(bench.parts, bench.signer, decided, now=bench.now)
    bench.parts.publisher.commit = commit
    bench.parts.ledger.close()
    bench.now += 100
    bench.open()
    assert not bench.www(LINK).exists()
    assert not bench.www("crates/demo/demo-1.0.0.crate").exists()
    assert note_of(bench)
    assert bench.findings() == []


def test_a_denied_file_that_a_backup_brings_back_goes_again_at_the_next_start(bench):
    order(bench, Verb.DENY)
    bench.parts.ledger.close()  # no good end: everything is compared
    file = bench.www("crates/demo/demo-1.0.0.crate")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(crate_bytes("demo", "1.0.0"))
    assert any("extra" in found.problem for found in bench.findings())
    bench.now += 100
    bench.open()
    assert not file.exists()


def test_to_do_everything_again_changes_nothing(bench):
    order(bench, Verb.DENY, "1.0.0")
    before = bench.parts.publisher.timestamp_version
    obey_again(bench.parts, bench.signer, now=bench.now + 1)
    assert bench.parts.publisher.timestamp_version == before


def test_the_policy_that_is_signed_changes_with_each_decision(bench):
    seen = {bench.parts.publisher.extra[EXTRA]["policy"]}
    order(bench, Verb.DENY, "1.0.0")
    seen.add(bench.parts.publisher.extra[EXTRA]["policy"])
    order(bench, Verb.DENY)
    seen.add(bench.parts.publisher.extra[EXTRA]["policy"])
    assert len(seen) == 3


def test_accept_lets_through_what_was_refused_and_nothing_that_came_later(bench):
    changed = index_line("demo", "1.0.0", "6" * 64) + FILE.splitlines()[1] + b"\n"
    assert bench.settle({"demo": changed})
    assert order(bench, Verb.ACCEPT).exit_code == 0
    assert bench.www(LINK).read_bytes() == changed
    # The crate that was held is not what the line says any more.
    assert not bench.www("crates/demo/demo-1.0.0.crate").exists()
    assert bench.www("crates/demo/demo-1.1.0.crate").exists()
    assert bench.settle({"demo": FILE})
    assert bench.settle({"demo": changed.replace(b"6" * 64, b"7" * 64)})


def test_a_version_whose_end_was_accepted_cannot_return_as_another(bench):
    assert bench.settle({"demo": FILE.splitlines()[1] + b"\n"})
    order(bench, Verb.ACCEPT)
    back = FILE.splitlines()[1] + b"\n" + index_line("demo", "1.0.0", "6" * 64)
    assert bench.settle({"demo": back})


@pytest.mark.parametrize(
    ("verb", "version", "words"),
    [
        (Verb.ALLOW, None, "not denied"),
        (Verb.ALLOW, "1.0.0", "not denied"),
        (Verb.ACCEPT, None, "not quarantined"),
        (Verb.ACCEPT, "1.0.0", "not quarantined"),
    ],
)
def test_an_order_about_nothing_says_so(bench, verb, version, words):
    before = bench.parts.publisher.timestamp_version
    done = order(bench, verb, version)
    assert (done.exit_code, words in done.text) == (2, True), done.text
    assert bench.parts.publisher.timestamp_version == before


@pytest.mark.parametrize("reason", ["", "   ", "\x1b[31m", "a\0b"])
def test_a_denial_needs_a_reason_that_can_be_shown(bench, reason):
    assert order(bench, Verb.DENY, reason=reason).exit_code == 2
    assert bench.www(LINK).exists()


def test_nobody_can_accept_what_is_no_index_file(bench):
    bench.settle({"bad": index_line("other", "1.0.0")})
    done = order(bench, Verb.ACCEPT, name=CrateName("bad"))
    assert done.exit_code == 2
    assert "only upstream can mend it" in done.text


def test_nobody_can_accept_bytes_that_the_index_line_does_not_name(bench):
    bench.settle(crates={("demo", "1.1.0"): crate_bytes("demo", "6.6.6")})
    done = order(bench, Verb.ACCEPT, "1.1.0")
    assert done.exit_code == 2
    assert "index line" in done.text


def test_a_lost_target_does_not_keep_a_crate_from_being_denied(bench):
    bench.www(LINK).write_bytes(b"damaged")  # a hard link: the target too
    bench.now += 1
    done = obey(bench.parts, bench.signer, Order(Verb.DENY, DEMO, None, "bad"), now=bench.now)
    assert done.exit_code == 0
    assert bench.findings() == []


def test_check_finds_what_is_published_against_a_decision(bench):
    order(bench, Verb.DENY, "1.0.0")
    memory = bench.parts.ledger.memory
    with bench.parts.ledger.transaction():
        memory.put_decision(Decided(DEMO, None, Verb.DENY, "bad", bench.now))
        memory.put_decision(Decided(DEMO, "1.1.0", Verb.DENY, "bad", bench.now))
        memory.put_decision(Decided(CrateName("other"), "1.0.0", Verb.DENY, "bad", bench.now))
    problems = {found.problem for found in bench.findings()}
    assert "published, though the operator denies it" in problems
    assert "demo 1.1.0 is denied, and not yanked" in problems
    assert "missing, though the operator denies it" in problems


def test_check_finds_a_line_that_upstream_never_gave(bench):
    order(bench, Verb.DENY, "1.0.0")
    number = bench.parts.publisher.timestamp_version
    other = pack(FILE.replace(b'"features":{}', b'"features":{"x":[]}'))
    with bench.parts.ledger.transaction():
        bench.parts.ledger.memory.put_records({DEMO: other}, number=number)
    assert [f.problem for f in bench.findings()] == ["demo 1.1.0: not the line upstream gave"]


def test_a_lost_record_can_be_mended_by_the_operator(bench):
    target = bench.parts.publisher.lookup(LINK)
    for end in ("", ".gz"):
        bench.www(f"tuf/targets/index/de/mo/{target.sha256}.demo{end}").write_bytes(b"damaged")
    newer = FILE + index_line("demo", "1.2.0")
    assert "our own disk" in bench.settle({"demo": newer})["demo"]
    done = obey(bench.parts, bench.signer, Order(Verb.ACCEPT, DEMO), now=bench.now)
    assert done.exit_code == 0, done.text
    assert bench.www(LINK).read_bytes() == newer


def test_a_damaged_file_whose_gz_is_whole_is_no_loss(bench):
    bench.www(LINK).write_bytes(b"damaged")
    assert bench.settle({"demo": FILE + index_line("demo", "1.2.0")}) == {}
    assert bench.settle({"demo": index_line("demo", "1.0.0", "6" * 64)})


def test_a_denial_ends_the_finding_of_its_crate(bench):
    bench.settle(crates={("demo", "1.1.0"): crate_bytes("demo", "6.6.6")})
    assert bench.parts.ledger.quarantined()
    order(bench, Verb.DENY, "1.1.0")
    assert bench.parts.ledger.quarantined() == []


def test_a_restart_leaves_kept_files_that_carry_the_denial(bench):
    order(bench, Verb.DENY, "1.0.0")
    kept = bench.parts.publisher.lookup(LINK).sha256
    bench.settle({"demo": FILE + index_line("demo", "1.2.0")})
    bench.close()
    bench.now += 100
    bench.open()
    assert bench.www(f"tuf/targets/index/de/mo/{kept}.demo").exists()
    assert bench.findings() == []


def test_a_crate_without_a_row_does_not_outlive_a_denial(bench):
    with bench.parts.ledger.transaction():
        bench.parts.ledger.drop_crate("crates/demo/demo-1.0.0.crate")
    bench.now += 1
    obey(bench.parts, bench.signer, Order(Verb.DENY, DEMO, "1.0.0", "bad"), now=bench.now)
    assert not bench.www("crates/demo/demo-1.0.0.crate").exists()


def test_what_is_accepted_changes_the_signed_policy(bench):
    crate = crate_bytes("demo", "1.2.0", entries=[Entry("other/Cargo.toml", b"")])
    line = index_line("demo", "1.2.0", hashlib.sha256(crate).hexdigest())
    bench.settle({"demo": FILE + line}, {("demo", "1.2.0"): crate})
    (finding,) = bench.parts.ledger.quarantined()
    assert (finding.subject, finding.rule) == ("demo 1.2.0", "archive")
    before = bench.parts.publisher.extra[EXTRA]["policy"]
    assert order(bench, Verb.ACCEPT, "1.2.0").exit_code == 0
    assert bench.parts.publisher.extra[EXTRA]["policy"] != before
    assert bench.settle(crates={("demo", "1.2.0"): crate}) == {}
    assert bench.findings() == []


def test_a_reason_is_as_long_as_can_be_shown_or_refused(bench):
    assert order(bench, Verb.DENY, reason="x" * 501).exit_code == 2
    assert order(bench, Verb.DENY, reason="x" * 500).exit_code == 0


def test_check_takes_lines_as_the_index_has_them(bench):
    crlf = FILE.replace(b"\n", b"\r\n")
    bench.settle({"crlf": crlf.replace(b'"demo"', b'"crlf"')})
    order(bench, Verb.DENY, "1.0.0", name=CrateName("crlf"))
