"""`tuf-repo` where something is amiss: nothing is left over, and nothing plays with a terminal."""

import json
import os
import subprocess
import time

import pytest

from tests.fakes.people import Person, data_of
from tests.support.ceremony import TUF_REPO, environment
from tests.unit.test_tuf_cli import error_of, key_at, public_file, published
from tuf_repo import keyfiles
from tuf_repo.cli import main
from tuf_repo.core.words import spelled


@pytest.fixture
def repository(tmp_path):
    """A trial, published."""
    return published(tmp_path / "data", time.time())


def keys_of(repository):
    return sorted(os.listdir(data_of(repository).keys))


# --- keys


@pytest.mark.parametrize("name", ["", "D\x1b[2Jan", "a\nb", "\u202eneb", "x" * 61])
def test_a_name_that_nobody_could_be_shown_makes_no_key(tmp_path, capsys, name):
    assert main(["key", "new", str(tmp_path / "dan"), "--name", name]) == 2
    assert "expected 1 to 60 letters of one script" in error_of(capsys)
    assert os.listdir(tmp_path) == []


def test_who_makes_a_key_sees_its_whole_keyid(tmp_path, capsys):
    key_at(tmp_path / "ana")
    keyid = keyfiles.read_public(tmp_path / "ana.pub").keyid
    assert f"keyid {spelled(keyid)}" in capsys.readouterr().out
    assert spelled(keyid).replace(" ", "") == keyid


def test_a_key_can_be_dropped_as_it_is_shown_in_groups(tmp_path, repository, capsys):
    old = repository.open()._trust.root.roles["targets"].keyids[0]
    words = ["targets", "--drop", spelled(old)[:17], "--key", public_file(tmp_path, Person("new"))]
    out = ["--data", str(repository.base), "--out", str(tmp_path / "draft.json")]
    assert main(["rotate", *words, *out]) == 0
    assert f"goes  targets: key {spelled(old)}" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["rotate", "bins"], ["rotate", "bins", "snapshot"]])
def test_a_draft_that_cannot_be_written_leaves_no_key(tmp_path, repository, capsys, command):
    before = keys_of(repository)
    data = ["--data", str(repository.base)]
    for out in (tmp_path / "missing" / "draft.json", tmp_path / "data" / "keys" / "bins.pem" / "x"):
        assert main([*command, *data, "--out", str(out)]) == 2
        assert str(out.parent) in error_of(capsys)
    assert keys_of(repository) == before


def test_online_keys_that_lie_idle_are_listed(tmp_path, repository, capsys):
    data = ["--data", str(repository.base)]
    assert main(["status", *data]) == 0
    assert "every online key here is named" in capsys.readouterr().out
    before = keys_of(repository)
    drafts = [str(tmp_path / name) for name in ("draft.json", "forgotten.json")]
    made = []
    for draft in drafts:
        assert main(["rotate", "bins", *data, "--out", draft, "-q"]) == 0
        (new,) = set(keys_of(repository)) - {*before, *made}
        made.append(new)
    waiting, left = made
    assert main(["status", drafts[0], *data]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if waiting in line]
    assert line.endswith("this draft names it")
    (line,) = [line for line in lines if left in line]
    assert line.endswith("is left over: remove it where no draft names it")
    assert main(["status", *data, "--json"]) == 0
    idle = json.loads(capsys.readouterr().out)["idle_keys"]
    assert sorted(os.path.basename(path) for path in idle) == sorted(made)
    assert main(["status"]) == 2
    assert "a DRAFT, or --data DIR, is missing" in error_of(capsys)
    assert main(["status", "--data", str(tmp_path / "none")]) == 1
    assert "a published repository" in error_of(capsys)


def test_a_plain_file_that_replaces_a_key_of_a_service_is_said(tmp_path, repository, capsys):
    keys = data_of(repository).keys
    away = tmp_path / "token"
    os.rename(keys / "bins.pem", away)
    public = keyfiles.public_fields(keyfiles.load(away, None).public_key)
    reference = keys / "bins-token.json"
    reference.write_text(json.dumps({"uri": f"file:{away}", "public": public}))
    reference.chmod(0o600)
    words = ["--data", str(repository.base), "--out"]
    assert main(["rotate", "snapshot", *words, str(tmp_path / "snapshot.json")]) == 0
    assert "plain file" not in capsys.readouterr().out
    assert main(["rotate", "bins", *words, str(tmp_path / "bins.json")]) == 0
    assert f"bins: the key at file:{away} makes room for a plain file" in capsys.readouterr().out
    other = public_file(tmp_path, Person("of a token"))
    assert main(["rotate", "bins", "--key", other, *words, str(tmp_path / "other.json")]) == 0
    assert "plain file" not in capsys.readouterr().out


# --- what check says


def test_check_names_what_is_wrong(repository, capsys):
    assert main(["check", "--data", str(repository.base)]) == 0
    assert "sound, from the root down" in capsys.readouterr().out
    (repository.metadata / "1.targets.json").write_bytes(b"{}")
    assert main(["check", "--data", str(repository.base)]) == 1
    captured = capsys.readouterr()
    assert "1.targets.json: expected" in captured.out
    assert captured.err.splitlines()[-1].endswith("findings, above")


def test_a_finding_cannot_play_with_the_terminal(repository, capsys):
    (repository.metadata / "\x1b[31mred.json").touch()
    assert main(["check", "--data", str(repository.base)]) == 1
    out = capsys.readouterr().out
    assert "\\u001b[31mred.json: expected" in out
    assert "\x1b" not in out


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_that_are_no_text_are_spelled_out(tmp_path, repository, encoding):
    name = os.fsdecode(b"a\xffb\xc3\xa9")
    (repository.metadata / name).touch()
    process = subprocess.run(
        [*TUF_REPO, "check", "--data", repository.base],
        env={**environment(tmp_path), "PYTHONIOENCODING": f"{encoding}:strict"},
        capture_output=True,
        check=False,
    )
    assert process.returncode == 1, process.stderr
    assert process.stdout.startswith(b"a\\udcffb")
    assert b"1 findings, above" in process.stderr


def test_a_path_in_an_error_cannot_play_with_the_terminal(tmp_path, capsys):
    assert main(["status", str(tmp_path / "\x1b[2J\udcff")]) == 2
    assert "\\u001b[2J\\udcff: No such file" in error_of(capsys)
