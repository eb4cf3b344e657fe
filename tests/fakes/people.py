"""People with keys of their own, and repositories that they sign."""

from dataclasses import replace
from pathlib import Path

from securesystemslib.signer import CryptoSigner, SSlibKey

from tests.fakes.tuf import NOW, PATHS
from tuf_repo import drafting, drafts
from tuf_repo.ceremony import signed
from tuf_repo.core.edits import Edits
from tuf_repo.core.roles import Policy
from tuf_repo.core.root import ONLINE, X_NAME, Quorum
from tuf_repo.drafts import RoleFile
from tuf_repo.folder import DataFolder
from tuf_repo.proposal import read_proposal

OUTSIDE = {"now": NOW, "policy": Policy()}


class Person:
    """Somebody with a key; every second one has an ECDSA key."""

    def __init__(self, name, kind="ed25519"):
        self.name = name
        made = {"ed25519": CryptoSigner.generate_ed25519, "ecdsa": CryptoSigner.generate_ecdsa}
        self.signer = made[kind]()
        public = self.signer.public_key
        self.key = SSlibKey(
            public.keyid, public.keytype, public.scheme, public.keyval, {X_NAME: name}
        )


class People:
    """Five for root; three of them for targets; three others for the role below."""

    def __init__(self):
        self.root = [Person(f"root {n}", ("ed25519", "ecdsa")[n % 2]) for n in range(5)]
        self.targets = self.root[:3]
        self.crates = [Person(f"crates {n}", ("ed25519", "ecdsa")[n % 2]) for n in range(3)]
        self.online = {role: Person(role) for role in ONLINE}

    def half(self, bits=9, delegation="crates"):
        keys = {role: person.signer.public_key for role, person in self.online.items()}
        return drafting.OnlineHalf(delegation, PATHS, bits, keys)

    def edits(self, **more):
        groups = {"root": self.root, "targets": self.targets, "crates": self.crates}
        added = {role: [each.key for each in group] for role, group in groups.items()}
        return Edits(**{"added": added, **more})

    def init(self, bits=9, **more):
        return drafting.init(self.half(bits), self.edits(**more), **OUTSIDE)

    def base(self, bits=9):
        """What is in force after their first ceremony."""
        draft = signed_by(self.init(bits), *self.root[:3], *self.crates[:2])
        return dict(draft.roles)


def signed_by(draft, *people):
    """Sign a draft, one after the other, without its file."""
    for person in people:
        draft = signed(read_proposal(draft), person.signer)
    return draft


def in_force(base, draft):
    """What is in force after a draft was finished."""
    return {**base, **draft.roles}


def write_in_force(folder: Path, base: dict[str, RoleFile]) -> None:
    """Write files under the names that they are published with."""
    folder.mkdir(parents=True, exist_ok=True)
    for role, file in base.items():
        (folder / f"{file.signed['version']}.{role}.json").write_bytes(file.data)


def draft_of(base, edits, online=None):
    """Draft a change, now."""
    return drafting.draft(base, edits, online, **OUTSIDE)


def file_of(tmp_path, draft, name="draft.json"):
    """Write a draft; return where it lies."""
    path = tmp_path / name
    drafts.write_new(path, draft)
    return path


def data_of(repository):
    """The data folder of a repository."""
    return DataFolder(repository.base)


def with_quorum(offline, role, keys=None, threshold=None):
    """Return the roles with other keys or another threshold for one."""
    quorum = offline.quorums[role]
    quorum = Quorum(
        quorum.keys if keys is None else tuple(keys),
        quorum.threshold if threshold is None else threshold,
    )
    return replace(offline, quorums={**offline.quorums, role: quorum})


def under_keyid(key, keyid):
    """The same public key, under another keyid and without a name."""
    return SSlibKey(keyid, key.keytype, key.scheme, key.keyval)
