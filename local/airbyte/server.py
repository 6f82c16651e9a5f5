"""The HTTP server of the local Airbyte with connectors.

Every response has the header `X-Airbyte-Local: true`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from local.airbyte.api import dispatch
from local.airbyte.api.dispatch import Answer
from local.airbyte.connector import Manifest
from local.airbyte.connectors_backend import Plane
from local.airbyte.errors import MOST_BODY_BYTES, Micronaut, Refusal, too_large, uncaught
from local.airbyte.settings import Settings
from local.request_guard import Guard, token_of


def app_of(settings: Settings, manifests: Sequence[Manifest] = ()) -> Starlette:
    """Build the application; the plane opens and closes with its lifespan."""

    @asynccontextmanager
    async def live(app: Starlette) -> AsyncIterator[None]:
        async with Plane.open(settings, manifests) as plane:
            app.state.plane = plane
            yield

    def refused(refusal: Refusal) -> Response:
        body = refusal.body(settings.flavour.release, settings.error_style)
        return _response(Answer(refusal.status, body, refusal.content_type))

    async def broken(_request: Request, error: Exception) -> Response:
        """Answer 500 for an unexpected exception; the server logs it after this response."""
        return refused(uncaught(f"the local plane has a fault ({type(error).__name__})."))

    async def not_routed(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 404
        return refused(Micronaut(status, str(error), request.url.path))

    guard = Middleware(
        Guard,
        token=token_of(settings.state_dir),
        refuse=lambda status, detail, path: refused(Micronaut(status, detail, path)),
        open_paths=frozenset({"/api/v1/health", "/api/v1/health/"}),
    )
    return Starlette(
        routes=[Route("/{path:path}", _answer, methods=["GET", "POST"])],
        lifespan=live,
        middleware=[guard],
        exception_handlers={HTTPException: not_routed, Exception: broken},
    )


async def _answer(request: Request) -> Response:
    plane: Plane = request.app.state.plane
    try:
        content = await _content(request)
    except Refusal as refusal:
        return _response(dispatch.refused(plane, refusal))
    return _response(await dispatch.answer(plane, request.method, request.url.path, content))


async def _content(request: Request) -> bytes:
    announced = request.headers.get("content-length", "")
    length = int(announced) if announced.isdecimal() else 0
    parts: list[bytes] = []
    received = 0
    async for part in request.stream():
        received += len(part)
        if max(length, received) > MOST_BODY_BYTES:
            raise too_large(max(length, received), request.url.path)
        parts.append(part)
    return b"".join(parts)


def _response(answer: Answer) -> Response:
    kind = None if answer.body is None else answer.content_type
    headers = {"X-Airbyte-Local": "true", **answer.headers}
    return Response(answer.content, answer.status, headers=headers, media_type=kind)
