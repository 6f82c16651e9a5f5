"""Response classes of lists about credentials, with examples; none has a field for a value."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

_AT = "2026-11-24T09:30:00.123456Z"
CREDENTIAL: dict[str, Any] = {
    "credential_id": "vault:salesforce-prod",
    "store": "vault",
    "state": "rejected",
    "rejected_since": _AT,
    "rejected_cause": "credential_rejected",
    "changed_at": None,
    "rotated_at": "2026-10-01T08:00:00.123456Z",
    "expires_at": None,
    "source_types": ["Salesforce"],
    "connection_count": 1,
    "connections": [
        {
            "connection_id": "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f",
            "name": "Salesforce production",
            "source_type": "Salesforce",
            "rejected_since": _AT,
            "changed_at": None,
        }
    ],
}
READ: dict[str, Any] = {
    "at": _AT,
    "reader": "service orchestrator",
    "credential_id": "vault:salesforce-prod",
    "source_type": "Salesforce",
    "result": "granted",
    "request_id": "0f3c1d2b4e5f4b9d9a577d0c7f4e6a3c",
}


class CredentialUser(BaseModel):
    """A connection whose source has the credential."""

    connection_id: UUID
    name: str
    source_type: str
    rejected_since: datetime | None = None
    """Since when its source rejects the credential that it has."""
    changed_at: datetime | None = None
    """Since when the store is known to have another one than its source."""


class CredentialReference(BaseModel):
    """A credential that connections use, by its reference; its values are in its store only."""

    model_config = ConfigDict(json_schema_extra={"examples": [CREDENTIAL]})

    credential_id: str
    store: Literal["env", "file", "vault"] | None = None
    """The store that the reference names; null for the auth_broker's CREDENTIAL_STORE."""
    state: Literal["in_step", "changed", "rejected"]
    """`rejected`: a source rejects the credential that it has. `changed`: the store has another
    one than a source. `in_step`: neither is known."""
    rejected_since: datetime | None = None
    rejected_cause: str | None = None
    """The known cause of a rejection."""
    changed_at: datetime | None = None
    rotated_at: datetime | None = None
    """When AAM last sent a changed value of it to one of the connections' sources."""
    expires_at: datetime | None = None
    """Its expiry, once that was announced."""
    source_types: list[str]
    connection_count: int
    connections: list[CredentialUser]
    """The first 20 by name."""


class CredentialPage(BaseModel):
    """References in alphabetical order; `next` is the next page's `after`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": [CREDENTIAL], "next": None}]}
    )

    items: list[CredentialReference]
    next: str | None = None


class CredentialRead(BaseModel):
    """A request for the values of a credential, granted or refused."""

    model_config = ConfigDict(json_schema_extra={"examples": [READ]})

    at: datetime
    reader: str
    """The service that requested it."""
    credential_id: str
    source_type: str
    """The source type that it was for, as the reader gave it."""
    result: str
    """`granted`, or the code of the error."""
    request_id: str
    """As in the logs of both services."""


class RefusalView(BaseModel):
    """How often the same was refused to one caller within a minute."""

    minute: datetime
    """Its start; for the caller `others`, the start of the hour."""
    service: str
    caller: str
    method: str
    """`-` for an unknown one, and for `others`."""
    route: str
    """The path with the names of its parameters; `-` if no route has it, and for `others`."""
    status: int
    code: str
    count: int
    first_at: datetime
    last_at: datetime


REFUSAL: dict[str, Any] = {
    "minute": "2026-11-24T09:30:00Z",
    "service": "orchestrator",
    "caller": "key:ab12cd34",
    "method": "DELETE",
    "route": "/connections/{connection_id}",
    "status": 403,
    "code": "forbidden",
    "count": 3,
    "first_at": _AT,
    "last_at": "2026-11-24T09:30:41.000001Z",
}
