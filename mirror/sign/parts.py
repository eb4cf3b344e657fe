"""What the signer works with; built in opening.py."""

from __future__ import annotations

from dataclasses import dataclass, field

from mirror.config import Config
from mirror.store.ledger import Ledger
from mirror.store.www import Www
from tuf_repo.core.roles import Policy
from tuf_repo.disk import Disk
from tuf_repo.publisher import Publisher


@dataclass(frozen=True, slots=True)
class Parts:
    """The signer's hands."""

    config: Config
    disk: Disk
    www: Www
    ledger: Ledger
    publisher: Publisher
    policy: Policy = field(default_factory=Policy)
    """What the publisher was opened with."""
