"""`tuf-repo` as people run it: each in a home with nothing in it but what is theirs."""

import json
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
TUF_REPO = [sys.executable, "-m", "tuf_repo"]


def environment(home):
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(REPOSITORY),
        "LANG": "C.UTF-8",
    }


def start(home, *arguments):
    """Start a command in somebody's home; the passphrase goes in by its standard input."""
    return subprocess.Popen(
        [*TUF_REPO, *map(str, arguments)],
        cwd=home,
        env=environment(home),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process, passphrase="", code=0):
    """Wait for it; return what it wrote, its errors after its answers."""
    out, err = process.communicate(f"{passphrase}\n", timeout=60)
    assert process.returncode == code, f"exit {process.returncode}: {out}{err}"
    if code:
        assert len(err.splitlines()) == 1, err
        assert err.startswith("tuf-repo: "), err
    return out + err


def run(home, *arguments, passphrase="", code=0):
    return end(start(home, *arguments), passphrase, code)


def online_file(path, home):
    """What `crateseal init` prints, for three keys made here."""
    keys = {}
    for role in ("bins", "snapshot", "timestamp"):
        run(home, "key", "new", role, "--passphrase-fd", "0", "-q", passphrase="on the machine")
        keys[role] = json.loads((home / f"{role}.pub").read_text())
    value = {
        "format": 1,
        "delegation": "crates",
        "paths": ["index/*/*", "index/*/*/*"],
        "bin_bits": 9,
        "keys": keys,
    }
    path.write_text(json.dumps(value))


class Member:
    """Somebody at a ceremony: a home, a key in it, and a passphrase that only they know."""

    def __init__(self, base, name, kind="ed25519"):
        self.name = name
        self.home = base / name
        self.home.mkdir(parents=True)
        self._passphrase = f"the secret of {name}"
        self.run("key", "new", name, "--type", kind, "--name", name, "--passphrase-fd", "0")

    @property
    def public(self):
        return self.home / f"{self.name}.pub"

    @property
    def keyid(self):
        return json.loads(self.public.read_text())["keyid"]

    def run(self, *arguments, code=0):
        return run(self.home, *arguments, passphrase=self._passphrase, code=code)

    def receive(self, draft, name="draft.json"):
        """Take a copy of a draft home."""
        path = self.home / name
        path.write_bytes(draft.read_bytes())
        return path

    def start_signing(self, draft, *more):
        return start(
            self.home, "sign", draft, "--key", self.name, "--passphrase-fd", "0", "--yes", *more
        )

    def sign(self, draft, *more, code=0):
        return self.end(self.start_signing(draft, *more), code)

    def end(self, process, code=0):
        return end(process, self._passphrase, code)
