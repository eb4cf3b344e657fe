"""A signer by URI: a key in a file, on hardware (PKCS#11), in a cloud's key service or in Vault.

What talks to hardware and services is securesystemslib; here is what it lacks: one clear error for
all that can go wrong there, a PIN that is asked once and never tried twice when it was wrong, and a
look at every signature before it is handed on.

Rule: no error here holds a secret, and none chains what a service raised.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl, urlsplit

from securesystemslib.exceptions import UnsupportedLibraryError, UnverifiedSignatureError
from securesystemslib.signer import (
    AWSSigner,
    AzureSigner,
    GCPSigner,
    HSMSigner,
    Key,
    Signature,
    Signer,
    SSlibKey,
    VaultSigner,
)

from tuf_repo import keyfiles
from tuf_repo.core.publickeys import canonical_key, same_key
from tuf_repo.errors import KeyFileError
from tuf_repo.keyfiles import Ask

T = TypeVar("T")
Secret = Callable[[str], str]
Import = Callable[[str, Secret], tuple[str, Key]]
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):(.*)", re.DOTALL)
_RIGHT_PIN = "the right PIN"


@dataclass(frozen=True, slots=True)
class Service:
    """A place where keys are that are no files."""

    extra: str
    """What to install: `pip install 'crateseal[…]'`."""
    signer: type[Signer]
    lookup: Import
    """(URI, what asks for a PIN) → the whole URI, and the public key that is there."""


def load_signer(uri: str, ask: Ask, public: Key | None = None) -> Signer:
    """Return what signs with the private key at a URI.

    Args:
        uri: a path or `file:PATH`; or `hsm:`, `gcpkms:`, `awskms:`, `azurekms:`, `hv:` and what
            securesystemslib wants after that.
        ask: called with the name of a secret where one is needed: for a file at once, for hardware
            with the first signature.
        public: the public half where it is known: it must fit, and a service is not asked for it.

    Raises:
        KeyFileError: the URI names nothing that can sign, or not with this public half. Signing
            with what is returned raises it, too.
    """
    scheme, rest = _split(uri)
    if scheme == "file":
        signer = keyfiles.load(_path(uri, rest), ask)
        if public is not None and not same_key(signer.public_key, public):
            raise _another_key(uri, public)
        return signer
    service, secret = SERVICES[scheme], Pin(uri, ask)
    if public is None or (scheme == "hv" and "/" not in rest):
        uri, found = _look_up(service, uri, secret)
        if public is not None and not same_key(found, public):
            raise _another_key(uri, public)
        public = public or found
    return _open(service, uri, public, secret)


def load_public(uri: str, ask: Ask) -> SSlibKey:
    """Return the public half of the key at a URI; hardware is asked without its PIN first.

    Raises:
        KeyFileError: as for `load_signer`.
    """
    scheme, rest = _split(uri)
    if scheme == "file":
        return keyfiles.load(_path(uri, rest), ask).public_key
    return _look_up(SERVICES[scheme], uri, Pin(uri, ask))[1]


class Pin:
    """A PIN: asked once, and not tried again when it was refused, as a few tries lock a token."""

    def __init__(self, uri: str, ask: Ask) -> None:
        self._uri = uri
        self._ask = ask
        self._answer: str | None = None
        self._refused = False

    def __call__(self, what: str) -> str:
        """Return the secret; ask for it the first time."""
        if self._answer is None:
            try:
                self._answer = self._ask(f"{what} for {self._uri}").decode()
            except UnicodeDecodeError:
                self._answer = None
        if self._answer is None:
            raise KeyFileError(self._uri, f"a {what} in UTF-8", "something else")
        return self._answer

    def guard(self, call: Callable[[], T]) -> T:
        """Call into a service; whatever it raises becomes one error, without the secret."""
        if self._refused:
            raise KeyFileError(self._uri, _RIGHT_PIN, "one that was refused before")
        try:
            return call()
        except KeyFileError:
            raise
        except UnsupportedLibraryError:
            extra = SERVICES[_split(self._uri)[0]].extra
            wrong = ("the packages for such keys", f"none: pip install 'crateseal[{extra}]'")
        except Exception as error:  # noqa: BLE001 - signers raise whatever their service does
            wrong = self._in_words(error)
        # Outside of the handler: what was raised is not carried along.
        raise KeyFileError(self._uri, *wrong)

    def _in_words(self, error: Exception) -> tuple[str, str]:
        name = type(error).__name__
        if name.startswith("Pin"):  # PinIncorrect, PinLocked, … of PKCS#11
            self._refused = True
            return _RIGHT_PIN, f"another ({name}); it is not tried again, as tries are counted"
        line = next(iter(str(error).splitlines()), "")
        if not line or (self._answer and self._answer in line):
            return "a key that can be used", name
        return "a key that can be used", f"{name}: {line}"


class ServiceSigner(Signer):
    """Signs with a key somewhere else, and hands on no signature that does not verify."""

    def __init__(self, uri: str, signer: Signer, secret: Pin) -> None:
        self._uri = uri
        self._signer = signer
        self._secret = secret

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: Secret | None = None
    ) -> ServiceSigner:
        """Not this way: `load_signer` makes them."""
        raise NotImplementedError

    @property
    def public_key(self) -> Key:
        """The public half."""
        return self._signer.public_key

    def sign(self, payload: bytes) -> Signature:
        """Sign.

        Raises:
            KeyFileError: the service does not, or not with this key.
        """
        signature = self._secret.guard(lambda: self._signer.sign(payload))
        if not _verifies(self.public_key, signature, payload):
            keyid = self.public_key.keyid[:8]
            raise KeyFileError(self._uri, f"a signature by key {keyid}…", "one that is not")
        return signature


def _verifies(key: Key, signature: Signature, payload: bytes) -> bool:
    try:
        key.verify_signature(signature, payload)
    except UnverifiedSignatureError:
        return False
    return True


def _open(service: Service, uri: str, public: Key, secret: Pin) -> ServiceSigner:
    canonical_key(uri, public)
    signer = secret.guard(lambda: service.signer.from_priv_key_uri(uri, public, secret))
    return ServiceSigner(uri, signer, secret)


def _look_up(service: Service, uri: str, secret: Pin) -> tuple[str, SSlibKey]:
    whole, key = secret.guard(lambda: service.lookup(uri, secret))
    return whole, canonical_key(uri, key)


def _another_key(uri: str, public: Key) -> KeyFileError:
    return KeyFileError(uri, f"the private half of {public.keyid[:8]}…", "another key")


def _split(uri: str) -> tuple[str, str]:
    """Return scheme and rest; a bare path has the scheme `file`."""
    match = _SCHEME.fullmatch(uri)
    if not match:
        return "file", uri
    scheme, rest = match.groups()
    if scheme != "file" and scheme not in SERVICES:
        known = ", ".join(f"{each}:" for each in ("file", *SERVICES))
        raise KeyFileError(uri, f"a path or one of {known}", f"{scheme}:")
    return scheme, rest


def _path(uri: str, rest: str) -> Path:
    path = rest.removeprefix("//") if rest.startswith("///") else rest
    if not path or path.startswith("//"):
        raise KeyFileError(uri, "file:PATH", "no path of this machine")
    return Path(path)


def _import_hsm(uri: str, secret: Secret) -> tuple[str, Key]:
    parts = urlsplit(uri)
    label = dict(parse_qsl(parts.query)).get("label")
    keyid = int(parts.path) if parts.path else HSMSigner.SCHEME_KEYID
    return HSMSigner.import_(keyid, label, secret)


def _import_gcp(uri: str, _secret: Secret) -> tuple[str, Key]:
    return GCPSigner.import_(urlsplit(uri).path)


def _import_aws(uri: str, _secret: Secret) -> tuple[str, Key]:
    return AWSSigner.import_(urlsplit(uri).path)


def _import_azure(uri: str, _secret: Secret) -> tuple[str, Key]:
    parts = urlsplit(uri)
    vault = (parts.hostname or "").removesuffix(".vault.azure.net")
    name, _, version = parts.path.removeprefix("/keys/").partition("/")
    if not vault or "." in vault or not name:
        raise KeyFileError(uri, "azurekms://VAULT.vault.azure.net/keys/NAME[/VERSION]", "another")
    whole, key = AzureSigner.import_(vault, name)
    return _newest(uri, whole, version), key


def _import_vault(uri: str, _secret: Secret) -> tuple[str, Key]:
    name, _, version = urlsplit(uri).path.partition("/")
    whole, key = VaultSigner.import_(name)
    return _newest(uri, whole, version), key


def _newest(uri: str, whole: str, version: str) -> str:
    """Only the newest version's public half is given out by these two."""
    newest = whole.rpartition("/")[2]
    if version not in {"", newest}:
        raise KeyFileError(uri, f"the newest version, {newest}", version)
    return whole


SERVICES = {
    "hsm": Service("hsm", HSMSigner, _import_hsm),
    "gcpkms": Service("gcpkms", GCPSigner, _import_gcp),
    "awskms": Service("awskms", AWSSigner, _import_aws),
    "azurekms": Service("azurekms", AzureSigner, _import_azure),
    "hv": Service("vault", VaultSigner, _import_vault),
}
