"""Compress and encrypt saved states: AES-256-GCM under the keys of STATE_ENCRYPTION_KEYS.

A sealed state is a format byte, the id of its key, a nonce and the ciphertext. It is bound to the
row that it belongs to, so that it cannot be moved to another connection's.
"""

from __future__ import annotations

import os
import zlib
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

MAX_BYTES: Final = 16 * 1024 * 1024
"""The largest state that is saved, before compression."""
_FORMAT: Final = b"\x01"
_KEY_BYTES, _ID_BYTES, _NONCE_BYTES = 32, 4, 12
_PURPOSE: Final = b"aam stream_states"


class StateUnreadable(Exception):
    """No key of STATE_ENCRYPTION_KEYS decrypts the state, or the row was changed."""


class Sealer:
    """Seals states with the first key, and opens those of any of the keys."""

    def __init__(self, keys: SecretStr | None) -> None:
        given = "" if keys is None else keys.get_secret_value()
        derived = [_derived(key.strip()) for key in given.split(",") if key.strip()]
        self._first = derived[0][0] if derived else None
        self._by_id = {key_id: AESGCM(key) for key_id, key in derived}

    @property
    def is_able(self) -> bool:
        """Whether there is a key to seal with."""
        return self._first is not None

    def seal(self, state: bytes, *, connection_id: UUID, operation_id: UUID) -> bytes | None:
        """Compress and encrypt a state; None without a key."""
        if self._first is None:
            return None
        nonce = os.urandom(_NONCE_BYTES)
        bound_to = connection_id.bytes + operation_id.bytes
        sealed = self._by_id[self._first].encrypt(nonce, zlib.compress(state), bound_to)
        return _FORMAT + self._first + nonce + sealed

    def open(self, sealed: bytes, *, connection_id: UUID, operation_id: UUID) -> bytes:
        """Decrypt a state.

        Raises:
            StateUnreadable: no key fits, or it is not the sealed state of this row.
        """
        key_id, rest = sealed[1 : 1 + _ID_BYTES], sealed[1 + _ID_BYTES :]
        key = self._by_id.get(key_id)
        if key is None or sealed[:1] != _FORMAT:
            raise StateUnreadable
        bound_to = connection_id.bytes + operation_id.bytes
        try:
            packed = key.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], bound_to)
            return zlib.decompressobj().decompress(packed, MAX_BYTES)
        except (InvalidTag, ValueError, zlib.error):
            raise StateUnreadable from None


def _derived(key: str) -> tuple[bytes, bytes]:
    """The id and the encryption key that follow from a key of the settings."""
    derivation = HKDF(SHA256(), length=_KEY_BYTES + _ID_BYTES, salt=None, info=_PURPOSE)
    derived = derivation.derive(key.encode())
    return derived[_KEY_BYTES:], derived[:_KEY_BYTES]
