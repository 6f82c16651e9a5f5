"""Turns a request into Airbyte's response, for any server and any back end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from local.airbyte.api import (  # noqa: F401 - importing the endpoints registers them
    actors,
    commands,
    connections,
    definitions,
    discovery,
    instance,
    jobs,
    mappers,
    versions,
)
from local.airbyte.api.backend import Backend
from local.airbyte.api.requests import Body
from local.airbyte.api.routes import ROUTES
from local.airbyte.errors import MOST_BODY_BYTES, Refusal, no_such_page, not_implemented, too_large

BASE = "/api/v1/"
PUBLIC = "/api/public/"


@dataclass
class Answer:
    """A response; a body that is None is empty, bytes and text are sent unchanged."""

    status: int = 200
    body: Any = None
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        """The body, serialized."""
        if self.body is None or isinstance(self.body, bytes):
            return self.body or b""
        return self.body.encode() if isinstance(self.body, str) else orjson.dumps(self.body)


async def answer(backend: Backend, method: str, path: str, content: bytes) -> Answer:
    """Answer a request as the back end's release does."""
    try:
        if len(content) > MOST_BODY_BYTES:
            raise too_large(len(content), path)
        result = await _handled(backend, method, path, content)
    except Refusal as refusal:
        return refused(backend, refusal)
    return Answer(204) if result is None else Answer(200, result)


def refused(backend: Backend, refusal: Refusal) -> Answer:
    """Build the response to a refused request."""
    body = refusal.body(backend.release, backend.error_style)
    return Answer(refusal.status, body, refusal.content_type)


async def _handled(backend: Backend, method: str, path: str, content: bytes) -> Any:
    if path.startswith(PUBLIC):
        raise not_implemented(f"{method} {path}, the public API")
    if not path.startswith(BASE):
        raise no_such_page(path)
    endpoint = path.removeprefix(BASE).strip("/")
    route = ROUTES.get((method, endpoint))
    if route is None:
        raise not_implemented(f"{method} {endpoint}")
    if not route.is_in(backend.release):
        raise no_such_page(path)
    return await route.handler(backend, Body.parsed(content))
