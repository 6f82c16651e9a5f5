"""Operations over HTTP: their routes, the `wait` parameter, Idempotency-Key, and responses."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from shared.auth.scopes import Scope, caller_of, may
from shared.errors import BadKey
from shared.http.dependencies import from_state
from shared.http.openapi import example, links
from shared.http.paging import After, Limit, Page
from shared.http.problems import PROBLEM_JSON, problems
from shared.http.responses import raw_json
from shared.models import OperationStatus
from shared.operations import HttpResult, Key, Operations
from shared.operations.schemas import OPERATION, Accepted, OperationView

_KEY = re.compile(r"[A-Za-z0-9_-]{16,128}")
_LONGEST_WAIT_S = 300


ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "model": Accepted,
        "description": "Accepted; GET /operations/{operation_id} reports its progress",
        **links("GET /operations/{operation_id}", operation_id="$response.body#/operation_id"),
    }
}


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


router = APIRouter(tags=["operations"])
"""The routes that report operations, for every service that runs operations."""


@router.get(
    "/operations/{operation_id}",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=OperationView,
    responses=problems(404, 503),
)
async def get_operation(request: Request, operation_id: UUID, operations: Service) -> Response:
    """Get one operation: its status, its current step, and what it waits for."""
    is_explained = caller_of(request).may_change_connections
    return raw_json(await operations.view(operation_id, is_explained=is_explained))


@router.get(
    "/operations",
    dependencies=[may(Scope.CONNECTIONS_READ)],
    response_model=Page[OperationView],
    responses={
        200: example({"items": [OPERATION], "next": None})
        | links(
            "GET /operations/{operation_id}",
            operation_id="$response.body#/items/0/operation_id",
        ),
        **problems(422, 503),
    },
)
async def list_operations(
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
