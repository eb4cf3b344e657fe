"""A ceremony in one process: the offline roles of a repository, changed, and signed by quorums.

ceremony = Ceremony.of(repository)
ceremony.replace("timestamp", new)         # the root changes
files = ceremony.files()                   # names -> bytes, as `tuf-repo finish` leaves them
"""

from dataclasses import dataclass, field

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Targets

from tuf_repo import loading
from tuf_repo.core.update import file_name
from tuf_repo.keys import create_key, key_file, load_signer
from tuf_repo.signing import sign

_IN_ROOT = ("root", "targets", "snapshot", "timestamp")


@dataclass
class Ceremony:
    """One change of a repository's offline roles; `crates` is the role above the bins."""

    root: Root
    targets: Targets
    crates: Targets
    quorums: dict
    """Offline role -> the signers that sign it; for root, those from before as well."""
    changed: set = field(default_factory=set)

    @classmethod
    def of(cls, repository, quorums=None):
        """Begin with what is in force; the keys are a trial's unless others are given."""
        trust, _ = loading.load(repository.folder())
        offline = repository.base / "offline"
        own = {
            role: [load_signer(key_file(offline, name))]
            for role, name in (("root", "root"), ("targets", "targets"), ("crates", "delegation"))
            if key_file(offline, name).exists()
        }
        again = [
            Metadata.from_bytes(Metadata(signed).to_bytes()).signed
            for signed in (trust.root, trust.targets, trust.delegate)
        ]
        return cls(*again, quorums={**own, **(quorums or {})})

    def change(self, role):
        """Return the role to be changed: it becomes a new file."""
        self.changed.add(role)
        return {"root": self.root, "targets": self.targets, "crates": self.crates}[role]

    def replace(self, role, *signers, threshold=1):
        """Give a role other keys; where it is an offline one, these sign it from now on."""
        if role in _IN_ROOT:
            keyids = list(self.change("root").roles[role].keyids)
            for keyid in keyids:
                self.root.revoke_key(keyid, role)
            for signer in signers:
                self.root.add_key(signer.public_key, role)
            self.root.roles[role].threshold = threshold
        else:
            self._replace_below(role, signers, threshold)
        if role == "root":
            # Who could say so before has to say so, too.
            self.quorums["root"] = [*self.quorums["root"], *signers]
        elif role in {"targets", "crates"}:
            self.quorums[role] = list(signers)
            self.changed.add(role)

    def _replace_below(self, role, signers, threshold):
        delegator = self.change("targets" if role == "crates" else "crates")
        delegations = delegator.delegations
        below = delegations.roles[role] if role == "crates" else delegations.succinct_roles
        below.keyids = [signer.public_key.keyid for signer in signers]
        below.threshold = threshold
        delegations.keys = {signer.public_key.keyid: signer.public_key for signer in signers}

    def files(self):
        """Sign what was changed, in the next versions; return it."""
        newest = max(self.targets.version, self.crates.version)
        files = {}
        if "root" in self.changed:
            self.root.version += 1
            files[file_name("root", self.root.version)] = self.sign("root", self.root)
        for role, signed in (("targets", self.targets), ("crates", self.crates)):
            if role in self.changed:
                newest += 1
                signed.version = newest
                files[file_name(role, newest)] = self.sign(role, signed)
        return files

    def sign(self, role, signed):
        signers = {signer.public_key.keyid: signer for signer in self.quorums[role]}
        return sign(signed.to_dict(), signers)


def fresh():
    """A new key."""
    return CryptoSigner.generate_ed25519()


def online_key(repository, role):
    """Make a new online key beside the old one; return its signer."""
    folder = repository.base / "keys"
    number = len(list(folder.glob(f"{role}*.pem")))
    path = folder / f"{role}-{number}.pem"
    create_key(path)
    return load_signer(path)
