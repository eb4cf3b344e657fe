"""From a signed part to a file's bytes.

`canonical` is the fast way to OLPC canonical JSON; that it is the same is shown on every file, as
python-tuf makes the canonical form in its own way when the file is checked (verify.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from securesystemslib.exceptions import FormatError
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import Signature, Signer

from tuf_repo.errors import TargetError

_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


def canonical(signed: Mapping[str, Any]) -> bytes:
    """Return the bytes that are signed.

    Raises:
        TargetError: a string in it cannot be written as UTF-8, or a value not as JSON.
    """
    try:
        text = json.dumps(
            signed, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        if "\\" in text:
            # The line ends of a PEM, say: they stand bare in the canonical form.
            text = _exact(signed)
        return text.encode()
    except (ValueError, TypeError, FormatError) as error:
        raise TargetError("metadata", "JSON values and valid text", str(error)) from error


def _exact(signed: Mapping[str, Any]) -> str:
    text = encode_canonical(dict(signed)) or ""
    if _CONTROL.search(text):
        raise ValueError("a control character")
    return text


def sign(signed: Mapping[str, Any], signers: Mapping[str, Signer] | Signer) -> bytes:
    """Return the file: the signed part in canonical form, and the signatures over it.

    Args:
        signed: the signed part.
        signers: one, or several by keyid.
    """
    payload = canonical(signed)
    several = signers.values() if isinstance(signers, Mapping) else [signers]
    return file_bytes(payload, [signer.sign(payload) for signer in several])


def file_bytes(payload: bytes, signatures: Iterable[Signature]) -> bytes:
    """Return the file of a canonical signed part. There is no second way to write one."""
    fields = [{"keyid": each.keyid, "sig": each.signature} for each in signatures]
    # Bare in the canonical form, escaped in JSON; outside of strings neither has any.
    signed = payload.replace(b"\n", b"\\n")
    return b'{"signatures":' + json.dumps(fields).encode() + b',"signed":' + signed + b"}"
