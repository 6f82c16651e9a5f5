"""The responses of the scripted Airbyte server are valid against Airbyte's OpenAPI documents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.contract.openapi import CORRECTIONS, VERSIONS, description
from tests.fakes.airbyte_server import WORKSPACE_ID, AirbyteServer

Ask = Callable[..., Awaitable[Any]]
Json = dict[str, Any]


@pytest.fixture(params=list(VERSIONS))
async def server(request: pytest.FixtureRequest) -> AsyncIterator[AirbyteServer]:
    """A scripted Airbyte of each documented version."""
    async with AirbyteServer(version=request.param) as airbyte:
        yield airbyte


@pytest.fixture
async def ask(server: AirbyteServer) -> AsyncIterator[Ask]:
    """A function that calls a path and validates request and response."""
    judge = description(server.version)
    async with httpx.AsyncClient(base_url=server.url) as client:

        async def call(path: str, *, method: str = "POST", answers: int = 200, **body: Any) -> Any:
            sent = body if method == "POST" else None
            answer = await client.request(method, f"/{path}", json=sent)
            decoded = answer.json() if answer.content else None
            assert answer.status_code == answers, answer.text
            if answers < 400:
                assert judge.about_request(method, path, sent) == []
            assert judge.about_answer(method, path, answers, decoded) == []
            return decoded

        yield call


async def test_checks_and_discoveries_that_fail(server: AirbyteServer, ask: Ask) -> None:
    """A failed check, a connector that could not run, and a discovery without a catalog."""
    for word, added in (("source", server.add_source("crm")), ("destination", _warehouse(server))):
        by_id = {f"{word}Id": added[f"{word}Id"]}
        server.fail_check("no such host", times=1)
        assert (await ask(f"{word}s/check_connection", **by_id))["status"] == "failed"
        server.fail_check(job=True, times=1)
        assert "status" not in await ask(f"{word}s/check_connection", **by_id)

    (source_id,) = server.sources
    server.fail_discovery("transient_error", "too many requests", times=1)
    found = await ask("sources/discover_schema", sourceId=source_id, disable_cache=True)
    assert "catalog" not in found
    if not server.release.since(1, 7):
        return
    command = {"id": str(uuid4())}
    server.fail_discovery("transient_error", "too many requests", times=1)
    await ask("commands/run/discover", **command, actor_id=source_id)
    assert (await ask("commands/status", **command))["status"] == "running"
    assert (await ask("commands/status", **command))["status"] == "completed"
    assert (await ask("commands/output/discover", **command))["status"] == "failed"


async def test_connections_that_airbyte_changes(server: AirbyteServer, ask: Ask) -> None:
    """A connection that was disabled by Airbyte, cleared by a user, and deleted."""
    source, destination = server.add_source("crm"), _warehouse(server)
    found = await ask("sources/discover_schema", sourceId=source["sourceId"], disable_cache=True)
    connection = await ask(
        "connections/create",
        sourceId=source["sourceId"],
        destinationId=destination["destinationId"],
        status="active",
        syncCatalog=found["catalog"],
    )
    by_id = {"connectionId": connection["connectionId"]}
    cleared = server.start_job(connection["connectionId"], "clear")
    await ask("jobs/list", configTypes=["clear"], configId=connection["connectionId"])
    server.finish_job(cleared["id"])
    await ask("connections/status", connectionIds=[connection["connectionId"]])
    server.disable(connection["connectionId"])
    assert (await ask("connections/get", **by_id))["breakingChange"] is True
    await ask("connections/status", connectionIds=[connection["connectionId"]])
    await ask("connections/update", **by_id, breakingChange=False, status="active")
    await ask(
        "web_backend/connections/list", workspaceId=WORKSPACE_ID, sourceId=[source["sourceId"]]
    )
    await ask("connections/delete", **by_id, answers=204)
    assert (await ask("connections/get", **by_id))["status"] == "deprecated"


def _warehouse(server: AirbyteServer) -> Json:
    return server.add_destination(host="h", port=1, username="u", database="d", schema="public")


@pytest.mark.parametrize("version", [one for one in VERSIONS if one != "0.63.19"])
async def test_token(version: str) -> None:
    """The token endpoint needs no token; other endpoints return 401 without one."""
    judge = description(version)
    async with (
        AirbyteServer(version=version, auth="token") as server,
        httpx.AsyncClient(base_url=server.url) as client,
    ):
        credentials = {"client_id": server.client_id, "client_secret": server.client_secret}
        token = (await client.post("/applications/token", json=credentials)).json()
        assert judge.about_request("POST", "applications/token", credentials) == []
        assert judge.about_answer("POST", "applications/token", 200, token) == []

        bearer = {"Authorization": f"Bearer {token['access_token']}"}
        path, body = "/workspaces/get", {"workspaceId": WORKSPACE_ID}
        assert (await client.post(path, json=body)).status_code == 401
        assert (await client.post(path, json=body, headers=bearer)).status_code == 200
        server.revoke_tokens()
        assert (await client.post(path, json=body, headers=bearer)).status_code == 401


def test_corrections_are_needed() -> None:
    """Each correction applies to an existing schema and changes it."""
    for correction in CORRECTIONS:
        for version in correction.versions:
            assert correction.changes(version), (correction.schema, version)
