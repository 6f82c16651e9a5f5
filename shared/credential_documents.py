"""A credential as the auth_broker gives it: a document, and the store's names of its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

import msgspec

Document: TypeAlias = Mapping[str, Any]
"""The values of a credential by name, nested; it holds secrets."""
MAX_DEPTH = 16
"""How deep the values of a credential may be nested."""
EXPIRES_AT = "expires_at"
"""The name of a date beside the values: when the credential expires. It is sent only to connectors
whose specification has it."""


class Naming(msgspec.Struct, frozen=True):
    """How a store names the values of one credential, to say where one is missing."""

    prefix: str
    """`CREDENTIAL_SALESFORCE_PROD__`, `salesforce-prod/` or `aam/salesforce-prod#`."""
    separator: str
    """What is between the levels of a nested value: `__`, `/` or `.`."""
    is_upper: bool = False

    def of(self, path: Sequence[str | int]) -> str:
        """The store's own name of the value at a path."""
        joined = self.separator.join(map(str, path))
        return self.prefix + (joined.upper() if self.is_upper else joined)


class Credential(msgspec.Struct, frozen=True):
    """A credential's document with the names of its store."""

    document: dict[str, Any]
    naming: Naming

    def __repr__(self) -> str:
        """Omit the document, which has secrets."""
        return f"Credential({self.naming!r})"


class CredentialVersion(msgspec.Struct, frozen=True):
    """Whether a credential changed, without any of its values."""

    credential_id: str
    version: str | None = None
    """Opaque; the same as before means the same values. None if it cannot be read: see `code`."""
    expires_at: datetime | None = None
    """When it expires, if its store or its document has a date."""
    code: str | None = None
    """Why it has no version."""
