"""From a signed part to a file's bytes.

`canonical` is the fast way to OLPC canonical JSON; that it is the same is shown on every file, as
python-tuf makes the canonical form in its own way when the file is checked (verify.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from securesystemslib.signer import Signer

from tuf_repo.errors import TargetError


def canonical(signed: Mapping[str, Any]) -> bytes:
    """Return the bytes that are signed.

    Raises:
        TargetError: a string in it cannot be written as UTF-8, or a value not as JSON.
    """
    try:
        return json.dumps(
            signed, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        ).encode()
    except (ValueError, TypeError) as error:
        raise TargetError("metadata", "JSON values and valid text", str(error)) from error


def sign(signed: Mapping[str, Any], signers: Mapping[str, Signer] | Signer) -> bytes:
    """Return the file: the signed part in canonical form, and the signatures over it.

    Args:
        signed: the signed part.
        signers: one, or several by keyid.
    """
    payload = canonical(signed)
    several = signers.values() if isinstance(signers, Mapping) else [signers]
    signatures = [signer.sign(payload).to_dict() for signer in several]
    return b'{"signatures":' + json.dumps(signatures).encode() + b',"signed":' + payload + b"}"
