"""Every setting of the mirror, once: its key, default, kind and help stand together.

The fields of `Config` are the table. From it come the keys of `mirror.toml`, the environment
variables `CRATESEAL_…`, the command-line options (mirror/options.py) and the list in the README.

Durations are floats in seconds, sizes are whole bytes. Paths are as given, so relative ones are
relative to the working folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirror.kinds import (
    CONTACT,
    DURATION,
    FLAG,
    FOLDER,
    LOCKS,
    MODE,
    NETWORKS,
    PERCENT,
    PUBLIC_URL,
    SIZE,
    SOURCE,
    TEXT,
    UPSTREAM,
    Kind,
    whole,
)

if TYPE_CHECKING:
    from mirror.kinds import Network

ENV_PREFIX = "CRATESEAL_"
DEFAULT_UPSTREAM = "sparse+https://index.crates.io/"

UP, INIT, SYNC, SIGN, SERVE = "up", "init", "sync", "sign", "serve"
_FOLLOWERS = (UP, INIT, SYNC, SIGN)
_FETCHING = (UP, SYNC)
_SIGNING = (UP, SIGN)


def _about(kind: Kind, text: str, commands: tuple[str, ...] = ()) -> Mapping[str, Any]:
    """Describe a field; `commands` are those that have it as an option of their own."""
    return {"kind": kind, "help": text, "commands": commands}


@dataclass(frozen=True, slots=True)
class Config:
    """The settings that one process runs with. Nothing here changes after the start."""

    data: Path = field(
        default=Path("crateseal-data"),
        metadata=_about(FOLDER, "the mirror's folder"),
    )
    mode: str = field(
        default="cache",
        metadata=_about(
            MODE,
            "cache: mirror what is asked for; index: the whole index, crates when asked for;"
            " list: exactly what lock files name",
            _FOLLOWERS,
        ),
    )
    upstream: str = field(
        default=DEFAULT_UPSTREAM,
        metadata=_about(UPSTREAM, "the sparse index to mirror", _FOLLOWERS),
    )
    names: str | None = field(
        default=None,
        metadata=_about(SOURCE, "mode index: file or URL of crate names, one a line", _FOLLOWERS),
    )
    lock: tuple[Path, ...] = field(
        default=(),
        metadata=_about(
            LOCKS, "mode list: Cargo.lock whose packages are held; may be given again", _FOLLOWERS
        ),
    )
    offline: bool = field(
        default=False,
        metadata=_about(
            FLAG, "open no outgoing connection at all; 404 for what is not held", _FOLLOWERS
        ),
    )
    public_url: str | None = field(
        default=None,
        metadata=_about(
            PUBLIC_URL,
            "the URL that clients reach this mirror by (default: from host and port)",
            (UP, SERVE, SIGN, SYNC),
        ),
    )
    host: str = field(
        default="127.0.0.1",
        metadata=_about(TEXT, "address to listen on", (UP, SERVE)),
    )
    port: int = field(
        default=8470,
        metadata=_about(whole(0, 65535), "port to listen on; 0: any free one", (UP, SERVE)),
    )
    workers: int = field(
        default=1,
        metadata=_about(whole(1, 64), "server processes on the one port", (UP, SERVE)),
    )
    trusted_proxies: tuple[Network, ...] = field(
        default=(),
        metadata=_about(
            NETWORKS,
            "reverse proxies whose X-Forwarded-For counts; may be given again",
            (UP, SERVE),
        ),
    )
    bin_bits: int | None = field(
        default=None,
        metadata=_about(
            whole(5, 16),
            "2^N bins, fixed when the repository is made (default: cache 9, index 13)",
            (UP, INIT),
        ),
    )
    max_age: float = field(
        default=600.0,
        metadata=_about(
            DURATION, "a held index file older than this is asked for again when wanted", (UP, SYNC)
        ),
    )
    max_hold: float = field(
        default=10.0,
        metadata=_about(
            DURATION, "how long a client's request may wait for a fetch", (UP, SERVE, SYNC)
        ),
    )
    sweep_every: float = field(
        default=3600.0,
        metadata=_about(DURATION, "mode index: time between looks at the whole index", _FETCHING),
    )
    recheck_every: float = field(
        default=86400.0,
        metadata=_about(
            DURATION, "modes cache and list: every held index file is looked at so often", _FETCHING
        ),
    )
    grace: float = field(
        default=25 * 3600.0,
        metadata=_about(DURATION, "how long superseded files stay available", _SIGNING),
    )
    jobs: int = field(
        default=64,
        metadata=_about(whole(1, 1024), "requests in flight to upstream", _FETCHING),
    )
    connect_timeout: float = field(
        default=5.0,
        metadata=_about(DURATION, "to reach upstream", _FETCHING),
    )
    first_byte_timeout: float = field(
        default=10.0,
        metadata=_about(DURATION, "until upstream begins to answer", _FETCHING),
    )
    stall_timeout: float = field(
        default=10.0,
        metadata=_about(DURATION, "without a byte from upstream", _FETCHING),
    )
    total_timeout: float = field(
        default=300.0,
        metadata=_about(DURATION, "for one whole answer from upstream", _FETCHING),
    )
    index_max_bytes: int = field(
        default=32_000_000,
        metadata=_about(SIZE, "largest index file accepted", (UP, SYNC, SIGN)),
    )
    crate_max_bytes: int = field(
        default=64_000_000,
        metadata=_about(SIZE, "largest crate file accepted", (UP, SYNC, SIGN)),
    )
    unpacked_max_bytes: int = field(
        default=536_870_912,
        metadata=_about(SIZE, "largest crate accepted, unpacked", _SIGNING),
    )
    crate_max_entries: int = field(
        default=100_000,
        metadata=_about(whole(1), "most files in one crate", _SIGNING),
    )
    publications_a_minute: int = field(
        default=300,
        metadata=_about(whole(1), "beyond this, publications go out once a second", _SIGNING),
    )
    names_per_client: int = field(
        default=5_000,
        metadata=_about(
            whole(1), "names one client may ask for the first time in ten minutes", _FETCHING
        ),
    )
    findings_percent: float = field(
        default=1.0,
        metadata=_about(
            PERCENT, "a sweep of which more than this, and ten, is refused is stopped", _SIGNING
        ),
    )
    drop_deleted: bool = field(
        default=False,
        metadata=_about(
            FLAG, "remove the crates of what upstream deleted; else they stay", _SIGNING
        ),
    )
    contact: str | None = field(
        default=None,
        metadata=_about(
            CONTACT, "sent to upstream in User-Agent: whom to ask about this mirror", _FETCHING
        ),
    )

    @property
    def www(self) -> Path:
        """The web root: all that clients see."""
        return self.data / "www"

    @property
    def spool(self) -> Path:
        """Batches on their way from `sync` to `sign`."""
        return self.data / "spool"

    @property
    def staging(self) -> Path:
        """The signer's own: numbers, publications under way."""
        return self.data / "staging"

    @property
    def run(self) -> Path:
        """Sockets and locks."""
        return self.data / "run"

    @property
    def ceremony(self) -> Path:
        """Where signed offline roles wait for the signer."""
        return self.data / "ceremony"

    @property
    def keys(self) -> Path:
        """Online keys."""
        return self.data / "keys"

    @property
    def offline_keys(self) -> Path:
        """The keys of root, targets and crates; only in a trial."""
        return self.data / "offline-keys"

    @property
    def ledger(self) -> Path:
        """The signer's memory."""
        return self.data / "ledger.sqlite3"

    @property
    def cursors(self) -> Path:
        """What `sync` remembers of upstream."""
        return self.data / "cursors.sqlite3"

    @property
    def effective_bin_bits(self) -> int:
        """`bin_bits`, or the mode's default."""
        if self.bin_bits is not None:
            return self.bin_bits
        # tuf_repo/README.md has the figures that say so.
        return 9 if self.mode in {"cache", "list"} else 13

    @property
    def url(self) -> str:
        """The URL that clients reach this mirror by, without a slash at its end."""
        if self.public_url is not None:
            return self.public_url
        # Nobody can connect to "all addresses"; this machine can to its own loopback.
        host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def to_environment(self) -> dict[str, str]:
        """Return the variables that give a child process exactly these settings."""
        return {
            ENV_PREFIX + setting.name.upper(): as_text(getattr(self, setting.name), setting)
            for setting in fields(self)
            if getattr(self, setting.name) not in (None, ())
        }


def as_text(value: object, setting: Field[Any]) -> str:
    """Return a setting's value as text that its kind reads again."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        kind: Kind = setting.metadata["kind"]
        return kind.separator.join(map(str, value))
    return str(value)
