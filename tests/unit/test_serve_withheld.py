"""What the operator denies, and what audit or policy holds back."""

import asyncio
import json

import pytest

from mirror.seam import Want
from mirror.store.publication import Publications
from tests.fakes.sync import FakeSync, client_of
from tests.support.serving import CRATE, CRATE_PATH, PATH, ask, publishing, serde_www, with_sync


@pytest.fixture
def www(tmp_path):
    return serde_www(tmp_path)


def test_what_is_withheld_is_403_with_the_notes_reason(www):
    www.put_note("evil", reason="<b>line 7</b> is no JSON")
    www.publish()

    async def run():
        async with FakeSync(www.root.parent / "run").open() as sync:
            _, client = client_of(www.root.parent)
            async with client:
                paths = "/index/ev/il/evil", "/crates/evil/evil-1.0.0.crate"
                answers = [await client.get(path) for path in paths]
            await sync.told(1)
            return answers, sync.wants

    answers, wants = asyncio.run(run())
    for answer in answers:
        assert answer.status_code == 403
        assert "is quarantined by this mirror (rule malformed-index): <b>line 7</b>" in answer.text
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert wants == [Want(seen=("evil",))]


def test_a_crate_with_a_note_and_an_index_file_is_served(www):
    www.put_note("serde")
    www.publish()
    assert ask(www, PATH).status_code == 200


@pytest.mark.parametrize("data", [b"", b"[" * 50_000, b"[]", b"7", b'{"entries": 7}', b"\xff"])
def test_a_note_without_a_readable_reason_still_withholds(www, data):
    for name in ("evil", "serde"):
        www.put_raw_note(name, data)
    www.publish()
    assert ask(www, "/index/ev/il/evil").status_code == 403
    assert ask(www, CRATE_PATH).status_code == 403


@pytest.mark.parametrize("item", [{}, {"kind": 7}, {"kind": "x", "reason": [], "until": 3}])
def test_an_entry_of_any_shape_still_withholds(www, item):
    www.put_raw_note("evil", json.dumps({"entries": [item]}).encode())
    www.publish()
    assert ask(www, "/index/ev/il/evil").status_code == 403


def test_a_denied_version_is_403_with_the_reason_though_its_file_lies_there(www):
    www.put_note("serde", kind="deny", rule="operator", reason="it bites", versions=["1.0.0"])
    www.put_crate("serde", "1.1.0+meta", CRATE)
    www.publish()
    assert (www.root / CRATE_PATH[1:]).exists()
    answer = ask(www, CRATE_PATH)
    assert answer.status_code == 403
    assert answer.text == "serde 1.0.0 is denied by the operator of this mirror: it bites\n"
    assert ask(www, PATH).status_code == 200
    assert ask(www, "/crates/serde/serde-1.1.0+meta.crate").content == CRATE


def test_a_denied_version_that_is_not_held_is_403_and_nobody_fetches_it(www):
    www.put_note("serde", kind="deny", versions=["1.1.0+meta"])
    www.publish()
    path = "/crates/serde/serde-1.1.0+meta.crate"
    answers, sync = with_sync(www, publishing(www), path)
    assert (answers[0].status_code, sync.asked()) == (403, [])


def test_of_a_denied_crate_nothing_is_served(www):
    www.drop("index/se/rd/serde")
    www.put_note("serde", kind="deny", reason="typosquat")
    www.publish()
    for path in (PATH, CRATE_PATH, "/crates/serde/serde-9.9.9.crate"):
        answer = ask(www, path)
        assert answer.status_code == 403
        assert "denied by the operator of this mirror: typosquat" in answer.text


def test_a_denied_crate_is_refused_even_where_its_index_file_is_still_signed(www):
    www.put_note("serde", kind="deny")
    www.publish()
    assert ask(www, CRATE_PATH).status_code == 403


def test_a_denial_counts_from_the_next_publication_on_and_so_does_its_end(www):
    www.put_note("evil")  # so that notes are looked for all the while
    www.publish()

    async def run():
        _, client = client_of(www.root.parent)
        async with client:
            yield (await client.get(CRATE_PATH)).status_code
            www.put_note("serde", kind="deny", versions=["1.0.0"])
            www.publish()
            yield (await client.get(CRATE_PATH)).status_code
            www.drop("withheld/se/rd/serde")
            www.publish()
            yield (await client.get(CRATE_PATH)).status_code

    async def collect():
        return [status async for status in run()]

    assert asyncio.run(collect()) == [200, 403, 200]


def test_a_note_whose_file_is_missing_is_503_and_never_the_crate(www):
    www.put_note("serde", kind="deny", versions=["1.0.0"])
    www.publish()
    for file in www.root.glob("tuf/targets/withheld/**/*.serde*"):
        file.unlink()
    answer = ask(www, CRATE_PATH)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_where_the_state_counts_no_notes_none_is_looked_for(www):
    publication = Publications(www.root).current()
    assert not publication.withholds
    www.put_note("evil")
    www.publish()
    assert Publications(www.root).current().withholds


@pytest.mark.parametrize("state", [{}, {"held": None}, {"held": {}}, {"held": {"withheld": "0"}}])
def test_a_state_that_does_not_count_notes_lets_them_be_looked_for(www, state):
    path = "tuf/metadata/timestamp.json"
    document = json.loads((www.root / path).read_bytes())
    document["signed"]["x-crateseal"] = state
    www.write(path, json.dumps(document).encode())
    assert Publications(www.root).current().withholds


def test_a_held_crate_says_until_when(www):
    entry = {"kind": "hold", "rule": "returned", "reason": "it is back", "until": "2026-12-01"}
    www.put_raw_note("back", json.dumps({"entries": [entry]}).encode())
    www.publish()
    words = "crate back is held back by this mirror (rule returned), until 2026-12-01: it is back"
    assert words in ask(www, "/index/ba/ck/back").text


def test_a_reason_cannot_play_with_a_terminal(www):
    www.put_note("evil", kind="deny", reason="\x1b]0;owned\x07 \u202egnp")
    www.publish()
    answer = ask(www, "/index/ev/il/evil")
    assert not set("\x1b\x07\u202e") & set(answer.text)
