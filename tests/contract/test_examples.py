"""Every request example in the OpenAPI documents works unchanged, with existing ids in the path."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis

from services.rag_engine import main as rag_engine
from shared.config import RagEngineSettings
from tests import access, documented
from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.conftest import (
    ORDER,
    Mesh,
    add_destination,
    redis,
    registry_url,
    running,
    settings_for,
    sql,
)
from tests.integration.drifting import repairs_until

__all__ = ["redis", "registry_url", "sql"]

Json = dict[str, Any]
NOT_UTC_Z = re.compile(r"\d\d:\d\d:\d\d(\.\d+)?\+00:00")
"""A timestamp in UTC that does not end in Z."""
SERVICES = ("schema_observer", "drift_repair_agent", "orchestrator")
"""In the order in which their examples run."""
ORDER_OF_METHODS = ("get", "post", "put", "patch", "delete")
NOT_RUN_UNCHANGED = {
    # Its body is the response of the orchestrator's /discover; run separately below.
    "POST /repair/apply_new_catalog",
    # Run before the source loses fields of version 1.
    "POST /connections/{connection_id}/rollback",
    # Needs a kept column; run separately below.
    "POST /connections/{connection_id}/kept-columns/adopt",
    # Needs another repair than the approved one.
    "POST /repairs/{repair_id}/reject",
    # Run before the others, since each needs or starts a job.
    "POST /connections/{connection_id}/jobs/{job_id}/cancel",
    "POST /connections/{connection_id}/streams/refresh",
    # No delivery has failed.
    "POST /webhooks/{webhook_id}/deliveries/{delivery_id}/retry",
}


@pytest.fixture
async def mesh(
    airbyte: AirbyteServer,
    registry_url: str,
    redis_url: str,
    sql: asyncpg.Connection[asyncpg.Record],
    redis: Redis,
) -> AsyncIterator[Mesh]:
    """The services, with a signing key for webhooks."""
    add_destination(airbyte)
    settings = settings_for(
        airbyte,
        registry_url,
        redis_url,
        webhook_signing_key="s" * 40,
        event_stream_lifetime="0.3",
    )
    async with running(settings, airbyte, sql=sql, redis=redis, order=ORDER) as mesh:
        for name in SERVICES:
            decode_answers(getattr(mesh, name))
        yield mesh
    await sql.execute("DELETE FROM api_keys WHERE id <> $1", access.KEY.id)


def decode_answers(client: httpx.AsyncClient) -> None:
    """Validate each response against its documented model, and record its route."""
    app = app_of(client)
    app.state.decoded = set()

    async def decode(answer: httpx.Response) -> None:
        await answer.aread()
        if answer.is_success and (name := documented.decode(app, answer)) is not None:
            app.state.decoded.add(name)

    client.event_hooks["response"].append(decode)


def app_of(client: httpx.AsyncClient) -> FastAPI:
    """Return the ASGI application of a client."""
    transport = client._transport
    assert isinstance(transport, httpx.ASGITransport)
    app = transport.app
    assert isinstance(app, FastAPI)
    return app


def not_decoded(client: httpx.AsyncClient) -> set[str]:
    """Return the routes that build their own responses and of which none was validated."""
    app = app_of(client)
    routes = documented.routes_of(app)
    every = {documented.name_of(one) for one in routes if documented.makes_its_own(one)}
    decoded: set[str] = app.state.decoded
    return every - decoded


def query_of(operation: Json) -> dict[str, str]:
    """Return the examples of the required query parameters, and a `wait` if there is one."""
    query = {}
    for parameter in operation.get("parameters", ()):
        if parameter["name"] == "wait":
            query["wait"] = "20"
        elif parameter["in"] == "query" and parameter.get("required"):
            query[parameter["name"]] = parameter["schema"]["examples"][0]
    return query


async def run(client: httpx.AsyncClient, document: Json, ids: Json) -> list[str]:
    """Send the example of each operation; return those with an unexpected response."""
    wrong = []
    operations = [
        (method, path, item[method])
        for method in ORDER_OF_METHODS
        for path, item in document["paths"].items()
        if method in item
    ]
    for method, path, operation in operations:
        name = f"{method.upper()} {path}"
        if name in NOT_RUN_UNCHANGED or path == "/connections/onboard":
            continue
        filled = re.sub(r"\{(\w+)\}", lambda found: str(ids[found[1]]), path)
        answer = await client.request(
            method,
            filled,
            json=documented.example_of(document, operation),
            params=query_of(operation),
        )
        if answer.status_code >= 300 or NOT_UTC_Z.search(answer.text):
            wrong.append(f"{name}: {answer.status_code} {answer.text[:300]}")
        if name == "POST /api-keys":
            ids["key_id"] = answer.json()["id"]
    return wrong


async def proposed(mesh: Mesh, connection_id: str) -> str:
    """Wait for a proposed repair, and return its id."""
    query = {"connection_id": connection_id, "state": "proposed"}
    async with asyncio.timeout(20):
        while True:
            answer = await mesh.drift_repair_agent.get("/repairs", params=query)
            if found := answer.json()["items"]:
                return str(found[0]["id"])
            await asyncio.sleep(0.05)


async def onboarded(mesh: Mesh, name: str) -> str:
    """Wait until the connection with this name is ACTIVE, and return its id."""
    async with asyncio.timeout(20):
        while True:
            query = {"name": name, "status": "ACTIVE"}
            if found := (await mesh.orchestrator.get("/connections", params=query)).json()["items"]:
                return str(found[0]["id"])
            await asyncio.sleep(0.05)


async def cancelled_and_refreshed(mesh: Mesh, document: Json, connection_id: str) -> str:
    """Cancel a job and refresh a stream; return the id of the cancelled job."""
    at = f"/connections/{connection_id}"
    started = (await mesh.orchestrator.post(f"{at}/sync")).json()
    job_id = str(started["job_id"])
    cancelled = await mesh.orchestrator.post(f"{at}/jobs/{job_id}/cancel")
    assert cancelled.json()["status"] == "cancelled"
    path = "/connections/{connection_id}/streams/refresh"
    refresh = documented.example_of(document, document["paths"][path]["post"])
    refreshed = await mesh.orchestrator.post(f"{at}/streams/refresh", json=refresh)
    assert refreshed.status_code == 202, refreshed.text
    mesh.airbyte.finish_job(refreshed.json()["airbyte_job_id"])
    await mesh.jobs_until_end(connection_id)
    return job_id


async def name_adopted(mesh: Mesh, document: Json, discovered: Json, connection_id: str) -> None:
    """Apply a mapper that keeps a column, and adopt the field's own name."""
    made = {"originalFieldName": "AnnualRevenue", "newFieldName": "Revenue__c"}
    for pair in discovered["sync_catalog"]["streams"]:
        if pair["stream"]["name"] == "Account":
            mapper = {"type": "field-renaming", "mapperConfiguration": made}
            pair["config"]["mappers"] = [mapper]
    order = {"connection_id": connection_id, "sync_catalog": discovered["sync_catalog"]}
    applied = await mesh.drift_repair_agent.post("/repair/apply_new_catalog", json=order)
    assert applied.status_code == 200, applied.text
    path = "/connections/{connection_id}/kept-columns/adopt"
    adopt = documented.example_of(document, document["paths"][path]["post"])
    adopt |= {"field": "AnnualRevenue", "expected_version": applied.json()["version_number"]}
    filled = path.replace("{connection_id}", connection_id)
    adopted = await mesh.drift_repair_agent.post(filled, json=adopt)
    assert adopted.status_code == 200, adopted.text


async def test_every_example_runs(mesh: Mesh) -> None:
    """Only ids are filled in; every response is validated against its documented model."""
    documents = {name: app_of(getattr(mesh, name)).openapi() for name in SERVICES}
    document = documents["orchestrator"]
    order = documented.example_of(document, document["paths"]["/connections/onboard"]["post"])
    onboarding = await mesh.orchestrator.post("/connections/onboard", json=order)
    assert onboarding.status_code == 201, onboarding.text
    id_ = onboarding.json()["id"]
    later = order | {"connection_name": "Another", "prefix": "another_"}
    begun = await mesh.orchestrator.post("/connections/onboard", json=later, params={"wait": 0})
    assert begun.status_code == 202, begun.text
    discovered = (await mesh.orchestrator.post(f"/connections/{id_}/discover")).json()
    applied = await mesh.drift_repair_agent.post("/repair/apply_new_catalog", json=discovered)
    assert applied.status_code == 200, applied.text
    paths = documents["drift_repair_agent"]["paths"]
    rollback = paths["/connections/{connection_id}/rollback"]["post"]
    order = documented.example_of(documents["drift_repair_agent"], rollback)
    back = await mesh.drift_repair_agent.post(f"/connections/{id_}/rollback", json=order)
    assert back.status_code == 200, back.text
    await name_adopted(mesh, documents["drift_repair_agent"], discovered, id_)
    job_id = await cancelled_and_refreshed(mesh, document, id_)
    mesh.airbyte.add_field("Account", "Region__c")
    observe = f"/connections/{id_}/observe"
    assert (await mesh.schema_observer.post(observe)).json()["outcome"] == "changed"
    # An observation during a heal leaves its changes to a later one.
    await repairs_until(mesh, onboarding.json(), ["applied"])
    mesh.airbyte.drop_field("Account", "AnnualRevenue")
    await mesh.schema_observer.post(observe)
    reject = f"/repairs/{await proposed(mesh, id_)}/reject"
    assert (await mesh.drift_repair_agent.post(reject, json={})).status_code == 200
    mesh.airbyte.drop_field("Contact", "Email")
    seen = await mesh.schema_observer.post(observe)
    assert seen.json()["outcome"] == "changed", seen.text
    mesh.airbyte.publish_version("3.0.0", breaking=True)
    hook = await mesh.drift_repair_agent.post("/webhooks", json={"url": "http://127.0.0.1:1/"})
    await mesh.drift_repair_agent.post(f"/webhooks/{hook.json()['id']}/test")
    snapshots = (await mesh.schema_observer.get(f"/connections/{id_}/snapshots")).json()["items"]
    operations = (await mesh.orchestrator.get("/operations")).json()["items"]
    report = await mesh.orchestrator.post("/connections/import", json={})
    ids = {
        "connection_id": id_,
        "import_id": report.json()["operation_id"],
        "credential_id": ORDER["credential_id"],
        "job_id": job_id,
        "version": 1,
        "from_version": 1,
        "to_version": 1,
        "before": snapshots[1]["snapshot_id"],
        "after": snapshots[0]["snapshot_id"],
        "drift_id": seen.json()["drift_id"],
        "operation_id": operations[0]["operation_id"],
        "repair_id": await proposed(mesh, id_),
        "webhook_id": hook.json()["id"],
        "source_type": "Salesforce",
        "label": "team=sales",
    }

    wrong = []
    for name in SERVICES:
        wrong += await run(getattr(mesh, name), documents[name], ids)
    assert wrong == []
    observe = f"/connections/{await onboarded(mesh, 'Another')}/observe"
    assert (await mesh.schema_observer.post(observe, params={"wait": 0})).status_code == 202
    assert set().union(*(not_decoded(getattr(mesh, name)) for name in SERVICES)) == set()


async def test_every_example_of_the_rag_engine_runs(mesh: Mesh) -> None:
    """Its paths have no ids."""
    url = mesh.settings.supabase_db_url
    values = {"supabase_db_url": url, **access.service_keys()}
    app = rag_engine.build(RagEngineSettings(_env_file=None, **values))
    async with (
        app.router.lifespan_context(app),
        access.client(transport=httpx.ASGITransport(app), timeout=30) as client,
    ):
        decode_answers(client)
        assert await run(client, app.openapi(), {}) == []
        assert not_decoded(client) == set()
