"""Whichever commit of a saga loses its answer, the saga ends in a consistent state."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.fakes.airbyte_server import AirbyteServer
from tests.fakes.postgres_proxies import SAGA, LossyCommit, moved
from tests.integration.applying import GREW, apply, discovered, seen, streams_in_airbyte
from tests.integration.conftest import ORDER, Mesh, add_destination, running, settings_for
from tests.pools import Sql


@asynccontextmanager
async def mesh_behind(
    proxy: LossyCommit, registry_url: str, airbyte: AirbyteServer, redis_url: str, sql: Sql
) -> AsyncIterator[Mesh]:
    """A mesh whose registry is behind the proxy, and whose periodic tasks do not run meanwhile."""
    rare = {"job_poll_interval": "600", "event_relay_interval": "600"}
    add_destination(airbyte)
    redis = Redis.from_url(redis_url)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(redis.aclose)
        port = await stack.enter_async_context(proxy.opened())
        settings = settings_for(airbyte, moved(registry_url, port), redis_url, **rare)
        parts: dict[str, Any] = {"sql": sql, "redis": redis, "order": ORDER}
        mesh = await stack.enter_async_context(running(settings, airbyte, **parts))
        await proxy.until_quiet()  # the first runs of periodic tasks commit, too
        yield mesh


@pytest.mark.deep(after=2)
@pytest.mark.parametrize("is_durable", [True, False])
@pytest.mark.parametrize("spared", [0, 1, 2])
async def test_onboarding_survives_a_lost_commit_answer(
    spared: int,
    is_durable: bool,
    airbyte: AirbyteServer,
    registry_url: str,
    redis_url: str,
    sql: Sql,
) -> None:
    """ACTIVE with its source in Airbyte, or FAILED with nothing there; never PENDING."""
    proxy = LossyCommit(registry_url, delivers=is_durable, spared=spared, about=SAGA)
    async with mesh_behind(proxy, registry_url, airbyte, redis_url, sql) as mesh:
        proxy.is_armed = True
        answer = await mesh.orchestrator.post("/connections/onboard", json=mesh.order)
        assert proxy.has_cut.is_set()
        # Read at once: a response must be true when it is sent, not only after a repair.
        rows = await sql.fetch("SELECT status, airbyte_source_id::text AS source FROM connections")

    if answer.status_code == 201:
        assert [(row["status"], row["source"]) for row in rows] == [("ACTIVE", *airbyte.sources)]
        assert await sql.fetchval("SELECT count(*) FROM sync_catalog_versions") == 1
    else:
        assert answer.status_code == 504
        assert [row["status"] for row in rows] == ["FAILED"]
        assert airbyte.sources == {}


@pytest.mark.deep(after=2)
@pytest.mark.parametrize("is_durable", [True, False])
@pytest.mark.parametrize("spared", [0, 1])
async def test_applying_survives_a_lost_commit_answer(
    spared: int,
    is_durable: bool,
    airbyte: AirbyteServer,
    registry_url: str,
    redis_url: str,
    sql: Sql,
) -> None:
    """Version 2 once, ACTIVE, equal to Airbyte's; never HEALING."""
    proxy = LossyCommit(registry_url, delivers=is_durable, spared=spared, about=SAGA)
    async with mesh_behind(proxy, registry_url, airbyte, redis_url, sql) as mesh:
        connection = await mesh.onboard()
        airbyte.offers(GREW)
        order = await discovered(mesh, connection)
        proxy.is_armed = True
        status, applied = await apply(mesh, order)
        assert proxy.has_cut.is_set()

        assert (status, applied["version_number"]) == (200, 2)
        assert (await seen(mesh, connection))["status"] == "ACTIVE"
        fields = streams_in_airbyte(mesh, connection)["Account"]["stream"]["jsonSchema"][
            "properties"
        ]
        assert "Region__c" in fields
    versions = await sql.fetch("SELECT version_number FROM sync_catalog_versions ORDER BY 1")
    assert [row["version_number"] for row in versions] == [1, 2]
