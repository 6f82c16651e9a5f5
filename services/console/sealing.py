"""Encryption of what cookies hold: AES-256-GCM under the keys of CONSOLE_SESSION_KEYS.

The first key encrypts, all decrypt. What was sealed for one purpose does not open for another.
"""

from __future__ import annotations

import base64
import binascii
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

_FORMAT: Final = b"\x01"
_KEY_BYTES, _ID_BYTES, _NONCE_BYTES = 32, 4, 12
_DERIVED_FOR: Final = b"aam console sessions"


class SealingKeys:
    """Seals and opens the values of cookies."""

    def __init__(self, keys: SecretStr) -> None:
        derived = [_derived(key.strip()) for key in keys.get_secret_value().split(",")]
        self._first = derived[0][0]
        self._by_id = {key_id: AESGCM(key) for key_id, key in derived}

    def seal(self, plain: bytes, purpose: bytes) -> str:
        """Encrypt for a cookie."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._by_id[self._first].encrypt(nonce, plain, purpose)
        whole = _FORMAT + self._first + nonce + sealed
        return base64.urlsafe_b64encode(whole).rstrip(b"=").decode("ascii")

    def open(self, text: str, purpose: bytes) -> bytes | None:
        """Decrypt a cookie; None if it was changed, has another purpose, or no key fits."""
        try:
            whole = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        key = self._by_id.get(whole[1 : 1 + _ID_BYTES])
        if key is None or whole[:1] != _FORMAT:
            return None
        rest = whole[1 + _ID_BYTES :]
        try:
            return key.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], purpose)
        except (InvalidTag, ValueError):
            return None

    def is_under_first_key(self, text: str) -> bool:
        """Whether a cookie that opens was sealed with the key that now encrypts."""
        head = base64.urlsafe_b64decode(text[:8])
        return head[1 : 1 + _ID_BYTES] == self._first


def _derived(key: str) -> tuple[bytes, bytes]:
    """The id and the encryption key that follow from a key of the settings."""
    derivation = HKDF(SHA256(), length=_KEY_BYTES + _ID_BYTES, salt=None, info=_DERIVED_FOR)
    derived = derivation.derive(key.encode())
    return derived[_KEY_BYTES:], derived[:_KEY_BYTES]
