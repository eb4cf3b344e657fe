"""Every command of the two runbooks, typed as it stands there, on real terminals."""

import itertools
from pathlib import Path

import pytest

from tests.support.processes import wait_until
from tests.support.runbook import Stage, commands, stop
from tuf_repo.cli import COMMANDS

DEPLOY = Path(__file__).parents[2] / "deploy"
CEREMONY = commands((DEPLOY / "ceremony.md").read_text(encoding="utf-8"))
KEYS = commands((DEPLOY / "keys.md").read_text(encoding="utf-8"))


def published(home):
    return (home / "crateseal-data" / "www" / "tuf" / "metadata" / "timestamp.json").exists()


def waiting(home):
    """What a ceremony left, and the signer has not taken yet."""
    folder = home / "crateseal-data" / "ceremony"
    return [path.name for path in folder.glob("*.json")] if folder.exists() else []


def start_signer(stage, who):
    signer = stage.start(who, "crateseal", "sign")
    wait_until(lambda: published(stage.home(who)) or signer.poll() is not None, 60)
    assert signer.poll() is None, (stage.home(who) / "log").read_text()
    return signer


def taken(stage, who, signer):
    wait_until(lambda: not waiting(stage.home(who)) or signer.poll() is not None, 60)
    assert not waiting(stage.home(who)), (stage.home(who) / "log").read_text()


def at_once(typed):
    """Group what people type at the same time: neighbouring signatures."""
    groups = itertools.groupby(typed, lambda pair: pair[1].startswith("tuf-repo sign "))
    for is_signing, group in groups:
        if is_signing:
            yield list(group)
        else:
            yield from ([pair] for pair in group)


@pytest.mark.timeout(300)
def test_the_runbooks_can_be_followed_to_the_letter(tmp_path):
    stage, signers = Stage(tmp_path), {}
    try:
        for group in at_once([*CEREMONY, *KEYS]):
            who, command = group[0]
            if command == "crateseal up":
                # The signer is the part of it that a ceremony is about; it needs no port.
                signers[who] = start_signer(stage, who)
                taken(stage, who, signers[who])
                continue
            if command.startswith("mv crateseal-data/keys"):
                stop(signers.pop(who))  # "Stop the mirror", and after `finish`: "start it again".
            stage.run(*group)
            if command == "crateseal init --trial":
                signers[who] = start_signer(stage, who)
            if command.startswith("tuf-repo finish") and published(stage.home(who)):
                signers[who] = signers.get(who) or start_signer(stage, who)
                taken(stage, who, signers[who])
                stage.run((who, "tuf-repo check --data crateseal-data"))
        trial = stage.home("trial") / "crateseal-data"
        wait_until(lambda: not list(trial.glob("offline-keys/*")))
        assert not (trial / "keys" / "bins.pem").exists()
    finally:
        for signer in signers.values():
            stop(signer)


def test_every_command_there_is_stands_in_a_runbook():
    typed = " ".join(command for _, command in [*CEREMONY, *KEYS])
    for name in COMMANDS:
        if name not in {"key show", "merge"}:
            assert f"tuf-repo {name} " in typed, name
