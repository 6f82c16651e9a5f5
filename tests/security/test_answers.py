"""HTTP behaviour common to all services: unknown routes and parameters, HEAD, JSON encoding."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from shared.auth.scopes import KEY_SCOPES
from shared.http.authentication import DOCS, OPEN
from tests import access
from tests.pools import Sql
from tests.security.conftest import Answer, Headers, ask, bearer, insert_key

ID = "7d0c7f4e-6a3c-4b9d-9a57-0f3c1d2b4e5f"


@pytest.fixture
async def caller(sql: Sql) -> Headers:
    """The headers of a caller with every scope."""
    key = await insert_key(sql, *KEY_SCOPES)
    return [bearer(key.key)]


def headers_for(service: str, caller: Headers) -> Headers:
    """Return credentials for a service: the broker accepts only service tokens, each one once."""
    if service != "auth_broker":
        return caller
    token = access.signer("orchestrator").token(
        "auth_broker", "credentials:read", credential_id="salesforce-prod"
    )
    return [bearer(token)]


def walk(apps: dict[str, FastAPI]) -> Iterator[tuple[str, str, set[str]]]:
    """Yield every path of every service, with parameters filled in, and its allowed methods."""
    for service, app in apps.items():
        routes = list(iter_route_contexts(app.routes))
        for path in {re.sub(r"\{[^}]+\}", ID, str(route.path)) for route in routes}:
            matching = [route for route in routes if route.path_regex.match(path)]
            methods = set().union(*(route.methods or () for route in matching))
            yield service, path, methods | ({"HEAD"} if "GET" in methods else set())


def problem(answer: Answer) -> dict[str, Any]:
    """Check that the response is a well-formed problem document, and return it."""
    body: dict[str, Any] = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail", "code", "request_id"} <= body.keys()
    assert body["status"] == answer.status
    assert answer.body == orjson.dumps(body) + b"\n"
    assert int(answer.headers["content-length"]) == len(answer.body)
    return body


async def test_unsupported_method_is_405(apps: dict[str, FastAPI], caller: Headers) -> None:
    """`Allow` lists every method of the path, even if they are separate routes."""
    for service, path, methods in walk(apps):
        if path in DOCS:
            continue
        for method in {"PUT", "PATCH", "OPTIONS", "BREW", "GET", "HEAD"} - methods:
            answer = await ask(apps[service], method, path, headers_for(service, caller))

            assert answer.status == 405, (service, method, path)
            assert set(answer.headers["allow"].split(", ")) == methods, (service, method, path)
            if method != "HEAD":
                assert problem(answer)["code"] == "method_not_allowed"


async def test_unknown_path_is_404(apps: dict[str, FastAPI], caller: Headers) -> None:
    """Unusual forms of a path are never redirected."""
    for service, app in apps.items():
        for path in ("/nothing", "/", "//", "/nothing/", "/health%2F", "/\x00", "/ü", "/..", "/\n"):
            answer = await ask(app, "GET", path, headers_for(service, caller))

            assert answer.status == 404, (service, path)
            assert problem(answer)["code"] == "no_such_route"


async def test_trailing_slash_is_404(apps: dict[str, FastAPI], caller: Headers) -> None:
    """A redirect could drop the body of a POST, or send the key to another host."""
    for service, path, methods in walk(apps):
        for method in methods:
            answer = await ask(apps[service], method, f"{path}/", headers_for(service, caller))

            assert answer.status == 404, (service, method, path)
            assert "location" not in answer.headers
            if method != "HEAD":
                assert "omit the slash" in problem(answer)["detail"], (service, path)


async def test_head_is_get_without_the_body(apps: dict[str, FastAPI], caller: Headers) -> None:
    """Status and headers are the same, whether or not the object exists."""
    for service, path, methods in walk(apps):
        if "GET" not in methods:
            continue
        got = await ask(apps[service], "GET", path, headers_for(service, caller))
        head = await ask(apps[service], "HEAD", path, headers_for(service, caller))

        assert head.status == got.status, path
        assert head.body == b"", path
        same = got.headers.keys() - {"x-request-id", "content-length"}
        assert {name: head.headers[name] for name in same} == {
            name: got.headers[name] for name in same
        }
        assert head.headers["content-length"].isdigit()


async def test_unknown_query_parameter_is_refused_by_name(
    apps: dict[str, FastAPI], caller: Headers
) -> None:
    """On every route, before any side effect; its value is not in the response."""
    for service, path, methods in walk(apps):
        if path in OPEN | DOCS:
            continue
        for method in methods & {"GET", "DELETE"}:
            answer = await ask(
                apps[service],
                method,
                path,
                headers_for(service, caller),
                query="limitt=s3cr3t-value&limitt=2",
            )

            body = problem(answer)
            where = (service, method, path, body)
            assert (answer.status, body["code"]) == (422, "invalid_request"), where
            assert "Unknown query parameter 'limitt'" in body["detail"], where
            assert body["fields"][0]["field"] == "query.limitt", where
            assert b"s3cr3t" not in answer.body, where


KNOWN = (
    "known values are after, airbyte_connection_id, archived, credential_id, destination_id, "
    "health, include, label, limit, name, q, sort, source_type, status, upstream_code, "
    "workspace_id."
)
QUERIES = {
    "stat=ACTIVE": "Unknown query parameter 'stat'; did you mean 'status'?",
    "Status=ACTIVE": "Unknown query parameter 'Status'; did you mean 'status'?",
    "limit=1&limit=2": "Query parameter 'limit' is given more than once.",
    "zzz=1": "Unknown query parameter 'zzz'.",
    "is-archived=1": "Unknown query parameter 'is-archived'.",
    "arch-ived=1": "Unknown query parameter 'arch-ived'; did you mean 'archived'?",
    "limit[]=1": "Unknown query parameter 'limit[]'; did you mean 'limit'?",
    "%00=1": f"Unknown query parameter; {KNOWN}",
    f"{'a' * 41}=1": f"Unknown query parameter; {KNOWN}",
    "limit=0": "query.limit: Input should be greater than or equal to 1.",
    "limit=501": "query.limit: Input should be less than or equal to 500.",
    f"limit={'9' * 40}": "query.limit: Input should be less than or equal to 500.",
    f"limit={'9' * 5000}": "query.limit: Input should be a smaller number.",
    "limit=1.5": "query.limit: Input should be a whole number.",
    "limit=": "query.limit: Input should be a whole number.",
    "archived=perhaps": (
        "query.archived: Input should be a valid boolean, unable to interpret input."
    ),
    "status=archived": "query.status: Input should be 'PENDING', 'ACTIVE', 'FAILED' or 'HEALING'.",
    "after=garbage": "`after` is not a cursor of this list.",
    "sort=0.5": "query.sort: Input should be 'created_at', 'name' or 'health'.",
    "after=%FF%FE": "`after` is not a cursor of this list.",
    "name=a%00b": "query.name: String should match pattern '^[^\\x00]*$'.",
}


async def test_query_error_suggests_the_nearest_name(
    apps: dict[str, FastAPI], caller: Headers
) -> None:
    """The response repeats a name only if it is a plain identifier."""
    for query, detail in QUERIES.items():
        answer = await ask(apps["orchestrator"], "GET", "/connections", caller, query=query)

        assert answer.status == 422, query
        assert problem(answer)["detail"] == detail


BODIES = [
    # service, method and path, body, the named field, a part of the message
    ("orchestrator", "POST /api-keys", {"owners": "a"}, "owners", "did you mean 'owner'?"),
    ("orchestrator", "POST /connections/import", {"dryrun": True}, "dryrun", "'dry_run'?"),
    (
        "orchestrator",
        "POST /connections/import",
        {"workspace_id": ID, "airbyte_connection_id": ID},
        "",
        "not both",
    ),
    ("drift_repair_agent", "POST /webhooks", {"URL": "https://x.example/"}, "URL", "'url'?"),
    (
        "drift_repair_agent",
        f"PUT /connections/{ID}/policy",
        {"reaction": {}},
        "reaction",
        "'reactions'?",
    ),
    (
        "drift_repair_agent",
        f"PUT /connections/{ID}/policy",
        {"reactions": {"feild": {"added": "apply"}}},
        "reactions.feild",
        "did you mean 'field'? Known entries: stream, field,",
    ),
    (
        "drift_repair_agent",
        f"PUT /connections/{ID}/policy",
        {"reactions": {"field": {"add": "apply"}}},
        "reactions.field.add",
        "did you mean 'added'? Known entries: added, removed, renamed",
    ),
    (
        "drift_repair_agent",
        f"PUT /connections/{ID}/policy",
        {"reactions": {"field": {"a secret? ": "apply"}}},
        "reactions.field",
        "Unknown policy entry; known values are added, removed, renamed",
    ),
    ("drift_repair_agent", f"POST /repairs/{ID}/approve", {"choice": {}}, "choice", "'choices'?"),
    (
        "drift_repair_agent",
        f"POST /repairs/{ID}/approve",
        {"choices": {"c1": {"becme": ["x"]}}},
        "choices.c1.becme",
        "'became'?",
    ),
    (
        "drift_repair_agent",
        "POST /repair/apply_new_catalog",
        {"conection_id": ID},
        "conection_id",
        "'connection_id'?",
    ),
    (
        "drift_repair_agent",
        "POST /repair/apply_new_catalog",
        {"connection_id": 5},
        "connection_id",
        "Expected `uuid`",
    ),
    (
        "drift_repair_agent",
        "POST /repair/apply_new_catalog",
        {"connection_id": ID},
        "sync_catalog",
        "required",
    ),
    (
        "drift_repair_agent",
        "POST /repair/apply_new_catalog",
        {"a secret? ": 1},
        "",
        "Unknown member; known values are",
    ),
    (
        "schema_observer",
        f"PUT /connections/{ID}/observation",
        {"interval": 60},
        "interval",
        "'interval_seconds'?",
    ),
    (
        "schema_observer",
        f"POST /connections/{ID}/observe",
        {"accept_mising": True},
        "accept_mising",
        "'accept_missing'?",
    ),
    # These routes accept no body; without the check they would ignore it.
    (
        "orchestrator",
        f"POST /connections/{ID}/discover",
        {"fresh": True},
        "fresh",
        "this route takes no body; 'fresh' is a query parameter",
    ),
    ("orchestrator", f"POST /connections/{ID}/sync", {"by": "Ada"}, "by", "takes no body"),
    ("orchestrator", f"DELETE /connections/{ID}", {"why": "x"}, "why", "takes no body"),
    ("orchestrator", "GET /connections", {"status": "ACTIVE"}, "status", "is a query parameter"),
    ("drift_repair_agent", f"POST /connections/{ID}/plan", ["by"], "", "takes no body"),
    ("drift_repair_agent", f"POST /webhooks/{ID}/test", {"a secret? ": 1}, "", "takes no body"),
    ("rag_engine", "POST /learn", {"verdicts": 1}, "verdicts", "'verdict'?"),
    ("rag_engine", "POST /suggest", {"stream": {"Name": "x"}}, "stream.Name", "'name'?"),
]


async def test_unknown_member_is_refused_by_name(apps: dict[str, FastAPI], caller: Headers) -> None:
    """At every depth, with the nearest known name; only plain identifiers are repeated."""
    for service, target, order, field, message in BODIES:
        method, path = target.split()
        body = orjson.dumps(order)
        headers = [
            *caller,
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
        ]
        answer = await ask(apps[service], method, path, headers, body=body)

        refusal = problem(answer)
        assert answer.status == 422, (target, refusal)
        messages = {one["field"]: one["message"] for one in refusal["fields"]}
        assert message in messages[f"body.{field}".rstrip(".")], (target, refusal)
        assert b"secret" not in answer.body


async def test_empty_object_is_accepted_where_no_body_is_needed(
    apps: dict[str, FastAPI], caller: Headers
) -> None:
    """Many clients send `{}` with every POST."""
    for body in (b"{}", b"null"):
        headers = [
            *caller,
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
        ]
        path = f"/connections/{ID}/sync"
        answer = await ask(apps["orchestrator"], "POST", path, headers, body=body)
        assert answer.status == 404, answer.body


async def test_repeatable_parameter_may_be_repeated(
    apps: dict[str, FastAPI], caller: Headers
) -> None:
    answer = await ask(
        apps["drift_repair_agent"], "GET", "/repairs", caller, query="state=proposed&state=failed"
    )
    assert answer.status == 200, answer.body


async def test_health_accepts_any_query(apps: dict[str, FastAPI]) -> None:
    """Load balancers add parameters to bypass caches."""
    for app in apps.values():
        assert (await ask(app, "GET", "/health", query="_=1")).status == 200


async def test_json_is_compact_and_ends_in_a_newline(
    apps: dict[str, FastAPI], caller: Headers
) -> None:
    """Regardless of the serializer: Postgres, Pydantic, msgspec or orjson."""
    for service, path, methods in walk(apps):
        if "GET" in methods and path not in DOCS - {"/openapi.json"}:
            answer = await ask(apps[service], "GET", path, headers_for(service, caller))

            assert answer.body == orjson.dumps(answer.json()) + b"\n", (service, path)
