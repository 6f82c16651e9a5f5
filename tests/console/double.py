"""A double of the four services: one ASGI application that a test fills with answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from shared.auth.api_keys import new_key
from shared.auth.scopes import KEY_SCOPES
from tests import leaks
from tests.console.described import unknown_parameters

Answer = Callable[[Request], Response]


def new_known_key() -> str:
    """A new key, for whose appearance every output of the run is searched."""
    made = new_key("test")
    leaks.know("a person's key", made.key.partition(f"_{made.id}_")[2])
    return made.key


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that the double received."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Its body as JSON."""
        return orjson.loads(self.body)


@dataclass
class Double:
    """Answers by method and path; `GET /whoami` knows `key`, and every route needs it.

    As the services do, it refuses query parameters that the route does not have.

    `answers["GET /connections"] = {...}` is JSON with 200; a function gets the request instead.
    """

    key: str = field(default_factory=new_known_key)
    scopes: tuple[str, ...] = tuple(KEY_SCOPES)
    labels: dict[str, str] = field(default_factory=dict)
    expires_at: str | None = None
    answers: dict[str, Any] = field(default_factory=dict)
    by_query: dict[tuple[str, str], Any] = field(default_factory=dict)
    """Answers of a route to queries that start with a text; the first one that fits is taken."""
    delays: dict[str, float] = field(default_factory=dict)
    """How long a route's answer takes, in seconds."""
    open_routes: dict[str, Answer] = field(default_factory=dict)
    """Answers to requests without a person's key."""
    asked: list[Asked] = field(default_factory=list)
    is_revoked: bool = False
    url: str = ""
    unavailable: Response | None = None
    """The answer to everything, if set."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _run_lifespan(receive, send)
            return
        request = Request(scope, receive)
        body = await request.body()
        path = scope["raw_path"].decode("latin-1").partition("?")[0]
        self.asked.append(
            Asked(request.method, path, request.url.query, dict(request.headers), body)
        )
        await asyncio.sleep(self.delays.get(f"{request.method} {path}", 0))
        await self._answer(request, path)(scope, receive, send)

    def of(self, method: str, path: str) -> list[Asked]:
        """The requests of one route."""
        return [one for one in self.asked if (one.method, one.path) == (method, path)]

    def _answer(self, request: Request, path: str) -> Response:
        if self.unavailable is not None:
            return self.unavailable
        if path == "/health":
            return json({"status": "ok"})
        if (answer_to_all := self.open_routes.get(f"{request.method} {path}")) is not None:
            return answer_to_all(request)
        if (refusal := self._refusal(request)) is not None:
            return refusal
        route = f"{request.method} {path}"
        found = self.answers.get(route)
        for (other, start), answer_to_query in self.by_query.items():
            if other == route and request.url.query.startswith(start):
                found = answer_to_query
                break
        if path == "/whoami":
            found = self._whoami()
        if found is None:
            return problem(404, "not_found", "There is no such thing.")
        answer: Response = found(request) if callable(found) else json(found)
        return answer

    def _refusal(self, request: Request) -> Response | None:
        is_known = request.headers.get("authorization") == f"Bearer {self.key}"
        if self.is_revoked or not is_known:
            return problem(401, "unauthenticated", "An API key is required.")
        names = set(request.query_params)
        if unknown := unknown_parameters(request.method, request.url.path, names):
            detail = f"Unknown query parameter {min(unknown)!r}."
            return problem(422, "invalid_request", detail)
        return None

    def _whoami(self) -> dict[str, Any]:
        return {
            "owner": "ada@example.com",
            "id": "test0001",
            "kind": "api_key",
            "scopes": list(self.scopes),
            "expires_at": self.expires_at,
            "labels": self.labels,
        }


def json(body: Any, status: int = 200) -> Response:
    """A JSON response."""
    return Response(orjson.dumps(body), status, media_type="application/json")


def problem(
    status: int, code: str, detail: str, *, headers: dict[str, str] | None = None, **members: Any
) -> Response:
    """A problem+json as the services answer it."""
    body = {"code": code, "detail": detail, "status": status, "request_id": "upstream-id"}
    return Response(
        orjson.dumps(body | members), status, media_type="application/problem+json", headers=headers
    )


def page(*items: Any, next: str | None = None) -> dict[str, Any]:
    """A page of a list."""
    return {"items": list(items), "next": next}


async def _run_lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
