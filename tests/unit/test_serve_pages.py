import asyncio
import base64
import hashlib
import re

import pytest

from mirror.core.times import rfc3339
from tests.fakes.sync import NOW, client_of
from tests.fakes.www import COMPLETE, FakeWww, index_line

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


@pytest.fixture
def www(tmp_path):
    www = FakeWww(tmp_path / "www", trial=True)
    www.put_index("serde", index_line("serde", "1.0.0"))
    www.publish()
    return www


def front(www, **settings):
    async def run():
        _, client = client_of(www.root.parent, **settings)
        async with client:
            return await client.get("/")

    return asyncio.run(run())


def test_the_page_has_what_a_person_needs_to_begin(www):
    page = front(www, public_url="https://crates.example.org").text
    assert 'registry = "sparse+https://crates.example.org/index/"' in page.replace("&#34;", '"')
    assert "replace-with" in page
    fingerprint = hashlib.sha256((www.root / "tuf/metadata/1.root.json").read_bytes()).hexdigest()
    assert fingerprint in page
    assert "trial repository" in page


def test_the_page_says_what_is_quarantined_and_why(www):
    item = {"name": "left-pad", "rule": "cksum-changed", "reason": "line 3 changed"}
    www.put_status(quarantined=[{**item, "since": "2026-11-21T08:00:00Z", "first_sight": True}])
    page = front(www).text
    assert all(text in page for text in item.values())
    assert "nothing of it is served" in page


def test_the_page_says_what_is_held_back_and_what_is_denied(www):
    held = {"name": "revenant", "kind": "hold", "rule": "returned", "reason": "another owner"}
    denied = [
        {"name": "left-pad", "version": None, "reason": "it left", "since": "2026-11-21T08:00:00Z"},
        {"name": "serde", "version": "1.0.99", "reason": "it bites", "since": None},
    ]
    www.put_status(quarantined=[held], denied=denied)
    page = front(www).text
    quarantined, _, rest = page.partition("Held until the operator accepts it: 1")
    assert "revenant" not in quarantined
    for words in ("another owner", "Denied by the operator: 2", "it left", "serde 1.0.99"):
        assert words in rest


def test_everything_on_the_page_is_escaped(www):
    www.state = {**COMPLETE, "upstream": EVIL, "mode": EVIL, "signed_at": EVIL}
    www.publish()
    item = dict.fromkeys(("name", "rule", "reason", "since", "first_sight"), EVIL)
    www.put_status(quarantined=[item], denied=[item], trouble=EVIL, expires={"bins": EVIL})
    page = front(www)
    assert page.status_code == 200
    for tag in ("<script", "<img"):
        assert tag not in page.text
    assert "&lt;script&gt;" in page.text


def test_nothing_from_elsewhere_is_loaded_and_no_script_runs(www):
    answer = front(www)
    policy = answer.headers["content-security-policy"]
    style = re.search("<style>(.*)</style>", answer.text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert "unsafe" not in policy
    assert not re.search(r"\ssrc=|<link|<script|@import|url\(|style=", answer.text)


@pytest.mark.parametrize("quarantined", [["x"], [{}], {}, None, [{"name": None}]])
def test_a_strange_heartbeat_does_not_break_the_page(www, quarantined):
    www.put_status(quarantined=quarantined, denied=quarantined, held=7, expires=None)
    assert front(www).status_code == 200


@pytest.mark.parametrize(
    ("days", "warning", "row"),
    [
        (89, "root expires in 89 days", "to be signed anew now"),
        (9, "root expires in 9 days", "to be signed anew now"),
        (91, None, "to be signed anew from"),
    ],
)
def test_a_signature_near_its_end_is_told_in_days(www, days, warning, row):
    # Of all roles alike: the fake has one time of expiry.
    www.expires = rfc3339(NOW + days * 86400 + 60)
    www.publish()
    (www.root / "tuf/metadata/1.root.json").unlink()
    www.publish()
    page = front(www).text
    assert ("Signatures near their end" in page) == (warning is not None)
    assert (warning or row) in page
    assert row in page
    assert "Needs attention" not in page


def test_trouble_is_at_the_top(www):
    www.put_status(trouble="disk full: tried again in 8 s")
    page = front(www).text
    assert page.index("disk full") < page.index("Use it from cargo")


def test_without_a_publication_the_page_says_so(tmp_path):
    answer = front(FakeWww(tmp_path / "www"))
    assert answer.status_code == 503
    assert "No publication can be read" in answer.text
    assert str(tmp_path) not in answer.text
