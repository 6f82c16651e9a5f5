"""HTTP routes that create, list and revoke API keys; a key is shown only when it is created."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from services.orchestrator.labels import MOST_LABELS, LabelName
from shared import registry
from shared.auth.api_keys import make_key
from shared.auth.scopes import KEY_SCOPES, Scope, caller_of, may
from shared.database import Database
from shared.errors import Forbidden
from shared.http.dependencies import from_state
from shared.http.openapi import example, links
from shared.http.paging import AfterText, Limit, Page
from shared.http.problems import problems
from shared.http.responses import raw_json
from shared.http.strict_json import Name
from shared.http.timestamps import Timestamp

_VIEW: dict[str, Any] = {
    "id": "ab12cd34",
    "owner": "ada@example.com",
    "scopes": ["connections:read", "repairs:decide"],
    "labels": {},
    "created_by": "first (key 0f1e2d3c)",
    "created_at": "2026-11-25T09:30:00.123456Z",
    "expires_at": "2027-02-23T00:00:00Z",
    "last_used_at": None,
    "revoked_at": None,
}


def _to_come(moment: datetime) -> datetime:
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        moment = datetime.max.replace(tzinfo=UTC)
    if moment <= datetime.now(UTC):
        raise PydanticCustomError("aam_to_come", "Input should be in the future")
    return moment


class NewKey(BaseModel):
    """The request to create a key."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "owner": "ada@example.com",
                    "scopes": ["connections:read", "repairs:decide"],
                    "expires_at": "2037-02-23T00:00:00Z",
                },
                {"owner": "sales", "scopes": ["connections:read"], "labels": {"team": "sales"}},
            ]
        },
    )

    owner: Name
    """The owner, a person or a system; recorded with the actions taken with the key."""
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(KEY_SCOPES))]
    expires_at: Annotated[Timestamp, AfterValidator(_to_come)] | None = None
    """When it expires; null for never."""
    labels: Annotated[dict[LabelName, Name], Field(max_length=MOST_LABELS)] = {}
    """Limits the key to connections that have all of these labels; it cannot have `admin` then."""


class KeyView(BaseModel):
    """A key without its secret part."""

    model_config = ConfigDict(json_schema_extra={"examples": [_VIEW]})

    id: str
    owner: str
    scopes: list[str]
    labels: dict[str, str]
    """The labels that connections must have for it; empty if it sees all."""
    created_by: str
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    """With a precision of one minute."""
    revoked_at: datetime | None = None


class KeyWithSecret(BaseModel):
    """A new key in clear text; it is not stored and cannot be shown again."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"id": "ab12cd34", "key": "aam_live_ab12cd34_<43 characters>"}]
        }
    )

    id: str
    key: str


router = APIRouter(prefix="/api-keys", tags=["keys"])
KeyId = Annotated[str, Path(pattern=r"^[a-z0-9]{8}$", examples=["ab12cd34"])]


Registry = Annotated[Database, from_state("db")]
_ADMIN = [may(Scope.ADMIN)]


@router.post(
    "",
    status_code=201,
    dependencies=_ADMIN,
    responses={
        201: links("DELETE /api-keys/{key_id}", key_id="$response.body#/id"),
        **problems(413, 422, 503, 504),
    },
)
async def make_api_key(
    order: NewKey,
    request: Request,
    response: Response,
    db: Registry,
    environment: Annotated[str, from_state("key_environment")],
) -> KeyWithSecret:
    """Create a key; it is shown only in this response, since AAM stores just a digest of it.

    It can have only scopes that the caller has; `make key`, on the machine, can give any. With
    `labels`, it sees only connections that have all of them, and nothing that spans the
    installation: 403 `label_limited`.
    """
    caller = caller_of(request)
    lacking = sorted(set(order.scopes) - caller.scopes)
    if lacking:
        raise Forbidden(
            f"Only a caller with the scope {lacking[0]} can grant it.", scope=lacking[0]
        )
    async with db.transaction() as session:
        made = await make_key(
            session,
            environment=environment,
            owner=order.owner,
            scopes=sorted(set(order.scopes)),
            created_by=caller.name,
            expires_at=order.expires_at,
            labels=order.labels,
        )
    response.headers["Cache-Control"] = "no-store"
    return KeyWithSecret(id=made.id, key=made.key)


@router.get(
    "",
    dependencies=_ADMIN,
    response_model=Page[KeyView],
    responses={200: example({"items": [_VIEW], "next": None}), **problems(422, 503)},
)
async def api_keys(
    db: Registry,
    revoked: Annotated[bool, Query(description="Include revoked keys")] = False,
    after: AfterText = None,
    limit: Limit = 100,
) -> Response:
    """List the keys, newest first: their owners, their scopes, and when they were last used."""
    cursor = registry.read_position(after) if after else None
    async with db.read() as session:
        return raw_json(
            await registry.page_of_keys(session, revoked=revoked, after=cursor, limit=limit)
        )


@router.delete(
    "/{key_id}", dependencies=_ADMIN, response_model=KeyView, responses=problems(404, 422, 503, 504)
)
async def revoke_api_key(key_id: KeyId, db: Registry) -> Response:
    """Revoke a key for good; every service refuses it within five seconds."""
    async with db.transaction() as session:
        await registry.revoke_key(session, key_id)
        return raw_json(await registry.key_json(session, key_id))
