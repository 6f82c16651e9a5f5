"""The whole mesh without Redis: every answer as before, and every event told once it is back."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import asyncpg
import httpx
import pytest

from local import servers
from shared import events
from tests.fakes.airbyte_server import AirbyteServer, catalog, stream
from tests.integration.conftest import ORDER, Mesh, add_destination, running, settings_for

ANSWERED_WITHIN_S = 3
TOLD = [
    "connection.onboarded",
    "catalog.healing",
    "catalog.applied",
    "sync.triggered",
    "sync.finished",
]


async def asked(
    client: httpx.AsyncClient, method: str, path: str, *, body: Any = None, answers: int = 200
) -> Any:
    """The answer's body; the answer is the usual one, in the usual time."""
    begun = time.monotonic()
    answer = await client.request(method, path, json=body)
    assert time.monotonic() - begun < ANSWERED_WITHIN_S, path
    assert answer.status_code == answers, answer.text
    return answer.json()


async def live(mesh: Mesh, name: str) -> str:
    """One of everything that tells an event; the connection's id."""
    mesh.airbyte.offers(catalog(stream("Account"), stream("Contact")))
    order = {**mesh.order, "connection_name": name}
    onboarded = await asked(
        mesh.orchestrator, "POST", "/connections/onboard", body=order, answers=201
    )
    path = f"/connections/{onboarded['id']}"
    mesh.airbyte.offers(catalog(stream("Account", ("Id", "Region__c")), stream("Contact")))
    proposal = await asked(mesh.orchestrator, "POST", f"{path}/discover")
    applied = await asked(
        mesh.drift_repair_agent, "POST", "/repair/apply_new_catalog", body=proposal
    )
    assert (applied["version_number"], applied["status"]) == (2, "ACTIVE")
    mesh.airbyte.jobs_end_with("succeeded")
    await asked(mesh.orchestrator, "POST", f"{path}/sync", answers=202)
    await mesh.jobs_until_end(onboarded["id"])
    return str(onboarded["id"])


@pytest.mark.timeout(60)
async def test_without_redis_nothing_is_missed(
    airbyte: AirbyteServer,
    registry_url: str,
    sql: asyncpg.Connection[asyncpg.Record],
    own_valkey: servers.Valkey,
) -> None:
    """Onboard, discover, apply, sync and list answer; the events arrive later, once, in order."""
    add_destination(airbyte)
    settings = settings_for(airbyte, registry_url, own_valkey.url)
    redis = events.open_redis(settings)
    async with running(settings, airbyte, sql=sql, redis=redis, order=ORDER) as mesh:
        before = await live(mesh, "before")
        assert [one["type"] for one in await mesh.events(len(TOLD))] == TOLD

        own_valkey.stop()
        meanwhile = await live(mesh, "meanwhile")
        page = await asked(mesh.orchestrator, "GET", "/connections")
        assert [one["id"] for one in page["items"]] == [meanwhile, before]
        for service in (mesh.orchestrator, mesh.drift_repair_agent):
            await asked(service, "GET", "/ready")
        waiting = "SELECT count(*) FROM events WHERE published_at IS NULL"
        assert await sql.fetchval(waiting) == len(TOLD)

        own_valkey.start()
        async with asyncio.timeout(20):
            while await sql.fetchval(waiting):  # noqa: ASYNC110 (the relay's doing)
                await asyncio.sleep(0.05)
        told = await mesh.events(len(TOLD))
    ours = [one for one in told if one["connection_id"] == meanwhile]
    assert [one["type"] for one in ours] == TOLD
    assert [one["seq"] for one in ours] == [str(number + 1) for number in range(len(TOLD))]
    assert len({one["event_id"] for one in told}) == len(told)
    await redis.aclose()
