"""Lists: one shape, pages that hold every row once, times in one form, names beside ids."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.conftest import Mesh, Meshes
from tests.integration.paging import pages

Json = dict[str, Any]
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
LOOKS_LIKE_A_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d")


@pytest.fixture
async def mesh(airbyte: AirbyteServer, meshes: Meshes) -> AsyncIterator[Mesh]:
    """The services, with a key for webhooks, which plan nothing by themselves."""
    async with meshes.start(airbyte, repairs=False, webhook_signing_key="s" * 40) as mesh:
        yield mesh


async def get(client: httpx.AsyncClient, path: str, **parameters: Any) -> Any:
    """What a GET answers."""
    answer = await client.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def texts(value: Any) -> Iterator[str]:
    """Every text in an answer."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from texts(one)


async def filled(mesh: Mesh) -> Json:
    """A connection with two of everything that is listed."""
    one = await mesh.onboard()
    await mesh.onboard(connection_name="Another")
    for field in ("Region__c", "Tier__c"):
        await mesh.orchestrator.post(f"/connections/{one['id']}/sync")
        (job, *_) = mesh.airbyte.called("connections/sync")[-1:]
        assert job
        mesh.airbyte.finish_job(max(mesh.airbyte.jobs))
        await mesh.jobs_until_end(one["id"])
        mesh.airbyte.add_field("Account", field)
        seen = await mesh.schema_observer.post(f"/connections/{one['id']}/observe")
        assert seen.json()["outcome"] == "changed", seen.text
        hook = await mesh.drift_repair_agent.post(
            "/webhooks", json={"url": "http://127.0.0.1:1/x?token=1", "connection_id": one["id"]}
        )
        assert hook.status_code == 201, hook.text
    for _ in range(2):
        await mesh.sql.execute(
            "INSERT INTO webhook_deliveries (id, webhook_id, type, body, state, ended_at)"
            " VALUES (gen_random_uuid(), $1, 'webhook.test', '{}', 'failed', now())",
            hook.json()["id"],
        )
        await mesh.sql.execute(
            "INSERT INTO api_keys (id, digest, scopes, owner, created_by)"
            " SELECT substr(md5(x), 1, 8), sha256(x::bytea), '{}', 'a', 'a'"
            " FROM (SELECT random()::text AS x) one"
        )
        await mesh.sql.execute(
            "INSERT INTO repairs (id, connection_id, kind, state, base_version, changes, ended_at)"
            " VALUES (gen_random_uuid(), $1, 'heal', 'expired', 1, '[]', now())",
            one["id"],
        )
    return {**one, "webhook": hook.json()["id"]}


async def test_every_list_is_paged_alike(mesh: Mesh) -> None:
    """`items` and `next`; page by page every row comes once, newest first, with times in UTC."""
    connection = await filled(mesh)
    id_, hook = connection["id"], connection["webhook"]
    lists = [
        (mesh.orchestrator, "/connections"),
        (mesh.orchestrator, f"/connections/{id_}/jobs"),
        (mesh.orchestrator, "/jobs"),
        (mesh.orchestrator, "/operations"),
        (mesh.orchestrator, "/api-keys"),
        (mesh.orchestrator, "/credential-reads"),
        (mesh.schema_observer, "/drifts"),
        (mesh.schema_observer, f"/connections/{id_}/snapshots"),
        (mesh.drift_repair_agent, "/operations"),
        (mesh.drift_repair_agent, "/repairs"),
        (mesh.drift_repair_agent, "/webhooks"),
        (mesh.drift_repair_agent, f"/webhooks/{hook}/deliveries"),
    ]
    for client, path in lists:
        whole = await get(client, path)
        assert whole.keys() == {"items", "next"}, path
        assert whole["next"] is None, path
        assert len(whole["items"]) >= 2, path

        seen = [one for page in await pages(client, path, limit=1) for one in page]
        settle = {"duration_seconds", "last_used_at"}
        for one in (*seen, *whole["items"]):
            for name in settle:
                one.pop(name, None)
        assert seen == whole["items"], path
        assert (await client.get(path, params={"after": "AA"})).status_code == 422, path

        times = [text for text in texts(whole) if LOOKS_LIKE_A_TIME.match(text)]
        assert times, path
        assert [text for text in times if not TIME.fullmatch(text)] == [], path


async def test_names_are_listed_with_ids(mesh: Mesh) -> None:
    connection = await filled(mesh)
    for client, path in (
        (mesh.orchestrator, "/operations"),
        (mesh.schema_observer, "/drifts"),
        (mesh.drift_repair_agent, "/repairs"),
        (mesh.drift_repair_agent, "/webhooks"),
    ):
        found = (await get(client, path, limit=100))["items"]
        named = {
            one["connection_name"] for one in found if one["connection_id"] == connection["id"]
        }
        assert named == {"Salesforce production"}, path
        if (one := found[0]).get("id") and path != "/webhooks":
            shown = await get(client, f"{path}/{one['id']}")
            assert shown["connection_name"] == one["connection_name"]


async def test_archived_connection_is_listed_as_archived(mesh: Mesh) -> None:
    """Not ACTIVE, and since when; the table's status stays one of its four."""
    connection = await mesh.onboard()
    assert (await mesh.orchestrator.delete(f"/connections/{connection['id']}")).status_code == 204

    shown = await get(mesh.orchestrator, f"/connections/{connection['id']}")
    (listed,) = (await get(mesh.orchestrator, "/connections", archived=True))["items"]

    assert shown == listed
    assert (shown["status"], bool(shown["archived_at"])) == ("ARCHIVED", True)
    assert await mesh.sql.fetchval("SELECT status FROM connections") == "ACTIVE"
    assert (await get(mesh.orchestrator, "/connections"))["items"] == []


async def test_reader_sees_only_the_host_of_a_webhook_url(mesh: Mesh) -> None:
    """Many services have their secret in the path or the query."""
    url = "http://127.0.0.1:9/T0/B0/s3cr3t?token=s3cr3t"
    created = await mesh.drift_repair_agent.post("/webhooks", json={"url": url})
    id_ = created.json()["id"]
    scopes = {"owner": "a", "scopes": ["connections:read"]}
    key = (await mesh.orchestrator.post("/api-keys", json=scopes)).json()["key"]

    for path in ("/webhooks", f"/webhooks/{id_}"):
        whole = json.dumps(await get(mesh.drift_repair_agent, path))
        answer = await mesh.drift_repair_agent.get(path, headers={"Authorization": f"Bearer {key}"})

        assert url in whole
        assert answer.status_code == 200
        assert "s3cr3t" not in answer.text
        assert "http://127.0.0.1:9/…" in answer.text
