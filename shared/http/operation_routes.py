"""Operations over HTTP: their routes, the `wait` parameter, Idempotency-Key, and responses."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict

from shared.auth.scopes import Scope, caller_of, may
from shared.errors import BadKey
from shared.http.dependencies import from_state
from shared.http.openapi import example, links
from shared.http.paging import After, Limit, Page
from shared.http.problems import PROBLEM_JSON, problems
from shared.http.responses import raw_json
from shared.models import OperationStatus
from shared.operations import HttpResult, Key, Operations

_ID = "3f8e2d1c-4b5a-4968-8776-a5b4c3d2e1f0"
_KEY = re.compile(r"[A-Za-z0-9_-]{16,128}")
_LONGEST_WAIT_S = 300


_EXAMPLE: dict[str, Any] = {
    "operation_id": _ID,
    "kind": "onboard",
    "connection_id": "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f",
    "connection_name": "Salesforce production",
    "status": "running",
    "step": "discover",
    "step_since": "2026-11-22T09:30:01.123456Z",
    "waits_for": "upstream_timeout",
    "attempts": 1,
    "requested_by": "ada@example.com (key ab12cd34)",
    "created_at": "2026-11-22T09:30:00.123456Z",
    "deadline": "2026-11-22T10:00:00.123456Z",
}


class Accepted(BaseModel):
    """The operation is recorded and runs; GET /operations/{operation_id} reports its progress."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"operation_id": _ID, "status": "running"}]}
    )

    operation_id: UUID
    status: OperationStatus


class OperationView(BaseModel):
    """An operation on a connection, and its progress."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    operation_id: UUID
    kind: str
    connection_id: UUID
    connection_name: str | None = None
    status: OperationStatus
    step: str
    step_since: datetime
    waits_for: str | None = None
    """The error code of what it waits for."""
    attempts: int
    """How often a process has started or resumed it."""
    requested_by: str | None = None
    """The caller who requested it; null if AAM started it."""
    problem: dict[str, Any] | None = None
    response_status: int | None = None
    notes: list[dict[str, Any]] | None = None
    """Of an onboarding: the streams and fields that were excluded, and why."""
    created_at: datetime
    deadline: datetime
    ended_at: datetime | None = None


ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "model": Accepted,
        "description": "Accepted; GET /operations/{operation_id} reports its progress",
        **links("GET /operations/{operation_id}", operation_id="$response.body#/operation_id"),
    }
}


def routes() -> APIRouter:
    """The routes that report operations, for every service that runs operations."""
    router = APIRouter(tags=["operations"])

    @router.get(
        "/operations/{operation_id}",
        dependencies=[may(Scope.CONNECTIONS_READ)],
        response_model=OperationView,
        responses=problems(404, 503),
    )
    async def operation(request: Request, operation_id: UUID, operations: Service) -> Response:
        """Get one operation: its status, its current step, and what it waits for."""
        is_explained = caller_of(request).may_change_connections
        return raw_json(await operations.view(operation_id, is_explained=is_explained))

    @router.get(
        "/operations",
        dependencies=[may(Scope.CONNECTIONS_READ)],
        response_model=Page[OperationView],
        responses={
            200: example({"items": [_EXAMPLE], "next": None})
            | links(
                "GET /operations/{operation_id}",
                operation_id="$response.body#/items/0/operation_id",
            ),
            **problems(422, 503),
        },
    )
    async def operations(
        request: Request,
        operations: Service,
        connection_id: Annotated[UUID | None, Query()] = None,
        status: Annotated[OperationStatus | None, Query()] = None,
        after: After = None,
        limit: Limit = 100,
    ) -> Response:
        """List operations, newest first, optionally filtered by connection or status."""
        return raw_json(
            await operations.page(
                connection_id=connection_id,
                status=status,
                cursor=after,
                limit=limit,
                is_explained=caller_of(request).may_change_connections,
            )
        )

    return router


async def _key(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(
            description=(
                "16 to 128 letters, digits, `_` and `-`. Within 24 hours, repeating a request "
                "with the same key has no further effect and returns the same response."
            )
        ),
    ] = None,
) -> Key | None:
    """The Idempotency-Key of a request, scoped to its caller and route; None without one.

    Raises:
        BadKey: its length or a character is invalid, or there is more than one.
    """
    if idempotency_key is None:
        return None
    given = request.headers.getlist("idempotency-key")
    # The IETF draft defines a quoted string; many clients send it unquoted.
    key = given[0].strip().removeprefix('"').removesuffix('"')
    if len(given) > 1 or not _KEY.fullmatch(key):
        raise BadKey("An Idempotency-Key must have 16 to 128 letters, digits, `_` and `-`.")
    digest = hashlib.blake2b(request.url.path.encode() + b"\0", digest_size=16)
    digest.update(await request.body())
    route = f"{request.method} {request.scope['route'].path}"
    return Key(caller=caller_of(request).id, route=route, key=key, fingerprint=digest.digest())


async def _wait(
    request: Request,
    wait: Annotated[
        float | None,
        Query(
            ge=0,
            le=_LONGEST_WAIT_S,
            description="Seconds to wait for the result before the response is 202. Default: 55.",
        ),
    ] = None,
) -> float:
    default: float = request.app.state.request_wait_s
    return default if wait is None else wait


Service = Annotated[Operations, from_state("operations")]
GivenKey = Annotated[Key | None, Depends(_key)]
Wait = Annotated[float, Depends(_wait)]


def answered(answer: HttpResult) -> Response:
    """The HTTP response for an operation's result."""
    response = raw_json(answer.body, status_code=answer.status)
    if answer.status >= 400:
        response.headers["content-type"] = PROBLEM_JSON
    if answer.status == 503:
        response.headers["retry-after"] = "1"
    if answer.is_replay:
        response.headers["idempotency-replayed"] = "true"
    return response
