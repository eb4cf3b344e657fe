"""Operators who type `tuf-repo …`, and a mirror of theirs that runs: `crateseal up`, on loopback.

people = Operators(folder)
people.make("ana", "ben", "cem")              # tuf-repo key new …
mirror.change("rotate", "bins", by=["cem"])   # draft, sign, finish; taken when it returns
"""

import json
import subprocess
import sys
from pathlib import Path

from tests.support.processes import Up, crateseal, environment, wait_until
from tuf_repo import keyfiles, loading
from tuf_repo.folder import DataFolder
from tuf_repo.keys import key_file
from tuf_repo.online import OnlineKeys
from tuf_repo.storage import MetadataFolder

PASSPHRASE = "correct horse"
ONLINE = ("snapshot", "timestamp", "bins")


class Operators:
    """Encrypted keys in one folder, by name."""

    def __init__(self, home):
        self.home = home
        home.mkdir()
        self.keyids = {}
        self._signers = {}

    def tuf_repo(self, *words, code=0):
        """Run a command to its end; its secrets come through a pipe. Return what it says."""
        ran = subprocess.run(
            [sys.executable, "-m", "tuf_repo", *map(str, words)],
            cwd=self.home,
            env=environment(),
            input=f"{PASSPHRASE}\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == code, (words, ran.stdout, ran.stderr)
        return ran.stdout if code == 0 else ran.stderr

    def make(self, *names):
        """A key for each, every second one ECDSA."""
        for name in names:
            kind = ("ed25519", "ecdsa")[len(self.keyids) % 2]
            self.tuf_repo("key", "new", name, "--type", kind, "--passphrase-fd", "0")
            self.keyids[name] = keyfiles.read_public(self.home / f"{name}.pub").keyid

    def prefix(self, name):
        return self.keyids[name][:8]

    def sign(self, draft, *names, root=None):
        """Each signs; with `root` they compare what the draft starts from with that file."""
        known = ["--root", root] if root else []
        for name in names:
            self.tuf_repo("sign", draft, "--key", name, "--passphrase-fd", "0", "--yes", *known)

    def signer(self, name):
        """What a thief of this key has."""
        if name not in self._signers:
            path = self.home / name
            self._signers[name] = keyfiles.load(path, lambda _what: PASSPHRASE.encode())
        return self._signers[name]


class Mirror:
    """`crateseal up` and the people who hold its offline keys."""

    def __init__(self, folder, people, upstream):
        self.folder = folder
        self.people = people
        self.upstream = upstream
        self.data = DataFolder(folder / "crateseal-data")
        self.up = None
        self._drafts = 0

    @property
    def metadata(self):
        return self.data.metadata

    def init(self, *words, by, bits=5):
        """The first ceremony; nothing runs yet."""
        ran = crateseal("init", "--bin-bits", bits, cwd=self.folder)
        assert ran.returncode == 0, ran.stderr
        (self.people.home / "online.json").write_text(ran.stdout)
        draft = self._new_draft()
        self.people.tuf_repo("init", "--online", "online.json", *words, "--out", draft)
        self.people.sign(draft, *by)
        self.people.tuf_repo("finish", draft, "--data", self.data.path)
        return self

    def start(self, *options):
        self.up = Up("--upstream", self.upstream.source, *options, cwd=self.folder)
        self.up.wait_until_ready()
        wait_until(lambda: "sign" in self.up.children())
        return self

    def restart(self, *options):
        assert self.up.stop() == 130
        self.up.end()
        return self.start(*options)

    def trouble(self):
        """What the signer says is wrong; None where nothing is."""
        return json.loads((self.data.path / "www/status.json").read_bytes())["trouble"]

    def draft(self, *words):
        """Draft a change of what is in force; return the draft's file."""
        draft = self._new_draft()
        self.people.tuf_repo(*words, "--data", self.data.path, "--out", draft)
        return draft

    def change(self, *words, by):
        """A ceremony: these words draft it, those people sign it; return once it is published."""
        draft = self.draft(*words)
        self.people.sign(draft, *by, root=self.newest_root())
        said = self.people.tuf_repo("finish", draft, "--data", self.data.path)
        self.wait_until_taken()
        return said

    def wait_until_taken(self, signer=None):
        """Return when what a ceremony left is published and tidied away."""
        try:
            wait_until(lambda: not any(self.data.ceremony.iterdir()), 40)
        except AssertionError:
            raise AssertionError((signer or self.up).err) from None

    def newest_root(self):
        return max(self.metadata.glob("*.root.json"), key=version_of)

    def root_version(self):
        return version_of(self.newest_root())

    def check(self):
        """Both checks find nothing."""
        ran = crateseal("check", cwd=self.folder)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        self.people.tuf_repo("check", "--data", self.data.path)

    def status(self):
        ran = crateseal("status", "--json", cwd=self.folder)
        return json.loads(ran.stdout)

    def members(self, role):
        """Names of the people whose keys an offline role has."""
        keyids = self._keyids(self._trust())[role]
        return [name for name, keyid in self.people.keyids.items() if keyid in keyids]

    def keys(self):
        """Every private key in force: role -> signers. What a thief of all of them has."""
        trust = self._trust()
        online = OnlineKeys(self.data.keys).signers_for(trust)
        offline = {
            role: [self.people.signer(name) for name in self.members(role)]
            for role in self._keyids(trust)
        }
        return {**offline, **{role: [getattr(online, role)] for role in ONLINE}}

    def trial_keys(self):
        """The same of a trial, whose offline keys lie in its folder."""
        files = {"root": "root", "targets": "targets", "crates": "delegation"}
        offline = {role: key_file(self.data.offline_keys, name) for role, name in files.items()}
        online = OnlineKeys(self.data.keys).signers_for(self._trust())
        return {
            **{role: [keyfiles.load(path, None)] for role, path in offline.items()},
            **{role: [getattr(online, role)] for role in ONLINE},
        }

    def _trust(self):
        return loading.load(MetadataFolder(self.metadata))[0]

    @staticmethod
    def _keyids(trust):
        return {
            "root": trust.root.roles["root"].keyids,
            "targets": trust.root.roles["targets"].keyids,
            "crates": trust.targets.delegations.roles["crates"].keyids,
        }

    def end(self):
        if self.up is not None:
            self.up.end()

    def _new_draft(self):
        self._drafts += 1
        return f"draft{self._drafts}.json"


def version_of(path: Path):
    return int(path.name.partition(".")[0])
