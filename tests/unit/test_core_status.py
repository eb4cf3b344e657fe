"""What a mirror says of itself, merged from what is signed and what is not."""

from dataclasses import dataclass, field

from mirror.core.status import merge

NOW = 1_800_000_000.0


@dataclass(frozen=True)
class Published:
    timestamp_version: int = 7
    root_version: int = 2
    trial: bool = False
    state: dict = field(default_factory=dict)
    expires: dict = field(default_factory=dict)


def test_what_is_signed_counts_over_the_heartbeat():
    signed = {"mode": "index", "upstream": "u", "held": {"index": 5, "withheld": 1}}
    published = Published(state=signed, expires={"timestamp": 1_800_000_000.0})
    beat = {
        "mode": "cache",
        "upstream": "evil",
        "signed_at": "2026-11-21T10:00:00Z",
        "timestamp": 9,
        "trial": True,
        "root_sha256": "0",
        "root_version": 1,
        "expires": {"timestamp": "2099-01-01T00:00:00Z", "bins": "2027-03-01T00:00:00Z"},
    }
    fields = merge(published, ("1.root.json", "ab"), beat, NOW)
    assert (fields["mode"], fields["upstream"], fields["signed_at"]) == ("index", "u", None)
    assert (fields["timestamp"], fields["root_version"], fields["trial"]) == (7, 2, False)
    assert fields["root_sha256"] == "ab"
    assert fields["expires"] == {
        "timestamp": "2027-01-15T08:00:00Z",
        "bins": "2027-03-01T00:00:00Z",
    }


def test_the_heartbeat_adds_what_no_metadata_says():
    item = {"name": "evil", "rule": "r", "reason": "x"}
    beat = {"at": "t", "held": {"index": 6, "crates": 3}, "quarantined": [item], "trouble": "full"}
    fields = merge(Published(state={"held": {"index": 5}}), ("1.root.json", "ab"), beat, NOW)
    assert (fields["at"], fields["trouble"], fields["quarantined"]) == ("t", "full", [item])
    assert fields["held"] == {"index": 5, "crates": 3}


def test_without_a_heartbeat_every_field_is_there():
    fields = merge(Published(), ("1.root.json", "ab"), {}, NOW)
    assert (fields["at"], fields["trouble"], fields["public_url"]) == (None, None, None)
    assert (fields["quarantined"], fields["denied"], fields["expires"]) == ([], [], {})
    assert fields["held"] == {"index": None, "crates": None}


def test_maps_that_are_none_count_as_empty():
    fields = merge(
        Published(state={"held": 7}), ("1.root.json", "ab"), {"held": [1], "expires": "soon"}, NOW
    )
    assert (fields["held"], fields["expires"]) == ({"index": None, "crates": None}, {})
