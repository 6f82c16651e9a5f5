"""Errors as problem+json (RFC 9457), with a stable code and no submitted values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, ConfigDict
from starlette._utils import get_route_path
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute

from shared.auth.scopes import Caller
from shared.errors import AamError, TooManyRequests, UpstreamRateLimited
from shared.http import validation
from shared.observability import logs

log = logs.get(__name__)


PROBLEM_JSON = "application/problem+json"


class Problem(BaseModel):
    """An error, by RFC 9457. `code` is stable; `detail` is human-readable and quotes no input."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:aam:problem:not_found",
                    "title": "Not found",
                    "status": 404,
                    "detail": "No connection 7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f.",
                    "code": "not_found",
                    "request_id": "5d1f0c3e9a7b4f0c8e6d2a1b3c4d5e6f",
                }
            ]
        },
    )

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of a route, for its OpenAPI description."""
    content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _TITLES[status], "content": content} for status in statuses}


_TITLES = {
    400: "Malformed request: an invalid Idempotency-Key, or a body that is not UTF-8",
    401: "Authentication required",
    403: "Insufficient scope",
    404: "Not found",
    408: "The body did not arrive in time",
    409: "Conflict with the current state",
    413: "The body is too large",
    415: "Unsupported media type: a body is plain JSON",
    422: "Invalid request, or refused by Airbyte",
    429: "Too many requests; Retry-After says when to try again",
    502: "Airbyte did not complete the request",
    503: "A dependency is unavailable; nothing was recorded",
    504: "Not completed by its deadline, or its outcome is unknown",
}


RETRY_SOON = {"Retry-After": "1"}


_HEADERS_OF = {401: {"WWW-Authenticate": "Bearer"}, 503: RETRY_SOON}
"""Headers that a status requires."""


def problem_response(
    problem: Mapping[str, Any], *, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(
        orjson.dumps({**problem, "request_id": logs.request_id()}, default=str),
        status_code=problem["status"],
        media_type=PROBLEM_JSON,
        headers={**_HEADERS_OF.get(problem["status"], {}), **(headers or {})},
    )


def refusal_response(error: AamError) -> Response:
    return problem_response(error.problem())


_WITH_WAIT = frozenset({TooManyRequests.status, UpstreamRateLimited.status})
"""Statuses whose `Retry-After` is `wait_s` of the error, where it has one."""

_FOR_WRITERS = ("explanation", "log")
"""Members of a problem that only callers with connections:write receive."""


async def answer_expected(request: Request, error: AamError) -> Response:
    if error.status >= 500:
        log.warning("request_failed", code=error.code, detail=error.detail)
    problem = error.problem()
    caller: Caller | None = getattr(request.state, "caller", None)
    if caller is None or not caller.may_change_connections:
        problem = {name: one for name, one in problem.items() if name not in _FOR_WRITERS}
    headers = None
    if error.status in _WITH_WAIT and "wait_s" in error.members:
        headers = {"Retry-After": f"{math.ceil(error.members['wait_s'])}"}
    return problem_response(problem, headers=headers)


async def answer_invalid(request: Request, error: RequestValidationError) -> Response:
    return problem_response(validation.invalid(request, error).problem())


async def answer_http(request: Request, error: HTTPException) -> Response:
    methods = _methods_at(request.app.routes, get_route_path(request.scope))
    headers, detail = error.headers, "The request is invalid."
    if error.status_code == 405:
        code, title = "method_not_allowed", "Method not allowed"
        # Starlette lists only the methods of the first route with this path.
        headers = {"Allow": ", ".join(sorted(methods))}
        detail = f"This route accepts {headers['Allow']}."
    elif error.status_code == 404:
        code, title, detail = "no_such_route", "No such route", "There is no such route."
        if _methods_at(request.app.routes, get_route_path(request.scope).rstrip("/")):
            detail = "There is no such route; omit the slash at its end."
    else:
        code, title = "http_error", str(error.detail)
    return problem_response(
        {
            "type": f"urn:aam:problem:{code}",
            "title": title,
            "status": error.status_code,
            "detail": detail,
            "code": code,
        },
        headers=headers,
    )


def _methods_at(routes: Sequence[BaseRoute], path: str) -> set[str]:
    """The methods that a path accepts, over all of its routes."""
    found: set[str] = set()
    for route in iter_route_contexts(routes):
        if (pattern := getattr(route, "path_regex", None)) is not None and pattern.match(path):
            found |= route.methods or set()
    return found | ({"HEAD"} if "GET" in found else set())
