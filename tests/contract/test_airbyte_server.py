"""The scriptable Airbyte server answers as Airbyte's own API descriptions say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.contract.openapi import CORRECTIONS, VERSIONS, description
from tests.fakes.airbyte_server import (
    HARDCODED_RECORDS,
    ORGANIZATION_ID,
    POSTGRES,
    WORKSPACE_ID,
    AirbyteServer,
)

Ask = Callable[..., Awaitable[Any]]

WAREHOUSE = {"host": "db", "port": 5432, "username": "u", "database": "d", "schema": "public"}


@pytest.fixture(params=list(VERSIONS))
async def server(request: pytest.FixtureRequest) -> AsyncIterator[AirbyteServer]:
    """One Airbyte of each described version."""
    async with AirbyteServer(version=request.param) as airbyte:
        yield airbyte


@pytest.fixture
async def ask(server: AirbyteServer) -> AsyncIterator[Ask]:
    """Call a path, and judge both what was sent and what came back."""
    judge = description(server.version)
    async with httpx.AsyncClient(base_url=server.url) as client:

        async def call(path: str, *, method: str = "POST", answers: int = 200, **body: Any) -> Any:
            sent = body if method == "POST" else None
            answer = await client.request(method, f"/{path}", json=sent)
            told = answer.json() if answer.content else None
            assert answer.status_code == answers, answer.text
            if answers < 400:
                assert judge.about_request(method, path, sent) == []
            assert judge.about_answer(method, path, answers, told) == []
            return told

        yield call


async def test_instance_and_definitions(server: AirbyteServer, ask: Ask) -> None:
    """What is there before anything was made."""
    workspace = {"workspaceId": WORKSPACE_ID}
    await ask("health", method="GET")
    instance = await ask("instance_configuration", method="GET")
    assert instance["defaultWorkspaceId"] == WORKSPACE_ID
    await ask("workspaces/get", **workspace)
    if server.version == "0.63.19":
        await ask("workspaces/list")
    await ask("workspaces/list_by_organization_id", organizationId=ORGANIZATION_ID, pagination={})
    for word, definition in (("source", HARDCODED_RECORDS), ("destination", POSTGRES)):
        await ask(f"{word}_definitions/list")
        await ask(f"{word}_definitions/list_for_workspace", **workspace)
        by_id = {f"{word}DefinitionId": definition}
        await ask(f"{word}_definitions/get", **by_id)
        await ask(f"{word}_definition_specifications/get", **by_id, **workspace)


async def test_sources_and_destinations(server: AirbyteServer, ask: Ask) -> None:
    """A life of each, and the refusals on the way."""
    workspace = {"workspaceId": WORKSPACE_ID}
    for word, definition, config in (
        ("source", HARDCODED_RECORDS, {"count": 5}),
        ("destination", POSTGRES, {**WAREHOUSE, "password": "x"}),
    ):
        order = {f"{word}DefinitionId": definition, "connectionConfiguration": config, **workspace}
        made = await ask(f"{word}s/create", name="one", **order)
        by_id = {f"{word}Id": made[f"{word}Id"]}
        await ask(f"{word}s/get", **by_id)
        await ask(f"{word}s/list", **workspace)
        await ask(f"{word}s/update", **by_id, name="two", connectionConfiguration=config)
        await ask(f"{word}s/partial_update", **by_id, name="three")
        await ask(f"{word}s/check_connection", **by_id)
        await ask(
            f"{word}s/check_connection_for_update",
            **by_id,
            name="two",
            connectionConfiguration=config,
        )
        server.fail_check("no such host", times=1)
        assert (await ask(f"{word}s/check_connection", **by_id))["status"] == "failed"
        server.fail_check(job=True, times=1)
        assert "status" not in await ask(f"{word}s/check_connection", **by_id)
        await ask(f"{word}s/delete", **by_id, answers=204)
        await ask(f"{word}s/get", **by_id, answers=404)
        wrong = {**order, "connectionConfiguration": {"count": "many"}}
        await ask(f"{word}s/create", name="one", **wrong, answers=422)


async def test_discovering(server: AirbyteServer, ask: Ask) -> None:
    """Both ways, well and badly."""
    source = server.add_source("crm")
    by_id = {"sourceId": source["sourceId"]}
    found = await ask("sources/discover_schema", **by_id, disable_cache=True)
    assert found["catalog"]["streams"]
    assert (await ask("sources/discover_schema", **by_id))["catalogId"] == found["catalogId"]
    server.fail_discovery("transient_error", "too many requests", times=1)
    assert "catalog" not in await ask("sources/discover_schema", **by_id, disable_cache=True)
    await ask("sources/most_recent_source_actor_catalog", **by_id)
    if server.version == "0.63.19":
        return
    for kind in ("discover", "check"):
        command = {"id": str(uuid4())}
        await ask(f"commands/run/{kind}", **command, actor_id=source["sourceId"])
        assert (await ask(f"commands/output/{kind}", **command))["status"] == "failed"
        assert (await ask("commands/status", **command))["status"] == "running"
        assert (await ask("commands/status", **command))["status"] == "completed"
        assert (await ask(f"commands/output/{kind}", **command))["status"] == "succeeded"
    command = {"id": str(uuid4())}
    await ask("commands/run/discover", **command, actor_id=source["sourceId"])
    await ask("commands/cancel", **command)
    assert (await ask("commands/status", **command))["status"] == "cancelled"
    await ask("commands/output/discover", **command)


async def test_connections_and_jobs(server: AirbyteServer, ask: Ask) -> None:
    """From the first catalog to the last job."""
    source, destination = server.add_source("crm"), server.add_destination()
    found = await ask("sources/discover_schema", sourceId=source["sourceId"], disable_cache=True)
    made = await ask(
        "connections/create",
        name="crm to warehouse",
        sourceId=source["sourceId"],
        destinationId=destination["destinationId"],
        status="active",
        syncCatalog=found["catalog"],
        sourceCatalogId=found["catalogId"],
        nonBreakingChangesPreference="ignore",
        scheduleType="manual",
    )
    by_id = {"connectionId": made["connectionId"]}
    catalog = (await ask("connections/get", **by_id))["syncCatalog"]
    catalog["streams"][0]["config"].update(
        fieldSelectionEnabled=True,
        selectedFields=[{"fieldPath": [name]} for name in ("Id", "SystemModstamp")],
    )
    updated = await ask(
        "connections/update", **by_id, syncCatalog=catalog, breakingChange=False, status="active"
    )
    cut = updated["syncCatalog"]["streams"][0]["stream"]["jsonSchema"]["properties"]
    assert set(cut) == {"Id", "SystemModstamp"}
    await ask("connections/list", workspaceId=WORKSPACE_ID)
    await ask(
        "web_backend/connections/list", workspaceId=WORKSPACE_ID, sourceId=[source["sourceId"]]
    )
    await ask("connections/status", connectionIds=[made["connectionId"]])
    assert (await ask("state/get", **by_id))["stateType"] == "not_set"

    job_id = (await ask("connections/sync", **by_id))["job"]["id"]
    await ask("connections/sync", **by_id, answers=409)
    await ask("connections/status", connectionIds=[made["connectionId"]])
    await ask("jobs/get", id=job_id)
    server.finish_job(job_id, "failed", failure=("config_error", "a field is gone"))
    job_id = (await ask("connections/sync", **by_id))["job"]["id"]
    server.finish_job(job_id, records=12, bytes=345)
    await ask("jobs/get_light", id=job_id)
    await ask("jobs/get_without_logs", id=job_id)
    await ask("jobs/list", configTypes=["sync"], configId=made["connectionId"])
    assert (await ask("state/get", **by_id))["stateType"] == "stream"
    cleared = server.start_job(made["connectionId"], "clear")
    await ask("jobs/list", configTypes=["clear"], configId=made["connectionId"])
    server.finish_job(cleared["id"])
    await ask("connections/status", connectionIds=[made["connectionId"]])
    server.disable(made["connectionId"])
    assert (await ask("connections/get", **by_id))["breakingChange"] is True
    await ask("connections/status", connectionIds=[made["connectionId"]])
    await ask("connections/update", **by_id, breakingChange=False, status="active")
    job_id = (await ask("connections/sync", **by_id))["job"]["id"]
    await ask("jobs/cancel", id=job_id)
    await ask("jobs/cancel", id=job_id, answers=500)
    await ask("connections/search", sourceId=source["sourceId"], answers=200)
    await ask("sources/search", name="crm")
    await ask("connections/delete", **by_id, answers=204)
    assert (await ask("connections/get", **by_id))["status"] == "deprecated"
    await ask("connections/update", connectionId=str(uuid4()), answers=404)


@pytest.mark.parametrize("version", [one for one in VERSIONS if one != "0.63.19"])
async def test_token(version: str) -> None:
    """The one call that needs no token, and two that do not go without."""
    judge = description(version)
    async with (
        AirbyteServer(version=version, auth="token") as server,
        httpx.AsyncClient(base_url=server.url) as client,
    ):
        asked = {"client_id": server.client_id, "client_secret": server.client_secret}
        told = (await client.post("/applications/token", json=asked)).json()
        assert judge.about_request("POST", "applications/token", asked) == []
        assert judge.about_answer("POST", "applications/token", 200, told) == []

        bearer = {"Authorization": f"Bearer {told['access_token']}"}
        path, body = "/workspaces/get", {"workspaceId": WORKSPACE_ID}
        assert (await client.post(path, json=body)).status_code == 401
        assert (await client.post(path, json=body, headers=bearer)).status_code == 200
        server.revoke_tokens()
        assert (await client.post(path, json=body, headers=bearer)).status_code == 401


def test_corrections_are_needed() -> None:
    """Each is about a schema that is there, and changes it."""
    for correction in CORRECTIONS:
        for version in correction.versions:
            assert correction.changes(version), (correction.schema, version)
