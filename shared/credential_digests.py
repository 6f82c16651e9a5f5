"""Keyed digests of credentials, which show whether a value is the same without storing it.

A plain hash of a short secret could be brute-forced; these are useless without the key.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

import msgspec
from pydantic import SecretStr

from shared.credential_documents import Document
from shared.domain import specification
from shared.domain.specification import Pointer


class Digests:
    """Digests of a configuration's values under ROTATION_DIGEST_KEY."""

    def __init__(self, key: SecretStr) -> None:
        self._key = key.get_secret_value().encode()

    @classmethod
    def under(cls, key: SecretStr | None) -> Digests | None:
        """The digests under a key; None without a key."""
        return None if key is None else cls(key)

    def of(self, reference: str, configuration: Mapping[str, Any]) -> dict[Pointer, str]:
        """The digest of each leaf of a configuration, nested ones included."""
        found = specification.leaves(configuration)
        return {pointer: self.digest(reference, pointer, value) for pointer, value in found.items()}

    def digest(self, reference: str, pointer: Pointer, value: object) -> str:
        """The digest of one value at its place."""
        return _digest(self._key, [reference, pointer, value])

    @property
    def version_key(self) -> str:
        """A key derived for the auth_broker's digests of whole documents; 64 characters."""
        return hmac.new(self._key, b"aam credential versions", "sha256").hexdigest()


def version_of(document: Document, *, reference: str, key: str) -> str:
    """The digest of a whole document under a `version_key`, whatever the order of its names."""
    return _digest(key.encode(), [reference, document])


def _digest(key: bytes, message: object) -> str:
    encoded = msgspec.json.encode(message, order="deterministic")
    return hmac.new(key, encoded, "sha256").hexdigest()
