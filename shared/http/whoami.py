"""GET /whoami: who the credentials of a request belong to, and what they allow."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict

from shared.auth.scopes import any_caller, caller_of

_KEY: dict[str, Any] = {
    "kind": "api_key",
    "id": "ab12cd34",
    "name": "ada@example.com (key ab12cd34)",
    "owner": "ada@example.com",
    "scopes": ["connections:read", "repairs:decide"],
    "expires_at": "2027-02-23T00:00:00Z",
    "labels": {},
}


class CallerView(BaseModel):
    """A caller, as this service knows it."""

    model_config = ConfigDict(json_schema_extra={"examples": [_KEY]})

    kind: Literal["api_key", "oidc", "service"]
    id: str
    """The id of the API key, the subject of the OIDC token, or the name of the service."""
    name: str
    """The caller's name in records, such as `decided_by`."""
    owner: str | None
    """Whose API key it is; null for other callers."""
    scopes: list[str]
    expires_at: datetime | None
    """When the credentials expire; null for never."""
    labels: dict[str, str]
    """The labels that connections must have for the caller; empty if it sees all."""


router = APIRouter(tags=["keys"])


@router.get("/whoami", dependencies=[any_caller()])
async def whoami(request: Request, response: Response) -> CallerView:
    """Get the caller of this request: its key, token or service, and its scopes.

    Any valid credentials will do. Nothing here is secret: a key's id is not its secret.
    """
    caller = caller_of(request)
    response.headers["Cache-Control"] = "no-store"
    return CallerView(
        kind=caller.kind,
        id=caller.id.partition(":")[2],
        name=caller.name,
        owner=caller.owner,
        scopes=sorted(caller.scopes),
        expires_at=caller.expires_at,
        labels=dict(caller.labels),
    )
