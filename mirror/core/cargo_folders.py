"""The names that cargo gives to a registry's folders: `HOST-HASH` below `CARGO_HOME/registry`.

Which registry a file in cargo's cache came from is told by this name alone, so it is worked out
here, byte for byte as cargo does (`short_name` in its `sources/registry/mod.rs`, the hash of
`SourceId` in `source_id.rs`). Cargo 1.85 changed the hash; both are known, as one cache may be used
by both.
"""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

_HOST_MAX_CHARS = 200
_MASK = (1 << 64) - 1
_SPARSE = "sparse+"
_GIT_REGISTRY = "registry+"
# The place of a kind among those of cargo's `SourceKind`; old cargos hash it as eight bytes.
_KINDS = {_GIT_REGISTRY: 2, _SPARSE: 3}


def registry_folders(source: str) -> frozenset[str]:
    """Return the folder names of a registry; empty: this is none that cargo keeps a cache of.

    Args:
        source: as lock files have it, `sparse+https://…` or `registry+https://…`; a bare URL, as
            `registries.NAME.index` may hold it, is that of a git repository.
    """
    if not source.startswith((_SPARSE, _GIT_REGISTRY)):
        source = _GIT_REGISTRY + source
    kind = _SPARSE if source.startswith(_SPARSE) else _GIT_REGISTRY
    url = source.removeprefix(_GIT_REGISTRY)
    try:
        parts = urlsplit(url.removeprefix(_SPARSE))
    except ValueError:
        return frozenset()
    if kind is _GIT_REGISTRY:
        # `sparse+https` is no scheme that the URL standard knows: there letters stay as they are.
        parts = parts._replace(scheme=parts.scheme.lower(), netloc=_lower_host(parts.netloc))
        url = parts.geturl()
    host = _host(parts.netloc)
    is_plain = len(host) <= _HOST_MAX_CHARS and host.isascii() and host.isprintable()
    if not parts.scheme or not is_plain:
        return frozenset()  # It may come from a stranger's lock, and becomes a file's name.
    hashed = _canonical(url, parts, kind).encode() + b"\xff"
    hashes = _hash(_KINDS[kind], hashed), _old_hash(_KINDS[kind], hashed)
    names = {f"{host}-{each.to_bytes(8, 'little').hex()}" for each in hashes}
    if kind is _GIT_REGISTRY:
        names |= {f"{name}-shallow" for name in names}
    return frozenset(names)


def _host(netloc: str) -> str:
    """Return the host as it is written, which `hostname` does not; an IPv6 one in its brackets."""
    host = netloc.rpartition("@")[2]
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]


def _lower_host(netloc: str) -> str:
    user, at, host = netloc.rpartition("@")
    return user + at + host.lower()


def _canonical(url: str, parts: SplitResult, kind: str) -> str:
    """Return the URL as cargo compares it (`CanonicalUrl` in its `util/canonical_url.rs`)."""
    if parts.path in {"", "/"}:
        return url if parts.path else url + "/"
    url = url.removesuffix("/")
    if kind is _GIT_REGISTRY:
        if parts.hostname == "github.com":
            url = url.lower()
        url = url.removesuffix(".git")
    return url


def _hash(kind: int, url: bytes) -> int:
    # Since cargo 1.85: rustc-stable-hash's SipHasher128, made 64 bits as its `Fingerprint` does.
    low, high = _siphash(bytes([kind]) + url, 1, 3, wide=True)
    return (low * 3 + high) & _MASK


def _old_hash(kind: int, url: bytes) -> int:
    # Before: SipHash-2-4 of the standard library, the kind as a machine word.
    return _siphash(kind.to_bytes(8, "little") + url, 2, 4, wide=False)[0]


def _siphash(data: bytes, rounds: int, last_rounds: int, *, wide: bool) -> tuple[int, int]:
    """SipHash with a key of zeros (Aumasson, Bernstein: SipHash, 2012); `wide`: 128 bits."""
    state = [0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573]
    if wide:
        state[1] ^= 0xEE
    end = len(data) - len(data) % 8
    last = (len(data) & 0xFF) << 56 | int.from_bytes(data[end:], "little")
    words = [int.from_bytes(data[at : at + 8], "little") for at in range(0, end, 8)]
    for word in (*words, last):
        state[3] ^= word
        _mix(state, rounds)
        state[0] ^= word
    state[2] ^= 0xEE if wide else 0xFF
    _mix(state, last_rounds)
    first = state[0] ^ state[1] ^ state[2] ^ state[3]
    if not wide:
        return first, 0
    state[1] ^= 0xDD
    _mix(state, last_rounds)
    return first, state[0] ^ state[1] ^ state[2] ^ state[3]


def _mix(state: list[int], rounds: int) -> None:
    # Written out: this is on the way of each build.
    v0, v1, v2, v3 = state
    for _ in range(rounds):
        v0 = (v0 + v1) & _MASK
        v2 = (v2 + v3) & _MASK
        v1 = ((v1 << 13 | v1 >> 51) & _MASK) ^ v0
        v3 = ((v3 << 16 | v3 >> 48) & _MASK) ^ v2
        v0 = (v0 << 32 | v0 >> 32) & _MASK
        v2 = (v2 + v1) & _MASK
        v0 = (v0 + v3) & _MASK
        v1 = ((v1 << 17 | v1 >> 47) & _MASK) ^ v2
        v3 = ((v3 << 21 | v3 >> 43) & _MASK) ^ v0
        v2 = (v2 << 32 | v2 >> 32) & _MASK
    state[:] = v0, v1, v2, v3
