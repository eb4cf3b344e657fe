"""`tuf-repo`: one line for each error, the exit codes, the words of each command."""

import errno
import json
import os
import pty
import subprocess
import sys
import time

import pytest

from tests.fakes.people import OUTSIDE, People, Person, signed_by
from tests.fakes.tuf import NOW, Repository
from tests.support.ceremony import TUF_REPO, environment
from tuf_repo import drafting, drafts, errors, exits, keyfiles
from tuf_repo.cli import COMMANDS, main
from tuf_repo.core.words import NOTHING, spelled
from tuf_repo.exits import OUR_MISTAKE, exit_code_of, in_one_line
from tuf_repo.proposal import read_proposal


@pytest.fixture(scope="module")
def people():
    return People()


def secret(text):
    """A file descriptor that a passphrase can be read from."""
    reading, writing = os.pipe()
    os.write(writing, text.encode() + b"\n")
    os.close(writing)
    return str(reading)


def key_at(path, *more):
    assert main(["key", "new", str(path), "--passphrase-fd", secret("long enough"), *more]) == 0
    return path


def error_of(capsys):
    err = capsys.readouterr().err
    assert err.startswith("tuf-repo: "), err
    assert len(err.splitlines()) == 1, err
    return err


def public_file(folder, person):
    path = folder / f"{person.name.replace(' ', '-')}.pub"
    if not path.exists():
        keyfiles.write_public(path, person.signer.public_key, person.name)
    return str(path)


def online_file(folder, half):
    path = folder / "online.json"
    keys = {role: keyfiles.public_fields(key) for role, key in half.keys.items()}
    path.write_text(
        json.dumps(
            {
                "format": 1,
                "delegation": half.delegation,
                "paths": list(half.paths),
                "bin_bits": half.bits,
                "keys": keys,
            }
        )
    )
    return str(path)


# --- errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("x"), 2),
        (errors.EditError("a", "b", "c"), 2),
        (errors.CeremonyError("a", "b", "c"), 1),
        (errors.MetadataError("a", "b", "c"), 1),
        (errors.KeyFileError("a", "b", "c"), 5),
        (errors.ClockError("a", "b", "c"), 5),
        (errors.CounterError("a", "b", "c"), 5),
        (errors.StaleStateError("a", "b", "c"), 4),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/a"), 2),
        (OSError(errno.ENOSPC, "No space left on device", "/a"), 5),
        (PermissionError(errno.EACCES, "Permission denied", "/a"), 5),
        (OSError("odd"), 5),
        (TypeError("x"), OUR_MISTAKE),
    ],
)
def test_every_error_has_its_exit_code_and_one_line(error, code):
    assert exit_code_of(error) == code
    assert "\n" not in in_one_line(error)


def test_a_line_says_where_and_what_to_do():
    error = OSError(errno.ENOSPC, "No space left on device", "/a")
    assert (
        in_one_line(error) == "/a: No space left on device; make room on this disk and run it again"
    )
    assert "report it" in in_one_line(TypeError("x"))
    assert in_one_line(errors.CeremonyError("a\x1b[2K\nb", "c", "d")).startswith(
        "a\\u001b[2K\\u000ab"
    )
    assert exits.INTERRUPTED == 130


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no command given"),
        (["sing"], "did you mean `sign`?"),
        (["key"], "unknown command 'key'"),
        (["key", "old"], "unknown command 'key old'"),
        (["--data", "x"], "options follow the command"),
        (["sign"], "required: DRAFT, --key"),
        (["sign", "x", "--key", "k", "--keys", "y"], "unrecognized arguments: --keys"),
        (["resign", "--out", "x"], "one of the arguments --data --metadata is required"),
        (["finish", "x"], "one of the arguments --data --out is required"),
        (["finish", "x", "--data", "a", "--out", "b"], "not allowed with"),
        (["key", "new", "x", "--type", "rsa"], "invalid choice: 'rsa'"),
        (["init", "--key", "root=x", "--out", "y"], "--online FILE is missing"),
        (["status", "/missing/draft.json"], "/missing/draft.json: No such file"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(words, said, capsys):
    assert main(words) == 2
    err = capsys.readouterr().err
    assert said in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("tuf-repo: ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--key", "root"], "expected --key ROLE="),
        (["--key", "=x"], "expected --key ROLE="),
        (["--threshold", "root=many"], "expected a number, got 'many'"),
        (["--threshold", "root=²"], "expected a number"),
        (["--days", "bins=3"], "for an offline role"),
        (["--days", "root=0"], "a day or more"),
        (["--days", "rooot=3"], "no such role; did you mean root?"),
        (["--days", "Targets=3"], "no such role; did you mean targets?"),
        (["--days", "zzz=3"], "expected one of root, targets, crates"),
        (["--days", "root=3", "--days", "root=4"], "--days root=…: expected once, got it twice"),
        (["--threshold", "root=3", "--threshold", "root=1"], "expected once, got it twice"),
    ],
)
def test_a_word_of_the_wrong_form_is_exit_2(words, said, capsys, tmp_path, people):
    online = online_file(tmp_path, people.half())
    out = str(tmp_path / "draft.json")
    assert main(["init", "--online", online, *words, "--out", out]) == 2
    assert said in error_of(capsys)
    assert not os.path.exists(out)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: tuf-repo {name}")
    assert f"  tuf-repo {name} " in text


def test_a_traceback_is_shown_to_who_asks_twice(capsys, tmp_path):
    assert main(["status", str(tmp_path / "none"), "-vv"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("tuf-repo: ")


# --- keys


def test_a_new_key_is_encrypted_and_has_a_public_half(tmp_path, capsys):
    path = key_at(tmp_path / "ana", "--type", "ecdsa", "--name", "Ana")
    assert "keyid " in capsys.readouterr().out
    assert b"ENCRYPTED" in path.read_bytes()
    assert main(["key", "show", str(path), "--passphrase-fd", secret("long enough")]) == 0
    shown = json.loads(capsys.readouterr().out)
    public = json.loads((tmp_path / "ana.pub").read_text())
    assert public == {**shown, "name": "Ana"}
    assert main(["key", "new", str(path), "--passphrase-fd", secret("long enough")]) == 2
    assert "a file is there" in error_of(capsys)


def test_a_wrong_passphrase_is_exit_5_and_in_no_line(tmp_path, capsys):
    path = key_at(tmp_path / "ana", "-q")
    assert main(["key", "show", str(path), "--passphrase-fd", secret("other words")]) == 5
    said = error_of(capsys)
    assert "another one" in said
    assert "other words" not in said


# --- a ceremony in one process


def init_words(folder, people, *more):
    words = ["init", "--online", online_file(folder, people.half())]
    groups = {"root": people.root, "targets": people.targets, "crates": people.crates}
    for role, group in groups.items():
        for person in group:
            words += ["--key", f"{role}={public_file(folder, person)}"]
    return [*words, *more, "--out", str(folder / "draft.json")]


def test_init_says_who_becomes_what(tmp_path, people, capsys):
    assert main(init_words(tmp_path, people, "--threshold", "root=4", "--bin-bits", "10")) == 0
    out = capsys.readouterr().out
    assert "root: 4 of 5 must sign" in out
    assert "1024 bins" in out
    assert f'root: key {spelled(people.root[1].key.keyid)} ("root 1", ecdsa)' in out
    assert main(init_words(tmp_path, people)) == 2
    assert "a file is there" in error_of(capsys)


def test_how_long_a_role_lives_can_be_said(tmp_path, people):
    days = ["--days", "root=10", "--days", "targets=20", "--days", "crates=30", "-q"]
    assert main(init_words(tmp_path, people, *days)) == 0
    after = read_proposal(drafts.read(tmp_path / "draft.json")).after
    root = after["root"].expires
    assert [after[role].expires - root for role in ("targets", "crates")] == [864_000, 1_728_000]


def published(folder, now=NOW):
    """A trial, published in a folder."""
    repository = Repository(folder, now=now)
    repository.base.mkdir(parents=True, exist_ok=True)
    repository.init()
    return repository


def test_a_change_is_drafted_from_a_data_folder_or_its_metadata(tmp_path, people, capsys):
    repository = published(tmp_path / "data")
    new = Person("new")
    public = public_file(tmp_path, new)
    for number, source in enumerate(
        (["--data", str(repository.base)], ["--metadata", str(repository.metadata)])
    ):
        out = str(tmp_path / f"{number}.json")
        words = ["draft", *source, "--key", f"root={public}", "--out", out]
        assert main(words) == 0
        said = f'  new   root: key {spelled(new.key.keyid)} ("new", ed25519)'
        assert said in capsys.readouterr().out
    nothing = ["draft", "--data", str(repository.base), "--out", str(tmp_path / "n.json")]
    assert main(nothing) == 2
    assert "tuf-repo resign" in error_of(capsys)


def test_rotating_takes_a_key_with_or_without_its_role(tmp_path, people, capsys):
    repository = published(tmp_path / "data")
    data = ["--data", str(repository.base)]
    root = repository.open()._trust.root
    old = root.roles["targets"].keyids[0]
    trial_key = tmp_path / "trial.pub"
    keyfiles.write_public(trial_key, root.get_key(old))
    public = public_file(tmp_path, Person("new"))
    for number, words in enumerate(
        (
            ["targets", "--drop", old[:8], "--key", public],
            ["targets", "--drop", f"targets={old[:8]}", "--key", f"targets={public}"],
            ["targets", "--drop", str(trial_key), "--key", public],
            ["bins"],
            ["bins", "snapshot", "timestamp", "--bin-bits", "5"],
        )
    ):
        out = str(tmp_path / f"{number}.json")
        assert main(["rotate", *words, *data, "--out", out]) == 0, capsys.readouterr().err
        assert "  new   " in capsys.readouterr().out


def test_resign_and_adopt_are_drafted(tmp_path, people, capsys):
    repository = published(tmp_path / "data")
    os.rename(repository.base / "offline", repository.base / "offline-keys")
    data = ["--data", str(repository.base)]
    assert main(["resign", *data, "--out", str(tmp_path / "r.json")]) == 0
    assert NOTHING in capsys.readouterr().out
    words = init_words(tmp_path, people)[3:-1]
    assert main(["adopt", *data, *words, str(tmp_path / "a.json")]) == 0
    out = capsys.readouterr().out
    assert "  goes  root: field x-trial = true" in out
    assert "root, by the keys of the root before: 1 of 1 signatures, complete" in out


def test_signing_without_anybody_to_ask_needs_yes(tmp_path, people, capsys):
    path = tmp_path / "draft.json"
    public = key_at(tmp_path / "ana", "-q").with_name("ana.pub")
    words = init_words(tmp_path, people, "--key", f"root={public}", "-q")
    assert main(words) == 0
    before = path.read_bytes()
    sign = ["sign", str(path), "--key", str(tmp_path / "ana")]
    process = subprocess.run(
        [*TUF_REPO, *sign, "--passphrase-fd", "0"],
        input="long enough\n",
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert "add --yes" in process.stderr
    assert path.read_bytes() == before
    assert main([*sign, "--yes", "--passphrase-fd", secret("long enough")]) == 0
    assert "signed root 1 with key" in capsys.readouterr().out


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("yes", 0), ("", 1), ("n", 1)])
def test_on_a_terminal_it_asks_and_takes_no_for_an_answer(tmp_path, people, answer, code):
    path = tmp_path / "draft.json"
    public = key_at(tmp_path / "ana", "-q").with_name("ana.pub")
    assert main(init_words(tmp_path, people, "--key", f"root={public}", "-q")) == 0
    before = path.read_bytes()
    terminal, other_end = pty.openpty()
    with os.fdopen(terminal, "rb+", buffering=0), os.fdopen(other_end, "rb+", buffering=0) as end:
        fd = int(secret("long enough"))
        process = subprocess.Popen(
            [*TUF_REPO, "sign", path, "--key", tmp_path / "ana", "--passphrase-fd", str(fd)],
            env=environment(tmp_path),
            pass_fds=[fd],
            stdin=end,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(fd)
        os.write(terminal, f"{answer}\n".encode())
        out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Sign root 1 with key" in out
    assert (path.read_bytes() == before) == bool(code)
    assert ("nothing was signed" in err) == bool(code)


def draft_file(folder, draft, name="draft.json"):
    drafts.write_new(folder / name, draft)
    return str(folder / name)


def now_draft(people):
    """A first draft of today: the commands look at the clock."""
    return drafting.init(people.half(), people.edits(), now=time.time(), policy=OUTSIDE["policy"])


def test_status_merge_and_finish_in_words_and_json(tmp_path, people, capsys):
    draft = now_draft(people)
    one = draft_file(tmp_path, signed_by(draft, *people.root[:3]), "1.json")
    two = draft_file(tmp_path, signed_by(draft, *people.crates[:2]), "2.json")
    assert main(["status", one, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert not found["complete"]
    assert found["quorums"][2]["signed"] == []
    assert found["quorums"][0]["signed"][0]["name"] == "root 0"
    assert main(["finish", one, "--out", str(tmp_path / "out")]) == 1
    assert "crates in the draft: expected 2 signatures by its keys, got 0" in error_of(capsys)
    assert main(["merge", one, two]) == 0
    assert "crates: 2 of 2 signatures, complete" in capsys.readouterr().out
    assert main(["status", one]) == 0
    assert "root: 3 of 3 signatures, complete" in capsys.readouterr().out
    assert main(["finish", one, "--data", str(tmp_path / "data")]) == 0
    out = capsys.readouterr().out
    assert "root 1, sha256 " in out
    assert "takes these files with its next publication" in out


def test_a_full_disk_leaves_no_half_of_a_draft(tmp_path, people):
    words = " ".join(init_words(tmp_path, people))
    process = subprocess.run(
        ["bash", "-c", f'ulimit -f 1; exec "{sys.executable}" -B -m tuf_repo {words}'],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 5
    assert len(process.stderr.splitlines()) == 1
    assert not [name for name in os.listdir(tmp_path) if "draft" in name]


def test_a_reader_who_has_enough_ends_it_quietly(tmp_path, people):
    draft = draft_file(tmp_path, now_draft(people))
    process = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -m tuf_repo status {draft} | head -1'],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stderr == ""
