"""The fault matrix: every way in which upstream's answer for one file can be bad.

Each case has a crate of its own, so that all of them can go wrong at the same time. `says` is a
pattern for the one line that the client, the log and `sync --once` show.
"""

import gzip
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate

from tests.support.crates import crate_bytes, index_file, index_line
from tests.support.registry import VERSION, crate_url, index_url

LIMITS = {
    "CRATESEAL_FIRST_BYTE_TIMEOUT": "1s",
    "CRATESEAL_STALL_TIMEOUT": "1s",
    "CRATESEAL_TOTAL_TIMEOUT": "3s",
    "CRATESEAL_CRATE_MAX_BYTES": "5MB",
    "CRATESEAL_UNPACKED_MAX_BYTES": "20MB",
    # Of so few files so many are bad on purpose.
    "CRATESEAL_FINDINGS_PERCENT": "100",
}
"""Small, so that each case is quick. `index_max_bytes` stays 32 MB: a line of 10 MB is to pass."""
NOT_FETCHED, REFUSED = 503, 403


@dataclass(frozen=True)
class Case:
    """One fault of one file."""

    kind: str
    """As FakeUpstream.fault has it."""
    says: str
    value: object = None
    """Or a function of the crate's name that makes it."""
    status: int = NOT_FETCHED

    def strike(self, upstream, path, name):
        """Let a path go wrong from now on."""
        value = self.value(name) if isinstance(self.value, Callable) else self.value
        upstream.fault(path, self.kind, value)


def in_so_many_seconds(seconds):
    """Return a date as Retry-After may have it."""
    return formatdate(time.time() + seconds, usegmt=True)


def _line_of_10_mb(name):
    return index_line(name, VERSION, description="x" * 10_000_000) + b"\n"


def _bomb(_name):
    """A gzip file of 100 kB that inflates to 100 MB."""
    return gzip.compress(bytes(100_000_000), mtime=0)


INDEX_CASES = {
    "500": Case("status", "upstream answered 500", 500),
    "403": Case("status", "upstream answered 403", 403),
    "429": Case("busy", "429.*wait", 2),
    "429-date": Case("busy", "429.*wait", lambda _name: in_so_many_seconds(3)),
    "truncated": Case("truncate", "end of file|cut off"),
    "half": Case("half", "half a line|newline|JSON", status=REFUSED),
    "too-short": Case("length", "half a line|newline|JSON", b"150", REFUSED),
    "too-long": Case("length", "end of file|cut off", b"99999"),
    "no-length": Case("length", "content-length|message|header", b"banana"),
    "html": Case("html", "a page of HTML"),
    "text": Case("wrong", "expected lines of JSON", b"nothing here\n"),
    "broken-json": Case("wrong", "JSON", b'{"name": oops}\n', REFUSED),
    "other-name": Case("wrong", "name", index_file("other", VERSION), REFUSED),
    "long-line": Case("wrong", "line|bytes", _line_of_10_mb, REFUSED),
    "empty": Case("empty", "empty"),
    "closed": Case("close", "connection closed"),
    "hangs": Case("hang", "within 1 s"),
    "stalls": Case("stall", "within 1 s|for 1 s|1 s without"),
    "trickles": Case("trickle", "not whole after 3 s"),
    "endless": Case("endless", "at most 32000000 bytes"),
    "bomb": Case("bomb", "at most 32000000 bytes"),
    "two-members": Case("two-members", "follow the gzip data"),
    "in-circles": Case("redirect", "redirects", index_url),
}
CRATE_CASES = {
    "500": Case("status", "upstream answered 500", 500),
    "429": Case("busy", "429.*wait", 2),
    "truncated": Case("truncate", "end of file|cut off"),
    "half": Case("half", "sha256", status=REFUSED),
    "too-short": Case("length", "sha256", b"150", REFUSED),
    "too-long": Case("length", "end of file|cut off", b"99999"),
    "wrong-bytes": Case("wrong", "sha256", crate_bytes("other", VERSION), REFUSED),
    "html": Case("html", "expected a crate"),
    "empty": Case("empty", "empty"),
    "closed": Case("close", "connection closed"),
    "hangs": Case("hang", "within 1 s"),
    "stalls": Case("stall", "within 1 s|for 1 s|1 s without"),
    "trickles": Case("trickle", "not whole after 3 s"),
    "endless": Case("endless", "expected a crate|at most 5000000 bytes"),
    "packed": Case("bomb", "as they are"),
    "bomb": Case("wrong", "unpack|at most", _bomb, REFUSED),
    "in-circles": Case("redirect", "redirects", crate_url),
}


def new_name(case):
    """The crate whose index file is bad when it is first asked for."""
    return f"new-{case}"


def held_name(case):
    """The crate whose index file goes bad once it is held."""
    return f"held-{case}"


def crate_name(case):
    """The crate whose archive is bad."""
    return f"crate-{case}"


def good_index(name):
    """What upstream has of a crate while all is well."""
    if name == crate_name("bomb"):
        # Its checksum is right: what is wrong with it is inside.
        return index_line(name, VERSION, hashlib.sha256(_bomb(name)).hexdigest()) + b"\n"
    return index_file(name, VERSION)


def newer_index(name):
    """What upstream has of a crate later on."""
    return good_index(name) + index_file(name, "1.1.0", "1.2.0")


def fill(upstream, names):
    """Put index files and crates of these names."""
    for name in names:
        upstream.put(index_url(name), good_index(name))
        upstream.put(crate_url(name), crate_bytes(name, VERSION))
