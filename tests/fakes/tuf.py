"""A repository in a folder, a host that serves it without keys, and stock python-tuf clients."""

import hashlib
import json
import shutil
from datetime import UTC, datetime

from securesystemslib.signer import Signer
from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from tuf_repo.core.roles import Policy
from tuf_repo.core.update import Target
from tuf_repo.disk import PosixDisk
from tuf_repo.keys import OnlineSigners, load_online_signers
from tuf_repo.publisher import Publisher
from tuf_repo.storage import MetadataFolder, Storage
from tuf_repo.trial import TrialPlan, init_trial

NOW = 1_800_000_000.0
PATHS = ("index/*/*", "index/*/*/*")
METADATA = "http://host/metadata/"
TARGETS = "http://host/targets/"


REFUSALS = (RepositoryError, DownloadError)
"""How a stock client says no."""


class FolderHost(FetcherInterface):
    """Answers from a folder; `swap` names files to answer with others, or with these bytes."""

    def __init__(self, base, swap=None):
        self._base = base
        self.swap = swap or {}
        self.asked = []

    def _fetch(self, url):
        name = url.removeprefix("http://host/")
        self.asked.append(name)
        folder, _, file = name.partition("/")
        said = self.swap.get(file, file)
        if isinstance(said, bytes):
            return iter([said])
        path = self._base / "www" / "tuf" / folder / said
        if not path.exists():
            raise DownloadHTTPError(f"no {name}", 404)
        return iter([path.read_bytes()])


class Repository:
    """A trial repository under a folder, and what it takes to work on it."""

    def __init__(self, base, *, bits=2, now=NOW, policy=None, disk=None):
        self.base = base
        self.bits = bits
        self.now = now
        self.policy = policy or Policy()
        self.metadata = base / "www" / "tuf" / "metadata"
        self.waited = []
        self.entropy = 0
        self.use(disk or PosixDisk(base))

    def use(self, disk):
        self.storage = Storage(self.metadata, self.base / "staging", disk)
        return self

    def outside(self):
        return {
            "now": self.now,
            "policy": self.policy,
            "entropy": lambda: self.entropy,
            "wait": self.waited.append,
        }

    def init(self, paths=PATHS):
        plan = TrialPlan(
            "crates", paths, self.bits, {"x-trial": True}, lambda counts: {"x-state": dict(counts)}
        )
        return init_trial(
            self.storage, self.base / "keys", self.base / "offline", plan, **self.outside()
        )

    def open(self, signers=None):
        signers = signers or load_online_signers(self.base / "keys")
        return Publisher.open(self.storage, signers, **self.outside())

    def publish(self, publisher, changes):
        staged = publisher.stage(changes, {"x-state": len(changes)}, now=self.now)
        publisher.commit(staged)
        return staged

    def folder(self):
        return MetadataFolder(self.metadata)

    def put(self, path, data):
        """Lay a target where clients fetch it; return what a bin is to say of it."""
        sha256 = hashlib.sha256(data).hexdigest()
        parent, _, name = path.rpartition("/")
        folder = self.base / "www" / "tuf" / "targets" / parent
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{sha256}.{name}").write_bytes(data)
        return Target(len(data), sha256)

    def client(self, cache, *, swap=None, now=None, host=None):
        """A fresh stock client that trusts `1.root.json`; its clock shows the repository's time."""
        cache.mkdir(parents=True, exist_ok=True)
        updater = Updater(
            str(cache),
            METADATA,
            target_dir=str(cache),
            target_base_url=TARGETS,
            fetcher=host or FolderHost(self.base, swap),
            bootstrap=(self.metadata / "1.root.json").read_bytes(),
        )
        set_clock(updater, self.now if now is None else now)
        return updater


def answer(repository, cache, swap, path):
    """What a fresh stock client makes of a path on that host: a target, None, or the error."""
    shutil.rmtree(cache, ignore_errors=True)
    client = repository.client(cache, swap=swap)
    try:
        return client.get_targetinfo(path)
    except REFUSALS as error:
        return error


def set_clock(updater, now):
    updater._trusted_set.reference_time = datetime.fromtimestamp(int(now), UTC)


def target(number=1):
    return Target(number, f"{number:064x}")


def signed_part(path):
    return json.loads(path.read_bytes())["signed"]


class RecordingSigner(Signer):
    """Signs, and keeps what it signed: number -> payload. A second content for one is an error."""

    def __init__(self, signer, record):
        self._signer = signer
        self._record = record

    @property
    def public_key(self):
        return self._signer.public_key

    @classmethod
    def from_priv_key_uri(cls, priv_key_uri, public_key, secrets_handler=None):
        raise NotImplementedError

    def sign(self, payload):
        number = json.loads(payload)["version"]
        other = self._record.setdefault(number, payload)
        assert other == payload, f"number {number} was signed twice, with different content"
        return self._signer.sign(payload)


def recording(signers, record):
    return OnlineSigners(
        *(RecordingSigner(s, record) for s in (signers.bins, signers.snapshot, signers.timestamp))
    )
