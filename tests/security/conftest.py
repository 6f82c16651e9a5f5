"""The five services, called directly as ASGI applications; records whether a body was read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, get_type_hints

import pytest
from fastapi import FastAPI
from redis.asyncio import Redis
from starlette.types import Message

from local.processes import servers
from shared.auth.api_keys import NewKey, new_key
from tests import access
from tests.fakes.airbyte_server import AirbyteServer
from tests.given_settings import given
from tests.integration.conftest import close_parts, redis, registry_url, sql
from tests.pools import Sql

__all__ = ["redis", "registry_url", "sql"]

SERVICES = ("orchestrator", "auth_broker", "drift_repair_agent", "schema_observer", "rag_engine")
BEHIND_KEYS = tuple(name for name in SERVICES if name != "auth_broker")
Headers = Sequence[tuple[str, str | bytes]]


@dataclass
class Answer:
    """A response, and whether the application read the request body."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    body_was_read: bool = False

    def json(self) -> Any:
        """Parse the body as JSON."""
        return json.loads(self.body)


async def ask(
    app: FastAPI,
    method: str,
    path: str,
    headers: Headers = (),
    *,
    query: str = "",
    body: bytes = b"",
    client: str = "127.0.0.1",
) -> Answer:
    """Send one request directly to the application."""
    answer = Answer()

    async def receive() -> Message:
        answer.body_was_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {n.decode(): v.decode() for n, v in message["headers"]}
        else:
            answer.body += message.get("body", b"")

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [
            (name.encode(), value if isinstance(value, bytes) else value.encode())
            for name, value in headers
        ],
        "client": (client, 1),
        "server": ("aam", 80),
    }
    await app(scope, receive, send)
    return answer


def bearer(credential: str) -> tuple[str, str]:
    """Build the Authorization header with this credential."""
    return ("authorization", f"Bearer {credential}")


def build(service: str, registry: str, **more: Any) -> FastAPI:
    """Build a service's application with its own database login."""
    make = import_module(f"services.{service}.main").build
    values: dict[str, Any] = {
        "supabase_db_url": servers.as_service(registry, service),
        "log_level": "ERROR",
    }
    kind = get_type_hints(make)["settings"]
    settings = given(kind, **values, **{**access.service_keys(), **more})
    app: FastAPI = make(settings)
    return app


async def close(app: FastAPI) -> None:
    """Close the application's registry and clients."""
    await close_parts(app)


@pytest.fixture
async def apps(
    registry_url: str,
    redis_url: str,
    airbyte: AirbyteServer,
    sql: Sql,
    redis: Redis,
) -> AsyncIterator[dict[str, FastAPI]]:
    """The services with an empty registry, without their background tasks."""
    values = {name.lower(): value for name, value in airbyte.environment.items()}
    built = {
        name: build(
            name,
            registry_url,
            **values,
            redis_url=redis_url,
            request_wait="1",
            webhook_signing_key="for the tests of this run and no other",
        )
        for name in SERVICES
    }
    yield built
    for app in built.values():
        await close(app)


async def insert_key(
    sql: Sql,
    *scopes: str,
    expires_in_s: float | None = None,
    is_revoked: bool = False,
) -> NewKey:
    """Insert a key into the registry."""
    key = new_key("test")
    await sql.execute(
        "INSERT INTO api_keys (id, digest, scopes, owner, created_by, expires_at, revoked_at)"
        " VALUES ($1, $2, $3, 'ada', 'tests', now() + make_interval(secs => $4),"
        " CASE WHEN $5 THEN now() END)",
        key.id,
        key.digest,
        list(scopes),
        expires_in_s,
        is_revoked,
    )
    return key
