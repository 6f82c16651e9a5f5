"""From a change of the source to the healed catalog in Airbyte.

By an observation on demand, and by that which follows a failed sync.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import asyncpg
import uvloop
from redis.asyncio import Redis

from shared.airbyte_client import AirbyteClient
from tests.bench.environment import Stage
from tests.bench.results_table import Line
from tests.fakes.airbyte_server import AirbyteServer
from tests.integration.conftest import ORDER, Mesh, add_destination, running, settings_for

ROUNDS = 40
FAILURES = 20
POLL_S = 0.2
"""How often jobs are polled here; the default, two seconds, adds up to that to what is measured."""
_WITHIN_S = 20
_HEALED = """
    SELECT catalog_version FROM connections
    WHERE id = $1 AND catalog_version = $2 AND status = 'ACTIVE'
"""


def measure(stage: Stage) -> Iterator[Line]:
    """Medians, in turns with the calls alone that Airbyte is asked for meanwhile."""
    healed, failed, calls = (statistics.median(times) for times in uvloop.run(_times(stage)))
    yield Line(
        job=f"observe to healed, AAM's own time (without {calls:.1f} ms of calls), p50",
        measured=healed - calls,
        limit=150,
    )
    yield Line(
        job=f"failed sync to healed, AAM's own time, jobs polled every {POLL_S:g} s, p50",
        measured=failed - calls,
        limit=1000,
    )


async def _times(stage: Stage) -> tuple[list[float], list[float], list[float]]:
    redis_url = stage.environment["REDIS_URL"]
    healed: list[float] = []
    failed: list[float] = []
    calls: list[float] = []
    async with AirbyteServer(version="2.0.0") as airbyte:
        add_destination(airbyte)
        settings = settings_for(
            airbyte, stage.services_url, redis_url, log_level="ERROR", job_poll_interval="60"
        )
        sql = await asyncpg.connect(stage.registry_url)
        redis = Redis.from_url(redis_url)
        async with (
            running(settings, airbyte, sql=sql, redis=redis, order=ORDER) as mesh,
            AirbyteClient.from_settings(mesh.settings) as client,
        ):
            connection = await mesh.onboard(connection_name="heal")
            for turn in range(ROUNDS):
                airbyte.add_field("Account", f"Field_{turn}__c")
                healed.append(await _healed_ms(mesh, UUID(connection["id"]), version=turn + 2))
                calls.append(await _calls_ms(client, connection))
        await sql.execute("DELETE FROM periodic_runs WHERE name = 'jobs'")  # due at the old pace
        polling = settings.model_copy(update={"job_poll_interval": timedelta(seconds=POLL_S)})
        async with running(polling, airbyte, sql=sql, redis=redis, order=ORDER) as mesh:
            for turn in range(ROUNDS, ROUNDS + FAILURES):
                airbyte.add_field("Account", f"Field_{turn}__c")
                failed.append(await _failed_ms(mesh, UUID(connection["id"]), version=turn + 2))
        await redis.aclose()
        await sql.close()
    return healed, failed, calls


async def _healed_ms(mesh: Mesh, connection_id: UUID, *, version: int) -> float:
    """How long it takes until Airbyte was seen to hold the new catalog, and it is recorded."""
    began = time.perf_counter()
    answer = await mesh.schema_observer.post(f"/connections/{connection_id}/observe")
    assert answer.status_code == 200, answer.text
    return await _until_healed_ms(mesh, connection_id, version, began)


async def _failed_ms(mesh: Mesh, connection_id: UUID, *, version: int) -> float:
    """The same from the end of a sync that failed because of the source."""
    started = await mesh.orchestrator.post(f"/connections/{connection_id}/sync")
    assert started.status_code == 202, started.text
    failure = ("system_error", "The field is gone.")
    began = time.perf_counter()
    mesh.airbyte.finish_job(started.json()["airbyte_job_id"], "failed", failure=failure)
    return await _until_healed_ms(mesh, connection_id, version, began)


async def _until_healed_ms(mesh: Mesh, connection_id: UUID, version: int, began: float) -> float:
    async with asyncio.timeout(_WITHIN_S):
        while await mesh.sql.fetchval(_HEALED, connection_id, version) is None:  # noqa: ASYNC110 (another process's doing)
            await asyncio.sleep(0.001)
    return (time.perf_counter() - began) * 1000


async def _calls_ms(client: AirbyteClient, connection: dict[str, str]) -> float:
    """The calls of it: the discovery, the status, the update, the look."""
    held = UUID(connection["airbyte_connection_id"])
    began = time.perf_counter()
    await client.discover_schema(UUID(connection["airbyte_source_id"]))
    await client.connection_statuses([held])
    catalog = (await client.get_connection(held)).sync_catalog
    await client.update_connection(held, catalog)
    return (time.perf_counter() - began) * 1000
