import asyncio
import json
import threading

import pytest

from mirror.core.times import rfc3339
from mirror.seam import Want, WantAnswer
from mirror.serve.api import Api
from mirror.serve.clients import Clients
from mirror.serve.files import Files
from mirror.serve.site import Site
from mirror.serve.want import Wants
from mirror.store.publication import Publications
from tests.fakes.sync import NOW, FakeSync, client_of
from tests.fakes.www import COMPLETE, LISTED, FakeWww, index_line


@pytest.fixture
def www(tmp_path):
    www = FakeWww(tmp_path / "www", trial=True)
    lines = index_line("Serde", "1.0.0", b"crate"), index_line("Serde", "1.1.0", yanked=True)
    www.put_index("serde", *lines)
    www.put_crate("Serde", "1.0.0", b"crate")
    www.publish()
    return www


def ask(www, path, *, method="GET", content=None, answer=None, **settings):
    """One request; with `answer`, a sync is there that gives it. Returns (answer, wants)."""

    async def run():
        _, client = client_of(www.root.parent, **settings)
        async with client:
            if answer is None:
                return await client.request(method, path, content=content), []
            async with FakeSync(www.root.parent / "run", answer).open() as sync:
                return await client.request(method, path, content=content), sync.asked()

    return asyncio.run(run())


def want(www, names, **more):
    content = names if isinstance(names, bytes) else json.dumps({"names": names}).encode()
    return ask(www, "/api/v1/want", method="POST", content=content, **more)


def test_status_carries_the_heartbeat_and_what_is_published(www):
    quarantined = [{"name": "evil", "rule": "r", "reason": "x", "since": None, "first_sight": True}]
    denied = [{"name": "left-pad", "version": "1.0.0", "reason": "y", "since": None}]
    beat = {"format": 1, "at": "2026-11-21T10:00:00Z", "held": {"index": 1, "crates": 7}}
    www.put_status(
        **beat, timestamp=0, quarantined=quarantined, denied=denied, expires={"bins": "2027-01-01"}
    )
    status = ask(www, "/api/v1/status")[0].json()
    assert (status["timestamp"], status["held"]) == (1, {"index": 1, "crates": 7})
    assert (status["mode"], status["trial"], status["ready"]) == ("cache", True, True)
    assert status["quarantined"] == [{**quarantined[0], "kind": "quarantine"}]
    assert status["denied"] == [{**denied[0], "rule": "?"}]
    assert status["expires"]["bins"] == "2027-01-01"
    assert status["expires"]["root"] == "2099-01-01T00:00:00Z"
    assert str(www.root) not in json.dumps(status)


@pytest.mark.parametrize("beat", [b"", b"[]", b"{", b'{"quarantined":7,"expires":[],"held":null}'])
def test_status_does_without_a_good_heartbeat(www, beat):
    www.write("status.json", beat)
    answer, _ = ask(www, "/api/v1/status")
    assert (answer.status_code, answer.json()["quarantined"]) == (200, [])
    assert ask(www, "/")[0].status_code == 200


def test_status_says_from_when_to_sign_anew_and_a_warning_leaves_the_server_ready(www):
    (www.root / "tuf/metadata/1.root.json").unlink()
    www.expires = rfc3339(NOW + 20 * 86400 + 60)
    www.publish()
    beat = {"expires": {"bins": "2099-01-01T00:00:00Z"}, "warnings": [{"text": "all is well"}]}
    www.put_status(**beat)
    status = ask(www, "/api/v1/status")[0].json()
    assert set(status["renew_from"]) == set(status["expires"])
    late = {each["role"]: each for each in status["warnings"]}
    assert set(late) == {"root", "targets", "crates"}  # the others live shorter anyway
    assert late["root"]["text"].startswith("root expires in 20 days")
    assert (late["root"]["state"], late["root"]["days_left"]) == ("late", 20)
    assert (status["ready"], ask(www, "/readyz")[0].status_code) == (True, 200)


def test_a_crate_says_which_versions_are_published_and_which_files_are_held(www):
    fields = ask(www, "/api/v1/crates/SERDE")[0].json()
    assert (fields["name"], fields["timestamp"], fields["withheld"]) == ("Serde", 1, [])
    shown = [(v["version"], v["yanked"], v["held"]) for v in fields["versions"]]
    assert shown == [("1.0.0", False, True), ("1.1.0", True, False)]


def test_look_ups_stay_on_the_loop_and_reading_does_not(www):
    """The caches of a publication are one thread's; two at once lose their places in it."""
    threads = {"target": set(), "read": set()}

    class Watched:
        def __init__(self, publication):
            self._publication = publication

        def target(self, path):
            threads["target"].add(threading.get_ident())
            return self._publication.target(path)

        def __getattr__(self, name):
            return getattr(self._publication, name)

    class WatchedPublications(Publications):
        def current(self):
            return Watched(super().current())

    class WatchedFiles(Files):
        def read(self, path):
            threads["read"].add(threading.get_ident())
            return super().read(path)

    site = Site(www.root, WatchedPublications(www.root), WatchedFiles(www.root))
    wants = Wants(www.root.parent / "sync.sock", 1.0, lambda: 0.0)
    api = Api(site, wants, Clients(()), "http://mirror", lambda: 0.0)
    answer = asyncio.run(api.crate("serde"))
    assert answer.status_code == 200
    assert threads["target"] == {threading.get_ident()}
    assert threading.get_ident() not in threads["read"]


@pytest.mark.parametrize(
    ("path", "status"),
    [("crates/tokio", 404), ("crates/../x", 404), ("crates/1x", 400), ("nothing", 404)],
)
def test_errors_have_the_form_that_cargo_reads(www, path, status):
    answer, _ = ask(www, f"/api/v1/{path}")
    assert answer.status_code == status
    assert answer.json()["errors"][0]["detail"]


def test_a_withheld_crate_is_403_with_its_reason(www):
    www.put_note("evil", reason="line 7")
    www.publish()
    answer, _ = ask(www, "/api/v1/crates/evil")
    assert (answer.status_code, "line 7" in answer.json()["errors"][0]["detail"]) == (403, True)


def test_a_crate_shows_which_versions_are_withheld_and_why(www):
    www.put_note("serde", kind="deny", rule="operator", reason="it bites", versions=["1.0.0"])
    www.publish()
    fields = ask(www, "/api/v1/crates/serde")[0].json()
    (entry,) = fields["withheld"]
    assert (entry["kind"], entry["reason"], entry["versions"]) == ("deny", "it bites", ["1.0.0"])
    denied, other = fields["versions"]
    assert "denied by the operator of this mirror: it bites" in denied["withheld"]
    assert other["withheld"] is None


@pytest.mark.parametrize("kind", ["quarantine", "hold"])
def test_a_crate_whose_last_good_version_is_published_shows_what_is_quarantined(www, kind):
    finding = {"name": "serde", "rule": "line-changed", "reason": "line 1", "since": "2026-11-21"}
    www.put_status(quarantined=[{**finding, "kind": kind}, {**finding, "name": "tokio"}, 7])
    fields = ask(www, "/api/v1/crates/Serde")[0].json()
    (entry,) = fields["withheld"]
    more = {"kind": kind, "until": None, "versions": None}
    assert entry == {key: finding[key] for key in ("rule", "reason", "since")} | more
    assert [version["withheld"] for version in fields["versions"]] == [None, None]
    www.put_note("serde", kind=kind, rule="line-changed", reason="line 1")
    www.publish()
    assert len(ask(www, "/api/v1/crates/serde")[0].json()["withheld"]) == 1


def test_of_what_is_on_no_list_nobody_is_told_that_asking_fetches_it(www):
    www.state = {**LISTED, "complete_as_of": None}
    www.publish()
    answer, _ = ask(www, "/api/v1/crates/tokio")
    detail = answer.json()["errors"][0]["detail"]
    assert (answer.status_code, "is on no list of it" in detail) == (404, True)
    assert "fetches it" not in detail


def test_before_the_first_publication_the_api_says_so(tmp_path):
    empty = FakeWww(tmp_path / "www")
    for path in ("status", "crates/serde"):
        answer, _ = ask(empty, f"/api/v1/{path}")
        assert answer.status_code == 503
        assert str(tmp_path) not in answer.text
    assert ask(empty, "/")[0].status_code == 503
    assert ask(empty, "/healthz")[0].status_code == 200
    assert ask(empty, "/readyz")[0].status_code == 503


def test_no_page_of_the_framework_is_there(www):
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert ask(www, path)[0].status_code == 404


# ---- want


def test_wanted_names_are_fetched_in_one_question(www):
    def answer(question):
        if question.seen:  # a hint: serde is held
            return WantAnswer()
        www.put_index("tokio", index_line("tokio", "1.0.0"))
        return WantAnswer(www.publish(), ("nope",), {"evil": "bad \x07 line"}, {"slow": "500"})

    names = ["Tokio", "serde", "nope", "evil", "slow", "tokio"]
    reply, wants = want(www, names, answer=answer)
    assert wants == [Want(names=("tokio", "nope", "evil", "slow"), client="127.0.0.1")]
    assert reply.json() == {
        "timestamp": 2,
        "absent": ["nope"],
        "refused": {"evil": "bad ? line"},
        "pending": ["slow"],
        "over_budget": [],
    }


def test_what_is_held_withheld_or_proved_absent_needs_no_sync(www):
    www.state = COMPLETE
    www.put_note("evil")
    www.publish()
    reply, _ = want(www, ["serde", "tokio", "evil"])
    assert (reply.status_code, reply.json()["absent"]) == (200, ["tokio"])
    assert (list(reply.json()["refused"]), reply.json()["pending"]) == (["evil"], [])


def test_who_is_over_budget_for_every_name_gets_429(www):
    spent = WantAnswer(over_budget=("tokio", "rand"))
    reply, _ = want(www, ["tokio", "rand", "serde"], answer=lambda _: spent)
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "5")
    assert "too many crates" in reply.json()["errors"][0]["detail"]


def test_who_is_over_budget_for_some_names_gets_the_others_and_is_told_which(www):
    def answer(question):
        www.put_index("tokio", index_line("tokio", "1.0.0"))
        return WantAnswer(www.publish(), over_budget=("rand",))

    reply, _ = want(www, ["tokio", "rand"], answer=answer)
    assert reply.status_code == 200
    assert (reply.json()["pending"], reply.json()["over_budget"]) == (["rand"], ["rand"])
    assert reply.json()["refused"] == {}


def test_without_sync_a_want_is_503(www):
    reply, _ = want(www, ["tokio"])
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")
    assert "not running" in reply.json()["errors"][0]["detail"]


def test_what_takes_longer_than_max_hold_is_pending(www):
    async def run():
        async with FakeSync(www.root.parent / "run").open() as sync:
            sync.hold.clear()
            _, client = client_of(www.root.parent, max_hold=0.1)
            async with client:
                return await client.post("/api/v1/want", content=b'{"names":["tokio"]}')

    assert asyncio.run(run()).json()["pending"] == ["tokio"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"\xff", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"names":"serde"}', 400),
        (b'{"names":[1]}', 400),
        (b'{"names":["../etc"]}', 400),
        (b"[" * 50_000, 400),
        (json.dumps({"names": [f"a{n}" for n in range(2_001)]}).encode(), 400),
        (b" " * 300_000, 413),
    ],
)
def test_a_body_that_is_no_want_is_refused(www, body, status):
    reply, _ = want(www, body)
    assert reply.status_code == status
    assert reply.json()["errors"][0]["detail"]


def test_only_post_wants(www):
    assert ask(www, "/api/v1/want")[0].status_code == 405


# ---- readiness


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "root"])
def test_with_expired_metadata_the_server_is_alive_and_not_ready(www, role):
    path = f"tuf/metadata/{'' if role == 'timestamp' else '1.'}{role}.json"
    document = json.loads((www.root / path).read_bytes())
    document["signed"]["expires"] = "2026-12-31T00:00:00Z"
    www.write(path, json.dumps(document).encode())
    answer, _ = ask(www, "/readyz")
    assert (answer.status_code, f"the {role} metadata expired" in answer.text) == (503, True)
    assert ask(www, "/healthz")[0].status_code == 200
    assert ask(www, "/index/se/rd/serde")[0].status_code == 200


def test_with_fresh_metadata_the_server_is_ready(www):
    assert ask(www, "/readyz")[0].status_code == 200
