"""create_app: what every service's HTTP side has in common.

Health and readiness, problem+json for every error, a request id on every request, and checked
bodies. Answers never echo what was submitted.
"""

from __future__ import annotations

import asyncio
import gc
import math
import re
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from datetime import timedelta
from types import FrameType
from typing import Any
from uuid import uuid4

import msgspec
import orjson
import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, ConfigDict
from starlette._utils import get_route_path
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from shared.auth.scopes import Caller
from shared.errors import AamError, TooManyRequests, Unavailable
from shared.http import docs_page, validation
from shared.http.bodies import Bodies
from shared.http.descriptions import describe as describe_operation
from shared.http.gate import Access, Gate, NobodyCanCall, requirements
from shared.http.strict_json import ORDER, Limits
from shared.http.wire import ended_by_newline, without_body
from shared.observability import logs, tracing

log = logs.get(__name__)

PROBLEM_JSON = "application/problem+json"
BODY_DEADLINE = timedelta(seconds=30)

Check = Callable[[], Awaitable[object]]


class Problem(BaseModel):
    """An error, by RFC 9457. `code` is stable; `detail` is for people and quotes no input."""

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


class Health(BaseModel):
    """The process runs; nothing is said about what it stands on."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok"}]})

    status: str = "ok"


class Readiness(BaseModel):
    """Whether the service can answer now; `checks` says `ok`, or what is missing.

    `ready` is about what no request can do without. `degraded` names what else is away while it is
    ready: most of the API answers, and what needs the missing part says so.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "ready": True,
                    "degraded": ["airbyte"],
                    "checks": {"registry": "ok", "airbyte": "Airbyte cannot be reached now."},
                }
            ]
        }
    )

    ready: bool
    degraded: list[str] | None = None
    checks: dict[str, str]


def example(body: object) -> dict[str, Any]:
    """An answer's example, for its route's OpenAPI description."""
    return {"content": {"application/json": {"example": body}}}


def links(*targets: str, **parameters: str) -> dict[str, Any]:
    """Where an answer leads, for its route's OpenAPI description.

    A target is a route, as `GET /connections/{connection_id}`; a parameter of the targets is found
    where OpenAPI's runtime expression says, as `$response.body#/id`.
    """
    return {
        "links": {
            _link_name(target): {
                "operationRef": _reference(target),
                "parameters": dict(parameters),
            }
            for target in targets
        }
    }


def _link_name(target: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", target).strip("_").lower()


def _reference(target: str) -> str:
    method, _, path = target.partition(" ")
    return f"#/paths/{path.replace('~', '~0').replace('/', '~1')}/{method.lower()}"


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error answers of a route, for its OpenAPI description."""
    content = {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _TITLES[status], "content": content} for status in statuses}


_TITLES = {
    400: "Malformed request: an invalid Idempotency-Key, or a body that is not UTF-8",
    401: "Authentication required",
    403: "Insufficient scope",
    404: "Not found",
    408: "The body did not arrive in time",
    409: "Conflict with the present state",
    413: "The body is too large",
    415: "Unsupported media type: a body is plain JSON",
    422: "Invalid request, or refused by Airbyte",
    429: "Too many requests; Retry-After says when to try again",
    502: "Airbyte did not do what was asked",
    503: "A dependency is unavailable; nothing was recorded",
    504: "Not settled by its deadline, or its outcome is unknown",
}


def create_app(
    *,
    service: str,
    description: str,
    access: Access,
    lifespan: Lifespan[FastAPI] | None = None,
    ready: Mapping[str, Check] | None = None,
    degraded: Mapping[str, Check] | None = None,
    limits: Limits = ORDER,
    body_deadline: timedelta = BODY_DEADLINE,
) -> FastAPI:
    """A service's application; its routes are added by the caller.

    `access` is how callers are known. `ready` maps what the service cannot answer without to a
    check that raises an AamError while it is away; `degraded`, what only a part of it needs.
    """
    app = FastAPI(
        title=f"AAM {service}",
        description=description,
        version="0.1.0",
        lifespan=_with_callers(access, lifespan),
        openapi_url=docs_page.DESCRIPTION if access.docs_are_open else None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(validation.expect_known)],
        # FastAPI's own would tell on its own terms; ours is shared.telemetry.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    if access.docs_are_open:
        docs_page.add_docs(app)
    checks = {**(ready or {})}
    if access.anybody is not None:
        checks["access"] = access.require_anybody
    others = degraded or {}

    @app.get("/health", tags=["operations"])
    async def health() -> Health:
        """Say that the process runs."""
        return Health()

    @app.get(
        "/ready",
        tags=["operations"],
        response_model_exclude_none=True,
        responses={503: {"model": Readiness, "description": "It cannot answer now"}},
    )
    async def readiness(response: Response) -> Readiness:
        """Say whether the service can answer: 200 while its registry does, and takes writes.

        What is away beside it, Airbyte for example, makes it `degraded`: people can still read and
        decide, so a load balancer is to keep the service.
        """
        names = [*checks, *others]
        found = await asyncio.gather(
            *(_told(check, within_s=_DECISIVE_WITHIN_S) for check in checks.values()),
            *(_told(check, within_s=_OTHERS_WITHIN_S) for check in others.values()),
        )
        shown = dict(zip(names, found, strict=True))
        is_ready = all(shown[name] == "ok" for name in checks)
        away = [name for name in others if shown[name] != "ok"]
        state = Readiness(
            ready=is_ready, degraded=away if is_ready and away else None, checks=shown
        )
        if not state.ready:
            response.status_code = 503
            response.headers.update(_AGAIN_SOON)
        return state

    app.exception_handler(AamError)(_answer_expected)
    app.exception_handler(RequestValidationError)(_answer_invalid)
    app.exception_handler(HTTPException)(_answer_http)
    # The last one added is the outermost.
    app.add_middleware(Bodies, limits=limits, deadline=body_deadline)
    app.add_middleware(Gate, known=access, routes=app.routes, answer=_refusal)
    app.add_middleware(_Requests, service=service)
    _describe_problem(app)
    return app


def _with_callers(access: Access, lifespan: Lifespan[FastAPI] | None) -> Lifespan[FastAPI]:
    """The service's life; it does not begin where nobody could call, or anybody could.

    While the registry is away nobody knows whether there are keys: the service starts, answers
    503, and is ready when both are there.
    """

    @asynccontextmanager
    async def guarded(app: FastAPI) -> AsyncIterator[Mapping[str, Any] | None]:
        try:
            requirements(app.routes)
            await _require_callers(access)
            async with lifespan(app) if lifespan else nullcontext() as state:
                yield state
        except NobodyCanCall:
            raise
        except Exception:  # the outermost loop of a service's life: servers would log its text
            log.exception("bug")
            raise

    return guarded  # type: ignore[return-value]  # a state is optional


async def _require_callers(access: Access) -> None:
    try:
        await access.require_anybody()
    except NobodyCanCall as error:
        log.error("nobody_can_call", detail=error.detail)  # noqa: TRY400 (no trace is needed)
        raise
    except Unavailable as error:
        log.warning("callers_unknown", detail=error.detail)


@contextmanager
def told_to_stop(*stops: Callable[[], None]) -> Iterator[None]:
    """Call these as soon as the process is told to end.

    The server's own end comes later: it waits for its requests first, and they may wait for what
    these end. Its own handler would, at the end, have the process killed by the signal after all;
    told by its flag, it ends with 0.
    """
    loop = asyncio.get_running_loop()
    before = {
        number: handler
        for number in (signal.SIGTERM, signal.SIGINT)
        if callable(handler := signal.getsignal(number))
    }
    if threading.current_thread() is not threading.main_thread():
        before = {}

    def handle(number: int, frame: FrameType | None) -> None:
        for stop in stops:
            loop.call_soon_threadsafe(stop)
        handler = before[signal.Signals(number)]
        server = getattr(handler, "__self__", None)
        if isinstance(server, uvicorn.Server) and not server.should_exit:
            server.should_exit = True
        else:
            handler(number, frame)

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def for_server(app: FastAPI) -> FastAPI:
    """The application of a process that serves it and nothing else.

    What is loaded by now is never looked through for garbage again: of 130,000 objects that took
    110 ms, in which the event loop stood still.
    """
    gc.collect()
    gc.freeze()
    return app


_DECISIVE_WITHIN_S = 3.0
_OTHERS_WITHIN_S = 0.8
"""Below the second that Kubernetes gives a probe: what hangs, and decides nothing, delays none."""


async def _told(check: Check, *, within_s: float) -> str:
    try:
        async with asyncio.timeout(within_s):
            if await check() is False:
                return "it says that it is not available"
    except TimeoutError:
        return f"no answer within {within_s:g} s"
    except AamError as error:
        return error.detail
    return "ok"


def _describe_problem(app: FastAPI) -> None:
    """Put the Problem schema into the OpenAPI description, which routes refer to."""
    describe = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        schema = describe()
        schemas = schema.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = Problem.model_json_schema()
        # What FastAPI says about 422 is not what is answered here.
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        for operations in schema["paths"].values():
            for operation in operations.values():
                describe_operation(operation)
                if "security" in operation:
                    operation["responses"] |= _REFUSALS
                if "requestBody" in operation:
                    for status, answer in problems(400, 408, 413, 415, 422).items():
                        operation["responses"].setdefault(str(status), answer)
        return schema

    app.openapi = described  # type: ignore[method-assign]  # FastAPI's documented way


# 422 is also what FastAPI would describe otherwise; every route refuses unknown parameters.
_REFUSALS = {str(status): answer for status, answer in problems(401, 403, 422, 429).items()}
_AGAIN_SOON = {"Retry-After": "1"}
_ASKED_FOR = {401: {"WWW-Authenticate": "Bearer"}, 503: _AGAIN_SOON}
"""The headers that a status has to have."""


def _problem(problem: Mapping[str, Any], *, headers: Mapping[str, str] | None = None) -> Response:
    return Response(
        orjson.dumps({**problem, "request_id": logs.request_id()}, default=str),
        status_code=problem["status"],
        media_type=PROBLEM_JSON,
        headers=_ASKED_FOR.get(problem["status"], headers),
    )


def _refusal(error: AamError) -> Response:
    return _problem(error.problem())


_FOR_WRITERS = ("explanation", "log")
"""Members of a problem that only callers with connections:write are shown."""


async def _answer_expected(request: Request, error: AamError) -> Response:
    if error.status >= 500:
        log.warning("request_failed", code=error.code, detail=error.detail)
    problem = error.problem()
    caller: Caller | None = getattr(request.state, "caller", None)
    if caller is None or not caller.may_change_connections:
        problem = {name: one for name, one in problem.items() if name not in _FOR_WRITERS}
    headers = None
    if isinstance(error, TooManyRequests) and "wait_s" in error.members:
        headers = {"Retry-After": f"{math.ceil(error.members['wait_s'])}"}
    return _problem(problem, headers=headers)


async def _answer_invalid(request: Request, error: RequestValidationError) -> Response:
    return _problem(validation.invalid(request, error).problem())


async def _answer_http(request: Request, error: HTTPException) -> Response:
    methods = _methods_at(request.app.routes, get_route_path(request.scope))
    headers, detail = error.headers, "The request is invalid."
    if error.status_code == 405:
        code, title = "method_not_allowed", "Method not allowed"
        # Starlette names those of the first route with this path alone.
        headers = {"Allow": ", ".join(sorted(methods))}
        detail = f"This route takes {headers['Allow']}."
    elif error.status_code == 404:
        code, title, detail = "no_such_route", "No such route", "There is no such route."
        if _methods_at(request.app.routes, get_route_path(request.scope).rstrip("/")):
            detail = "There is no such route; without the slash at its end there is."
    else:
        code, title = "http_error", str(error.detail)
    return _problem(
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
    """The methods that a path takes, over all of its routes."""
    found: set[str] = set()
    for route in iter_route_contexts(routes):
        if (pattern := getattr(route, "path_regex", None)) is not None and pattern.match(path):
            found |= route.methods or set()
    return found | ({"HEAD"} if "GET" in found else set())


_HUNG_UP = 499
"""What nginx calls it that a caller has left before there was an answer."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class _Requests:
    """Outermost: names each request, answers for the layers below, and logs one line about it."""

    def __init__(self, app: ASGIApp, *, service: str) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope["headers"])
        started = time.perf_counter()
        status = _HUNG_UP
        scope.setdefault("state", {})
        inner = scope
        if scope["method"] == "HEAD":
            inner, send = {**scope, "method": "GET"}, without_body(send)
        send = ended_by_newline(send)

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (logs.REQUEST_ID_HEADER.lower().encode(), request_id.encode()),
                ]
            await send(message)

        with logs.caused_by(request_id), tracing.answering(scope) as answered:
            await self._answered(inner, receive, named)
            seconds = time.perf_counter() - started
            answered(status, seconds)
            if scope["path"] not in ("/health", "/ready"):
                log.info(
                    "request",
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    caller=getattr(scope["state"].get("caller"), "id", None),
                    ms=round(seconds * 1000, 1),
                )

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            log.info("caller_hung_up")
        except AamError as refusal:  # of a layer between here and FastAPI
            response = _problem(refusal.problem())
            # The body may be on its way still; so it is not taken for the next request.
            response.headers["connection"] = "close"
            await response(scope, receive, send)
        except Exception:  # the outermost loop of a request: logged, answered, over
            log.exception("bug")
            bug = AamError("This is a bug; the log has it under the request id.")
            # Where an answer has begun already, the server drops the connection.
            await _problem(bug.problem())(scope, receive, send)


def _request_id(headers: Sequence[tuple[bytes, bytes]]) -> str:
    for name, value in headers:
        if name == logs.REQUEST_ID_HEADER.lower().encode() and _REQUEST_ID.fullmatch(
            value.decode("latin-1")
        ):
            return value.decode()
    return uuid4().hex


_COMPACTED_BYTES = 1024 * 1024
"""Larger ones are sent as they are: two milliseconds a MiB, in which nothing else is answered."""


def raw_json(body: str | bytes, *, status_code: int = 200) -> Response:
    """An answer that is JSON already, made compact: Postgres puts blanks between everything."""
    if 0 < len(body) <= _COMPACTED_BYTES:
        body = msgspec.json.format(body, indent=-1)
    return Response(body, status_code=status_code, media_type="application/json")
