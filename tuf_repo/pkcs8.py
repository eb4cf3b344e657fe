"""A private key encrypted as PKCS#8 (RFC 5958), so that guessing its passphrase is slow.

`cryptography` reads any such file, but writes only ones of 2,048 PBKDF2 rounds, which a graphics
card tries by the million in a second. This writes the same kind of file with 600,000 of them;
`openssl pkey` reads it, too.
"""

from __future__ import annotations

import base64
import os
import textwrap

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.padding import PKCS7

# OWASP's figure for PBKDF2 with HMAC-SHA256, 2023.
ROUNDS = 600_000
_KEY_BYTES = 32
_RANDOM_BYTES = 16

_SEQUENCE, _INTEGER, _OCTETS, _NULL, _OID = 0x30, 0x02, 0x04, 0x05, 0x06
# RFC 8018, appendix C: id-PBES2, id-PBKDF2, id-hmacWithSHA256, aes256-CBC-PAD.
_PBES2 = bytes.fromhex("2a864886f70d01050d")
_PBKDF2 = bytes.fromhex("2a864886f70d01050c")
_HMAC_SHA256 = bytes.fromhex("2a864886f70d0209")
_AES256_CBC = bytes.fromhex("60864801650304012a")


def encrypt(private: bytes, passphrase: bytes) -> bytes:
    """Return PEM from a PKCS#8 private key in DER."""
    salt, start = os.urandom(_RANDOM_BYTES), os.urandom(_RANDOM_BYTES)
    key = PBKDF2HMAC(SHA256(), _KEY_BYTES, salt, ROUNDS).derive(passphrase)
    padder = PKCS7(AES.block_size).padder()
    encryptor = Cipher(AES(key), CBC(start)).encryptor()
    data = encryptor.update(padder.update(private) + padder.finalize()) + encryptor.finalize()
    rounds = ROUNDS.to_bytes(ROUNDS.bit_length() // 8 + 1, "big")
    derivation = _der(
        _SEQUENCE,
        _der(_OID, _PBKDF2),
        _der(
            _SEQUENCE,
            _der(_OCTETS, salt),
            _der(_INTEGER, rounds),
            _der(_SEQUENCE, _der(_OID, _HMAC_SHA256), _der(_NULL)),
        ),
    )
    cipher = _der(_SEQUENCE, _der(_OID, _AES256_CBC), _der(_OCTETS, start))
    scheme = _der(_SEQUENCE, _der(_OID, _PBES2), _der(_SEQUENCE, derivation, cipher))
    return _pem(_der(_SEQUENCE, scheme, _der(_OCTETS, data)))


def _der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body)
    if size < 0x80:
        return bytes([tag, size]) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def _pem(der: bytes) -> bytes:
    lines = textwrap.wrap(base64.b64encode(der).decode(), 64)
    begin, end = (f"-----{word} ENCRYPTED PRIVATE KEY-----" for word in ("BEGIN", "END"))
    return "\n".join([begin, *lines, end, ""]).encode()
