"""Authorization of every route of every service, enumerated from the route tables."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import iter_route_contexts
from redis.asyncio import Redis
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route
from starlette.types import Message, Scope

from shared.auth import scopes as shared_access
from shared.auth.api_keys import new_key
from shared.auth.scopes import KEY_SCOPES, SERVICE_CALLS
from shared.auth.scopes import Scope as May
from shared.http.app import BODY_DEADLINE, create_app
from shared.http.authentication import DOCS, OPEN, Access, UndeclaredRoute
from shared.observability import logs
from tests import access
from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.conftest import serving
from tests.pools import Sql
from tests.security.conftest import (
    BEHIND_KEYS,
    SERVICES,
    Headers,
    ask,
    bearer,
    build,
    close,
    insert_key,
)

ID = "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f"
JSON = ("content-type", "application/json")
FOR_SERVICES = {("orchestrator", "/events/stream"): May.EVENTS_READ}
"""Routes for which other services need another scope than people."""
BODIES: dict[str, Headers] = {
    "good": [JSON, ("content-length", "2")],
    "no JSON": [JSON, ("content-length", "9")],
    "9 MB": [JSON, ("content-length", str(9 * 1024 * 1024))],
    "stalled": [JSON, ("transfer-encoding", "chunked")],
}


def routes(app: FastAPI) -> Iterator[tuple[str, str, str | None]]:
    """Yield method, filled-in path and scope of each guarded route, including undocumented ones."""
    for route in iter_route_contexts(app.routes):
        methods = getattr(route, "methods", None)
        assert route.path is not None
        assert methods, f"{route.path} has no methods"
        if route.path in OPEN | DOCS:
            assert methods <= {"GET", "HEAD"}
            continue
        declared = shared_access.declared(route.dependencies)
        assert declared is not None
        assert len(declared) < 2
        scope = next(iter(declared), None)
        for method in methods:
            yield method, re.sub(r"\{[^}]+\}", ID, route.path), scope


def walk(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Yield each path with each of its methods, HEAD, OPTIONS and an unknown method."""
    found = {(method, path) for method, path, _ in routes(app)}
    paths = {path for _, path in found}
    others = {(method, path) for path in paths for method in ("HEAD", "OPTIONS", "BREW")}
    unknown = {
        (method, path) for path in ("/", "/nothing", "//health") for method in ("GET", "PUT")
    }
    odd = {("OPTIONS", "/health"), ("POST", "/ready"), ("GET", "/health/"), ("GET", "/healthx")}
    yield from sorted(found | others | unknown | odd)


async def credentials(sql: Sql) -> dict[str, tuple[Headers, str]]:
    """Return invalid credentials by name: headers and query."""
    key = await insert_key(sql, *KEY_SCOPES)
    expired = await insert_key(sql, *KEY_SCOPES, expires_in_s=-1)
    revoked = await insert_key(sql, *KEY_SCOPES, is_revoked=True)
    good = bearer(key.key)
    service = access.signer("orchestrator").token("another_service", "connections:read")
    given: dict[str, Headers] = {
        "none": [],
        "empty": [("authorization", "")],
        "nothing after the scheme": [("authorization", "Bearer ")],
        "garbage": [bearer("garbage")],
        "the form of a key": [bearer(new_key("test").key)],
        "another's secret": [bearer(key.key[:-1] + ("A" if key.key[-1] != "A" else "B"))],
        "another's id": [bearer(key.key.replace(key.id, revoked.id))],
        "only the id": [bearer(key.id)],
        "a capital": [bearer(key.key.upper())],
        "something behind": [bearer(f"{key.key}x")],
        "a space behind": [bearer(f"{key.key} ")],
        "twice in one": [bearer(f"{key.key}, Bearer {key.key}")],
        "the digest": [bearer(hashlib.sha256(key.key.encode()).hexdigest())],
        "expired": [bearer(expired.key)],
        "revoked": [bearer(revoked.key)],
        "another scheme": [("authorization", f"Basic {key.key}")],
        "no scheme": [("authorization", key.key)],
        "two headers": [good, good],
        "two headers, one of them good": [bearer("garbage"), good],
        "a header of another name": [("x-api-key", key.key), ("cookie", f"key={key.key}")],
        "64 kB": [bearer("a" * 65_536)],
        "64 kB of spaces": [("authorization", b"Bearer " + b" " * 65_536 + key.key.encode())],
        "NUL": [("authorization", b"Bearer " + key.key.encode() + b"\x00")],
        "no ASCII": [("authorization", b"Bearer \xff\xfe" + key.key.encode())],
        "a service's, for another": [bearer(service)],
    }
    found = {name: (headers, "") for name, headers in given.items()}
    found["in the query"] = ([], f"api_key={key.key}&access_token={key.key}&key={key.key}")
    return found


async def everything(sql: Sql, redis: Redis, airbyte: AirbyteServer) -> dict[str, Any]:
    """Return all stored data, for comparison."""
    tables = await sql.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    rows = {
        name: await sql.fetchval(
            f"SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM {name} t"  # noqa: S608
        )
        for (name,) in tables
    }
    entries = {key: await redis.dump(key) for key in await redis.keys()}
    return {"rows": rows, "redis": entries, "airbyte": len(airbyte.requests)}


@pytest.mark.parametrize("service", SERVICES)
async def test_unauthenticated_caller_is_answered_401(
    apps: dict[str, FastAPI],
    service: str,
    sql: Sql,
    redis: Redis,
    airbyte: AirbyteServer,
) -> None:
    """On every route, with every method, before the body is read, without side effects."""
    app = apps[service]
    bad = await credentials(sql)
    before = await everything(sql, redis, airbyte)

    for method, path in walk(app):
        for kind, (headers, query) in bad.items():
            some = BODIES if kind in ("none", "garbage", "revoked") else {"good": BODIES["good"]}
            for body, described in some.items():
                answer = await ask(app, method, path, [*headers, *described], query=query)

                where = (method, path, kind, body, answer.body)
                assert answer.status == 401, where
                assert not answer.body_was_read, where
                assert answer.headers["www-authenticate"] == "Bearer", where
                assert answer.headers["content-type"] == "application/problem+json", where
                assert answer.headers["connection"] == "close", where
                if method == "HEAD":
                    assert answer.body == b"", where
                    continue
                refusal = answer.json()
                assert refusal["code"] == "unauthenticated", where
                assert refusal["request_id"] == answer.headers["x-request-id"], where
    assert await everything(sql, redis, airbyte) == before


@pytest.mark.parametrize("service", BEHIND_KEYS)
async def test_scopes_decide_what_a_key_may_do(
    apps: dict[str, FastAPI], service: str, sql: Sql
) -> None:
    """Each route with each single scope, and with all except its own: 403 without that one."""
    app = apps[service]
    alone = {scope.value: await insert_key(sql, scope) for scope in KEY_SCOPES}
    all_but = {
        s.value: await insert_key(sql, *(o for o in KEY_SCOPES if o is not s)) for s in KEY_SCOPES
    }

    for method, path, needed in routes(app):
        keys = [(scope, key, needed in (scope, None)) for scope, key in alone.items()]
        others = [] if needed is None else [("all but it", all_but[needed], False)]
        for scope, key, is_let_in in [*keys, *others]:
            answer = await ask(
                app, method, path, [bearer(key.key), *BODIES["no JSON"]], body=b"[not JSON"
            )

            where = (method, path, scope, answer.body)
            assert answer.status < 500, where
            assert answer.status != 401, where
            assert (answer.status != 403) is is_let_in, where
            if not is_let_in:
                assert not answer.body_was_read, where
                assert (answer.json()["code"], answer.json()["scope"]) == ("forbidden", needed)


async def test_scopes_are_compared_exactly(apps: dict[str, FastAPI], sql: Sql) -> None:
    """A prefix of a scope, or a longer word, is a different scope."""
    for word in ("connections", "connections:", "connections:read ", "connections:reader", "*", ""):
        key = await insert_key(sql, word)

        answer = await ask(apps["orchestrator"], "GET", "/connections", [bearer(key.key)])

        assert answer.status == 403, word


async def test_path_variants_need_the_same_scope(apps: dict[str, FastAPI], sql: Sql) -> None:
    """Variants that the router matches are checked; the others are 404."""
    key = await insert_key(sql, "connections:read")
    for path in (
        "/api-keys",
        "/api-keys\n",
        "/api-keys/",
        "//api-keys",
        "/./api-keys",
        "/API-KEYS",
    ):
        answer = await ask(apps["orchestrator"], "GET", path, [bearer(key.key)])

        assert answer.status in (403, 404), path
        assert (answer.status == 403) is (path.strip() == "/api-keys"), path


async def test_root_path_does_not_bypass_the_check(apps: dict[str, FastAPI], sql: Sql) -> None:
    """A proxy's path prefix does not bypass authentication, nor hide /health."""
    key = await insert_key(sql, "connections:read")
    seen: list[int] = []

    async def under(path: str, *headers: tuple[str, str]) -> None:
        async def receive() -> Message:
            raise AssertionError("the body was read")

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.append(message["status"])

        scope: Scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "path": f"/aam{path}",
            "root_path": "/aam",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers],
        }
        await apps["orchestrator"](scope, receive, send)

    await under("/api-keys", bearer(key.key))
    await under("/connections")
    await under("/health")

    assert seen == [403, 401, 200]


@pytest.mark.parametrize("service", SERVICES)
async def test_service_calls_are_limited_to_the_declared_ones(
    apps: dict[str, FastAPI], service: str
) -> None:
    """Other calls are 403, even if the token has the scope."""
    app = apps[service]
    asked = " ".join(May)
    is_called = any(called == service for _, called in SERVICE_CALLS)
    for caller in {one for one, _ in SERVICE_CALLS}:
        allowed = SERVICE_CALLS.get((caller, service), frozenset())
        for method, path, scope in routes(app):
            needed = FOR_SERVICES.get((service, path), scope)
            is_allowed = needed in allowed or (needed is None and is_called)
            token = access.signer(caller).token(service, asked, credential_id="not-there")
            answer = await ask(app, method, path, [bearer(token), *BODIES["no JSON"]], body=b"[not")

            let_in = answer.status not in (401, 403)
            is_brokers_refusal = service == "auth_broker" and answer.status == 403
            assert let_in is is_allowed or is_brokers_refusal, (caller, method, path, answer.body)
            assert answer.body_was_read is False or is_allowed


@pytest.mark.parametrize("service", SERVICES)
def test_openapi_describes_the_enforced_security(apps: dict[str, FastAPI], service: str) -> None:
    """Security scheme and scope of each operation, and its responses 401, 403 and 429."""
    app = apps[service]
    described = app.openapi()
    enforced = {
        (method, re.sub(r"\{[^}]+\}", ID, path)): scope for method, path, scope in routes(app)
    }
    scheme = described["components"]["securitySchemes"]

    assert [(one["type"], one["scheme"]) for one in scheme.values()] == [("http", "bearer")]
    seen = {}
    for path, item in described["paths"].items():
        for method, operation in item.items():
            if path in OPEN:
                assert "security" not in operation
                continue
            ((name, needed),) = [(n, s) for one in operation["security"] for n, s in one.items()]
            assert name in scheme
            assert len(needed) < 2
            seen[method.upper(), re.sub(r"\{[^}]+\}", ID, path)] = next(iter(needed), None)
            assert {"401", "403", "429"} <= operation["responses"].keys(), (method, path)
    assert seen == enforced


def _plain(_request: object) -> PlainTextResponse:
    return PlainTextResponse("")


def _hidden(app: FastAPI) -> None:
    app.get("/hidden", include_in_schema=False)(_plain)


def _websocket(app: FastAPI) -> None:
    app.websocket("/socket")(_plain)


def _mounted(app: FastAPI) -> None:
    app.mount("/sub", FastAPI())


def _mounted_where_docs_are(app: FastAPI) -> None:
    app.routes.append(Mount("/docs", routes=[Route("/x", _plain)]))


def _by_host(app: FastAPI) -> None:
    app.routes.append(Host("other", app=PlainTextResponse("")))


def _posted_to_health(app: FastAPI) -> None:
    app.routes.append(Route("/health", _plain, methods=["POST"]))


def _included(app: FastAPI) -> None:
    router = APIRouter(prefix="/deep")
    router.get("/er")(_plain)
    outer = APIRouter(prefix="/very")
    outer.include_router(router)
    app.include_router(outer)


@pytest.mark.parametrize(
    "add",
    [
        _hidden, _websocket, _mounted, _mounted_where_docs_are, _by_host, _posted_to_health,
        _included,
    ],
)  # fmt: skip
async def test_route_without_a_scope_prevents_the_start(add: Any) -> None:
    """For every kind of route; without the startup check a request fails with a 500."""
    logs.set_up("test")  # structlog's default tracebacks would show the values of variables
    app = create_app(service="test", description="A test's.", access=Access([access.Everybody()]))
    add(app)

    with pytest.raises(UndeclaredRoute, match="declares no scope"):
        async with app.router.lifespan_context(app):
            pass  # pragma: no cover
    answer = await ask(app, "GET", "/hidden", [bearer(access.KEY.key)])
    assert (answer.status, answer.json()["code"]) == (500, "internal_error")


async def test_web_sockets_are_refused(apps: dict[str, FastAPI]) -> None:
    """Before the handshake, with any credential, and without an error in the log."""
    for headers in ([], [(b"authorization", access.HEADERS["Authorization"].encode())]):
        sent: list[Message] = []

        async def receive() -> Message:
            raise AssertionError("nothing is to be read")

        async def send(message: Message, sent: list[Message] = sent) -> None:
            sent.append(message)

        for path in ("/health", "/connections", "/docs"):
            scope: Scope = {"type": "websocket", "path": path, "headers": headers}
            await apps["orchestrator"](scope, receive, send)

        assert sent == [{"type": "websocket.close", "code": 1008}] * 3


async def test_docs_can_be_disabled(registry_url: str, sql: Sql) -> None:
    """With `off`: 401 without a key, as for any unknown path, and 404 with one."""
    key = await insert_key(sql, *KEY_SCOPES)
    app = build("orchestrator", registry_url, aam_docs="off")
    for path in sorted(DOCS):
        assert (await ask(app, "GET", path)).status == 401
        assert (await ask(app, "GET", path, [bearer(key.key)])).status == 404
    assert (await ask(app, "GET", "/health")).status == 200
    await close(app)


async def test_docs_are_public_by_default(apps: dict[str, FastAPI]) -> None:
    for path in sorted(DOCS):
        assert (await ask(apps["orchestrator"], "GET", path)).status == 200
        assert (await ask(apps["orchestrator"], "POST", path)).status == 401


@pytest.mark.exact
async def test_refusal_does_not_wait_for_the_body(apps: dict[str, FastAPI]) -> None:
    """Over a real socket: the response follows the request head, then the connection closes."""
    async with serving(apps["orchestrator"], lifespan="off") as url:
        for length in ("content-length: 1000", "transfer-encoding: chunked"):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            head = f"POST /connections/onboard HTTP/1.1\r\nhost: aam\r\n{length}\r\n"
            writer.write(f"{head}content-type: application/json\r\n\r\n".encode())
            async with asyncio.timeout(BODY_DEADLINE.total_seconds() / 2):
                answer = await reader.read()  # until the server closes the connection
            writer.close()

            assert answer.startswith(b"HTTP/1.1 401 ")
