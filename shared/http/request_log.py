"""A request id and a log line for every request."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from uuid import uuid4

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.errors import AamError
from shared.http.problems import (
    problem_response,
)
from shared.http.response_format import ended_by_newline, without_body
from shared.observability import logs, tracing

log = logs.get(__name__)


_HUNG_UP = 499
"""nginx's status for a client that disconnected before the response."""


_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class RequestLog:
    """The outermost middleware: sets the request id, handles errors, logs one line per request."""

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
            scope["state"]["is_head"] = True
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
            log.info("client_disconnected")
        except AamError as refusal:  # raised by a middleware between here and FastAPI
            response = problem_response(refusal.problem())
            # The body may still be arriving; it must not be parsed as the next request.
            response.headers["connection"] = "close"
            await response(scope, receive, send)
        except Exception:  # the outermost loop of a request: log and respond
            log.exception("bug")
            bug = AamError("Unexpected error; the log has the details under the request id.")
            # If a response has already started, the server closes the connection.
            await problem_response(bug.problem())(scope, receive, send)


def is_head(request: Request) -> bool:
    """Whether a request that routes see as GET is HEAD, which must have no effects."""
    return bool(getattr(request.state, "is_head", False))


def _request_id(headers: Sequence[tuple[bytes, bytes]]) -> str:
    for name, value in headers:
        if name == logs.REQUEST_ID_HEADER.lower().encode() and _REQUEST_ID.fullmatch(
            value.decode("latin-1")
        ):
            return value.decode()
    return uuid4().hex
